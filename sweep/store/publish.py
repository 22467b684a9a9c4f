"""The store: one Zarr v3 hierarchy, on plain files or an object store, that readers can always open.

    zarr.json        attributes (campaign, layout, provenance) and consolidated metadata: the publish point
    p  p_star  a  alpha | alpha_factor         axes in storage order
    alpha_bbp  transition  lambda_minus  ...   theory on (p, p_star, a[, alpha])
    N=<N>/<variable>                           one array a variable, chunk = tile
    ledger/                                    see `bendscape.sweep.store.ledger`

Everything is written before it is published, and publishing replaces one object, so a reader sees the
hierarchy before or after a change and nothing in between. Tile chunks land under arrays that are
already published; `status` lands last. A change never deletes: whoever is behind and does not know it yet
would delete what another run has put there since.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray
from obstore.exceptions import BaseError
from zarr.storage import MemoryStore

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import EDGE_KINDS, TRANSITION_KINDS
from bendscape.core.quadratic.theory.maps import transitions_of_models
from bendscape.core.quadratic.theory.points import asymptotics_of_points
from bendscape.sweep.campaign.file import MAX_AXIS
from bendscape.sweep.campaign.grid import alpha_units
from bendscape.sweep.campaign.kernel import STATUS, Kernel, Variable
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.location import folder_of, store_url
from bendscape.sweep.store.compare_and_swap import Conflict, Publisher, always
from bendscape.sweep.store.objects import Damaged, connect, read_object

STORE_VERSION = 2  # 1 had neither checksums nor snapshots of arrays
HOW_TO_READ = "comment"
"""Attribute of the root for readers who open it as any Zarr group, in which the sizes are groups."""
THEORY_POINTS, THEORY_MODELS = 16384, 2048
"""Most that is computed between two looks at whether the run should stop: half a second of it, or so."""
THEORY_CHUNKS = (4, 4, 16, 256)
_AXIS_NAMES = {
    "p": "width of the student",
    "p_star": "width of the teacher",
    "a": "constant of the loss",
    "alpha": "samples per dimension, M / N",
    "alpha_factor": "alpha relative to a threshold",
}
_FLAGS: dict[str, tuple[str, ...]] = {
    "status": tuple(STATUS),
    "transition": TRANSITION_KINDS,
    "edge": EDGE_KINDS,
}
_MODEL_THEORY = {
    "alpha_bbp": "threshold of the teacher's outlier as N goes to infinity",
    "alpha_sharp": "the left edge is smooth below this alpha and sharp above it",
    "transition": "kind of the transition at alpha_bbp",
}
_POINT_THEORY = {
    "edge": "kind of the left edge of the bulk",
    "lambda_minus": "left edge of the bulk as N goes to infinity",
    "lambda_star": "the teacher's outlier as N goes to infinity; NaN where there is none",
    "overlap_sq_theory": "squared overlap of the outlier as N goes to infinity; NaN where there is none",
}


def read_root(url: str, *, patient: bool = False) -> dict[str, Any] | None:
    """The attributes of a store, or None where nothing has been published.

    It is the first that a command asks of a store, so an object store that does not answer fails in seconds;
    `patient` as in `connect`.

    Raises
    ------
    ParameterError
        Something else than a bendscape store lies there, or one of a newer version.
    OSError
        The store does not answer or denies access; `Damaged` where the root is.
    """
    folder = folder_of(url)
    if folder is not None and not folder.exists():
        return None
    if folder is not None and not folder.is_dir():  # asked second: another driver may make it at this moment
        raise ParameterError("store", str(folder), "a folder, not a file")
    try:
        document = json.loads(read_object(connect(url, patient=patient), "zarr.json"))
    except BaseError as error:  # its further lines are of no use to a user
        raise OSError(f"{url} cannot be read: {str(error).splitlines()[0]}") from None
    except FileNotFoundError:
        if folder is not None and any(folder.iterdir()) and not (folder / "ledger").is_dir():
            raise ParameterError("store", str(folder), "a bendscape store or a new folder") from None
        return None
    except ParameterError:  # of the connection; a ValueError too
        raise
    except ValueError as error:
        raise Damaged("zarr.json", error) from None
    attributes: dict[str, Any] = document.get("attributes", {}) if isinstance(document, dict) else {}
    version = attributes.get("bendscape_store_version")
    if not isinstance(version, int):
        raise ParameterError("store", url, "a bendscape store", "this is some other Zarr group")
    if version > STORE_VERSION:
        raise ParameterError(
            "store", url, f"store version up to {STORE_VERSION}", f"version {version}: upgrade bendscape"
        )
    return attributes


def open_root(location: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The URL and attributes of a store that must exist."""
    url = store_url(location)
    attributes = read_root(url)
    if attributes is None:
        check_rootless(url)
        raise ParameterError("store", url, "a bendscape store", "there is none: `bendscape run` makes one")
    return url, attributes


