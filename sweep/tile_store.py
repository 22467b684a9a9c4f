"""Tiles of a store as workers read and write them: no writer loses the cells of another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import ObjectStore as Objects
from zarr.storage import ObjectStore

from bendscape.sweep.kernel import STATUS, Kernel, Variable
from bendscape.sweep.objects import connect, exclusive, folder_of, version_of
from bendscape.sweep.store import stored_variables, zarr_store
from bendscape.sweep.tiles import Layout, TileKey

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

CONFLICTS = 100  # in a row over one object; each is a write of somebody else's that went through


class Conflict(Exception):
    """Another writer has put this object since it was read."""


class Conditional(ObjectStore[Objects]):
    """An object store as Zarr sees it that puts an object only over the version it was read at.

    What was not read since `forget` must not exist. So a chunk is written by compare-and-swap while Zarr's
    codecs stay in charge of it.
    """

    def __init__(self, store: Objects, *, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self._seen: dict[str, UpdateVersion] = {}

    def forget(self) -> None:
        """Nothing was read."""
        self._seen.clear()

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As in `ObjectStore`; the version is remembered."""
        if byte_range is not None:
            return await super().get(key, prototype, byte_range)
        self._seen.pop(key, None)
        try:
            found = await obstore.get_async(self.store, key)
        except FileNotFoundError:
            return None
        self._seen[key] = version_of(found.meta)
        return prototype.buffer.from_bytes(await found.bytes_async())  # type: ignore[arg-type]

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object over the version that was read.

        Raises
        ------
        Conflict
            Another version is there now.
        """
        mode: PutMode = self._seen.pop(key) if key in self._seen else "create"
        try:
            await obstore.put_async(self.store, key, value.as_buffer_like(), mode=mode)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            raise Conflict(key) from None


class TileStore:
    """Reads tiles of one store and merges computed cells into them, in a worker."""

    def __init__(self, url: str, layout: Layout, kernel: Kernel) -> None:
        self.layout = layout
        self._url = url
        self._store = zarr_store(url) if folder_of(url) else Conditional(connect(url))
        self._variables = stored_variables(kernel)
        self._arrays: dict[tuple[int, str], zarr.Array[Any]] = {}
        self._one_at_a_time = threading.RLock()  # what `Conditional` remembers belongs to one update

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

    def empty(self, key: TileKey) -> dict[str, NDArray[Any]]:
        """A tile of absent cells."""
        shape = tuple(part.stop - part.start for part in self.layout.region(key))[3:]
        return {v.name: np.full(shape, v.fill_value, dtype=v.dtype) for v in self._variables}

    def update(
        self, key: TileKey, own: Mapping[str, NDArray[Any]], check: Callable[[], None]
    ) -> NDArray[Any]:
        """Merge a worker's cells into a tile, whoever else does so now, and return the tile's status.

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
            if isinstance(self._store, Conditional):
                self._store.forget()
            stored = self.empty(key)
            stored["status"] = self.read(key, "status")
            if stored["status"].any():
                stored |= {name: self.read(key, name) for name in stored if name != "status"}
            check()
            for variable in self._variables:
                merged = self._put(key, variable, own[variable.name], stored[variable.name], check)
        return merged

    def _put(
        self,
        key: TileKey,
        variable: Variable,
        own: NDArray[Any],
        stored: NDArray[Any],
        check: Callable[[], None],
    ) -> NDArray[Any]:
        for _ in range(CONFLICTS):
            merged = _merge(variable, own, stored)
            try:
                self._array(key.N, variable.name)[self.layout.region(key)] = merged[None, None, None]
            except Conflict:
                stored = self.read(key, variable.name)
                check()
            else:
                return merged
        raise OSError(f"{variable.name} of tile {key} changed {CONFLICTS} times while it was written")


def _merge(variable: Variable, own: NDArray[Any], stored: NDArray[Any]) -> NDArray[Any]:
    # What a cell holds stays: merging in any order, and twice, gives the same. A failed cell holds nothing.
    if variable.name == "status":
        stays = np.isin(stored, [STATUS["done"], STATUS["not_converged"]]) | (own == STATUS["absent"])
    else:
        stays = ~np.isnan(stored) if stored.dtype.kind == "f" else stored != variable.fill_value
    return np.where(stays, stored, own)
