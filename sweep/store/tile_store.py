"""Tiles of a store as workers read and write them: no writer loses the cells of another."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from bendscape.sweep.campaign.kernel import STATUS, Kernel, Variable
from bendscape.sweep.campaign.tiles import Layout, TileKey
from bendscape.sweep.location import folder_of
from bendscape.sweep.store.compare_and_swap import CompareAndSwap, Conflict, always, zarr_store
from bendscape.sweep.store.objects import connect, exclusive
from bendscape.sweep.store.publish import stored_variables

FINISHED = ("done", "not_converged")
TOGETHER = 16  # simultaneous requests of one writer, to hide the latency of an object store
CONFLICTS = 100  # attempts to write one object; each conflict is a successful write of another worker


class TileStore:
    """Reads tiles of one store and merges computed cells into them, in a worker."""

    def __init__(self, url: str, layout: Layout, kernel: Kernel) -> None:
        self.layout = layout
        self._url = url
        self._store = zarr_store(url) if folder_of(url) else CompareAndSwap(connect(url))
        self._variables = stored_variables(kernel)
        self._arrays: dict[tuple[int, str], zarr.Array[Any]] = {}
        self._one_at_a_time = threading.RLock()  # `CompareAndSwap` keeps the state of one update
        self._looked: tuple[TileKey, NDArray[Any]] | None = None
        self._curve: tuple[tuple[slice, ...], NDArray[np.float64]] | None = None

    def _array(self, size: int, name: str) -> zarr.Array[Any]:
        if (size, name) not in self._arrays:
            with zarr.config.set(
                {"array.write_empty_chunks": True}
            ):  # an all-NaN tile is a result, not absence
                path = f"{self.layout.group(size)}/{name}"
                self._arrays[size, name] = zarr.open_array(self._store, path=path, mode="r+")
        return self._arrays[size, name]

    def curve_values(self, key: TileKey) -> NDArray[np.float64]:
        """Values of the curve at the slots of a tile, as they were published."""
        layout = self.layout
        if layout.around is None or layout.axes.curve is None:
            return layout.curve_values(key)
        region = layout.region(key)[:-1]
        with self._one_at_a_time:
            # Published values do not change, and the next tiles need the same chunk.
            array = self._curve_array
            whole = tuple(
                slice(part.start // n * n, -(-part.stop // n) * n)
                for part, n in zip(region, array.chunks, strict=True)
            )
            if self._curve is None or self._curve[0] != whole:
                self._curve = whole, np.asarray(array[whole], dtype=np.float64)
            values = self._curve[1]
        inside = (
            slice(part.start - of.start, part.stop - of.start) for part, of in zip(region, whole, strict=True)
        )
        return values[tuple(inside)].reshape(-1)

    @cached_property
    def _curve_array(self) -> zarr.Array[Any]:
        assert self.layout.axes.curve is not None
        return zarr.open_array(self._store, path=self.layout.axes.curve.name, mode="r")

    def look(self, key: TileKey) -> NDArray[Any]:
        """Read `status` of a tile and keep it for the next `update` of this tile, which saves a request."""
        with self._one_at_a_time:
            if isinstance(self._store, CompareAndSwap):
                self._store.forget()
            status = self.read(key, "status")
            self._looked = key, status
            return status

    def _known(self, key: TileKey) -> NDArray[Any]:
        # The status that `look` kept, used once; read now if there is none.
        looked = self._looked
        status = looked[1] if looked and looked[0] == key else self.look(key)
        self._looked = None
        return status

    def read(self, key: TileKey, name: str) -> NDArray[Any]:
        """One variable of a tile, shape (curve block, seed block), cut at the end of the dimensions."""
        with self._one_at_a_time:
            self._looked = None  # a later write must not rely on the status read before this
            return self._read(key, name)

    def _read(self, key: TileKey, name: str) -> NDArray[Any]:
        array = self._array(key.size, name)
        block: NDArray[Any] = np.asarray(array[self.layout.region(key)])
        return block.reshape(self.layout.slots(key) + self._inner(array))

    def _inner(self, array: zarr.Array[Any]) -> tuple[int, ...]:
        return tuple(array.shape[len(self.layout.cell_dims) :])

    def whole(self, key: TileKey) -> dict[str, NDArray[Any]]:
        """Every variable of a tile; `status` is read first, so that the values of its cells are there."""
        with self._one_at_a_time:
            return {"status": self._known(key), **self._values(key)}

    def _values(self, key: TileKey) -> dict[str, NDArray[Any]]:
        names = [variable.name for variable in self._variables[:-1]]
        for name in names:
            self._array(key.size, name)
        return dict(zip(names, self._each(lambda name: self._read(key, name), names), strict=True))

    def _each(self, do: Callable[[Any], Any], of: Sequence[Any]) -> list[Any]:
        # In parallel on an object store; one after another on files, where latency is low.
        together = isinstance(self._store, CompareAndSwap) and len(of) > 1
        return list(self._threads.map(do, of)) if together else [do(one) for one in of]

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(TOGETHER, thread_name_prefix="bendscape-tile")

    def empty(self, key: TileKey) -> dict[str, NDArray[Any]]:
        """A tile of absent cells, filled with the fill values of the arrays of this store."""
        slots, found = self.layout.slots(key), {}
        for variable in self._variables:
            array = self._array(key.size, variable.name)
            found[variable.name] = np.full(slots + self._inner(array), array.fill_value, dtype=array.dtype)
        return found

    def update(
        self, key: TileKey, own: Mapping[str, NDArray[Any]], check: Callable[[], None]
    ) -> dict[str, NDArray[Any]]:
        """Merge a worker's cells into a tile, whatever other writers do, and return the resulting tile.

        Reads, merges and writes without interference from other writers: on files under a lock; on an object
        store because a write is refused, and the update repeated, if the object has changed. `status` is
        written last, so that it never names a cell whose variables are not there.

        Parameters
        ----------
        own : mapping from name to array
            Every variable of the tile with the cells computed here; the others absent, as in `empty`.
        check : callable
            Raises if this layout is out of date, because it would cut off cells that a newer layout has
            added. Called between every read and the write that depends on it, but only for tiles at the end
            of a dimension: a later layout cannot add cells to any other tile.
        """
        for variable in self._variables:  # an array opened after the check could be longer than this layout
            self._array(key.size, variable.name)
        *others, status = self._variables
        check = check if self._cut(key) else always
        with self._one_at_a_time, exclusive(self._url, str(key)):
            if folder_of(self._url):
                self._looked = None  # was read before the lock was taken
            stored = self.empty(key) | {"status": self._known(key)}
            if stored["status"].any():
                stored |= self._values(key)
            check()

            def put(variable: Variable) -> tuple[NDArray[Any], bool]:
                return self._put(key, variable, own[variable.name], stored[variable.name], check)

            found = [*self._each(put, others), put(status)]
            # After a conflict, other workers may have added cells to variables written earlier: read again.
            if not all(alone for _, alone in found):
                return self.whole(key)
            return {
                variable.name: merged for variable, (merged, _) in zip(self._variables, found, strict=True)
            }

    def _cut(self, key: TileKey) -> bool:
        # Whether a dimension ends within this tile; only then can a later layout add cells to it.
        lengths = [part.stop - part.start for part in self.layout.region(key)]
        return lengths != list(self.layout.chunks(key.size))

    def _put(
        self,
        key: TileKey,
        variable: Variable,
        own: NDArray[Any],
        stored: NDArray[Any],
        check: Callable[[], None],
    ) -> tuple[NDArray[Any], bool]:
        for attempt in range(CONFLICTS):
            array = self._array(key.size, variable.name)
            merged = _merge(variable.name, own, stored, array.fill_value)
            lengths = [part.stop - part.start for part in self.layout.region(key)]
            try:
                array[self.layout.region(key)] = merged.reshape(*lengths, *self._inner(array))
            except Conflict:
                stored = self._read(key, variable.name)
                check()
            else:
                return merged, attempt == 0
        raise OSError(f"{variable.name} of tile {key} changed {CONFLICTS} times while it was being written")


def _merge(name: str, own: NDArray[Any], stored: NDArray[Any], absent: Any) -> NDArray[Any]:
    # Finished cells are kept, so merging is idempotent and independent of order. Failed cells hold no values.
    if name == "status":
        stays = np.isin(stored, [STATUS[kind] for kind in FINISHED]) | (own == STATUS["absent"])
    else:  # compare bits: a kernel may return NaN, whose bits differ from the NaN of an absent cell
        fill = np.full_like(stored, absent)
        differs = np.ascontiguousarray(stored).view(np.uint8) != np.ascontiguousarray(fill).view(np.uint8)
        stays = differs.reshape(*stored.shape[:2], -1).any(axis=-1)  # a cell is kept or replaced as a whole
        stays = stays.reshape(*stays.shape, *[1] * (stored.ndim - 2))
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
