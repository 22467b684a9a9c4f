"""Tiles of a store as workers read and write them: no writer loses the cells of another."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from bendscape.sweep.campaign.kernel import STATUS, Kernel, Variable
from bendscape.sweep.campaign.tiles import Layout, TileKey
from bendscape.sweep.location import folder_of
from bendscape.sweep.store.compare_and_swap import CompareAndSwap, Conflict, zarr_store
from bendscape.sweep.store.objects import connect, exclusive
from bendscape.sweep.store.publish import stored_variables

FINISHED = ("done", "not_converged")
CONFLICTS = 100  # in a row over one object; each is a write of somebody else's that went through


class TileStore:
    """Reads tiles of one store and merges computed cells into them, in a worker."""

    def __init__(self, url: str, layout: Layout, kernel: Kernel) -> None:
        self.layout = layout
        self._url = url
        self._store = zarr_store(url) if folder_of(url) else CompareAndSwap(connect(url))
        self._variables = stored_variables(kernel)
        self._arrays: dict[tuple[int, str], zarr.Array[Any]] = {}
        self._one_at_a_time = threading.RLock()  # what `CompareAndSwap` remembers belongs to one update

    def _array(self, N: int, name: str) -> zarr.Array[Any]:
        if (N, name) not in self._arrays:
            with zarr.config.set(
                {"array.write_empty_chunks": True}
            ):  # an all-NaN tile is a result, not absence
                self._arrays[N, name] = zarr.open_array(self._store, path=f"N={N}/{name}", mode="r+")
        return self._arrays[N, name]

    def read(self, key: TileKey, name: str) -> NDArray[Any]:
        """One variable of a tile, shape (alpha block, seed block), cut at the end of the axes."""
        with self._one_at_a_time:
            block: NDArray[Any] = np.asarray(self._array(key.N, name)[self.layout.region(key)])[0, 0, 0]
        return block

    def whole(self, key: TileKey) -> dict[str, NDArray[Any]]:
        """Every variable of a tile; `status` is read first, so that what it names is there."""
        return {name: self.read(key, name) for name in ("status", *(v.name for v in self._variables[:-1]))}

    def alphas(self, key: TileKey) -> NDArray[np.float64] | None:
        """Alpha of each slot of a tile as it was published; None where the axis holds it."""
        if self.layout.around is None:
            return None
        with self._one_at_a_time:
            array = zarr.open_array(self._store, path="alpha", mode="r")
            return np.asarray(array[self.layout.region(key)[:-1]], dtype=np.float64).reshape(-1)

    def empty(self, key: TileKey) -> dict[str, NDArray[Any]]:
        """A tile of absent cells."""
        shape = tuple(part.stop - part.start for part in self.layout.region(key))[3:]
        return {v.name: np.full(shape, v.fill_value, dtype=v.dtype) for v in self._variables}

    def update(
        self, key: TileKey, own: Mapping[str, NDArray[Any]], check: Callable[[], None]
    ) -> dict[str, NDArray[Any]]:
        """Merge a worker's cells into a tile, whoever else does so now, and return the tile as it is then.

        A read, a merge and a write that no other writer comes between: on files under a lock, on an object
        store because the write is refused, and all begins again, if the object has changed. `status` comes
        last, so that it names no cell whose variables are not there.

        Parameters
        ----------
        own : mapping from name to array
            Every variable of the tile with the cells computed here; the others absent, as in `empty`.
        check : callable
            Raises if this layout is out of date: it would cut off cells that a newer one has added. Called
            between every read and the write that rests on it.
        """
        for variable in self._variables:  # an array opened after the check could be longer than this layout
            self._array(key.N, variable.name)
        with self._one_at_a_time, exclusive(self._url, str(key)):
            if isinstance(self._store, CompareAndSwap):
                self._store.forget()
            stored = self.empty(key)
            stored["status"] = self.read(key, "status")
            if stored["status"].any():
                stored |= {name: self.read(key, name) for name in stored if name != "status"}
            check()
            merged, undisturbed = {}, True
            for variable in self._variables:
                name = variable.name
                merged[name], alone = self._put(key, variable, own[name], stored[name], check)
                undisturbed &= alone
            # What the last status names, others may have put after this worker's turn at a variable.
            return merged if undisturbed else self.whole(key)

    def _put(
        self,
        key: TileKey,
        variable: Variable,
        own: NDArray[Any],
        stored: NDArray[Any],
        check: Callable[[], None],
    ) -> tuple[NDArray[Any], bool]:
        for attempt in range(CONFLICTS):
            merged = _merge(variable, own, stored)
            try:
                self._array(key.N, variable.name)[self.layout.region(key)] = merged[None, None, None]
            except Conflict:
                stored = self.read(key, variable.name)
                check()
            else:
                return merged, attempt == 0
        raise OSError(f"{variable.name} of tile {key} changed {CONFLICTS} times while it was written")


def _merge(variable: Variable, own: NDArray[Any], stored: NDArray[Any]) -> NDArray[Any]:
    # What a cell holds stays: merging in any order, and twice, gives the same. A failed cell holds nothing.
    if variable.name == "status":
        stays = np.isin(stored, [STATUS[kind] for kind in FINISHED]) | (own == STATUS["absent"])
    else:  # by bits: a NaN that a kernel returned is a value, and not every NaN is that of an absent cell
        fill = np.array(variable.fill_value, dtype=stored.dtype)
        bits = f"u{stored.dtype.itemsize}"
        stays = stored.view(bits) != fill.view(bits)
    return np.where(stays, stored, own)


def mask_of(status: NDArray[Any], kinds: Sequence[str], seed_block: int) -> int:
    """The cells of these kinds as bits, in the numbering of `bendscape.sweep.campaign.tiles`.

    The region of a tile may be cut at the end of the seeds.
    """
    hit = np.isin(status, [STATUS[kind] for kind in kinds])
    whole = np.zeros((hit.shape[0], seed_block), dtype=bool)
    whole[:, : hit.shape[1]] = hit
    return int.from_bytes(np.packbits(whole.ravel(), bitorder="little").tobytes(), "little")


def tile_checksum(block: Mapping[str, NDArray[Any]], mask: int, seed_block: int) -> int:
    """BLAKE2b, 64 bits, of the cells of a mask: every variable by name, cells in the order of their bits.

    Cells that join the tile later do not change it; it is never 0, which stands for unknown.
    """
    rows, columns = block["status"].shape
    bits = np.frombuffer(mask.to_bytes((rows * seed_block + 7) // 8, "little"), np.uint8)
    chosen = np.unpackbits(bits, count=rows * seed_block, bitorder="little").reshape(rows, seed_block)
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(block):
        values = block[name][chosen[:, :columns].astype(bool)]
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return int.from_bytes(digest.digest(), "little") or 1
