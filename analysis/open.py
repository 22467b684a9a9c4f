"""The xarray backend: a store as one lazy dataset over (p, p_star, a, alpha, N, seed), while it fills.

    xr.open_dataset(store, engine="bendscape", chunks={})
    xr.open_dataset(store, engine="bendscape", group="errors")    one row for each failed cell

Axes come out sorted and restricted to the values of the latest campaign, whatever their order in
storage; sizes with fewer seeds are padded with absent cells; the theory of the same points is attached.

A dataset is what the ledger had recorded when it was opened: cells that land later stay absent in it, in
every variable alike, however late a variable is read. Open again to see them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from bendscape.analysis import accessor as _registers_bend  # noqa: F401
from bendscape.analysis.failures import failures
from bendscape.analysis.label_only import label_only_asymptotics, label_only_threshold
from bendscape.core.model import ParameterError
from bendscape.sweep.campaign import parse_campaign
from bendscape.sweep.conditional import zarr_store
from bendscape.sweep.grid import Grid
from bendscape.sweep.kernel import STATUS
from bendscape.sweep.ledger import Ledger, campaign_of
from bendscape.sweep.objects import connect
from bendscape.sweep.records import Records, cells_in
from bendscape.sweep.spectral_kernel import WEIGHTS
from bendscape.sweep.store import open_root, silence_zarr
from bendscape.sweep.tiles import Layout

CHUNK_BYTES = (
    2**22
)  # of one variable at one size: many tiles to a Dask chunk, and a pass over ten sizes of ten
# variables (analysis/models.py) holds 0.4 GB a thread
THEORY = (
    "alpha_bbp",
    "alpha_sharp",
    "transition",
    "edge",
    "lambda_minus",
    "lambda_star",
    "overlap_sq_theory",
)
LABEL_ONLY = {
    "lambda_minus": ("lambda_minus", "left edge of the bulk of the label-only matrix"),
    "lambda_star": ("lambda_star", "outlier of the label-only matrix; NaN where there is none"),
    "overlap_sq_theory": ("overlap_sq", "squared overlap of that outlier; NaN where there is none"),
}
"""Theory of a store of the `spectral` kernel, one variable for each weights: its field and meaning."""

GROUPS = ("errors",)
_LONG_NAMES = {
    "N": "dimension of the input",
    "seed": "realisation",
    "n_seeds": "seeds that the campaign wants at this size",
    "coverage": "share of the wanted seeds that is done; NaN where the campaign wants none",
}


class _Axes(NamedTuple):
    """Sorted values of a campaign's axes, and where each lies in storage."""

    values: dict[str, NDArray[Any]]
    storage: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, grid: Grid, layout: Layout) -> _Axes:
        wanted = {"p": grid.p, "p_star": grid.p_star, "a": grid.a, grid.alpha_dim: grid.alpha}
        places = tuple(
            np.array([layout.axes[name].index(value) for value in values]) for name, values in wanted.items()
        )
        return cls({name: np.array(values) for name, values in wanted.items()}, places)


class _Lazy(BackendArray):
    """An array that reads a block for the outer product of index arrays, one for each dimension."""

    shape: tuple[int, ...]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        picks = [np.atleast_1d(np.arange(n)[k]) for k, n in zip(key, self.shape, strict=True)]
        scalar = tuple(axis for axis, k in enumerate(key) if isinstance(k, int | np.integer))
        return self.block(picks).squeeze(axis=scalar)

    def block(self, picks: list[NDArray[np.intp]]) -> NDArray[Any]:
        """The values at the outer product of `picks`."""
        raise NotImplementedError


