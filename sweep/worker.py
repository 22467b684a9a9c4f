"""What a worker does: compute the missing cells of whole tiles, write them, and return small receipts."""

from __future__ import annotations

import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from bendscape.sweep.grid import Cell, cell_rng
from bendscape.sweep.kernel import STATUS, Kernel, load_kernel
from bendscape.sweep.objects import exists
from bendscape.sweep.records import CellError, Receipt
from bendscape.sweep.store import read_root
from bendscape.sweep.tile_store import FINISHED, TileStore, mask_of, tile_checksum
from bendscape.sweep.tiles import Layout, TileKey

TRACEBACK_CHARACTERS = 8000  # the end of it, where the error is; equal ones travel once


class Order(NamedTuple):
    """All that travels to a worker: where, which revision of it, and the wanted cells of some tiles."""

    url: str
    revision: int
    kernel_modules: tuple[str, ...]
    tiles: tuple[tuple[str, int], ...]


class _Context(NamedTuple):
    kernel: Kernel
    entropy: int
    store: TileStore


class Superseded(Exception):
    """Another run has changed the store since this order was given."""


@lru_cache(maxsize=4)
def _context(url: str, revision: int, kernel_modules: tuple[str, ...]) -> _Context:
    attributes = read_root(url, patient=True)
    if attributes is None or attributes["revision"] != revision:
        raise Superseded(f"{url} is no longer at revision {revision}: another run has changed it")
    kernel = load_kernel(attributes["kernel"], kernel_modules)
    layout = Layout.from_json(attributes["layout"])
    return _Context(kernel, attributes["entropy"], TileStore(url, layout, kernel))


def run_tiles(order: Order, crash: BaseException | None = None) -> list[Receipt]:
    """Compute, write and account for every tile of an order, on one thread.

    With `crash`, the missing cells are recorded as failed by it instead of computed: what the driver
    does with cells that keep ending their workers.
    """
    context = _context(order.url, order.revision, order.kernel_modules)
    # A tile written with the layout of an older revision would cut off the cells that a newer one added.
    newer = f"ledger/campaign/{order.revision + 1:06d}.json"

    def check() -> None:
        if exists(order.url, newer):
            raise Superseded(f"{order.url} has moved on from revision {order.revision}")

    with threadpool_limits(limits=1):
        return [_run_tile(context, TileKey.parse(key), mask, crash, check) for key, mask in order.tiles]


def _run_tile(
    context: _Context, key: TileKey, mask: int, crash: BaseException | None, check: Callable[[], None]
) -> Receipt:
    started = time.perf_counter()
    store, layout = context.store, context.store.layout
    status = store.read(key, "status")
    seed_block = layout.sizes[key.N].seed_block
    # A failure that the ledger does not know is tried again, to learn its error.
    todo = mask & ~mask_of(status, FINISHED, seed_block)
    errors: list[CellError] = []
    if todo:
        block = store.empty(key)
        for bit, slot, cell in layout.cells(key, todo):
            block["status"][slot] = STATUS["failed"]
            try:
                if crash is not None:
                    raise crash
                outcome = context.kernel.compute(cell, cell_rng(context.entropy, cell))
                values = {v.name: outcome.values[v.name] for v in context.kernel.variables}
            except Exception as error:
                errors.append(cell_error(cell, bit, error))
                continue
            for name, value in values.items():
                block[name][slot] = value
            block["status"][slot] = STATUS["done" if outcome.converged else "not_converged"]
        block = store.update(key, block, check)
    else:
        block = store.whole(key)
    # Others may have had more luck with a cell that failed here.
    done = mask_of(block["status"], FINISHED, seed_block)
    failed = mask_of(block["status"], ("failed",), seed_block)
    return Receipt(
        tile=str(key),
        done=done,
        failed=failed,
        computed=todo.bit_count(),
        seconds=time.perf_counter() - started if todo else 0.0,
        host=socket.gethostname(),
        finished=time.time(),
        checksum=tile_checksum(block, done, seed_block),
        errors=tuple(error for error in errors if failed >> error.bit & 1),
    )


def cell_error(cell: Cell, bit: int, error: BaseException) -> CellError:
    """The record of one failed cell."""
    return CellError(
        cell={k: v for k, v in cell._asdict().items() if k != "alpha_axis"},
        bit=bit,
        error=type(error).__name__,
        message=str(error),
        traceback=sys.intern("".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]),
        host=socket.gethostname(),
    )
