"""The hierarchy of a store as it should be (root, metadata, axes and references), compared with what is
stored."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.kernel import Variable
from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.store.compare_and_swap import zarr_store
from bendscape.sweep.store.ledger import Ledger, campaign_path
from bendscape.sweep.store.objects import Damaged, connect
from bendscape.sweep.store.publish import (
    arrays_of,
    compute_known,
    coordinates,
    group_metadata,
    known,
    root_document,
)
from bendscape.sweep.store.root import Store, read_store

CLOSE = 1e-9  # relative tolerance: theory may have been computed with other versions of its libraries


@dataclass(frozen=True, eq=False)
class Hierarchy(Store):
    """The hierarchy that is, or should be, published; `damage` lists the differences by path."""

    damage: dict[str, str]

    def array(self, path: str) -> zarr.Array[Any]:
        """An array opened with its expected metadata, whatever its own file says; may be written to."""
        return zarr.Array.from_dict(zarr.storage.StorePath(zarr_store(self.url), path), self.metadata[path])

    def chunk(self, key: TileKey, variable: str) -> str:
        """Path of the chunk with one variable of a tile."""
        shape = self.metadata[f"{self.layout.group(key.size)}/{variable}"]["shape"]
        return self.layout.path(key, variable, len(shape) - len(self.layout.cell_dims))


def read_hierarchy(url: str, ledger: Ledger) -> Hierarchy:
    """The hierarchy according to its root or, if that is lost, to the newest campaign record; with all
    damage.

    Raises
    ------
    ParameterError
        There is neither a root nor a campaign record.
    """
    damage: dict[str, str] = {}
    try:
        store = read_store(url)
    except Damaged as error:
        store, damage["zarr.json"] = None, error.why
    if store is None:
        damage.setdefault("zarr.json", "it is missing")
        store = _recorded(url, ledger)
    found = Hierarchy(store.url, store.attributes, store.metadata, store.layout, store.references, damage)
    for path, expected in found.metadata.items():
        if why := _differs(url, f"{path}/zarr.json", expected):
            damage[f"{path}/zarr.json"] = why
    curved = {name for of in known(found.layout, found.references) if of.long for name in of.names}
    moved: list[dict[str, NDArray[Any]]] = []
    for path, values in _contents(found).items():
        try:
            there = np.asarray(found.array(path)[...])
        except Exception as error:  # each codec raises its own
            damage[path] = f"{type(error).__name__}: {error}"
            continue
        same = _same(there, values)
        if path in curved and not same.all():
            # At a threshold, the stored value can depend on the last digits of the curve.
            moved = moved or [_contents(found, 1 + end) for end in (-CLOSE, CLOSE)]
            same |= _same(there, moved[0][path]) | _same(there, moved[1][path])
        if not same.all():
            damage[path] = f"{int((~same).sum())} values are not those of this campaign"
    return found


def _same(there: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind in "US":
        return np.asarray(there == values)
    return np.asarray(np.isclose(there, values, rtol=CLOSE, atol=CLOSE, equal_nan=True))


def mend_hierarchy(found: Hierarchy) -> None:
    """Rewrite everything listed in `damage`: documents, axes and references follow from the campaign."""
    objects = connect(found.url)
    for path, expected in found.metadata.items():
        if f"{path}/zarr.json" in found.damage:
            obstore.put(objects, f"{path}/zarr.json", json.dumps(expected).encode())
    for path, values in _contents(found).items():
        if path in found.damage:
            found.array(path)[...] = values
    if "zarr.json" in found.damage:
        root = root_document(found.attributes, found.layout, found.metadata)
        obstore.put(objects, "zarr.json", json.dumps(root).encode())


def _json(url: str, path: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bytes(obstore.get(connect(url), path).bytes()))
    return document


def _recorded(url: str, ledger: Ledger) -> Store:
    # From the newest campaign record, which is written before the root is replaced; never from an older one.
    revision = ledger.revision
    record = _json(url, campaign_path(revision)) if revision else {}
    if "layout" not in record:
        raise ParameterError(
            "store", url, "a store with its root, or with a campaign record of version 2",
            "nothing records what its cells are: run its campaign into a new store",
        )  # fmt: skip
    variables = [_variable(variable) for variable in record.pop("variables")]
    record.pop("epoch", None)  # belongs to the record, not to the store
    metadata: dict[str, dict[str, Any]] = {}
    store = Store.of(url, {**record, "revision": revision}, metadata)
    layout = store.layout
    metadata |= {layout.group(size): group_metadata(layout, size) for size in layout.sizes}
    for path, plan in arrays_of(layout, variables, store.references, store.dimensions).items():
        metadata[path] = plan.metadata()
        try:
            own = _json(url, f"{path}/zarr.json")
        except (FileNotFoundError, ValueError):
            continue
        if all(own.get(name) == metadata[path][name] for name in ("data_type", "chunk_grid", "codecs")):
            metadata[path] = {**own, "shape": [*plan.shape]}
    return store


def _differs(url: str, path: str, expected: dict[str, Any]) -> str:
    try:
        own = _json(url, path)
    except FileNotFoundError:
        return "it is missing"
    except ValueError as error:
        return f"it cannot be read: {error}"
    pairs = zip(own.get("shape", []), expected.get("shape", []), strict=False)
    longer = [mine >= least for mine, least in pairs]
    if {**own, "shape": None} != {**expected, "shape": None} or not all(longer):
        return "it is not what the root says"
    return ""  # an array may be longer than published, if an extension was interrupted


def _variable(document: dict[str, Any]) -> Variable:
    names = {field.name for field in fields(Variable)}
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in document.items()
        if name in names
    }
    return Variable(**plain)


def _contents(found: Hierarchy, stretch: float = 1.0) -> dict[str, NDArray[Any]]:
    layout = found.layout
    names = [name for of in known(layout, found.references) for name in of.names if name in found.metadata]
    blanks = {
        name: np.zeros(tuple(found.metadata[name]["shape"]), dtype=found.metadata[name]["data_type"])
        for name in names
    }
    try:
        values = compute_known(layout, None, found.references, blanks, stretch=stretch)
    except ParameterError:  # the threshold's kernel is not installed: the curve cannot be checked
        values = {}
    return {**coordinates(layout, found.dimensions), **values}
