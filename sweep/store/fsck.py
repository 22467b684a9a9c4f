"""Check a store against its ledger, cell by cell, and repair the ledger from the data.

The data decide. Cells that the ledger calls finished but that are absent, unreadable or changed since they
were written are computed again by the next run. Finished cells that the ledger does not know are recorded.
Root, metadata, axes and references follow from the campaign, and are rewritten where they are damaged.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import obstore
import zarr

from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.location import folder_of, store_url
from bendscape.sweep.store.hierarchy import Hierarchy, mend_hierarchy, read_hierarchy
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import check_process, connect, exists, together
from bendscape.sweep.store.records import Receipt
from bendscape.sweep.store.root import open_store
from bendscape.sweep.store.rounds import damaged_rounds
from bendscape.sweep.store.tile_store import FINISHED, mask_of, tile_checksum
from bendscape.sweep.texts import host_name

_TEMPORARY = re.compile(r"#[0-9]+$")  # temporary file of a killed writer on a file system
_TOP = {"zarr.json", "ledger"}


@dataclass
class Findings:
    """What a check found: documents and arrays by path, tiles by name, cells counted.

    `absent`, `damaged`, `hierarchy` and `ledger` are damage. `unrecorded` cells are finished but not yet in
    the ledger: those of an active run, or of one that was killed; the next run finds them. `unverified` tiles
    had no checksum in the ledger. `orphans` are files that belong to no part of the store; they do no harm.
    """

    store: str
    tiles: int = 0
    cells: int = 0
    unverified: int = 0
    absent: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    hierarchy: dict[str, str] = field(default_factory=dict)
    ledger: dict[str, str] = field(default_factory=dict)
    unrecorded: dict[str, int] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    repaired: bool = False

    @property
    def sound(self) -> bool:
        """Whether every finished cell is there as it was written, and everything can be read."""
        return not (self.absent or self.damaged or self.hierarchy or self.ledger)


def fsck(
    location: str | os.PathLike[str], *, repair: bool = False, say: Callable[[str], None] = lambda line: None
) -> Findings:
    """Read the whole ledger and all the data, and compare them.

    With `repair`, damaged tiles and parts of the ledger are moved to `ledger/damaged/<run>/`. Cells that are
    missing are removed from the ledger, and cells that it did not know are added. Root, metadata, axes and
    references are rewritten where they are damaged, and temporary files of killed writers are removed. A
    repair takes the lease, so no run may be active. Without `repair` nothing is changed.

    Raises
    ------
    ParameterError
        There is no store, or its layout cannot be recovered.
    LeaseHeld
        `repair` while a run is active.
    """
    url = store_url(location)
    folder = folder_of(url)
    if folder is not None and not (folder / "ledger").is_dir():
        open_store(location)  # raises the error that says what is wrong
    check_process()
    ledger = Ledger(connect(url))
    if repair:
        ledger.acquire(say)
    try:
        found = Findings(url, ledger=ledger.damage() | damaged_rounds(ledger))
        aside = f"ledger/damaged/{ledger.epoch:06d}"
        if repair:
            for path in found.ledger:
                obstore.rename(connect(url), path, f"{aside}/{path}")
        ledger.replay(without=found.ledger)
        hierarchy = read_hierarchy(url, ledger)
        found.hierarchy = hierarchy.damage
        if repair:
            mend_hierarchy(hierarchy)
        chunks, found.orphans = _listing(url, hierarchy)
        corrections = list(_compare(hierarchy, ledger, chunks, found))
        if repair:
            for tile in (*found.damaged, *found.absent):
                _set_aside(hierarchy, TileKey.parse(tile), aside)
            ledger.add(corrections)
            found.removed = _sweep(url, found.orphans)
            found.repaired = True
    finally:
        if repair:
            ledger.release()
    return found


class _Tile(NamedTuple):
    """A tile as read: masks of finished cells in the ledger and in the data, with their checksums."""

    key: TileKey
    done: int
    there: int = 0
    checksum: int = 0
    checksum_there: int = 0
    missing: tuple[str, ...] = ()
    unreadable: str = ""


def _read(hierarchy: Hierarchy, arrays: dict[str, zarr.Array[Any]], asked: tuple[TileKey, int, int]) -> _Tile:
    (key, done, listed), layout = asked, hierarchy.layout
    missing = [name for bit, name in enumerate(arrays) if not listed >> bit & 1]
    missing = [name for name in missing if not exists(hierarchy.url, hierarchy.chunk(key, name))]
    region, slots, seed_block = layout.region(key), layout.slots(key), layout.sizes[key.size].seed_block
    try:
        block = {
            name: np.asarray(array[region]).reshape(*slots, *array.shape[len(region) :])
            for name, array in arrays.items()
        }
    except Exception as error:  # each codec raises its own class
        return _Tile(key, done, unreadable=f"{type(error).__name__}: {error}")
    there = mask_of(block["status"], FINISHED, seed_block)
    recorded, stored = (tile_checksum(block, mask, seed_block) for mask in (done, there))
    return _Tile(key, done, there, recorded, stored, tuple(missing))


def _compare(
    hierarchy: Hierarchy, ledger: Ledger, chunks: dict[int, dict[TileKey, int]], found: Findings
) -> Iterator[Receipt]:
    layout, records = hierarchy.layout, ledger.records
    for n, listed in chunks.items():
        arrays = {name: hierarchy.array(f"{layout.group(n)}/{name}") for name in hierarchy.variables(n)}
        recorded = {key for key in records if key.size == n and _inside(hierarchy, key)}
        asked = ((key, records.masks(key)[0], listed.get(key, 0)) for key in sorted(recorded | set(listed)))
        read = partial(_read, hierarchy, arrays)
        for key, done, there, checksum, checksum_there, missing, unreadable in together(read, asked):
            found.tiles += 1
            name, known = layout.name(key), records.get(key)
            if unreadable:
                found.damaged[name] = unreadable
            elif there and missing:
                found.damaged[name] = f"{', '.join(missing)} of its finished cells are missing"
            elif lost := done & ~there:
                found.absent[name] = lost.bit_count()
            elif known and known.checksum and checksum != known.checksum:
                found.damaged[name] = "its values are not those that were written"
            if name in found.damaged or name in found.absent:
                yield _correction(name, lost=done)  # intact cells cannot be told from damaged ones
                continue
            found.cells += there.bit_count()
            if new := there & ~done:
                found.unrecorded[name] = new.bit_count()
            if done and not (known and known.checksum):
                found.unverified += 1
            if there and (new or not (known and known.checksum)):
                yield _correction(name, done=there, checksum=checksum_there)


def _correction(tile: str, lost: int = 0, done: int = 0, checksum: int = 0) -> Receipt:
    return Receipt(tile, done, lost=lost, checksum=checksum, host=host_name(), finished=time.time())


def _inside(hierarchy: Hierarchy, key: TileKey) -> bool:
    shape = hierarchy.layout.tile_shape(key.size)
    pairs = zip(key.chunk, shape, strict=False)
    return len(key.chunk) == len(shape) and all(0 <= index < length for index, length in pairs)


def _objects(url: str) -> Iterator[str]:
    # On a file system by os.walk: `obstore` does not list the temporary files of its writers.
    if (folder := folder_of(url)) is not None:
        for place, _, files in os.walk(folder):
            yield from (os.path.relpath(os.path.join(place, name), folder) for name in files)
        return
    for page in obstore.list(connect(url)):
        yield from (str(item["path"]) for item in page)


def _listing(url: str, hierarchy: Hierarchy) -> tuple[dict[int, dict[TileKey, int]], list[str]]:
    """For each size and tile, the variables that have a chunk, as bits in their order; and the objects that
    belong to no array."""
    layout = hierarchy.layout
    chunks: dict[int, dict[TileKey, int]] = {size: defaultdict(int) for size in layout.sizes}
    bits = {size: {name: 1 << bit for bit, name in enumerate(hierarchy.variables(size))} for size in chunks}
    groups = {layout.group(size): size for size in layout.sizes}
    known = {f"{path}/zarr.json" for path in hierarchy.metadata}
    orphans = []
    for path in _objects(url):
        if (path.partition("/")[0] in _TOP and not _TEMPORARY.search(path)) or path in known:
            continue
        array, at_chunks, chunk = path.partition("/c/")
        group, _, name = array.partition("/")
        parts = chunk.split("/")
        plain = bool(at_chunks) and array in hierarchy.metadata and all(map(_canonical, parts))
        if plain and group in groups and name != "seed":
            key = TileKey(groups[group], tuple(map(int, parts[: len(layout.cell_dims)])))
            if _inside(hierarchy, key) and hierarchy.chunk(key, name) == path:
                chunks[key.size][key] |= bits[key.size][name]
                continue
            plain = False
        if not plain:
            orphans.append(path)
    return chunks, sorted(orphans)


def _canonical(text: str) -> bool:
    return re.fullmatch("0|[1-9][0-9]{0,8}", text, re.ASCII) is not None


def _set_aside(hierarchy: Hierarchy, key: TileKey, aside: str) -> None:
    # Moved, not deleted. `status` goes first: without it the other variables count as absent.
    store = connect(hierarchy.url)
    for name in sorted(hierarchy.variables(key.size), key="status".__ne__):
        path = hierarchy.chunk(key, name)
        if exists(hierarchy.url, path):
            obstore.rename(store, path, f"{aside}/{path}")


def _sweep(url: str, orphans: Iterable[str]) -> list[str]:
    # The lease is held, so no writer is active and these files will not be completed.
    if (folder := folder_of(url)) is None:
        return []
    removed = [path for path in orphans if _TEMPORARY.search(path)]
    for path in removed:
        (folder / path).unlink(missing_ok=True)
    return removed


def summary(found: Findings) -> dict[str, Any]:
    """The findings as `bendscape fsck --json` prints them."""
    return {**vars(found), "sound": found.sound}
