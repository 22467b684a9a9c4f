"""The store: one Zarr v3 hierarchy, on plain files or an object store, readable at any moment.

    zarr.json        attributes (campaign, layout, provenance) and consolidated metadata: the publish point
    <axis>                          one array each: its values in storage order
    <curve>                         absolute values of a relative curve, over the dimensions
    <reference>                     exact values at the points, over their dimensions
    <size axis>=<size>/<variable>   one array a variable, chunk = tile ("cells/" without an axis of sizes)
    ledger/                                    see `bendscape.sweep.store.ledger`

Everything is written before it is published, and publishing replaces a single object, so a reader sees the
hierarchy either before or after a change. Chunks of tiles are written into arrays that are already published,
`status` last. A change never deletes anything: otherwise a run that has been taken over without knowing it
could delete what another run has written since.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from bendscape.core.errors import unwarned
from bendscape.sweep.campaign.axes import MAX_AXIS, Scalar
from bendscape.sweep.campaign.grid import NO_SIZE, Grid
from bendscape.sweep.campaign.kernel import STATUS, Dimension, Dtype, Kernel, Reference, Variable
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.store.compare_and_swap import Conflict, Publisher, always
from bendscape.sweep.store.root import STORE_VERSION

HOW_TO_READ = "comment"
"""Root attribute for readers who open the store as an ordinary Zarr group, in which the sizes are groups."""
REFERENCE_CHUNKS = (4, 16, 256)
"""Chunk lengths of reference arrays: along the curve (the last), along the model axis before it (the
second)."""
REFERENCE_POINTS = 2**14
"""Number of points whose references are computed between two checks for a stop request."""
STATUS_VARIABLE = Variable("status", "outcome of the cell", "int8", flags=tuple(STATUS))


def write_layout(
    url: str,
    layout: Layout,
    kernel: Kernel,
    before: Layout | None,
    attributes: Mapping[str, Any],
    check: Callable[[], None] = always,
    heed: Callable[[], None] = always,
) -> None:
    """Create or extend the hierarchy to `layout`, write the references of the new points, and publish.

    Repeating the call after a crash at any point, or after `heed` has raised, gives the same hierarchy.
    `heed` is called between blocks of points. On files the caller holds a lock. On an object store nothing is
    replaced that has changed since it was read, and `check`, which raises if another driver is about to
    change the hierarchy, is called between every read and the write that depends on it.
    driver is about to change the hierarchy, is called between every read and the write that rests on it.

    Raises
    ------
    Conflict
        Another driver has changed the hierarchy; `before` is not the published layout.
    """
    to = Publisher(url, check)
    published, mode_of_root = to.read("zarr.json")
    there = Layout.from_json(published["attributes"]["layout"]).on(kernel.axes) if published else None
    if before != there:
        raise Conflict("zarr.json")
    variables = stored_variables(kernel)
    declared = variables, kernel.references, kernel.dimensions
    kept = arrays_of(before, *declared) if before else {}
    metadata: dict[str, dict[str, Any]] = {}
    for size in sorted(layout.sizes):
        group = layout.group(size)
        metadata[group] = group_metadata(layout, size)
        found, mode = to.read(f"{group}/zarr.json")
        if not found:
            to.put(f"{group}/zarr.json", metadata[group], mode)
    for path, array in arrays_of(layout, *declared).items():
        # What was never published holds no data, even if an interrupted attempt left something there.
        found, mode = to.read(f"{path}/zarr.json")
        metadata[path] = {**((found if path in kept else None) or array.metadata()), "shape": [*array.shape]}
        if metadata[path] != found:
            to.put(f"{path}/zarr.json", metadata[path], mode)
    for path, values in coordinates(layout, kernel.dimensions).items():
        to.open(path)[0][:] = values
    names = [name for of in known(layout, kernel.references) for name in of.names]
    arrays = {name: to.open(name) for name in names}
    blocks = {name: values for name, (_, values) in arrays.items()}
    for name, block in compute_known(layout, before, kernel.references, blocks, heed).items():
        arrays[name][0][...] = block
    to.put("zarr.json", root_document(attributes, layout, metadata), mode_of_root)


def root_document(
    attributes: Mapping[str, Any], layout: Layout, metadata: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The root `zarr.json`, which publishes the hierarchy."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            **attributes,
            "layout": layout.to_json(),
            "bendscape_store_version": STORE_VERSION,
            HOW_TO_READ: 'axes and references; the cells: xarray.open_dataset(STORE, engine="bendscape")',
        },
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata},
    }


def group_metadata(layout: Layout, size: int) -> dict[str, Any]:
    """The `zarr.json` of one size."""
    axis = layout.axes.size
    attributes = {} if axis is None else {axis.name: size}
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


class ArrayPlan(NamedTuple):
    """An array as a layout needs it."""

    of: Variable
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the variable; for integers of cells also the fill value, which xarray then masks."""
        fill = self.of.fill_value
        masked = {"_FillValue": fill} if "seed" in self.dims and isinstance(fill, int) and fill else {}
        return self.of.attributes | masked

    def metadata(self) -> dict[str, Any]:
        """The `zarr.json` of a new array."""
        # Made in memory: in the store, Zarr would also create a root, which only `write_layout` may publish.
        aside: dict[str, Any] = {}
        zarr.create_array(
            MemoryStore(aside), shape=self.shape, chunks=self.chunks, dtype=self.of.dtype,
            fill_value=self.of.fill_value, dimension_names=self.dims, attributes=self.attributes,
        )  # fmt: skip
        document: dict[str, Any] = json.loads(aside["zarr.json"].to_bytes())
        return document


