"""Finding the cell that made a worker die: first its tile within the task, then the cell within the tile.

A task whose worker died is retried tile by tile, and each worker notes the cell that it is computing. If one
of them dies too, the cell of its note is retried alone and the rest of the tile without it, so one more loss
is enough to separate the cell from its tile, whatever the tile's size. A cell that ends `CRASHES` workers
while it is alone in them is recorded as failed; every other cell gets its value. A cell that was alone and
past its hard limit is recorded at once: the limit may be hours, and it has had it two or three times by then.

Some losses say nothing about cells: a node that died, or a worker that died before it began a cell. At most
`FORGIVEN` of these are ignored per tile, since a cell may itself bring its node down. After that, a lost node
counts as any other loss, and workers that never begin a cell end the run. A worker killed from outside looks
like a crash of the cell that it was computing: that cell is retried alone and gets its value, unless this
happens three times. A cell that ran out of memory is retried with the memory of a whole node before it is
blamed. So the number of losses in a campaign is bounded by the numbers of its tiles and of its bad cells.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import NamedTuple

from bendscape.sweep.campaign.tiles import Tile, TileKey
from bendscape.sweep.engine.executor import NodeLost, WorkerLost, WorkerOutOfMemory
from bendscape.sweep.engine.limits import CellTimeout, grace
from bendscape.sweep.engine.worker import Note, Verdict

CRASHES = 3  # workers that a cell may end while it is their only cell, before it is recorded as failed
FORGIVEN = 10  # losses of a tile that are attributed to the machine


class Part(NamedTuple):
    """Cells of one tile to be retried by themselves, whether their worker takes notes, and their memory."""

    tile: Tile
    noted: bool = True
    whole_node: bool = False

    @property
    def alone(self) -> bool:
        """Whether this is a single cell."""
        return self.tile.mask.bit_count() == 1


class Isolation:
    """The parts of lost tasks that wait for a retry; at most one part of a tile runs at a time."""

    def __init__(self) -> None:
        self._queue: deque[Part] = deque()
        self._busy: set[TileKey] = set()
        self._strikes: Counter[tuple[TileKey, int]] = Counter()
        self._forgiven: Counter[TileKey] = Counter()
        self._failures: Counter[TileKey] = Counter()

    def next(self) -> Part | None:
        """A part that can run now. No other part of its tile is running, since each part writes the whole
        tile."""
        for index, part in enumerate(self._queue):
            if part.tile.key not in self._busy:
                del self._queue[index]
                self._busy.add(part.tile.key)
                return part
        return None

    def back(self, key: TileKey) -> int:
        """Record that a tile, or a part of it, came back; returns how many of its parts are still to be
        run."""
        self._busy.discard(key)
        return sum(part.tile.key == key for part in self._queue)

    def lost(
        self, tiles: list[Tile], part: Part | None, note: Note | None, error: Exception
    ) -> Verdict | None:
        """Decide what to do about a lost order; returns a verdict if its only cell is to blame.

        Raises
        ------
        Exception
            The error itself, if no cell is to blame and a retry does not help: for example, the store cannot
            be written, or workers do not start.
        """
        for tile in tiles:
            self._busy.discard(tile.key)
        if part is None:  # a task: retry its tiles one by one, to find the one to blame
            noted = not isinstance(error, NodeLost)
            self._queue.extend(Part(tile, noted) for tile in tiles)
            return None
        key, mask, _ = part.tile
        if not isinstance(error, WorkerLost):
            self._failures[key] += 1
            if self._failures[key] >= CRASHES - 1:  # the first loss was with other tiles
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
        # The traceback of a loss is of this process and says nothing.
        cause = _timeout(note) if late else error.with_traceback(None)
        return Verdict(cause, self._strikes[key, mask], note.host)


def _late(note: Note) -> bool:
    return time.time() - note.started >= note.limit + grace(note.limit)


def _timeout(note: Note) -> CellTimeout:
    return CellTimeout(
        f"not finished after {note.limit:g} s, the limit of this cell (--cell-timeout), and no alarm reached "
        f"it: its process was killed {grace(note.limit):g} to {2 * grace(note.limit):g} s later (hard limit)"
    )
