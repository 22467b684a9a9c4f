"""What a worker does: compute the missing cells of whole tiles, write them, and return small receipts."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import obstore
from threadpoolctl import threadpool_limits

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.kernel import STATUS, Kernel
from bendscape.sweep.campaign.loading import unpickled
from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.engine.limits import CellTimeout, Limits, cell_limit, never
from bendscape.sweep.store.ledger import campaign_path
from bendscape.sweep.store.objects import connect, exists
from bendscape.sweep.store.records import CellError, Receipt
from bendscape.sweep.store.root import read_store
from bendscape.sweep.store.tile_store import FINISHED, TileStore, mask_of, tile_checksum
from bendscape.sweep.texts import host_name, message_of, traceback_of

DESCRIBE_SECONDS = 10.0  # time limit for the text of an exception, which is also code of the cell


class Order(NamedTuple):
    """Everything sent to a worker: the store, its revision, and the wanted cells of some tiles.

    `cell_timeout` and `pace` are those of `bendscape.sweep.engine.limits.cell_limit`. If `note` is given, the
    path of an object, the worker records there which cell it is computing, so that the driver can tell which
    cell ended a worker. Tiles that would end after `until` (on `time.time`) are left out and get no receipt.
    `kernel_digest` is that of the source with which the run began; empty for an installed kernel.
    `kernel_pickle`, if given, is the kernel itself, which then cannot be loaded by name.
    """

    url: str
    revision: int
    kernel_modules: tuple[str, ...]
    tiles: tuple[tuple[str, int], ...]
    cell_timeout: float | None = None
    pace: float = 1.0
    note: str = ""
    until: float = math.inf
    kernel_digest: str = ""
    kernel_pickle: bytes = b""


class Verdict(NamedTuple):
    """The driver's verdict on cells that repeatedly ended their workers."""

    error: Exception
    attempts: int
    host: str


class _Context(NamedTuple):
    kernel: Kernel
    entropy: int
    store: TileStore


class Superseded(Exception):
    """Another run has changed the store since this order was given."""


@lru_cache(maxsize=4)
def _context(
    url: str, revision: int, kernel_modules: tuple[str, ...], digest: str, pickle: bytes
) -> _Context:
    store = read_store(url, patient=True)
    if store is None or store.revision != revision:
        raise Superseded(f"{url} is no longer at revision {revision}: another run has changed it")
    kernel = unpickled(pickle, store.kernel_name) if pickle else store.kernel(kernel_modules)
    if digest and kernel.digest != digest:
        raise ParameterError(
            "--kernel-module", ", ".join(kernel_modules), "the source that this run began with",
            f"digest {digest} then, {kernel.digest} on {host_name()} now: it was edited during the run, or "
            "machines have different copies",
        )  # fmt: skip
    return _Context(kernel, store.attributes["entropy"], TileStore(url, store.layout.on(kernel.axes), kernel))


def run_tiles(
    order: Order, verdict: Verdict | None = None, *, hard: bool = False, until: Callable[[], float] = never
) -> list[Receipt]:
    """Compute, write and report every tile of an order, on one thread.

    Every cell has a time limit; `hard` and `until` are those of `bendscape.sweep.engine.limits.Limits`.
    Outside the main thread there is no soft limit. With `verdict`, the missing cells are not computed but
    recorded as failed: the driver does this for cells that repeatedly ended their workers.

    Raises
    ------
    Superseded
        Another run has changed the store.
    ParameterError
        The kernel's source is not the one with which the run began.
    Abandoned
        `until` has passed; tiles written before stay.
    """
    context = _context(
        order.url, order.revision, order.kernel_modules, order.kernel_digest, order.kernel_pickle
    )
    # A tile written with the layout of an older revision would cut off cells that a newer one has added.
    newer = campaign_path(order.revision + 1)

    def check() -> None:
        if exists(order.url, newer):
            raise Superseded(f"{order.url} is no longer at revision {order.revision}: another run changed it")

    with threadpool_limits(limits=1), Limits(hard, until) as limits:
        receipts = []
        check()
        for text, mask in order.tiles:
            key = TileKey.parse(text)
            if verdict is None and time.time() + _expected(context, key, mask, order) > order.until:
                break
            receipts.append(_run_tile(context, order, key, mask, verdict, limits, check))
        return receipts


