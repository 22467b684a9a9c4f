"""Make the measured part of docs/reproduction.md, and the figures, from the stores of its campaigns.

    python benchmarks/reproduction.py runs/paper.zarr runs/paper-wide.zarr runs/paper-edges.zarr
    python benchmarks/reproduction.py STORE... --figures figures --page docs/reproduction.md

Between the two marks of the page: what was run, and every claim with its verdict, the power of its test and
its table, as ``bendscape claims`` prints them. Nothing else of the page changes; a store that is not complete
is said to be so. The figures of each store go to a folder named after it, and those of the paper by number
(``benchmarks/paper_figures.py``) to ``paper``, beside those of paper.zarr.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import xarray as xr
from paper_figures import write_paper_figures

from bendscape.analysis.figures.draw import write_figures
from bendscape.analysis.findings.claims import Readings, claims_of, readings, render_claims
from bendscape.analysis.findings.results import Results

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MADE_OF = ("collapse", "edge_scaling", "means")


def what_was_run(ds: xr.Dataset) -> str:
    """Cells done, failed and wanted of a store, and its models, in a line."""
    status = ds["status"].values
    done, failed, wanted = ((status == 1).sum(), (status > 1).sum(), (status >= 0).sum())
    share = f"{100 * done / max(wanted, 1):.0f} %"
    sizes = ", ".join(map(str, ds["N"].values.tolist()))
    state = "complete" if done == wanted else f"**{share} of what it asks for**"
    return (
        f"- `{ds.attrs['name']}`: {done:,} of {wanted:,} cells done, {state}, {failed:,} failed or not "
        f"converged; p = {', '.join(map(str, ds['p'].values.tolist()))}, N = {sizes}"
    )


def measured(stores: list[str], extra_draws: int, figures: Path | None) -> str:
    """The text between the marks."""
    every, lines = Readings([], [], [], [], []), []
    for store in stores:
        with xr.open_dataset(store, engine="bendscape", chunks={}) as ds:
            results = Results(ds, extra_draws=extra_draws)
            results.read(MADE_OF)
            every = every + readings(*(results[name] for name in MADE_OF))
            lines.append(what_was_run(ds))
            if figures is not None:
                write_figures(ds, figures / Path(store).stem, ["svg"], [], "csv")
    return "\n".join([*lines, "", render_claims(claims_of(every)).rstrip()])


def filled(page: str, text: str) -> str:
    """The page with this text between its marks."""
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def main() -> None:
    """Rewrite the page."""
    root = Path(__file__).parent.parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--page", type=Path, default=root / "docs/reproduction.md")
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--extra-draws", type=int, default=8)
    asked = parser.parse_args()
    text = measured(asked.stores, asked.extra_draws, asked.figures)
    asked.page.write_text(filled(asked.page.read_text(encoding="utf-8"), text), encoding="utf-8")
    print(f"wrote {asked.page}")
    if asked.figures is not None:
        write_paper_figures(asked.figures / "paper")


if __name__ == "__main__":
    main()