class Known(NamedTuple):
    """Exact values at points: variables over the model dimensions and, if `long`, over the curve too."""

    variables: tuple[Variable, ...]
    long: bool
    compute: Callable[[dict[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]

    @property
    def names(self) -> list[str]:
        """Names of the variables."""
        return [variable.name for variable in self.variables]


def known(layout: Layout, references: Sequence[Reference]) -> list[Known]:
    """What a store holds for its points: the values of a relative curve, and the kernel's references."""
    curve = layout.axes.curve
    found = []
    if layout.around is not None and curve is not None:
        value = Variable(curve.name, curve.long_name, "float64", curve.units)
        found.append(Known((value,), True, lambda points: {curve.name: points[curve.name]}))
    for of in references:
        over, compute = of.over, of.compute
        long = curve is not None and curve.name in over
        found.append(
            Known(
                of.variables,
                long,
                lambda points, over=over, compute=compute: compute(**{k: points[k] for k in over}),  # type: ignore[misc]
            )
        )
    return found


def arrays_of(
    layout: Layout,
    variables: Sequence[Variable],
    references: Sequence[Reference],
    dimensions: Sequence[Dimension] = (),
) -> dict[str, ArrayPlan]:
    """Every array of a store by path: dimensions, exact values at points and, for each size, seeds and
    `variables`."""
    dims, shape = tuple(layout.dims), tuple(len(values) for values in layout.dims.values())
    models, inner = len(layout.models), {of.name: len(of.values) for of in dimensions}
    arrays = {}
    for of in dimensions:
        kind: Dtype = "int64" if all(isinstance(value, int) for value in of.values) else "float64"
        axis = Variable(of.name, of.long_name, kind, of.units)
        arrays[of.name] = ArrayPlan(axis, (of.name,), (len(of.values),), (len(of.values),))
    for name, values in layout.dims.items():
        arrays[name] = ArrayPlan(axis_variable(layout, name), (name,), (len(values),), (MAX_AXIS,))
    chunks = (*[REFERENCE_CHUNKS[0]] * (models - 1), *[REFERENCE_CHUNKS[1]] * (models > 0))
    chunks += (REFERENCE_CHUNKS[2],) * (len(dims) - models)
    for about in known(layout, references):
        n = len(dims) if about.long else models
        for variable in about.variables:
            arrays[variable.name] = ArrayPlan(variable, dims[:n], shape[:n], chunks[:n])
    for size, blocks in sorted(layout.sizes.items()):
        group, seed = layout.group(size), Variable("seed", layout.axes.seed.long_name, "int64")
        arrays[f"{group}/seed"] = ArrayPlan(seed, ("seed",), (blocks.seeds,), (65536,))
        for variable in variables:
            of_cell = tuple(inner[name] for name in variable.dims)
            arrays[f"{group}/{variable.name}"] = ArrayPlan(
                variable,
                (*layout.cell_dims, *variable.dims),
                (*layout.shape(size), *of_cell),
                (*layout.chunks(size), *of_cell),
            )
    return arrays


def axis_variable(layout: Layout, dim: str) -> Variable:
    """The variable that describes a dimension."""
    if dim == layout.curve and layout.around is not None and layout.axes.curve is not None:
        return Variable(dim, f"{layout.axes.curve.name} relative to a threshold", "float64")
    axis = layout.axes[dim]
    return Variable(dim, axis.long_name, axis.dtype, axis.units)


def coordinates(layout: Layout, dimensions: Sequence[Dimension] = ()) -> dict[str, NDArray[Any]]:
    """The values of the arrays of dimensions and seeds, by path."""
    dims = {name: np.asarray(values) for name, values in layout.dims.items()}
    dims |= {of.name: np.asarray(of.values) for of in dimensions}
    return dims | {f"{layout.group(n)}/seed": np.arange(of.seeds) for n, of in sorted(layout.sizes.items())}


@unwarned()
def compute_known(
    layout: Layout,
    before: Layout | None,
    references: Sequence[Reference],
    blocks: dict[str, NDArray[Any]],
    heed: Callable[[], None] = always,
    *,
    stretch: float = 1.0,
) -> dict[str, NDArray[Any]]:
    """Compute the exact values at the points of `layout` that `before` lacks; keep the rest of `blocks`.

    `stretch` multiplies the curve, to test which values depend on its last digits.
    """
    grid = Grid(layout.axes, _values(layout), layout.around, (), {})
    points, old = None, _old(layout, before)
    for of in known(layout, references):
        new = np.flatnonzero(~(old if of.long or layout.curve is None else old.any(axis=-1)))
        if not new.size:
            continue
        if points is None:
            points = grid.points(NO_SIZE)
            if layout.axes.curve is not None:
                points[layout.axes.curve.name] = points[layout.axes.curve.name] * stretch
        step = 1 if of.long or layout.curve is None else len(layout.dims[layout.curve])
        for start in range(0, len(new), REFERENCE_POINTS):
            heed()
            at = new[start : start + REFERENCE_POINTS]
            found = of.compute({name: column[at * step] for name, column in points.items()})
            for name in of.names:
                blocks[name].reshape(-1)[at] = found[name]
    return blocks


def _values(layout: Layout) -> dict[str, tuple[Scalar, ...]]:
    curve = layout.axes.curve
    return {(curve.name if curve and name == layout.curve else name): v for name, v in layout.dims.items()}


def _old(layout: Layout, before: Layout | None) -> NDArray[np.bool_]:
    """Which points, over the dimensions, a layout already had. Values are appended, so these come first."""
    old = np.zeros(tuple(map(len, layout.dims.values())), dtype=bool)
    if before is not None:
        old[tuple(slice(len(before.dims[name])) for name in layout.dims)] = True
    return old


def stored_variables(kernel: Kernel) -> tuple[Variable, ...]:
    """The kernel's variables and, last, `status`."""
    return (*kernel.variables, STATUS_VARIABLE)


def silence_zarr() -> None:
    """Silence Zarr's warning that consolidated metadata are not yet part of the v3 specification; all
    libraries used here read and write them."""
    warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
