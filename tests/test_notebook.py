"""The notebook that docs/python.md begins with, in a real Jupyter kernel and an empty home."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import matplotlib.font_manager  # makes the list of fonts here: in the kernel it would tell so
import pytest
import xarray as xr

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_notebook_ends_with_a_full_bar_and_a_figure_and_leaves_its_store_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import nbformat
    from nbclient import NotebookClient

    home, temporary, work, jupyter = (tmp_path / name for name in ("home", "tmp", "work", "jupyter"))
    for folder in (home, temporary, work, jupyter):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(jupyter))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(blocks[0])])
    where = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()

    bar, lines, figure = notebook.cells[0].outputs  # and no stream: nothing on standard output or error
    assert (bar.output_type, lines.output_type, figure.output_type) == (
        *("display_data", "execute_result", "display_data"),
    )
    assert bar.data["text/html"].startswith('<progress value="360" max="360"></progress> <code>360/360 cells')
    assert bar.data["text/plain"].startswith("360/360 cells, 18/18 tiles, 0 failed")
    assert lines.data["text/plain"].count("Line2D") == 2  # a curve for each N
    assert base64.b64decode(figure.data["image/png"]).startswith(b"\x89PNG")
    # The kernel itself warns that it talks to this process unencrypted.
    told = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("[IPKernelApp]")]
    assert not told
    assert [*home.iterdir(), *temporary.iterdir()] == []
    assert sorted(path.relative_to(work).as_posix() for path in work.glob("*/*")) == ["runs/spiked.zarr"]
    with xr.open_dataset(work / "runs" / "spiked.zarr", engine="bendscape") as ds:
        assert bool((ds["status"] == 1).all())
        assert abs(float(ds["top"].mean("seed").sel(spike=2.0, N=200)) - 2.5) < 0.1
