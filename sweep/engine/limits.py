"""How long a cell may take: a soft limit that raises inside the cell, and a hard one that ends its process.

The soft limit is an alarm signal: Python code raises `CellTimeout` wherever it is, and the next cells are
computed as usual. Code that never returns to Python does not see the alarm. In a process that may be ended
(a worker) a watchdog that needs no interpreter then ends the process, between one and two `grace`s later,
and the driver identifies the cell. The watchdog is reset once per `grace`, not for every cell, so a million
short cells need only a few resets.
"""

from __future__ import annotations

import faulthandler
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.kernel import Kernel

LEAST_SECONDS, TIMES_EXPECTED = 3600.0, 10.0  # the default: a cell that never ends must end some day
LONGEST_SECONDS = 1e8  # what timers can hold, for a kernel that expects more
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)  # that may ask a run to stop
AGAIN_SECONDS = 5.0  # between alarms, where a kernel catches the first


class CellTimeout(Exception):
    """A cell took longer than its limit."""


class Abandoned(BaseException):
    """The run may not wait for the cell under way; nothing of its tile is recorded."""


def never() -> float:
    """The deadline of a run that may take its time."""
    return math.inf


def cell_limit(kernel: Kernel, cell: Cell, timeout: float | None, pace: float) -> float:
    """Seconds a cell may take: `timeout`, or an hour plus ten times its expected time.

    The expected time is the kernel's estimate times `pace`, the ratio of measured to estimated seconds if
    above 1.
    """
    if timeout is None:
        timeout = LEAST_SECONDS + TIMES_EXPECTED * max(1.0, pace) * kernel.seconds(cell)
    return timeout if timeout < LONGEST_SECONDS else LONGEST_SECONDS  # also where it is not a number


def hurry(seconds: float) -> None:
    """Make the cell under way in this process, if there is one, check its deadline within this time."""
    clock = getattr(signal.getsignal(signal.SIGALRM), "__self__", None)
    if isinstance(clock, Limits) and signal.getitimer(signal.ITIMER_REAL)[0] > seconds:
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, seconds), AGAIN_SECONDS)


def grace(limit: float) -> float:
    """Least number of seconds between a cell's limit and the end of its process; at most it is twice this."""
    return min(30.0, max(1.0, limit))


class Limits:
    """The clock over the cells of one order; a context in which SIGALRM is its own.

    It also distinguishes what a cell raises from what is raised into it. A signal handler (Ctrl-C, say) that
    raises while a cell is under way ends the order, even if the code of the cell catches the exception. The
    same exception raised by the cell itself is the cell's.

    Parameters
    ----------
    hard
        Whether this process may be ended. Never in a driver's own.
    until
        A moment of `time.monotonic` after which a cell under way raises `Abandoned`.

    Python handles signals only in the main thread: elsewhere there is no soft limit, only the hard one.
    """

    def __init__(self, hard: bool = False, until: Callable[[], float] = never) -> None:
        self._hard, self._until = hard, until
        self._main = threading.current_thread() is threading.main_thread()
        self._limit = self._ends = math.inf
        self._armed = False
        self._watched = -math.inf
        self._raised: BaseException | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}

    def __enter__(self) -> Limits:
        if self._main:
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._pass_on)
            self._entered = time.monotonic()
            self._timer = signal.setitimer(signal.ITIMER_REAL, 0)
            self._handler = signal.signal(signal.SIGALRM, self._alarm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest()
        if self._main:
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._pass_on:  # else the code of a cell has put its own there
                    signal.signal(number, handler)
            if self._handler is not None:  # else not from Python, and not to be had back
                signal.signal(signal.SIGALRM, self._handler)
            left, interval = self._timer
            if left:
                signal.setitimer(
                    signal.ITIMER_REAL, max(1e-3, left - time.monotonic() + self._entered), interval
                )

    @contextmanager
    def cell(self, limit: float) -> Iterator[None]:
        """A context around one cell, which may take `limit` seconds.

        Raises
        ------
        CellTimeout
            It took longer.
        Abandoned
            `until` has passed.
        BaseException
            What a signal handler raised meanwhile, even if the code of the cell has caught it.
        """
        try:
            now = time.monotonic()
            if self._hard and not limit + grace(limit) <= self._watched - now <= limit + 2 * grace(limit):
                self._watched = now + limit + 2 * grace(limit)
                faulthandler.dump_traceback_later(self._watched - now, exit=True, file=2)
            if self._main:
                self._limit, self._ends, self._armed = limit, now + limit, True
                first = max(1e-3, min(self._ends, self._until()) - now)
                signal.setitimer(signal.ITIMER_REAL, first, AGAIN_SECONDS)
            yield
        finally:
            self._disarm()
            if self._raised is not None:
                raise self._raised

    def sent(self, error: BaseException) -> bool:
        """Whether this was raised by a signal handler, and not by a cell."""
        return error is self._raised

    def rest(self) -> None:
        """Between tiles, while results are written: no limit is running."""
        self._disarm()
        if self._watched > -math.inf:
            faulthandler.cancel_dump_traceback_later()
            self._watched = -math.inf

    def _disarm(self) -> None:
        # First the flag: an alarm in this very moment must not raise outside the cell.
        self._armed = False
        if self._main:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if not self._armed:
            return
        now = time.monotonic() + 1e-3
        if now >= self._until():
            self._raised = Abandoned("the run is stopping, and this cell has not finished")
            raise self._raised
        if now >= self._ends:
            raise CellTimeout(f"not finished after {self._limit:g} s, its limit (--cell-timeout)")
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, min(self._ends, self._until()) - now), AGAIN_SECONDS)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            self._raised = error
            raise
