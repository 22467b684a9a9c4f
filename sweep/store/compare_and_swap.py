"""Compare-and-swap writes: an object is replaced only if it is unchanged since it was read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import ObjectStore as Objects
from zarr.storage import LocalStore, ObjectStore

from bendscape.sweep.location import folder_of
from bendscape.sweep.store.objects import Damaged, check_process, connect, version_of

if TYPE_CHECKING:
    from obstore import PutMode
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype


def zarr_store(url: str) -> ObjectStore[Objects]:
    """The objects of a store, as a Zarr store."""
    return ObjectStore(connect(url))


def reading_store(url: str) -> Store:
    """A read-only Zarr store; on plain files it also works in a forked process."""
    folder = folder_of(url)
    return Reading(connect(url), read_only=True) if folder is None else LocalStore(folder, read_only=True)


class Reading(ObjectStore[Objects]):
    """A read-only object store. It refuses a forked process, in which its client would hang, and reports a
    read error in one line.

    `missing` lists the keys that were requested but not found; Zarr then returns a chunk of fill values.
    """

    def __init__(self, store: Objects, *, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.missing: set[str] = set()

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As in `ObjectStore`."""
        check_process()
        try:
            found = await super().get(key, prototype, byte_range)
        except BaseError as error:  # its first line says enough
            raise OSError(f"{key} cannot be read: {str(error).splitlines()[0]}") from None
        if found is None:
            self.missing.add(key)
        return found


class Conflict(Exception):
    """Another writer has replaced this object since it was read."""


def always() -> None:
    """A check that always passes."""


class CompareAndSwap(ObjectStore[Objects]):
    """A Zarr store on an object store that replaces an object only if it is the version last read.

    An object that was not read since `forget` is only created, never replaced. Thus chunks are written by
    compare-and-swap, and Zarr's codecs still encode them. `check` is called between every read and the write
    that depends on it.
    """

    def __init__(
        self, store: Objects, *, check: Callable[[], None] = always, read_only: bool = False
    ) -> None:
        super().__init__(store, read_only=read_only)
        self._check = check
        self._seen: dict[str, PutMode] = {}

    def forget(self) -> None:
        """Forget the versions of all objects read so far."""
        self._seen.clear()

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As in `ObjectStore`, but remembers the version."""
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
        """Replace the version that was read.

        Raises
        ------
        Conflict
            The object has changed since.
        """
        mode = self._seen.pop(key, "create")
        self._check()
        try:
            await obstore.put_async(self.store, key, value.as_buffer_like(), mode=mode)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            raise Conflict(key) from None


class Publisher:
    """Writes the objects of a hierarchy: on files under the caller's lock, otherwise by compare-and-swap."""

    def __init__(self, url: str, check: Callable[[], None]) -> None:
        self.objects, self._check, self._locked = connect(url), check, folder_of(url) is not None
        self.zarr = zarr_store(url) if self._locked else CompareAndSwap(self.objects, check=check)

    def read(self, path: str) -> tuple[dict[str, Any] | None, PutMode]:
        """A JSON document (None if there is none), and the mode with which it may be replaced."""
        try:
            found = obstore.get(self.objects, path)
        except FileNotFoundError:
            return None, "overwrite" if self._locked else "create"
        mode: PutMode = "overwrite" if self._locked else version_of(found.meta)
        try:
            return json.loads(bytes(found.bytes())), mode
        except ValueError as error:
            raise Damaged(path, error) from None

    def put(self, path: str, document: dict[str, Any], mode: PutMode) -> None:
        """Write a JSON document; raises `Conflict` if the stored one has changed since it was read."""
        self._check()
        try:
            obstore.put(self.objects, path, json.dumps(document).encode(), mode=mode)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            raise Conflict(path) from None

    def open(self, path: str) -> tuple[zarr.Array[Any], NDArray[Any]]:
        """An array to be written in full, and its present values."""
        # By default Zarr deletes a chunk of fill values, even one that another driver has just written.
        with zarr.config.set({"array.write_empty_chunks": True}):
            made = zarr.open_array(self.zarr, path=path, mode="r+")
        return made, np.asarray(made[...])
