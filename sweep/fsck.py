"""Check a store against its ledger, cell by cell, and mend the ledger from the data.

The data decide. Cells that the ledger calls finished and that are absent, unreadable, or other bits than were
written are computed again by the next run; finished cells that the ledger does not know are recorded.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import obstore
import zarr

from bendscape.sweep.ledger import Ledger
from bendscape.sweep.objects import connect
from bendscape.sweep.records import Receipt
from bendscape.sweep.store import open_root, zarr_store
from bendscape.sweep.tile_store import FINISHED, mask_of, tile_checksum
from bendscape.sweep.tiles import Layout, TileKey


@dataclass
class Findings:
    """What a check found. Tiles are named like their chunks; cells are counted.

    `unverified` tiles have no checksum in the ledger, because two receipts made them: their status was
    compared, their values were only read.
    """

    store: str
    tiles: int = 0
    cells: int = 0
    unverified: int = 0
    absent: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    unrecorded: dict[str, int] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    repaired: bool = False

    @property
    def sound(self) -> bool:
        """Whether data and ledger agree; orphans are only litter."""
        return not (self.absent or self.damaged or self.unrecorded)


def fsck(
    location: str | os.PathLike[str], *, repair: bool = False, say: Callable[[str], None] = lambda line: None
) -> Findings:
    """Read every tile that the ledger or the data know, and compare.

    With `repair`, damaged tiles are moved to `ledger/damaged/`, the ledger forgets what is not there and
    learns what it did not know; it takes the lease, so no run may be at work. Without, nothing is changed.

    Raises
    ------
    ParameterError
        There is no store.
    LeaseHeld
        `repair` while a run is at work.
    """
    url, attributes = open_root(location)
    layout = Layout.from_json(attributes["layout"])
    ledger = Ledger(connect(url))
    if repair:
        ledger.acquire(say)
    try:
        ledger.replay()
        found = Findings(url)
        corrections = list(_compare(url, layout, ledger, found))
        found.orphans = sorted(_orphans(url, layout))
        if repair:
            for tile in found.damaged:
                _set_aside(url, tile)
            ledger.add(corrections)
            found.repaired = True
    finally:
        if repair:
            ledger.release()
    return found


def _compare(url: str, layout: Layout, ledger: Ledger, found: Findings) -> Iterator[Receipt]:
    root = zarr.open_group(zarr_store(url), mode="r", use_consolidated=True)
    for N, size in layout.sizes.items():
        arrays = {name: array for name, array in root[f"N={N}"].arrays() if name != "seed"}  # type: ignore[union-attr]
        ledger.records.size(N).reserve(layout.tile_shape(N), size.alpha_block * size.seed_block)
        for key in _present(url, N, ledger):
            found.tiles += 1
            done, _ = ledger.records.masks(key)
            region = layout.region(key)
            try:
                block = {name: np.asarray(array[region])[0, 0, 0] for name, array in arrays.items()}
            except Exception as error:  # each codec has its own
                found.damaged[str(key)] = f"{type(error).__name__}: {error}"
                yield _correction(key, lost=done)
                continue
            there = mask_of(block["status"], FINISHED, size.seed_block)
            found.cells += there.bit_count()
            known = ledger.records.get(key)
            if known and known.checksum and there & done == done:
                if tile_checksum(block, done, size.seed_block) != known.checksum:
                    found.damaged[str(key)] = "other values than were written"
                    yield _correction(key, lost=done)
                    continue
            elif done:
                found.unverified += 1
            if lost := done & ~there:
                found.absent[str(key)] = lost.bit_count()
            if new := there & ~done:
                found.unrecorded[str(key)] = new.bit_count()
            if lost or new:
                yield _correction(key, lost, there, tile_checksum(block, there, size.seed_block))


def _correction(key: TileKey, lost: int, done: int = 0, checksum: int = 0) -> Receipt:
    return Receipt(
        str(key), done, lost=lost, checksum=checksum, host=socket.gethostname(), finished=time.time()
    )


def _objects(url: str, prefix: str) -> Iterator[str]:
    for page in obstore.list(connect(url), prefix=prefix):
        yield from (str(item["path"]) for item in page)


def _present(url: str, N: int, ledger: Ledger) -> list[TileKey]:
    # What has a status chunk, or was recorded.
    prefix = f"N={N}/status/c/"
    stored = {_tile_of(path.removeprefix(prefix), N) for path in _objects(url, prefix)}
    recorded = {key for key in ledger.records if key.N == N}
    return sorted(key for key in stored | recorded if key is not None)


def _tile_of(chunk: str, N: int) -> TileKey | None:
    parts = chunk.split("/")
    whole = len(parts) == 5 and all(part.isdigit() for part in parts)
    return TileKey._make((N, *map(int, parts))) if whole else None


def _orphans(url: str, layout: Layout) -> Iterator[str]:
    """Objects that belong to nothing: chunks outside the layout, and what a killed writer left half done."""
    shapes = {N: layout.tile_shape(N) for N in layout.sizes}
    for path in _objects(url, ""):
        if not path.startswith("N="):
            continue
        group, _, rest = path.partition("/")
        size = int(group.removeprefix("N="))
        _, at_chunks, chunk = rest.partition("/c/")
        if size not in shapes:
            yield path
        elif at_chunks and not rest.startswith("seed/"):
            key = _tile_of(chunk, size)
            if key is None or any(i >= n for i, n in zip(key[1:], shapes[size], strict=True)):
                yield path


def _set_aside(url: str, tile: str) -> None:
    # Out of the way of the next run, and not lost.
    size, _, chunk = tile.partition("/")
    tail = f"/c/{chunk.replace('.', '/')}"
    store = connect(url)
    for path in list(_objects(url, f"{size}/")):
        if path.endswith(tail):
            obstore.rename(store, path, f"ledger/damaged/{path}")


def summary(found: Findings) -> dict[str, Any]:
    """The findings as `bendscape fsck --json` prints them."""
    return {**vars(found), "sound": found.sound}