class _Cells(NamedTuple):
    """The cells of a store as (p, p_star, a, alpha, N, seed): what is wanted, and what was recorded of it."""

    axes: _Axes
    layout: Layout
    sizes: tuple[int, ...]
    seeds: NDArray[np.int64]
    wanted: NDArray[np.bool_]
    records: Records

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the variables that are measured."""
        return (*self.wanted.shape, int(self.seeds.max()))

    def places(self, picks: list[NDArray[np.intp]]) -> list[NDArray[np.intp]]:
        """Storage indices of the picked points."""
        return [place[pick] for place, pick in zip(self.axes.storage, picks, strict=False)]

    def recorded(
        self, kind: str, size: int, places: list[NDArray[np.intp]], seeds: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        """Which cells of one size are "done" or "failed", at the outer product of storage indices."""
        N = self.sizes[size]
        blocks = self.layout.sizes[N].alpha_block, self.layout.sizes[N].seed_block
        return cells_in(getattr(self.records.sizes[N], kind), blocks, [*places, seeds])


class _SixDimensions(_Lazy):
    """One variable of all sizes as (p, p_star, a, alpha, N, seed); only the tiles asked for are read."""

    def __init__(self, name: str, arrays: list[zarr.Array[Any]], cells: _Cells) -> None:
        self._name, self._arrays, self._cells = name, arrays, cells
        self.dtype, self.shape = np.dtype(arrays[0].dtype), cells.shape

    def block(self, picks: list[NDArray[np.intp]]) -> NDArray[Any]:
        fill = np.nan if self.dtype.kind == "f" else 0
        block = np.full([len(pick) for pick in picks], fill, dtype=self.dtype)
        places = self._cells.places(picks)
        for column, size in enumerate(picks[4]):
            present = np.flatnonzero(picks[5] < self._cells.seeds[size])
            seeds = picks[5][present]
            if not seeds.size or not all(place.size for place in places):
                continue
            done = self._cells.recorded("done", size, places, seeds)
            values = np.full(done.shape, fill, dtype=self.dtype)
            if done.any():
                values = np.where(done, self._arrays[size].oindex[(*places, seeds)], values)
            if self._name == "status":
                values[self._cells.recorded("failed", size, places, seeds)] = STATUS["failed"]
            block[..., column, present] = values
        block[~self._cells.wanted[np.ix_(*picks[:5])]] = fill
        return block


class _Coverage(_Lazy):
    """Share of the wanted seeds that is done, as (p, p_star, a, alpha, N)."""

    def __init__(self, cells: _Cells) -> None:
        self._cells = cells
        self.dtype, self.shape = np.dtype("float64"), cells.wanted.shape

    def block(self, picks: list[NDArray[np.intp]]) -> NDArray[Any]:
        share = np.full([len(pick) for pick in picks], np.nan)
        places = self._cells.places(picks)
        for column, size in enumerate(picks[4]):
            seeds = np.arange(self._cells.seeds[size])
            share[..., column] = self._cells.recorded("done", size, places, seeds).mean(axis=-1)
        return np.where(self._cells.wanted[np.ix_(*picks)], share, np.nan)


class _LabelOnly(_Lazy):
    """One number of the label-only theory at (p, p_star, a, alpha), computed where it is read."""

    def __init__(self, suffix: str, field: str, grid: Grid) -> None:
        self._suffix, self._field, self._grid = suffix, field, grid
        self.dtype, self.shape = np.dtype("float64"), grid.alpha_values.shape

    def block(self, picks: list[NDArray[np.intp]]) -> NDArray[Any]:
        grid, block = self._grid, np.empty([len(pick) for pick in picks])
        for at, (i, j, k, m) in zip(np.ndindex(block.shape), product(*picks), strict=True):
            alpha = float(grid.alpha_values[i, j, k, m])
            point = label_only_asymptotics(self._suffix, grid.p_star[j], grid.a[k], alpha)
            block[at] = getattr(point, self._field)
        return block


def _label_only(grid: Grid, points: tuple[str, ...]) -> dict[str, xr.Variable]:
    """Beside each variable of the `spectral` kernel its limit of large N."""
    found: dict[str, xr.Variable] = {}
    for suffix, (words, _) in WEIGHTS.items():
        values = [[label_only_threshold(suffix, p_star, a) for a in grid.a] for p_star in grid.p_star]
        attributes = {"long_name": f"threshold of the label-only method, {words}", "units": "1"}
        found[f"alpha_bbp_{suffix}"] = xr.Variable(points[1:3], values, attributes)
        for name, (field, long_name) in LABEL_ONLY.items():
            found[f"{name}_{suffix}"] = xr.Variable(
                points,
                indexing.LazilyIndexedArray(_LabelOnly(suffix, field, grid)),
                {"long_name": f"{long_name}, {words}", "units": "1"},
            )
    return found


class BendscapeBackend(BackendEntrypoint):
    """Opens stores for `xr.open_dataset(store, engine="bendscape")`."""

    description = "Open a bendscape store as one six-dimensional dataset"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "group", "revision")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        revision: int | None = None,
    ) -> xr.Dataset:
        """One lazy dataset; with ``group="errors"`` the failed cells. See the module's docstring.

        ``revision`` opens the store as an earlier campaign file of it has it, numbered as `bendscape status`
        has them where the latest one hides cells. ``attrs["hidden"]`` names the values that are hidden.

        Raises
        ------
        ParameterError
            There is no bendscape store at this path or URL, or no such group in it.
        """
        if group not in (None, *GROUPS):
            raise ParameterError("group", group, "errors, or none for the cells")
        silence_zarr()
        url, attributes = open_root(filename_or_obj)
        text = attributes["campaign"] if revision is None else campaign_of(Ledger(connect(url)), revision)
        grid = parse_campaign(text, source=url).to_grid()
        if group in GROUPS:
            return failures(grid, _replayed(url))
        layout = Layout.from_json(attributes["layout"])
        axes = _Axes.of(grid, layout)
        root = zarr.open_group(zarr_store(url), mode="r", use_consolidated=True)
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())

        sizes = np.array(grid.N)
        seeds = np.array([grid.seeds[N] for N in grid.N])
        points = tuple(axes.values)
        coords: dict[str, Any] = {
            **{name: (name, values, dict(_node(root, name).attrs)) for name, values in axes.values.items()},
            "N": ("N", sizes, {"long_name": _LONG_NAMES["N"], "units": "1"}),
            "seed": ("seed", np.arange(seeds.max()), {"long_name": _LONG_NAMES["seed"], "units": "1"}),
            "n_seeds": ("N", seeds, {"long_name": _LONG_NAMES["n_seeds"], "units": "1"}),
        }
        theory = {name: _theory(_node(root, name), axes, points) for name in THEORY}
        if attributes["kernel"] == "spectral":
            theory |= _label_only(grid, points)
        if grid.around is not None:
            coords["alpha"] = _theory(_node(root, "alpha"), axes, points)

        wanted = np.stack([grid.wanted(N) for N in grid.N], axis=-1)
        cells = _Cells(axes, layout, grid.N, seeds, wanted, _recorded(url, layout))
        measured: dict[str, xr.Variable] = {}
        first = _node(root, f"N={grid.N[0]}")
        for name in sorted(n for n in first if n != "seed"):
            arrays = [_node(root, f"N={N}/{name}") for N in grid.N]
            data = _SixDimensions(name, arrays, cells)
            measured[name] = xr.Variable(
                (*points, "N", "seed"),
                indexing.LazilyIndexedArray(data),
                dict(arrays[0].attrs),
                {"preferred_chunks": _chunks(data, (*points, "N", "seed"))},
            )
        measured["coverage"] = xr.Variable(
            (*points, "N"),
            indexing.LazilyIndexedArray(_Coverage(cells)),
            {"long_name": _LONG_NAMES["coverage"], "units": "1"},
            {"preferred_chunks": _chunks(data, (*points, "N"))},
        )
        variables = {k: v for k, v in {**measured, **theory}.items() if k not in dropped}
        hidden = {"hidden": text} if (text := layout.beyond(grid)) else {}
        return xr.Dataset(variables, coords, _provenance(attributes) | hidden)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Only when asked for by name: a store is also a valid Zarr group."""
        return False