def check_rootless(url: str) -> None:
    """Where a root is missing, nothing else may be there but what the making of a store leaves.

    Raises
    ------
    ParameterError
        There are cells or receipts: another layout on top of them would make other cells of them.
    """
    folder = folder_of(url)
    if (folder is None or folder.is_dir()) and holds_cells(url):
        raise ParameterError(
            "store", url, "a store with its zarr.json", f"cells are there: `bendscape fsck --repair {url}`"
        )


def holds_cells(url: str) -> bool:
    """Whether any chunk of a kernel's variables or any receipt lies there, whatever else does."""
    folder = folder_of(url)
    if folder is not None:
        chunks = (path for path in folder.glob("N=*/*/c") if path.parent.name != "seed")
        places = (folder / "ledger" / "segments", *chunks)
        return any("#" not in path.name and path.is_file() for at in places for path in at.rglob("*"))
    objects = connect(url)
    folders = ["ledger/segments"]
    for size in obstore.list_with_delimiter(objects)["common_prefixes"]:
        if size.startswith("N="):
            inside = obstore.list_with_delimiter(objects, prefix=size)["common_prefixes"]
            folders += [f"{path}/c" for path in inside if path.rpartition("/")[2] != "seed"]
    return any(page for folder in folders for page in obstore.list(objects, prefix=folder, chunk_size=1))


def write_layout(
    url: str,
    layout: Layout,
    kernel: Kernel,
    before: Layout | None,
    attributes: Mapping[str, Any],
    check: Callable[[], None] = always,
    heed: Callable[[], None] = always,
) -> None:
    """Create or grow the hierarchy to `layout`, write theory for what is new, and publish.

    Repeating it after a crash at any point, or after `heed` has raised, gives the same hierarchy: `heed` is
    called between blocks of the theory, which takes some 20 microseconds a point. On files the caller
    holds a lock; on an object store nothing is replaced that changed since it was read, and `check`,
    which raises if another driver is about to change the hierarchy, is called between every read and the
    write that rests on it.

    Raises
    ------
    Conflict
        Another driver has changed the hierarchy; `before` is not the published layout.
    """
    to = Publisher(url, check)
    published, replace = to.read("zarr.json")
    if before != (Layout.from_json(published["attributes"]["layout"]) if published else None):
        raise Conflict("zarr.json")
    variables = stored_variables(kernel)
    kept = arrays_of(before, variables) if before else {}
    metadata: dict[str, dict[str, Any]] = {}
    for size in sorted(layout.sizes):
        metadata[f"N={size}"] = group_metadata(size)
        found, mode = to.read(f"N={size}/zarr.json")
        if not found:
            to.put(f"N={size}/zarr.json", metadata[f"N={size}"], mode)
    for path, array in arrays_of(layout, variables).items():
        # What was never published holds nothing, whatever an interrupted attempt left of it.
        found, mode = to.read(f"{path}/zarr.json")
        metadata[path] = {**((found if path in kept else None) or array.metadata()), "shape": [*array.shape]}
        if metadata[path] != found:
            to.put(f"{path}/zarr.json", metadata[path], mode)
    for path, values in coordinates(layout).items():
        to.open(path)[0][:] = values
    theory = {name: to.open(name) for name in theory_of(layout)}
    old = {name: values for name, (_, values) in theory.items()}
    for name, block in theory_on(layout, before, old, heed).items():
        theory[name][0][...] = block
    to.put("zarr.json", root_document(attributes, layout, metadata), replace)


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
            HOW_TO_READ: 'axes and theory; the cells: xarray.open_dataset(STORE, engine="bendscape")',
        },
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata},
    }


