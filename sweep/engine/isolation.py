"""Who is to blame for a lost worker: from the task to its tiles, and from a tile to the cell.

A task whose worker died is retried tile by tile, and each worker notes the cell that it is computing. If one
of them dies too, the cell of its note is retried alone and the rest of the tile without it, so one more loss
is enough to separate the cell from its tile, whatever the tile's size. A cell that ends `CRASHES` workers
while it is alone in them is recorded as failed; every other cell gets its value. A cell that was alone and
past its hard limit is recorded at once: the limit may be hours, and it has had it two or three times by then.

Some losses say nothing about cells: a node that died, or a worker that died before it began a cell. They are
forgiven only `FORGIVEN` times per tile, since a cell may itself bring its node down. After that a lost node
counts as any other loss, and workers that never begin a cell end the run. A worker killed from outside looks
like a crash of the cell that it was computing: that cell is retried alone and, unless this happens three
times, gets its value. A cell that ran out of memory gets a node's memory to itself before it is blamed. So
the number of losses in one campaign is bounded by its tiles and by its bad cells.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import NamedTuple

from bendscape.sweep.campaign.tiles import Tile, TileKey
from bendscape.sweep.engine.executor import NodeLost, WorkerLost, WorkerOutOfMemory
from bendscape.sweep.engine.limits import CellTimeout, grace
from bendscape.sweep.engine.worker import Note, Verdict

CRASHES = 3  # workers that a cell may end, alone in them, before it is recorded as failed
FORGIVEN = 10  # losses of a tile that are put down to what it runs on


class Part(NamedTuple):
    """Some cells of one tile that are retried alone, whether their worker takes notes, and the memory they
    get."""

    tile: Tile
    noted: bool = True
    whole_node: bool = False

    @property
    def alone(self) -> bool:
        """Whether it is a single cell."""
        return self.tile.mask.bit_count() == 1


class Isolation:
    """The parts of lost tasks that are to be retried, at most one part of a tile at a time."""

    def __init__(self) -> None:
        self._queue: deque[Part] = deque()
        self._busy: set[TileKey] = set()
        self._strikes: Counter[tuple[TileKey, int]] = Counter()
        self._forgiven: Counter[TileKey] = Counter()
        self._failures: Counter[TileKey] = Counter()

    def next(self) -> Part | None:
        """A part to run now, of a tile of which no other part is under way, since each part writes its whole
        tile."""
        for index, part in enumerate(self._queue):
            if part.tile.key not in self._busy:
                del self._queue[index]
                self._busy.add(part.tile.key)
                return part
        return None

    def back(self, key: TileKey) -> int:
        """Note that a tile, or a part of it, came back; return how many of its parts are still to be run."""
        self._busy.discard(key)
        return sum(part.tile.key == key for part in self._queue)

    def lost(
        self, tiles: list[Tile], part: Part | None, note: Note | None, error: Exception
    ) -> Verdict | None:
        """Decide about an order that did not come back; returns a verdict if its one cell is to blame.

        Raises
        ------
        Exception
            The error itself, if no cell is to blame and a retry does not help: for example, the store cannot
            be written, or workers do not start.
        """
        for tile in tiles:
            self._busy.discard(tile.key)
        if part is None:  # a task: its tiles go alone, so that the one to blame shows itself
            noted = not isinstance(error, NodeLost)
            self._queue.extend(Part(tile, noted) for tile in tiles)
            return None
        key, mask, _ = part.tile
        if not isinstance(error, WorkerLost):
            self._failures[key] += 1
            if self._failures[key] >= CRASHES - 1:  # once it went with others
                raise error
            self._queue.append(part)
            return None
        if isinstance(error, NodeLost) or (part.noted and note is None):
            self._forgiven[key] += 1
            if self._forgiven[key] > FORGIVEN and note is None and part.noted:
                raise error
            if self._forgiven[key] <= FORGIVEN:
                self._queue.append(part)
                return None
        if not part.noted or note is None:
            self._queue.append(part._replace(noted=True))
            return None
        if not part.alone:
            bit = 1 << note.bit
            each = part.tile.seconds / mask.bit_count()
            rest = mask & ~bit
            self._queue.append(Part(Tile(key, rest, each * rest.bit_count())))
            self._queue.append(Part(Tile(key, bit, each)))
            return None
        self._strikes[key, mask] += 1
        late = _late(note)
        if self._strikes[key, mask] < CRASHES and not late:
            memory = isinstance(error, WorkerOutOfMemory)
            self._queue.append(part._replace(whole_node=part.whole_node or memory))
            return None
        # The traceback of a loss is of this process, and tells nothing.
        cause = _timeout(note) if late else error.with_traceback(None)
        return Verdict(cause, self._strikes[key, mask], note.host)


def _late(note: Note) -> bool:
    return time.time() - note.started >= note.limit + grace(note.limit)


def _timeout(note: Note) -> CellTimeout:
    return CellTimeout(
        f"not finished after {note.limit:g} s, the limit of this cell (--cell-timeout), and no alarm reached "
        f"it: its process was killed {grace(note.limit):g} to {2 * grace(note.limit):g} s later (hard limit)"
    )
