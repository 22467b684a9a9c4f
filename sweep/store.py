"""The store: one Zarr v3 hierarchy, on plain files or an object store, that readers can always open.

    zarr.json        attributes (campaign, layout, provenance) and consolidated metadata: the publish point
    p  p_star  a  alpha | alpha_factor         axes in storage order
    alpha_bbp  transition  lambda_minus  ...   theory on (p, p_star, a[, alpha])
    N=<N>/<variable>                           one array a variable, chunk = tile
    ledger/                                    see `bendscape.sweep.ledger`

Everything is written before it is published, and publishing replaces one object, so a reader sees the
hierarchy before or after a change and nothing in between. Tile chunks land under arrays that are
already published; `status` lands last.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray
from obstore.store import ObjectStore as Objects
from obstore.store import from_url
from zarr.storage import ObjectStore

from bendscape.core.model import EDGE_KINDS, TRANSITION_KINDS, Model, ParameterError
from bendscape.core.outlier import asymptotics, transition
from bendscape.core.precision import unwarned
from bendscape.sweep.campaign import MAX_AXIS
from bendscape.sweep.grid import alpha_unit
from bendscape.sweep.kernel import STATUS, Kernel, Variable
from bendscape.sweep.tiles import Layout, TileKey

STORE_VERSION = 1
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


def store_url(location: str | os.PathLike[str]) -> str:
    """An absolute URL for a path or URL, the same on every machine that sees the same file system.

    Raises
    ------
    ParameterError
        A scheme that is neither a path, file:// nor s3://.
    """
    text = os.fspath(location)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme not in ("", "file", "s3"):
        raise ParameterError("store", text, "a path, file:///path or s3://bucket/prefix")
    return text.rstrip("/") if scheme else Path(text).expanduser().absolute().as_uri()


def connect(url: str) -> Objects:
    """The objects under a URL; credentials come from the environment, never from the URL."""
    if url.startswith("file://"):
        path = Path(unquote(urlsplit(url).path))
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError("store", str(path), "a folder that can be made", str(error)) from None
    return from_url(url)


def exists(url: str, path: str) -> bool:
    """Whether an object is there."""
    try:
        obstore.head(connect(url), path)
    except FileNotFoundError:
        return False
    return True


def read_root(url: str) -> dict[str, Any] | None:
    """The attributes of a store, or None where nothing has been published.

    Raises
    ------
    ParameterError
        Something else than a bendscape store lies there, or one of a newer version.
    """
    folder = Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None
    if folder is not None and not folder.is_dir():
        if folder.exists():
            raise ParameterError("store", str(folder), "a folder, not a file")
        return None
    try:
        document = json.loads(bytes(obstore.get(connect(url), "zarr.json").bytes()))
    except FileNotFoundError:
        if folder is not None and any(folder.iterdir()) and not (folder / "ledger").is_dir():
            raise ParameterError("store", str(folder), "a bendscape store or a new folder") from None
        return None
    except ValueError as error:
        raise OSError(f"zarr.json of {url} is damaged: {error}") from None
    attributes: dict[str, Any] = document.get("attributes", {})
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
        raise ParameterError("store", url, "a bendscape store", "there is none: `bendscape run` makes one")
    return url, attributes


def zarr_store(url: str) -> ObjectStore[Objects]:
    """The same objects as Zarr sees them."""
    return ObjectStore(connect(url))


def write_layout(
    url: str, layout: Layout, kernel: Kernel, before: Layout | None, attributes: Mapping[str, Any]
) -> None:
    """Create or grow the hierarchy to `layout`, write theory for what is new, and publish.

    Repeating it after a crash at any point gives the same hierarchy.
    """
    store = zarr_store(url)
    paths: list[str] = []

    def array(
        path: str,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        of: Variable,
        keep: bool,
    ) -> zarr.Array[Any]:
        # What was never published holds nothing, whatever an interrupted attempt left of it.
        paths.append(path)
        if keep:
            made = zarr.open_array(store, path=path, mode="r+")
            if made.shape != shape:
                made.resize(shape)
            return made
        return zarr.create_array(
            store, name=path, shape=shape, chunks=chunks, dtype=of.dtype, fill_value=of.fill_value,
            dimension_names=dims, attributes=_attributes(of), overwrite=True,
        )  # fmt: skip

    dims, shape = tuple(layout.axes), tuple(len(values) for values in layout.axes.values())
    keep = before is not None
    for name, values in layout.axes.items():
        axis = Variable(name, _AXIS_NAMES[name], "int64" if name in ("p", "p_star") else "float64")
        array(name, (name,), (len(values),), (MAX_AXIS,), axis, keep)[:] = np.asarray(
            values, dtype=axis.dtype
        )

    names = _MODEL_THEORY | _POINT_THEORY
    if layout.around is not None:
        names = names | {"alpha": _AXIS_NAMES["alpha"]}
    theory = {}
    for name, long_name in names.items():
        n = 3 if name in _MODEL_THEORY else 4
        variable = Variable(name, long_name, "int8" if name in _FLAGS else "float64")
        theory[name] = array(name, dims[:n], shape[:n], THEORY_CHUNKS[:n], variable, keep)
    for name, block in theory_on(layout, before, {n: np.asarray(a[...]) for n, a in theory.items()}).items():
        theory[name][...] = block

    for size, blocks in sorted(layout.sizes.items()):
        keep = before is not None and size in before.sizes
        group = f"N={size}"
        zarr.open_group(store, path=group, mode="a", attributes={"N": size})
        paths.append(group)
        seed = Variable("seed", "realisation", "int64")
        array(f"{group}/seed", ("seed",), (blocks.seeds,), (65536,), seed, keep)[:] = np.arange(blocks.seeds)
        for variable in stored_variables(kernel):
            path = f"{group}/{variable.name}"
            array(path, (*dims, "seed"), layout.shape(size), layout.chunks(size), variable, keep)

    metadata = {
        path: json.loads(bytes(obstore.get(store.store, f"{path}/zarr.json").bytes())) for path in paths
    }
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            **attributes,
            "layout": layout.to_json(),
            "bendscape_store_version": STORE_VERSION,
        },
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata},
    }
    obstore.put(store.store, "zarr.json", json.dumps(root).encode())


def _attributes(variable: Variable) -> dict[str, Any]:
    attributes: dict[str, Any] = {"long_name": variable.long_name, "units": variable.units}
    if variable.name in _FLAGS:
        meanings = _FLAGS[variable.name]
        attributes |= {"flag_values": list(range(len(meanings))), "flag_meanings": " ".join(meanings)}
    return attributes


@unwarned()
def theory_on(
    layout: Layout, before: Layout | None, blocks: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Theory at the points of `layout` that `before` did not have; the rest of `blocks` is kept."""
    old = [set(axis) for axis in before.axes.values()] if before else [set()] * 4
    for i, p in enumerate(layout.p):
        for j, p_star in enumerate(layout.p_star):
            for k, a in enumerate(layout.a):
                model = Model(p, p_star, a)
                known = p in old[0] and p_star in old[1] and a in old[2]
                if not known:
                    at = transition(model)
                    blocks["alpha_bbp"][i, j, k] = at.alpha_bbp
                    blocks["alpha_sharp"][i, j, k] = at.alpha_sharp
                    blocks["transition"][i, j, k] = TRANSITION_KINDS.index(at.kind)
                for m, factor in enumerate(layout.alpha):
                    if known and factor in old[3]:
                        continue
                    alpha = factor * alpha_unit(layout.around, model)
                    point = asymptotics(model, alpha)
                    blocks["edge"][i, j, k, m] = EDGE_KINDS.index(point.edge)
                    blocks["lambda_minus"][i, j, k, m] = point.lambda_minus
                    blocks["lambda_star"][i, j, k, m] = point.lambda_star
                    blocks["overlap_sq_theory"][i, j, k, m] = point.overlap_sq
                    if "alpha" in blocks:
                        blocks["alpha"][i, j, k, m] = alpha
    return blocks