def _expected(context: _Context, key: TileKey, mask: int, order: Order) -> float:
    # Estimated seconds for the cells of a tile; needed only in a run with a time budget.
    if math.isinf(order.until):
        return 0.0
    store = context.store
    *_, cell = next(store.layout.cells(key, mask, store.curve_values(key)))
    return order.pace * context.kernel.seconds(cell) * mask.bit_count()


def _run_tile(
    context: _Context,
    order: Order,
    key: TileKey,
    mask: int,
    verdict: Verdict | None,
    limits: Limits,
    check: Callable[[], None],
) -> Receipt:
    started = time.perf_counter()
    store, layout = context.store, context.store.layout
    status = store.look(key)
    seed_block = layout.sizes[key.size].seed_block
    # A failure that the ledger does not know is tried again, to record its error.
    todo = mask & ~mask_of(status, FINISHED, seed_block)
    errors: list[CellError] = []
    if todo:
        block = store.empty(key)
        seconds: dict[int, float] = {}  # by curve point: cells that differ only in the seed cost the same
        for bit, slot, cell in layout.cells(key, todo, store.curve_values(key)):
            block["status"][slot] = STATUS["failed"]
            if verdict is not None:
                failed_by = cell_error(layout.values(cell), bit, verdict.error)
                errors.append(replace(failed_by, attempts=verdict.attempts, host=verdict.host))
                continue
            if slot[0] not in seconds:
                seconds[slot[0]] = cell_limit(context.kernel, cell, order.cell_timeout, order.pace)
            if order.note:
                write_note(order, bit, seconds[slot[0]])
            try:
                with limits.cell(seconds[slot[0]]):
                    outcome = context.kernel.compute(cell, cell_rng(context.entropy, cell))
                names = (v.name for v in context.kernel.variables)
                values = {name: np.asarray(outcome.values[name], block[name].dtype) for name in names}
            except BaseException as error:  # SystemExit and its like end the cell, not the run
                if limits.sent(error):
                    raise
                errors.append(_describe_error(layout.values(cell), bit, error, limits))
                continue
            for name, value in values.items():
                block[name][slot] = value
            block["status"][slot] = STATUS["done" if outcome.converged else "not_converged"]
        limits.rest()
        block = store.update(key, block, check)
    else:
        block = store.whole(key)
    # Another worker may have succeeded with a cell that failed here.
    done = mask_of(block["status"], FINISHED, seed_block)
    failed = mask_of(block["status"], ("failed",), seed_block)
    return Receipt(
        tile=layout.name(key),
        done=done,
        failed=failed,
        computed=todo.bit_count(),
        seconds=time.perf_counter() - started if todo else 0.0,
        host=host_name(),
        finished=time.time(),
        checksum=tile_checksum(block, done, seed_block),
        errors=tuple(error for error in errors if failed >> error.bit & 1),
    )


def _describe_error(cell: dict[str, Any], bit: int, error: BaseException, limits: Limits) -> CellError:
    try:
        with limits.cell(DESCRIBE_SECONDS):
            return cell_error(cell, bit, error)
    except CellTimeout as late:
        return cell_error(cell, bit, late)


class Note(NamedTuple):
    """The cell that a worker was computing, since when, on which host, and its time limit in seconds."""

    bit: int
    host: str
    started: float
    limit: float


def write_note(order: Order, bit: int, limit: float) -> None:
    """Record which cell is computed next."""
    note = Note(bit, host_name(), time.time(), limit)
    obstore.put(connect(order.url), order.note, json.dumps(note).encode())


def take_note(order: Order) -> Note | None:
    """Read and remove the last note of an order's worker; None if it did not begin a cell."""
    objects = connect(order.url)
    try:
        note = Note(*json.loads(bytes(obstore.get(objects, order.note).bytes())))
        obstore.delete(objects, order.note)
    except FileNotFoundError:
        return None
    return note


def cell_error(cell: dict[str, Any], bit: int, error: BaseException) -> CellError:
    """The record of one failed cell."""
    return CellError(
        cell=cell,
        bit=bit,
        error=type.__dict__["__name__"].__get__(type(error)),  # a metaclass may redefine __name__
        message=message_of(error),
        traceback=traceback_of(error),
        host=host_name(),
    )
