"""docs/reference/store-format.md is enough to read a store: with zarr alone, by the names on that page."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray

from bendscape.core.errors import unwarned
from bendscape.sweep import Axes, Axis, Campaign, Kernel, Outcome, Reference, Variable, run
from bendscape.sweep.campaign.kernel import Dimension

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "store-format.md").read_text(encoding="utf-8")
READER = "".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
WITHOUT_US = "import sys, warnings\nwarnings.simplefilter('ignore')\nsys.modules['bendscape'] = None\n"


def table(title: str) -> dict[str, str]:
    """The table whose first column has this title: the last column, by the names in the first."""
    rows = re.search(rf"^\| {title} \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert rows
    found = {}
    for row in rows[1].splitlines():
        names, *_, last = row.strip("| ").split(" | ")
        found |= {re.sub(r"^`(.*)`$", r"\1", name): last for name in names.split(", ")}
    return found


CODES = {int(code): words for code, words in table("`status`").items()}


def compute(cell: Any, rng: np.random.Generator) -> Outcome:
    """One cell fails, and a third of them do not converge."""
    if (cell.rule, cell.coordinate, cell.N, cell.seed) == ("b", 1.0, 4, 1):
        raise ValueError("this cell fails")
    values = {"path": rng.normal(size=3), "size": int(cell.N), "kind": 1, "root": 1j * rng.normal()}
    return Outcome(values, converged=cell.coordinate != 0.5)


MANY = Kernel(
    name="many",
    version=1,
    variables=(
        Variable("path", "an array", dims=("time",)),
        Variable("size", "an integer", dtype="int64"),
        Variable("kind", "a code", dtype="int8", flags=("low", "high")),
        Variable("root", "a complex number", dtype="complex128"),
    ),
    compute=compute,
    seconds=lambda cell: 1e-3,
    peak_bytes=lambda cell: 1e3,
    axes=Axes(
        (
            Axis("rule", "str", choices=("a", "b")),
            Axis("x", "float64", "curve", relative_to={"x_c": lambda rule: np.full(len(rule), 2.0)}),
            Axis("N", "int64", "size"),
            Axis("seed", "int64", "seed"),
        )
    ),
    references=(Reference((Variable("twice", "2 x"),), ("rule", "x"), lambda rule, x: {"twice": 2 * x}),),
    dimensions=(Dimension("time", (0.0, 1.0, 4.0), "time"),),
)
SINGLE = Kernel(
    name="single",
    version=1,
    variables=(Variable("y", "a number"),),
    compute=lambda cell, rng: Outcome({"y": cell.x}),
    seconds=lambda cell: 1e-3,
    peak_bytes=lambda cell: 1e3,
    axes=Axes((Axis("x", "float64"), Axis("seed", "int64", "seed"))),
)


def computed(kernel: Kernel, store: Path, **grid: Any) -> None:
    campaign = Campaign.of(name="format", store=str(store), entropy=1, grid=grid)
    run(campaign, kernel=kernel, address="serial", progress=False)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of every kind of array, extended by values that come before those it had; one without sizes."""
    folder = tmp_path_factory.mktemp("format")
    stores = {name: folder / f"{name}.zarr" for name in ("many", "single")}
    for factors in ([0.5, 1.0], [0.25, 0.5, 1.0]):
        x = {"around": "x_c", "values": factors}
        computed(MANY, stores["many"], rule=["b", "a"], x=x, N=[4, 6], seeds={4: 3, 6: 2})
    computed(SINGLE, stores["single"], x=[1.0, 0.5], seeds=2)
    return stores


@unwarned()
def opened(store: Path) -> zarr.Group:
    return zarr.open_group(store, mode="r")


def sizes(root: zarr.Group) -> dict[str, zarr.Group]:
    return dict(root.groups())


def test_the_reader_on_the_page_needs_nothing_but_zarr_and_reads_what_xarray_reads(
    stores: dict[str, Path],
) -> None:
    code = [sys.executable, "-c", WITHOUT_US + READER, stores["many"]]
    printed = subprocess.run(code, capture_output=True, text=True, timeout=120, check=True).stdout
    ds = xr.open_dataset(stores["many"], engine="bendscape")
    done = ds.where(ds.status == 1)
    lines = printed.splitlines()
    assert lines[0] == "axes {'rule': ['a', 'b'], 'x_factor': [0.5, 1.0, 0.25]}"
    for N, seeds in ((4, 3), (6, 2)):
        counts = {code: int((ds.status.sel(N=N) == code).sum()) for code in (1, 2, 3)}
        assert sum(counts.values()) == 2 * 3 * seeds
        assert f"N={N} {{'N': {N}}} {{0: 0, 1: {counts[1]}, 2: {counts[2]}, 3: {counts[3]}}}" in lines
        words = next(
            line for line in lines if line.startswith(f"N={N} path ('rule', 'x_factor', 'seed', 'time')")
        )
        assert float(words.split()[-1]) == pytest.approx(float(done.path.sel(N=N).mean()), rel=1e-12)
    receipts = [line.split() for line in lines if line.startswith(("N=4/", "N=6/"))]
    assert sum(int(words[1]) for words in receipts if words[0].startswith("N=4/")) >= 2 * 3 * 3 - 1


def test_the_page_names_every_attribute_of_the_root_and_every_member_of_the_layout(
    stores: dict[str, Path],
) -> None:
    for store in stores.values():
        about = dict(opened(store).attrs)
        assert about.keys() | {"kernel_source"} == table("attribute").keys()
        assert about["bendscape_store_version"] == int(table("attribute")["bendscape_store_version"])
        assert about["layout"].keys() == table("member").keys()