def stored_variables(kernel: Kernel) -> tuple[Variable, ...]:
    """The kernel's variables and, last, `status`."""
    return (*kernel.variables, Variable("status", "outcome of the cell", "int8"))


class TileStore:
    """Reads and writes whole tiles of one store, in a worker."""

    def __init__(self, url: str, layout: Layout, kernel: Kernel) -> None:
        self.layout = layout
        self._store = zarr_store(url)
        self._variables = stored_variables(kernel)
        self._arrays: dict[tuple[int, str], zarr.Array[Any]] = {}

    def _array(self, N: int, name: str) -> zarr.Array[Any]:
        if (N, name) not in self._arrays:
            with zarr.config.set(
                {"array.write_empty_chunks": True}
            ):  # an all-NaN tile is a result, not absence
                self._arrays[N, name] = zarr.open_array(self._store, path=f"N={N}/{name}", mode="r+")
        return self._arrays[N, name]

    def read(self, key: TileKey, name: str) -> NDArray[Any]:
        """One variable of a tile, shape (alpha block, seed block), cut at the end of the axes."""
        block: NDArray[Any] = np.asarray(self._array(key.N, name)[self.layout.region(key)])[0, 0, 0]
        return block

    def empty(self, key: TileKey) -> dict[str, NDArray[Any]]:
        """A tile of absent cells."""
        shape = tuple(part.stop - part.start for part in self.layout.region(key))[3:]
        return {v.name: np.full(shape, v.fill_value, dtype=v.dtype) for v in self._variables}

    def write(self, key: TileKey, block: Mapping[str, NDArray[Any]]) -> None:
        """Write every variable of a tile, `status` last."""
        region = self.layout.region(key)
        for variable in self._variables:
            self._array(key.N, variable.name)[region] = block[variable.name][None, None, None]


def silence_zarr() -> None:
    """Consolidated metadata are not yet in the Zarr v3 text; every library here reads and writes them."""
    warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
