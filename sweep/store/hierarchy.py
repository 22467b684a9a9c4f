"""The hierarchy of a store as it should be: root, metadata, axes and theory, beside what lies there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.kernel import Variable
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.store.compare_and_swap import zarr_store
from bendscape.sweep.store.ledger import Ledger, campaign_path
from bendscape.sweep.store.objects import Damaged, connect
from bendscape.sweep.store.publish import (
    arrays_of,
    coordinates,
    group_metadata,
    read_root,
    root_document,
    theory_of,
    theory_on,
)

CLOSE = 1e-9  # relative: theory computed with other versions of its libraries


@dataclass
class Hierarchy:
    """What is published, or was to be: `damage` tells what differs, by path."""

    url: str
    attributes: dict[str, Any]
    layout: Layout
    metadata: dict[str, dict[str, Any]]
    damage: dict[str, str]

    def array(self, path: str) -> zarr.Array[Any]:
        """An array by the metadata that it should have, whatever its own file says."""
        return zarr.Array.from_dict(zarr.storage.StorePath(zarr_store(self.url), path), self.metadata[path])

    def variables(self, N: int) -> list[str]:
        """Names of what the kernel stores for one size, `status` included."""
        prefix = f"N={N}/"
        names = (path.removeprefix(prefix) for path in self.metadata if path.startswith(prefix))
        return [name for name in names if name != "seed"]


def read_hierarchy(url: str, ledger: Ledger) -> Hierarchy:
    """The hierarchy by its root or, where that is lost, by the newest campaign record, with all damage.

    Raises
    ------
    ParameterError
        There is neither.
    """
    damage: dict[str, str] = {}
    try:
        attributes = read_root(url)
    except Damaged as error:
        attributes, damage["zarr.json"] = None, error.why
    if attributes is not None:
        document = _json(url, "zarr.json")
        metadata = document["consolidated_metadata"]["metadata"]
        layout = Layout.from_json(attributes["layout"])
    else:
        damage.setdefault("zarr.json", "it is missing")
        attributes, layout, metadata = _recorded(url, ledger)
    found = Hierarchy(url, attributes, layout, metadata, damage)
    for path, expected in metadata.items():
        if why := _differs(url, f"{path}/zarr.json", expected):
            damage[f"{path}/zarr.json"] = why
    theory, moved = theory_of(layout), None
    for path, values in _contents(found).items():
        try:
            there = np.asarray(found.array(path)[...])
        except Exception as error:  # each codec has its own
            damage[path] = f"{type(error).__name__}: {error}"
            continue
        same = _same(there, values)
        if path in theory and not same.all():
            # Right at a threshold, whether there is an outlier is a matter of the last digits of alpha.
            moved = moved or [_contents(found, 1 + end) for end in (-CLOSE, CLOSE)]
            same |= _same(there, moved[0][path]) | _same(there, moved[1][path])
        if not same.all():
            damage[path] = f"{int((~same).sum())} values are not those of this campaign"
    return found


def _same(there: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.isclose(there, values, rtol=CLOSE, atol=CLOSE, equal_nan=True))


def mend_hierarchy(found: Hierarchy) -> None:
    """Write what `damage` names: documents, axes and theory are all known without the data."""
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


def _recorded(url: str, ledger: Ledger) -> tuple[dict[str, Any], Layout, dict[str, dict[str, Any]]]:
    # Of the newest campaign record, which is written before a root is replaced; never an older one.
    revision = ledger.revision
    record = _json(url, campaign_path(revision)) if revision else {}
    if "layout" not in record:
        raise ParameterError(
            "store", url, "a store with its root, or with a campaign record of version 2",
            "nothing tells what its cells are: run its campaign into a new store",
        )  # fmt: skip
    layout = Layout.from_json(record.pop("layout"))
    variables = [Variable(**variable) for variable in record.pop("variables")]
    record.pop("epoch", None)  # of the record, not of the store
    metadata: dict[str, dict[str, Any]] = {f"N={N}": group_metadata(N) for N in layout.sizes}
    for path, plan in arrays_of(layout, variables).items():
        metadata[path] = plan.metadata()
        try:
            own = _json(url, f"{path}/zarr.json")
        except (FileNotFoundError, ValueError):
            continue
        if all(own.get(name) == metadata[path][name] for name in ("data_type", "chunk_grid", "codecs")):
            metadata[path] = {**own, "shape": [*plan.shape]}
    return {**record, "revision": revision}, layout, metadata


def _differs(url: str, path: str, expected: dict[str, Any]) -> str:
    try:
        own = _json(url, path)
    except FileNotFoundError:
        return "it is missing"
    except ValueError as error:
        return f"it cannot be read: {error}"
    longer = [a >= b for a, b in zip(own.get("shape", []), expected.get("shape", []), strict=False)]
    if {**own, "shape": None} != {**expected, "shape": None} or not all(longer):
        return "it is not what the root says"
    return ""  # an array may be longer than published: an extension that was cut short


def _contents(found: Hierarchy, stretch: float = 1.0) -> dict[str, NDArray[Any]]:
    names = theory_of(found.layout)
    blanks = {
        name: np.zeros(tuple(found.metadata[name]["shape"]), dtype=found.metadata[name]["data_type"])
        for name in names
    }
    return {**coordinates(found.layout), **theory_on(found.layout, None, blanks, stretch=stretch)}
