"""Access to the objects of a store: connection, requirements on the server, and locks on files.

Credentials, endpoint and region of an object store come from the environment (AWS_*), never from a URL, so
they cannot end up in a store, a log, a pickle or an error. `docs/stores.md` is the user's page on this.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore, ObjectStore, from_url

from bendscape.core.errors import ParameterError
from bendscape.sweep.location import folder_of

if TYPE_CHECKING:
    from obstore import PutMode, PutResult, UpdateVersion
    from obstore.store import RetryConfig

THREADS = 16  # of independent requests to a store under way at the same time
LOCKS = 64  # lock files shared by all tiles; two tiles with the same lock only wait for each other
# The first contact fails within seconds, so that a mistyped URL is reported at once; a run under way
# tolerates an outage of a minute.
_HASTY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
_PATIENT: RetryConfig = {
    "max_retries": 20,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"max_backoff": timedelta(seconds=5)},
}


def connect(url: str, *, patient: bool = True) -> ObjectStore:
    """Connect to the objects under a URL (see `store_url`); a missing folder is created.

    Parameters
    ----------
    patient : bool
        Tolerate an outage of the object store for a minute; otherwise give up within seconds.
    """
    folder = folder_of(url)
    if folder is None:
        check_process()
        return _bucket(url, patient)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError("store", str(folder), "a folder that can be made", str(error)) from None
    return from_url(url)


Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def together(ask: Callable[[Asked], Answer], of: Iterable[Asked], threads: int = THREADS) -> Iterator[Answer]:
    """Map `ask` over `of` in threads; yields results in order, with at most 2 `threads` calls pending."""
    waiting, rest = deque[Future[Answer]](), iter(of)
    with ThreadPoolExecutor(threads, thread_name_prefix="bendscape-store") as pool:
        try:
            while True:
                waiting.extend(pool.submit(ask, one) for one in islice(rest, 2 * threads - len(waiting)))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


_client_of: int | None = None


def check_process() -> None:
    """Refuse a forked process, in which the object-store client would hang, as its threads are in the parent.

    Plain files are read without the client (`read_object`, `names_in`), so reading them works after a fork.
    `connect` calls this for an object store, and so does everything that writes.

    Raises
    ------
    ParameterError
        The object-store client was started in the parent of this forked process.
    """
    global _client_of
    _client_of = _client_of or os.getpid()
    if _client_of != os.getpid():
        raise ParameterError(
            "process", os.getpid(),
            'one started by multiprocessing.get_context("spawn") or "forkserver"',
            "it was forked after its parent had used the object-store client, which hangs in a fork",
        )  # fmt: skip


def read_object(objects: ObjectStore, path: str) -> bytes:
    """The contents of an object.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    """
    if isinstance(objects, LocalStore) and objects.prefix is not None:
        return (Path(objects.prefix) / path).read_bytes()
    return bytes(obstore.get(objects, path).bytes())


def names_in(objects: ObjectStore, folder: str, after: str = "") -> list[str]:
    """Sorted names of the objects directly in a folder; with `after`, only those that sort after it."""
    if isinstance(objects, LocalStore) and objects.prefix is not None:
        try:
            with os.scandir(Path(objects.prefix) / folder) as entries:
                # "#" marks files that a writer has not finished
                found = [entry.name for entry in entries if "#" not in entry.name and entry.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if name > after)
    pages = obstore.list(objects, prefix=folder, offset=f"{folder}/{after}" if after else None)
    return sorted(str(item["path"]).rpartition("/")[2] for page in pages for item in page)


class Damaged(OSError):
    """An object of a store is not what was written; the message is one line with the remedy."""

    def __init__(self, path: str, why: object) -> None:
        self.path, self.why = path, str(why)
        super().__init__(f"{path} of the store is damaged: {why}; `bendscape fsck --repair` repairs it")


@lru_cache(maxsize=8)  # a new connection costs a handshake
def _bucket(url: str, patient: bool) -> ObjectStore:
    return from_url(url, retry_config=_PATIENT if patient else _HASTY)


def exists(url: str, path: str) -> bool:
    """Whether an object exists."""
    try:
        obstore.head(connect(url), path)
    except FileNotFoundError:
        return False
    return True


def version_of(found: PutResult | obstore.ObjectMeta) -> UpdateVersion:
    """The write mode that replaces an object only if it is still at this version."""
    version: UpdateVersion = {"e_tag": found["e_tag"]}
    if found["version"] is not None:
        version["version"] = found["version"]
    return version


def probe(url: str) -> None:
    """Test the guarantees on which correct writing depends; leaves nothing behind.

    An object that exists must not be created again; an object store must not replace one that has changed;
    plain files must have locks.

    Raises
    ------
    ParameterError
        The bucket does not exist, or the store accepts a write that it should refuse.
    OSError, obstore.exceptions.BaseError
        The store does not answer, or denies access.
    """
    objects, path, folder = connect(url, patient=False), f"ledger/probe-{uuid4().hex}", folder_of(url)
    try:
        first = obstore.put(objects, path, b"first", mode="create")
        if not _refuses(objects, path, "create"):
            raise _unfit(url, "it creates an object that already exists (If-None-Match is ignored)")
        if folder is not None:
            with _locked(folder / path):
                return
        if not first["e_tag"]:
            raise _unfit(url, "it gives its objects no ETag")
        obstore.put(objects, path, b"second", mode=version_of(first))
        if not _refuses(objects, path, version_of(first)):
            raise _unfit(url, "it replaces an object that has changed (If-Match is ignored)")
    except BaseError as error:
        if folder is None:
            raise
        why = " ".join(str(error).partition("Debug source:")[0].split())
        raise OSError(f"{folder} can be read but not written: {why}") from None
    except FileNotFoundError:
        if folder is not None:
            raise
        raise ParameterError("store", url, "in a bucket that exists", "create the bucket first") from None
    finally:
        with contextlib.suppress(FileNotFoundError, BaseError):  # show the first error, not this one
            obstore.delete(objects, path)


def _refuses(objects: ObjectStore, path: str, mode: PutMode) -> bool:
    try:
        obstore.put(objects, path, b"never", mode=mode)
    except (AlreadyExistsError, PreconditionError):
        return True
    return False


def _unfit(url: str, why: str) -> ParameterError:
    accepted = "a store with conditional writes, so that two writers cannot erase each other's cells"
    return ParameterError("store", url, accepted, f"{why}; see docs/stores.md")


@contextmanager
def exclusive(url: str, name: str) -> Iterator[None]:
    """On plain files, hold the lock `name` exclusively; object stores have conditional writes instead.

    The operating system releases the lock when the process dies.
    """
    folder = folder_of(url)
    if folder is None:
        yield
        return
    lock = folder / "ledger" / "locks" / f"{zlib.crc32(name.encode()) % LOCKS:02x}"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with _locked(lock):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Opened for writing, because NFS implements this lock as a byte-range lock, which requires it.
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            remedy = f"{error.strerror}: mount it with support for flock; see docs/stores.md"
            raise ParameterError("store", str(path.parent), "a file system with locks", remedy) from None
        yield
    finally:
        os.close(file)
