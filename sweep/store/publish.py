"""The store: one Zarr v3 hierarchy, on plain files or an object store, that readers can always open.

    zarr.json        attributes (campaign, layout, provenance) and consolidated metadata: the publish point
    <axis>                          one array each: its values in storage order
    <curve>                         values of a relative curve, over the dimensions
    <reference>                     what the kernel knows of the points, over their dimensions
    <size axis>=<size>/<variable>   one array a variable, chunk = tile ("cells/" without an axis of sizes)
    ledger/                                    see `bendscape.sweep.store.ledger`

Everything is written before it is published, and publishing replaces one object, so a reader sees the
hierarchy before or after a change and nothing in between. Tile chunks land under arrays that are already
published; `status` lands last. A change never deletes: a run that has been taken over without knowing it
would otherwise delete what another run has written since.
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
"""Attribute of the root for readers who open it as any Zarr group, in which the sizes are groups."""
REFERENCE_CHUNKS = (4, 16, 256)
"""Of the arrays of references: of the curve the last, of the model axis before it the second."""
REFERENCE_POINTS = 2**14
"""Points whose references are computed in one go, between two looks at whether the run should stop."""
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
    """Create or extend the hierarchy to `layout`, write the references of what is new, and publish.

    Repeating it after a crash at any point, or after `heed` has raised, gives the same hierarchy: `heed` is
    called between blocks of points whose references are computed. On files the caller holds a lock; on an
    object store nothing is replaced that changed since it was read, and `check`, which raises if another
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
        # What was never published holds nothing, whatever an interrupted attempt left of it.
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
    """The root `zarr.json`: what is published."""
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
    """An array as a layout wants it."""

    of: Variable
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]

    @property
    def attributes(self) -> dict[str, Any]:
        """Those of the variable; for integers of cells also what is masked, as plain xarray wants it."""
        fill = self.of.fill_value
        masked = {"_FillValue": fill} if "seed" in self.dims and isinstance(fill, int) and fill else {}
        return self.of.attributes | masked

    def metadata(self) -> dict[str, Any]:
        """The `zarr.json` of a new one."""
        # Made aside: in the store Zarr would also make a root, which is for `write_layout` to publish.
        aside: dict[str, Any] = {}
        zarr.create_array(
            MemoryStore(aside), shape=self.shape, chunks=self.chunks, dtype=self.of.dtype,
            fill_value=self.of.fill_value, dimension_names=self.dims, attributes=self.attributes,
        )  # fmt: skip
        document: dict[str, Any] = json.loads(aside["zarr.json"].to_bytes())
        return document


class Known(NamedTuple):
    """Something that is known of points without a cell: variables over the model dimensions, and over the
    curve too where it is `long`."""

    variables: tuple[Variable, ...]
    long: bool
    compute: Callable[[dict[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]

    @property
    def names(self) -> list[str]:
        """Of its variables."""
        return [variable.name for variable in self.variables]


def known(layout: Layout, references: Sequence[Reference]) -> list[Known]:
    """What a store holds of its points: the values of a relative curve, and the kernel's references."""
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
    """Every array of a store by its path: dimensions, what is known of points and, for each size, seeds and
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
    """A dimension as a variable."""
    if dim == layout.curve and layout.around is not None and layout.axes.curve is not None:
        return Variable(dim, f"{layout.axes.curve.name} relative to a threshold", "float64")
    axis = layout.axes[dim]
    return Variable(dim, axis.long_name, axis.dtype, axis.units)


def coordinates(layout: Layout, dimensions: Sequence[Dimension] = ()) -> dict[str, NDArray[Any]]:
    """What the arrays of dimensions and seeds hold, by path."""
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
    """What is known at the points of `layout` that `before` did not have; the rest of `blocks` is kept.

    `stretch` multiplies every value of the curve, to see what depends on its last digits.
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
    """Which points a layout had before, over its dimensions; values are appended, so they come first."""
    old = np.zeros(tuple(map(len, layout.dims.values())), dtype=bool)
    if before is not None:
        old[tuple(slice(len(before.dims[name])) for name in layout.dims)] = True
    return old


def stored_variables(kernel: Kernel) -> tuple[Variable, ...]:
    """The kernel's variables and, last, `status`."""
    return (*kernel.variables, STATUS_VARIABLE)


def silence_zarr() -> None:
    """Consolidated metadata are not yet in the Zarr v3 text; every library here reads and writes them."""
    warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
