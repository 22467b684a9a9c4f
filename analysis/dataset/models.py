"""One lazy pass over the models of a sweep: applies a function of one (p, p_star, a) to all of them.

Every analysis here needs all cells of a model at once, all sizes included, and never two models at once. So
Dask gets blocks of whole models, each chunk of the store is read once, and memory holds one block for each
thread or worker.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import TRANSITION_KINDS, Model
from bendscape.core.quadratic.theory.outlier import transition
from bendscape.sweep.campaign.kernel import FINITE, STATUS, outside_range, range_in_words

MODEL = ("p", "p_star", "a")
"""The dimensions that distinguish models."""

CELL = (*MODEL, "alpha_factor", "alpha", "N", "seed")
"""Coordinates that name a cell in messages, in this order."""

OF_THE_SQUARE: Mapping[str, float | str] = {
    "noise": 0,
    "activation": "quadratic",
    "teacher_activation": "quadratic",
}
"""The axes that most analyses take at one value only."""
_WHY = {"noise": "which compares with clean labels"} | dict.fromkeys(
    ("activation", "teacher_activation"), "which compares with the quadratic network"
)

_LIMITS = {"min": -math.inf, "max": math.inf}
_OF_MODEL = ("alpha_bbp", "alpha_sharp", "transition")
_OF_LOAD = ("edge", "lambda_minus", "lambda_star", "overlap_sq_theory")

BLOCK_BYTES = 2**25
"""Bytes of one block, for a dataset without Dask chunks."""


class Output(NamedTuple):
    """One variable of a result: its dimensions after (p, p_star, a), its dtype and its attributes."""

    dims: tuple[str, ...]
    dtype: npt.DTypeLike
    attrs: dict[str, Any]


def number_output(dims: tuple[str, ...], words: str, dtype: npt.DTypeLike = np.float64) -> Output:
    """A dimensionless number as an output; `words` is its long_name."""
    return Output(dims, dtype, {"long_name": words, "units": "1"})


def code_output(dims: tuple[str, ...], words: str, meanings: Iterable[str]) -> Output:
    """An int8 output: the index of a value in `meanings`, which are stored in its attributes."""
    names = list(meanings)
    values = np.arange(len(names), dtype=np.int8)
    return Output(
        dims, np.int8, {"long_name": words, "flag_values": values, "flag_meanings": " ".join(names)}
    )


def alpha_axis(ds: xr.Dataset) -> str:
    """Name of the dimension along alpha, in a sweep or a result."""
    return "alpha_factor" if "alpha_factor" in ds.variables else "alpha"


def as_sweep(ds: xr.Dataset) -> xr.Dataset:
    """A sweep with the dimensions that it had when opened, whatever was done to ``ds`` since.

    - Dimensions that a selection has reduced to scalars are restored, with length 1.
    - Dimensions are put back into the order of a store.
    - Theory that ``ds.where(ds.status == 1)`` has broadcast over the cells and masked is returned to its own
      dimensions: theory of a model is computed again, theory at a load is NaN if no cell is left there.
    - Noise 0 and quadratic activations, whether constants of the store or selected, are attributes instead of
      coordinates.

    Reads nothing but the theory of models. A dataset that needs no change is returned as it is.

    Raises
    ------
    ParameterError
        A dimension is missing, as after a mean over it or a selection with ``drop=True``; or the labels are
        noisy, or an activation is not quadratic.
    """
    for axis, value in OF_THE_SQUARE.items():
        ds = _with_only(ds, axis, value)
    alpha_dim = alpha_axis(ds)
    points, cells = (*MODEL, alpha_dim), (*MODEL, alpha_dim, "N", "seed")
    for dim in cells:
        if dim not in ds.dims and dim not in ds.coords:
            raise ParameterError("ds", list(map(str, ds.dims)), f"a dataset with {dim} among its dimensions")
    if any(list(v.dims) != [dim for dim in cells if dim in v.dims] for v in ds.variables.values()):
        ds = ds.transpose(*cells, ..., missing_dims="ignore")
    own: dict[Any, tuple[str, ...]] = {
        "n_seeds": tuple(
            dim for dim in cells if dim == "N" or ("n_seeds" in ds and dim in ds["n_seeds"].dims)
        ),
        "wanted": (*points, "N"),
        "coverage": (*points, "N"),
    }
    own |= dict.fromkeys(_OF_MODEL, MODEL) | dict.fromkeys(_OF_LOAD, points)
    own |= {"alpha": points} if alpha_dim != "alpha" else {}
    scalars = [dim for dim in cells if dim not in ds.dims]
    measured = set(ds["status"].dims if "status" in ds else cells)
    changed: dict[Any, xr.DataArray] = {}
    for name, variable in ds.variables.items():
        if name in cells:
            continue
        natural = own.get(name, cells if set(variable.dims) == measured else variable.dims)
        if name in _OF_MODEL and not set(variable.dims) <= set(MODEL):
            continue
        array = ds[name].reset_coords(drop=True)
        spread = [dim for dim in array.dims if dim not in natural]
        if spread:
            array = array.max(spread, keep_attrs=True)
        missing = {dim: ds[dim].values[None] for dim in scalars if dim in natural and dim not in array.dims}
        if spread or missing:
            changed[name] = array.expand_dims(missing)
    coords = {name: changed.pop(name) for name in ds.coords if name in changed}
    axes = {dim: (dim, ds[dim].values[None], ds[dim].attrs) for dim in scalars}
    masked = [name for name in _OF_MODEL if name in ds and not set(ds[name].dims) <= set(MODEL)]
    if not (changed or coords or axes or masked):
        return ds
    attributes = {name: ds[name].attrs for name in masked}
    ds = ds.drop_vars([*changed, *coords, *masked, *axes]).assign_coords(axes).assign(changed)
    ds = ds.assign_coords(coords)
    return ds.assign(_theory_of_models(ds, attributes)) if masked else ds


def _with_only(ds: xr.Dataset, axis: str, value: float | str) -> xr.Dataset:
    """The dataset without an axis on which it has only one value; refused if it has others, or if the
    campaign has some and the dataset does not show which."""
    if axis not in ds.variables or "seed" in ds[axis].dims:
        if axis not in ds.attrs and _campaign_names(ds, axis):
            raise ParameterError("ds", list(map(str, ds.dims)), f"a dataset with {axis} among its dimensions")
        return ds
    found = np.atleast_1d(ds[axis].values).tolist()
    if any(one != value for one in found) or len(found) > 1:
        part = f"ds.sel({axis}={value!r}) is that part of it"
        part += f"; commands such as thresholds take --sel {axis}={value}"
        there = part if value in found else "its cells, with their own theory, are in the dataset"
        raise ParameterError(axis, found, f"{value} for an analysis, {_WHY[axis]}", there)
    only = (ds.isel({axis: 0}) if axis in ds.dims else ds).drop_vars(axis)
    return only.assign_attrs({axis: value})  # known, should the result be brought into this form again


def _campaign_names(ds: xr.Dataset, axis: str) -> bool:
    """Whether the campaign of a store names an axis, whatever has become of the dataset since."""
    try:
        return axis in tomllib.loads(ds.attrs.get("campaign", "")).get("grid", {})
    except (tomllib.TOMLDecodeError, TypeError):
        return False


def _theory_of_models(ds: xr.Dataset, attributes: Mapping[str, dict[Any, Any]]) -> dict[str, Any]:
    """The variables of ``_OF_MODEL`` by name, computed from theory, each with its attributes."""
    found = {name: np.empty(tuple(ds.sizes[dim] for dim in MODEL)) for name in attributes}
    for index in np.ndindex(*(ds.sizes[dim] for dim in MODEL)):
        at = transition(Model(*(ds[dim].values[k].item() for dim, k in zip(MODEL, index, strict=True))))
        values = {"alpha_bbp": at.alpha_bbp, "alpha_sharp": at.alpha_sharp}
        values["transition"] = TRANSITION_KINDS.index(at.kind)
        for name, array in found.items():
            array[index] = values[name]
    dtypes = {"transition": np.int8}
    return {
        name: (MODEL, array.astype(dtypes.get(name, np.float64)), attributes[name])
        for name, array in found.items()
    }


def map_models(
    ds: xr.Dataset,
    function: Callable[[xr.Dataset], Mapping[str, npt.ArrayLike]],
    outputs: Mapping[str, Output],
    variables: Iterable[str],
    labels: Mapping[str, Sequence[str]] | None = None,
) -> xr.Dataset:
    """Apply a function to every (p, p_star, a) of a sweep, lazily if the sweep is lazy.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep (:func:`as_sweep`), in memory or on Dask with any chunks. Chunks along p, p_star and a decide
        how many models form a block; all other dimensions are read whole. Without Dask a block holds
        ``BLOCK_BYTES``.
    function : callable
        From the dataset of one model to one array for each output. That dataset is in memory and holds
        ``variables`` and the coordinates, of which p, p_star and a are scalars (:func:`model_of`). The
        function runs in threads or, if a ``dask.distributed`` client is set, in its workers; then it must be
        picklable, with everything bound to it.
    outputs : mapping of str to Output
        The variables of the result. Their dimensions are dimensions of ``ds`` or of ``labels``.
    variables : iterable of str
        The variables of ``ds`` that the function reads; no others are loaded.
    labels : mapping of str to sequence of str, optional
        Dimensions of the result that ``ds`` does not have, with their coordinates.

    Returns
    -------
    xarray.Dataset
        Each output over (p, p_star, a) and its own dimensions, with those coordinates of ``ds`` that lie on
        them. In memory if ``ds`` is. On Dask it is lazy: ``compute()`` makes the one pass, and
        ``dask.compute(one, another)`` makes a single pass for several results of the same ``ds``.

    Notes
    -----
    Every pass refuses done cells outside the declared range of a variable (``valid_min``, ``valid_max``).
    Memory: one block of ``variables`` for each thread or worker, and the result. Held by
    ``tests/test_models_pass.py``.
    """
    missing = [dim for dim in MODEL if dim not in ds.dims]
    if missing:
        raise ParameterError("ds", list(map(str, ds.dims)), f"a dataset with dimensions {', '.join(MODEL)}")
    labels, read = labels or {}, ds[list(variables)].unify_chunks()
    blocks = _in_blocks(read)
    wanted = {*MODEL, *(dim for output in outputs.values() for dim in output.dims)}
    frame = blocks.drop_dims(set(blocks.dims) - wanted).coords
    lengths = {dim: len(labels[dim]) if dim in labels else ds.sizes[dim] for dim in wanted}
    chunks = {dim: blocks.chunks.get(dim, (length,)) for dim, length in lengths.items()}
    template = xr.Dataset(
        {
            name: xr.DataArray(
                _nothing((*MODEL, *output.dims), chunks, output.dtype),
                dims=(*MODEL, *output.dims),
                attrs=dict(output.attrs),
            )
            for name, output in outputs.items()
        },
        {dim: frame[dim].variable for dim in frame.xindexes},
    )
    kwargs = {"function": function, "outputs": outputs, "lengths": lengths}
    mapped = xr.map_blocks(_map_block, blocks, kwargs=kwargs, template=template)
    mapped = mapped.assign_coords({name: at.variable for name, at in frame.items() if name not in outputs})
    # strings of variable length, so that Zarr returns what it was given
    mapped = mapped.assign_coords({dim: np.array(list(names), object) for dim, names in labels.items()})
    return mapped if read.chunks else mapped.compute()


def model_of(block: xr.Dataset) -> Model:
    """The model of the block passed to a function of :func:`map_models`."""
    return Model(*(block[dim].item() for dim in MODEL))


def _check_ranges(block: xr.Dataset) -> None:
    """Refuse a block with a done cell outside the declared range of a variable (attributes ``valid_min`` and
    ``valid_max``), and name the first such cell in the order of the dimensions."""
    for name, variable in block.data_vars.items():
        low, high = (variable.attrs.get(f"valid_{end}", limit) for end, limit in _LIMITS.items())
        bad = xr.apply_ufunc(outside_range, variable, low, high)
        if "seed" in variable.dims and "status" in block:
            bad = bad & (block["status"] == STATUS["done"])
        if not bad.any():
            continue
        places = np.argwhere(bad.values)
        first = dict(zip(bad.dims, places[0].tolist(), strict=True))
        at = block.isel(first)
        cell = ", ".join(f"{dim} = {at[dim].item()}" for dim in CELL if dim in at.coords)
        kept = f"(ds.{name} >= {low:g}) & (ds.{name} <= {high:g})"
        kept = kept if (low, high) != FINITE else f"abs(ds.{name}) < float('inf')"
        value = block[name].isel({dim: first[dim] for dim in variable.dims}).item()
        raise ParameterError(
            str(name), value, f"{range_in_words(low, high)} in every cell that is done",
            f"this is at {cell} ({len(places)} such in this part of the sweep); leave out what is not a "
            f"measurement: ds.where({kept})",
        )  # fmt: skip


def _in_blocks(ds: xr.Dataset) -> xr.Dataset:
    """The dataset on Dask, with whole models in every chunk."""
    whole = {dim: -1 for dim in ds.dims if dim not in MODEL}
    if ds.chunks:
        return ds.chunk({**whole, **{dim: 1 for dim in MODEL if dim not in ds.chunks}}).unify_chunks()
    left = BLOCK_BYTES * math.prod(ds.sizes[dim] for dim in MODEL) // max(1, ds.nbytes)
    together = {}
    for dim in reversed(MODEL):
        together[dim] = min(ds.sizes[dim], max(1, left))
        left //= together[dim]
    return ds.chunk({**whole, **together})


def _nothing(dims: tuple[str, ...], chunks: Mapping[Any, tuple[int, ...]], dtype: npt.DTypeLike) -> Any:
    """A Dask array with this shape, chunks and dtype, which is never computed."""
    import dask.array

    cuts = tuple(chunks[dim] for dim in dims)
    return dask.array.Array({}, "nothing", cuts, dtype)  # type: ignore[no-untyped-call]


def _map_block(
    block: xr.Dataset,
    function: Callable[[xr.Dataset], Mapping[str, npt.ArrayLike]],
    outputs: Mapping[str, Output],
    lengths: Mapping[str, int],
) -> xr.Dataset:
    """The outputs of all models of a block; `lengths` gives the lengths of the dimensions that are not
    cut."""
    models = tuple(block.sizes[dim] for dim in MODEL)
    found = {
        name: np.empty((*models, *(lengths[dim] for dim in output.dims)), output.dtype)
        for name, output in outputs.items()
    }
    _check_ranges(block)
    for index in np.ndindex(*models):
        values = function(block.isel(dict(zip(MODEL, index, strict=True))))
        for name, array in found.items():
            array[index] = values[name]
    kept: set[Any] = {*MODEL, *(dim for output in outputs.values() for dim in output.dims)}
    return xr.Dataset(
        {name: ((*MODEL, *outputs[name].dims), array) for name, array in found.items()},
        {dim: block[dim].variable for dim in block.xindexes if dim in kept},
    )