def test_axes_references_and_variables_are_where_the_page_says(stores: dict[str, Path]) -> None:
    root = opened(stores["many"])
    about = dict(root.attrs)
    assert about["dimensions"] == ["rule", "x_factor"]
    assert root["rule"][:].tolist() == about["layout"]["dims"]["rule"] == ["a", "b"]
    assert root["x_factor"][:].tolist() == [0.5, 1.0, 0.25]  # appended, not sorted
    assert root["time"][:].tolist() == about["inner"]["time"]["values"] == [0.0, 1.0, 4.0]
    for name, values in (("x", [1.0, 2.0, 0.5]), ("twice", [2.0, 4.0, 1.0])):
        assert root[name].metadata.dimension_names == ("rule", "x_factor")
        assert root[name][:].tolist() == [values, values]
    assert set(sizes(root)) == {"N=4", "N=6"}
    for name, group in sizes(root).items():
        seeds = {"N=4": 3, "N=6": 2}[name]
        assert dict(group.attrs) == {"N": int(name[2:])}
        assert group["seed"][:].tolist() == list(range(seeds))
        assert group["status"].shape == (2, 3, seeds)
        assert group["path"].metadata.dimension_names == ("rule", "x_factor", "seed", "time")
    assert set(sizes(opened(stores["single"]))) == {"cells"}
    assert opened(stores["single"])["cells/y"][:].tolist() == [[0.5, 0.5], [1.0, 1.0]]


def test_status_and_fill_values_are_those_of_the_page(stores: dict[str, Path]) -> None:
    group = opened(stores["many"])["N=4"]
    assert group["status"].attrs["flag_values"] == sorted(CODES)
    names = group["status"].attrs["flag_meanings"].split()
    assert [f"| {code} | {name} |" in PAGE for code, name in enumerate(names)] == [True] * 4
    assert group["status"][1, 1].tolist() == [1, 2, 1]
    assert (group["status"][:, 0] == 3).all()
    fill = table("type")
    assert np.isnan(group["path"][1, 1, 1]).all()
    assert np.isnan(group["path"].fill_value)
    assert fill["float64"] == "NaN"
    for name, of in (("size", "int64"), ("kind", "int8")):
        value = int(fill[of].replace("−", "-"))
        assert group[name][1, 1, 1] == group[name].fill_value == group[name].attrs["_FillValue"] == value
    root = group["root"][1, 1, 1]
    assert np.isnan(root.real)
    assert root.imag == 0
    assert group["status"].fill_value == int(fill["int8 of `status`"])


def test_arrays_are_encoded_as_the_page_says(stores: dict[str, Path]) -> None:
    for path in stores["many"].rglob("zarr.json"):
        document = json.loads(path.read_text())
        if document["node_type"] != "array":
            continue
        codecs = [codec["name"] for codec in document["codecs"]]
        assert codecs == ["vlen-utf8" if document["data_type"] == "string" else "bytes", "zstd"]
        assert document["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
        assert document["chunk_grid"]["name"] == "regular"
        assert document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
        assert document["dimension_names"]


def mask_of(text: str, shape: tuple[int, ...], block: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask as the page explains it, cut to the shape of a tile at the end of the dimensions."""
    i, j = np.indices(block)
    bits = np.vectorize(lambda bit: bool(int(text, 16) >> bit & 1))(i * block[1] + j)
    return np.asarray(bits[tuple(map(slice, shape))])


def test_receipts_name_the_cells_of_their_tile_and_their_checksum_is_that_of_the_page(
    stores: dict[str, Path],
) -> None:
    root = opened(stores["many"])
    latest: dict[str, dict[str, Any]] = {}
    errors: list[dict[str, Any]] = []
    for segment in sorted((stores["many"] / "ledger" / "segments").glob("*.jsonl")):
        for receipt in map(json.loads, segment.read_text().splitlines()):
            assert receipt.keys() == table("key").keys()
            latest[receipt["tile"]] = receipt
            errors += receipt["errors"]
    assert {tile.partition("/")[0] for tile in latest} == {"N=4", "N=6"}
    for tile, receipt in latest.items():
        name, _, chunk = tile.partition("/")
        _, curve_block, seed_block = dict(root.attrs)["layout"]["sizes"][name[2:]]
        at = tuple(
            slice(int(index) * length, (int(index) + 1) * length)
            for index, length in zip(chunk.split("."), (1, curve_block, seed_block), strict=True)
        )
        arrays = {key: of[at][0] for key, of in root[name].arrays() if key != "seed"}
        status = arrays["status"]
        done = mask_of(receipt["done"], status.shape, (curve_block, seed_block))
        assert (done == np.isin(status, [1, 3])).all()
        assert (mask_of(receipt["failed"], status.shape, (curve_block, seed_block)) == (status == 2)).all()
        digest = hashlib.blake2b(digest_size=8)
        for key in sorted(arrays):
            digest.update(arrays[key][done].tobytes())
        assert int(receipt["checksum"], 16) == int.from_bytes(digest.digest(), "little")
    (error,) = errors
    assert error["message"] == "this cell fails"
    assert error.keys() == set(re.findall(r"`(\w+)`", table("key")["errors"])) - {"tracebacks"}


def test_everything_in_the_ledger_is_on_the_page(stores: dict[str, Path]) -> None:
    listed = {Path(path).parent.name or path for path in table("path")} | {"locks", "damaged"}
    for store in stores.values():
        assert {path.name for path in (store / "ledger").iterdir()} <= listed