def group_metadata(N: int) -> dict[str, Any]:
    """The `zarr.json` of one size."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {"N": N}}


class ArrayPlan(NamedTuple):
    """An array as a layout wants it."""

    of: Variable
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        """The `zarr.json` of a new one."""
        # Made aside: in the store Zarr would also make a root, which is for `write_layout` to publish.
        aside: dict[str, Any] = {}
        zarr.create_array(
            MemoryStore(aside), shape=self.shape, chunks=self.chunks, dtype=self.of.dtype,
            fill_value=self.of.fill_value, dimension_names=self.dims, attributes=_attributes(self.of),
        )  # fmt: skip
        document: dict[str, Any] = json.loads(aside["zarr.json"].to_bytes())
        return document


def arrays_of(layout: Layout, variables: Sequence[Variable]) -> dict[str, ArrayPlan]:
    """Every array of a store by its path: axes, theory and, for each size, seeds and `variables`."""
    dims, shape = tuple(layout.axes), tuple(len(values) for values in layout.axes.values())
    arrays = {}
    for name, values in layout.axes.items():
        axis = Variable(name, _AXIS_NAMES[name], "int64" if name in ("p", "p_star") else "float64")
        arrays[name] = ArrayPlan(axis, (name,), (len(values),), (MAX_AXIS,))
    for name, long_name in theory_of(layout).items():
        n = 3 if name in _MODEL_THEORY else 4
        variable = Variable(name, long_name, "int8" if name in _FLAGS else "float64")
        arrays[name] = ArrayPlan(variable, dims[:n], shape[:n], THEORY_CHUNKS[:n])
    for N, size in sorted(layout.sizes.items()):
        seed = Variable("seed", "realisation", "int64")
        arrays[f"N={N}/seed"] = ArrayPlan(seed, ("seed",), (size.seeds,), (65536,))
        for variable in variables:
            plan = ArrayPlan(variable, (*dims, "seed"), layout.shape(N), layout.chunks(N))
            arrays[f"N={N}/{variable.name}"] = plan
    return arrays


def theory_of(layout: Layout) -> dict[str, str]:
    """The theory that a store holds: long names by name."""
    names = _MODEL_THEORY | _POINT_THEORY
    return names if layout.around is None else names | {"alpha": _AXIS_NAMES["alpha"]}


def coordinates(layout: Layout) -> dict[str, NDArray[Any]]:
    """What the arrays of axes and seeds hold, by path."""
    axes = {name: np.asarray(values) for name, values in layout.axes.items()}
    return axes | {f"N={N}/seed": np.arange(size.seeds) for N, size in sorted(layout.sizes.items())}


def _attributes(variable: Variable) -> dict[str, Any]:
    attributes: dict[str, Any] = {"long_name": variable.long_name, "units": variable.units}
    attributes |= variable.valid_attributes
    if variable.name in _FLAGS:
        meanings = _FLAGS[variable.name]
        attributes |= {"flag_values": list(range(len(meanings))), "flag_meanings": " ".join(meanings)}
    return attributes


def theory_on(
    layout: Layout,
    before: Layout | None,
    blocks: dict[str, NDArray[Any]],
    heed: Callable[[], None] = always,
    stretch: float = 1.0,
) -> dict[str, NDArray[Any]]:
    """Theory at the points of `layout` that `before` did not have; the rest of `blocks` is kept.

    `stretch` multiplies every alpha, to see what depends on its last digits.
    """
    axes = [np.asarray(values, dtype=np.float64) for values in layout.axes.values()]
    shape = tuple(map(len, axes))
    old = np.zeros(shape, dtype=bool)
    if before:  # values are only ever appended
        old[tuple(slice(len(values)) for values in before.axes.values())] = True
    models = np.flatnonzero(~old.all(axis=-1))
    step = max(1, min(THEORY_MODELS, THEORY_POINTS // shape[-1]))
    for start in range(0, len(models), step):
        heed()
        at = np.unravel_index(models[start : start + step], shape[:-1])
        p, p_star, a = (axis[index] for axis, index in zip(axes, at, strict=False))
        known: NDArray[np.bool_] = old[at]
        new = np.flatnonzero(~known.any(axis=-1))
        thresholds = transitions_of_models(p[new], p_star[new], a[new])
        for name in _MODEL_THEORY:
            blocks[name][tuple(index[new] for index in at)] = thresholds[name]
        alpha = alpha_units(layout.around, p, p_star, a)[:, np.newaxis] * axes[-1]
        of, load = np.nonzero(~known)
        points = asymptotics_of_points(p[of], p_star[of], a[of], stretch * alpha[of, load])
        found = points._asdict() | {"overlap_sq_theory": points.overlap_sq, "alpha": alpha[of, load]}
        for name in blocks.keys() - _MODEL_THEORY.keys():
            blocks[name][(*(index[of] for index in at), load)] = found[name]
    return blocks


def stored_variables(kernel: Kernel) -> tuple[Variable, ...]:
    """The kernel's variables and, last, `status`."""
    return (*kernel.variables, Variable("status", "outcome of the cell", "int8"))


def silence_zarr() -> None:
    """Consolidated metadata are not yet in the Zarr v3 text; every library here reads and writes them."""
    warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