def _replayed(url: str) -> Records:
    ledger = Ledger(connect(url))
    ledger.replay()
    return ledger.records


def _recorded(url: str, layout: Layout) -> Records:
    records = _replayed(url)
    for N, size in layout.sizes.items():
        records.size(N).reserve(layout.tile_shape(N), size.alpha_block * size.seed_block)
    return records


def _node(root: zarr.Group, path: str) -> Any:
    try:
        return root[path]
    except KeyError:
        raise ParameterError(
            "store", str(root.store), "a whole bendscape store", f"{path} is missing"
        ) from None


def _theory(array: Any, axes: _Axes, points: tuple[str, ...]) -> xr.Variable:
    n = array.ndim
    return xr.Variable(points[:n], array[...][np.ix_(*axes.storage[:n])], dict(array.attrs))


def _chunks(data: _SixDimensions, dims: tuple[str, ...]) -> dict[str, int]:
    # Whole curves over alpha and seed of one size stay together; the model axes are cut to the target size.
    chunks = dict(zip(dims, data.shape, strict=False)) | {"N": 1}
    size = data.shape[3] * data.shape[5] * data.dtype.itemsize
    for axis in (2, 1, 0):
        chunks[dims[axis]] = min(data.shape[axis], max(1, CHUNK_BYTES // size))
        size *= chunks[dims[axis]]
    return chunks


def _provenance(attributes: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in attributes.items() if k not in ("layout", "grid") and v is not None}
    return {k: json.dumps(v) if isinstance(v, dict) else v for k, v in kept.items()}
