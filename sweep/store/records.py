"""The records of all tiles, as arrays over tiles: a million tiles take tens of megabytes.

A receipt is a worker's report on one tile; the records are all receipts merged. Merging in any order never
forgets a finished cell.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.texts import MESSAGE_CHARACTERS, NAME_CHARACTERS, TRACEBACK_CHARACTERS, clean

MOST_TILES, MOST_BYTES = 2**26, 2**33  # of one size: tiles, and bytes of masks; a larger receipt is damaged
HEXADECIMAL = ("done", "failed", "checksum", "lost")  # integers too large for a JSON number


@dataclass(frozen=True)
class CellError:
    """A failed cell: its values on every axis, its bit in the tile's masks, and what went wrong.

    A cell is identified by its tile and its bit; the other fields are for people.

    The texts come from users' code. They are cleaned here, so texts from older stores are clean as well.
    """

    cell: dict[str, Any]
    bit: int
    error: str
    message: str
    traceback: str
    host: str
    attempts: int = 1

    def __post_init__(self) -> None:
        for name, most in (
            ("error", NAME_CHARACTERS),
            ("message", MESSAGE_CHARACTERS),
            ("host", NAME_CHARACTERS),
        ):
            object.__setattr__(self, name, clean(getattr(self, name), most))
        # Interned: the cells of a tile often fail in the same way.
        tail = sys.intern(clean(self.traceback, TRACEBACK_CHARACTERS, end=True))
        object.__setattr__(self, "traceback", tail)


@dataclass(frozen=True)
class Receipt:
    """A worker's report on a tile: masks of finished and failed cells, and the cost.

    `checksum` is that of the finished cells as written, or 0 if unknown. `lost` are cells recorded as
    finished or failed that a check of the store found to be neither.
    """

    tile: str
    done: int
    failed: int = 0
    computed: int = 0
    seconds: float = 0.0
    host: str = ""
    finished: float = 0.0
    checksum: int = 0
    lost: int = 0
    errors: tuple[CellError, ...] = ()

    def to_json(self) -> str:
        """One line of a segment; masks and checksum in hexadecimal, each distinct traceback once."""
        errors, texts = _shared_texts(self.errors)
        hexadecimal = {name: f"{getattr(self, name):x}" for name in HEXADECIMAL}
        return json.dumps({**vars(self), **hexadecimal, "errors": errors, "tracebacks": texts})

    @classmethod
    def from_json(cls, line: str) -> Receipt:
        """Inverse of `to_json`."""
        fields = json.loads(line)
        errors = _with_texts(fields.pop("errors"), fields.pop("tracebacks", []))
        fields |= {name: int(fields.get(name, "0"), 16) for name in HEXADECIMAL}
        return cls(**fields, errors=errors)


def _shared_texts(errors: tuple[CellError, ...]) -> tuple[list[dict[str, Any]], list[str]]:
    texts = {text: index for index, text in enumerate(dict.fromkeys(error.traceback for error in errors))}
    return [{**asdict(error), "traceback": texts[error.traceback]} for error in errors], list(texts)


def _with_texts(errors: list[dict[str, Any]], texts: list[str]) -> tuple[CellError, ...]:
    shared = dict(enumerate(texts))  # the earliest stores have the text in place of its index
    return tuple(
        CellError(**{**error, "traceback": shared.get(error["traceback"], error["traceback"])})
        for error in errors
    )


class Account(NamedTuple):
    """Sums over the receipts of one run: cells, core seconds, and the time of the last receipt.

    Core seconds are measured by the workers and include failed cells. A task lost with its worker has no
    receipt.
    """

    cells: int = 0
    core_seconds: float = 0.0
    last: float = 0.0


class TileRecord(NamedTuple):
    """Everything recorded of one tile. `attempts` is the number of its receipts, `epoch` the run of the
    last."""

    done: int
    failed: int
    computed: int
    attempts: int
    seconds: float
    finished: float
    host: str
    epoch: int
    checksum: int
    errors: tuple[CellError, ...]


_COLUMNS: dict[str, Any] = {
    "done": np.uint8,
    "failed": np.uint8,
    "computed": np.uint32,
    "attempts": np.uint16,
    "seconds": np.float64,
    "finished": np.float64,
    "host": np.uint32,
    "epoch": np.uint32,
    "checksum": np.uint64,
}
_MASKS = ("done", "failed")


@dataclass
class SizeRecords:
    """The tiles of one size, as arrays over the tiles along each dimension of storage.

    `done` and `failed` have one more dimension: the mask, 8 cells to a byte, lowest bit first. The arrays are
    empty until something is recorded.
    """

    done: NDArray[np.uint8]
    failed: NDArray[np.uint8]
    computed: NDArray[np.uint32]
    attempts: NDArray[np.uint16]
    seconds: NDArray[np.float64]
    finished: NDArray[np.float64]
    host: NDArray[np.uint32]
    epoch: NDArray[np.uint32]
    checksum: NDArray[np.uint64]

    @classmethod
    def empty(cls, dims: int) -> SizeRecords:
        """No records yet, for tiles along this number of dimensions."""
        shape = (0,) * dims
        return cls(**{k: np.zeros((*shape, 0) if k in _MASKS else shape, of) for k, of in _COLUMNS.items()})

    def reserve(self, tiles: tuple[int, ...], cells: int) -> None:
        """Make room for tiles up to this shape, of this many cells each.

        Raises
        ------
        ValueError
            No store can have so many tiles.
        """
        shape = tuple(map(max, (*tiles, (cells + 7) // 8), self.done.shape))
        if shape == self.done.shape:
            return
        if math.prod(shape[:-1]) > MOST_TILES or math.prod(shape) > MOST_BYTES:
            raise ValueError(f"{tiles} tiles of {cells} cells are more than a store can have")
        for name, array in vars(self).items():
            grown = np.zeros(shape[: array.ndim], array.dtype)
            grown[tuple(map(slice, array.shape))] = array
            setattr(self, name, grown)

    def recorded(self, key: tuple[int, ...]) -> bool:
        """Whether anything is recorded of a tile."""
        inside = all(index < length for index, length in zip(key, self.attempts.shape, strict=True))
        return inside and bool(self.attempts[key])


def cells_in(
    masks: NDArray[np.uint8], blocks: tuple[int | None, int], picks: Sequence[NDArray[np.intp]]
) -> NDArray[np.bool_]:
    """Which cells of an outer product of storage indices (model dimensions, curve, seed) are in the masks.

    `blocks` are the curve and seed blocks of a tile, with None for the curve block if there is no curve. The
    result has one dimension for each entry of `picks`.
    """
    curve_block, seed_block = blocks
    seed_tile, j = np.divmod(picks[-1], seed_block)
    if curve_block is None:
        models, curve, bit = picks[:-1], [], j
    else:
        curve_tile, i = np.divmod(picks[-2], curve_block)
        models, curve, bit = picks[:-2], [curve_tile[:, np.newaxis]], i[:, np.newaxis] * seed_block + j
    n = len(picks)
    at = (pick.reshape(-1, *[1] * (n - 1 - axis)) for axis, pick in enumerate(models))
    byte: NDArray[np.uint8] = masks[(*at, *curve, seed_tile, bit >> 3)]
    return (byte >> (bit & 7).astype(np.uint8) & 1).astype(bool)


def as_int(mask: NDArray[np.uint8]) -> int:
    """A mask as an integer with one bit per cell."""
    return int.from_bytes(mask.tobytes(), "little")


class Records:
    """Everything recorded of a store, by size.

    `follows` is the newest segment merged before the driver that keeps these records began. `accounts` holds
    the account of each run by epoch; snapshots of bendscape 0.1 have none.
    """

    def __init__(self) -> None:
        self.follows = ""
        self.sizes: dict[int, SizeRecords] = {}
        self.accounts: dict[int, Account] = {}
        self._errors: dict[TileKey, dict[int, CellError]] = {}
        self._hosts: dict[str, int] = {"": 0}

    def size(self, size: int, dims: int) -> SizeRecords:
        """The records of one size, whose tiles lie along this number of dimensions."""
        if size not in self.sizes:
            self.sizes[size] = SizeRecords.empty(dims)
        return self.sizes[size]

    def add(self, receipt: Receipt, epoch: int = 0) -> None:
        """Merge a receipt of a run. A finished cell stays finished, and the error of an earlier attempt is
        dropped.

        Raises
        ------
        ValueError
            No store can have the tile of this receipt.
        """
        key = TileKey.parse(receipt.tile)
        size, at = self.size(key.size, len(key.chunk)), key.chunk
        if min(at) < 0 or len(at) != size.attempts.ndim:
            raise ValueError(f"there is no tile {receipt.tile}")
        size.reserve(tuple(index + 1 for index in at), (receipt.done | receipt.failed).bit_length())
        before, width = as_int(size.done[at]) & ~receipt.lost, size.done.shape[-1]
        done = before | receipt.done
        failed = (as_int(size.failed[at]) & ~receipt.lost | receipt.failed) & ~done
        # A checksum refers to the cells that were finished when it was made.
        if done == receipt.done:
            size.checksum[at] = receipt.checksum
        elif done != before:
            size.checksum[at] = 0
        size.done[at] = np.frombuffer(done.to_bytes(width, "little"), np.uint8)
        size.failed[at] = np.frombuffer(failed.to_bytes(width, "little"), np.uint8)
        size.computed[at] += receipt.computed
        size.attempts[at] = min(int(size.attempts[at]) + 1, 2**16 - 1)
        size.seconds[at] += receipt.seconds
        size.finished[at] = receipt.finished
        size.epoch[at] = epoch
        size.host[at] = self._hosts.setdefault(receipt.host, len(self._hosts))
        cells, seconds, last = self.accounts.get(epoch, Account())
        self.accounts[epoch] = Account(
            cells + receipt.computed, seconds + receipt.seconds, max(last, receipt.finished)
        )
        if receipt.errors or key in self._errors:
            errors = self._errors.setdefault(key, {})
            for error in receipt.errors:
                attempts = errors[error.bit].attempts if error.bit in errors else 0
                errors[error.bit] = replace(error, attempts=attempts + error.attempts)
            self._errors[key] = {bit: error for bit, error in errors.items() if failed >> bit & 1}

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts, by the number in the column `host`."""
        return list(self._hosts)

    def masks(self, key: TileKey) -> tuple[int, int]:
        """The finished and the failed cells of a tile."""
        size, at = self.size(key.size, len(key.chunk)), key.chunk
        return (as_int(size.done[at]), as_int(size.failed[at])) if size.recorded(at) else (0, 0)

    def get(self, key: TileKey) -> TileRecord | None:
        """The record of a tile, or None."""
        size, at = self.size(key.size, len(key.chunk)), key.chunk
        if not size.recorded(at):
            return None
        return TileRecord(
            done=as_int(size.done[at]),
            failed=as_int(size.failed[at]),
            computed=int(size.computed[at]),
            attempts=int(size.attempts[at]),
            seconds=float(size.seconds[at]),
            finished=float(size.finished[at]),
            host=self.hosts[size.host[at]],
            epoch=int(size.epoch[at]),
            checksum=int(size.checksum[at]),
            errors=tuple(self._errors.get(key, {}).values()),
        )

    def __iter__(self) -> Iterator[TileKey]:
        """Every recorded tile, in the order of storage."""
        for size in sorted(self.sizes):
            for at in np.argwhere(self.sizes[size].attempts):
                yield TileKey(size, tuple(at.tolist()))

    def __len__(self) -> int:
        """Number of recorded tiles."""
        return sum(int(np.count_nonzero(size.attempts)) for size in self.sizes.values())

    def errors(self) -> list[CellError]:
        """Every failed cell."""
        return [error for _, error in self.failures()]

    def failures(self) -> Iterator[tuple[TileKey, CellError]]:
        """Every failed cell with its tile."""
        for key, errors in self._errors.items():
            for error in errors.values():
                yield key, error

    def to_bytes(self) -> bytes:
        """The contents of a snapshot: one compressed array for each size and column."""
        arrays = {
            f"{n}/{name}": array for n, size in self.sizes.items() for name, array in vars(size).items()
        }
        errors, texts = _shared_texts(tuple(self.errors()))
        tiles = [str(key) for key, of_tile in self._errors.items() for _ in of_tile]
        about = {"hosts": list(self._hosts), "errors": errors, "texts": texts, "tiles": tiles}
        text = json.dumps({**about, "follows": self.follows, "accounts": self.accounts})
        into = io.BytesIO()
        np.savez_compressed(into, text=np.frombuffer(text.encode(), np.uint8), **arrays)
        return into.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Records:
        """Inverse of `to_bytes`.

        Raises
        ------
        ValueError
            The snapshot is incomplete.
        """
        records = cls()
        try:
            arrays = dict(np.load(io.BytesIO(data), allow_pickle=False))
            known = json.loads(arrays.pop("text").tobytes())
            for path, array in arrays.items():
                size, _, name = path.partition("/")
                setattr(records.size(int(size), array.ndim - (name in _MASKS)), name, array)
            errors = _with_texts(known["errors"], known["texts"])
        except Exception as error:  # zipfile, zlib, numpy and json each raise their own
            raise ValueError(f"{type(error).__name__}: {error}") from None
        records.follows = known.get("follows", "")
        records.accounts = {int(run): Account(*sums) for run, sums in known.get("accounts", {}).items()}
        records._hosts = {host: index for index, host in enumerate(known["hosts"])}
        for tile, of_cell in zip(known["tiles"], errors, strict=True):
            records._errors.setdefault(TileKey.parse(tile), {})[of_cell.bit] = of_cell
        return records
