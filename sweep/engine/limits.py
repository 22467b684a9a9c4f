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

LEAST_SECONDS, TIMES_EXPECTED = 3600.0, 10.0  # the default limit, so that no cell runs for ever
LONGEST_SECONDS = 1e8  # the longest time that timers can hold
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)  # these ask a run to stop
AGAIN_SECONDS = 5.0  # between alarms, if a kernel catches the first


class CellTimeout(Exception):
    """A cell took longer than its limit."""


class Abandoned(BaseException):
    """The run cannot wait for the present cell; nothing of its tile is recorded."""


def never() -> float:
    """The deadline of a run without a time budget."""
    return math.inf


def cell_limit(kernel: Kernel, cell: Cell, timeout: float | None, pace: float) -> float:
    """Time limit of a cell in seconds: `timeout`, or an hour plus ten times the expected time.

    The expected time is the kernel's estimate, times `pace`, the ratio of measured to estimated seconds, if
    that is above 1.
    """
    if timeout is None:
        timeout = LEAST_SECONDS + TIMES_EXPECTED * max(1.0, pace) * kernel.seconds(cell)
    return timeout if timeout < LONGEST_SECONDS else LONGEST_SECONDS  # NaN too


def hurry(seconds: float) -> None:
    """Make the cell under way in this process, if any, check its deadline within this many seconds."""
    clock = getattr(signal.getsignal(signal.SIGALRM), "__self__", None)
    if isinstance(clock, Limits) and signal.getitimer(signal.ITIMER_REAL)[0] > seconds:
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, seconds), AGAIN_SECONDS)


def grace(limit: float) -> float:
    """Seconds that a cell gets after its limit before its process is ended: at least this, at most twice."""
    return min(30.0, max(1.0, limit))


class Limits:
    """The time limits of the cells of one order; a context that owns SIGALRM.

    It also separates exceptions raised by a cell from those raised into it. A signal handler (Ctrl-C, say)
    that raises while a cell is running ends the order, even if the cell's code catches the exception. The
    same exception raised by the cell itself is a failure of the cell.

    Parameters
    ----------
    hard
        Whether this process may be ended; never true for the driver's own.
    until
        Returns the time (on `time.monotonic`) after which a running cell raises `Abandoned`.

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
                if signal.getsignal(number) == self._pass_on:  # otherwise a cell has installed its own
                    signal.signal(number, handler)
            if self._handler is not None:  # None: not installed from Python, cannot be restored
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
            The cell took longer.
        Abandoned
            `until` has passed.
        BaseException
            What a signal handler raised during the cell, even if the cell's code has caught it.
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
        """Whether this exception was raised by a signal handler rather than by a cell."""
        return error is self._raised

    def rest(self) -> None:
        """Stop all limits between tiles, while results are written."""
        self._disarm()
        if self._watched > -math.inf:
            faulthandler.cancel_dump_traceback_later()
            self._watched = -math.inf

    def _disarm(self) -> None:
        # The flag first: an alarm at this moment must not raise outside the cell.
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
