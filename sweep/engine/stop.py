"""When a run stops: on a signal, or when its time budget or core-hours are used up. A second signal stops it
at once."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console

from bendscape.sweep.engine.limits import SIGNALS, hurry

GRACE_SECONDS = 300.0
BUDGET = "end of the time budget"
CORE_HOURS = "end of the core-hours"


def least_budget(seconds: float) -> float:
    """The budget that leaves this many seconds until nothing more may start; see `Stop`."""
    return min(seconds + 10.0, seconds / 0.9)


class Stopped(Exception):
    """The run was asked to stop."""


class Stop:
    """A request to stop. Once: admit nothing more and drain until the deadline. Twice: stop at once.

    Parameters
    ----------
    budget
        Seconds that the run may take. A tenth of it, ten seconds at most, is reserved for shutting down.
    grace
        Seconds to wait for the tasks under way after a signal.

    Admitted tasks should end by `ends`, on the clock `time.time`, which workers share; late tasks are waited
    for until `budget`, on the clock `time.monotonic`. The tasks of the run may take `core_seconds` together.
    """

    def __init__(self, budget: float | None = None, grace: float = GRACE_SECONDS) -> None:
        left = math.inf if budget is None else budget - min(10.0, 0.1 * budget)
        late = math.inf if budget is None else budget - min(5.0, 0.05 * budget)
        self.budget = time.monotonic() + late
        self.ends = time.time() + left
        self.grace = grace
        self.core_seconds = math.inf
        self.asked = False
        self.reason = ""
        self._signals = 0
        self._deadline = self.budget
        self._announced = False
        self._shielded = 0
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def deadline(self) -> float:
        """Until when to wait for the tasks under way, on the clock `time.monotonic`; inf until asked."""
        return self._deadline

    @property
    def overdue(self) -> bool:
        """Whether to give up the tasks still under way."""
        if time.monotonic() < self._deadline:
            return False
        if not self.asked:
            self.asked, self.reason = True, BUDGET
        return True

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """A signal handler: the first time it sets a flag; after that it raises, outside a `shield`."""
        self._signals += 1
        self.asked, self.reason = True, signal.Signals(number).name
        self._leave_terminals()
        if self._signals > 1:
            if not self._shielded:
                raise KeyboardInterrupt
            return
        self._deadline = min(self.budget, time.monotonic() + self.grace)
        hurry(self.grace)

    def _leave_terminals(self) -> None:
        # Printing to a closed terminal raises an error, which must not end the run.
        for descriptor in self._terminals:
            if not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)

    def admits(self, seconds: float, core_seconds: float = 0.0) -> bool:
        """Whether a task may start that ends in `seconds`, if the run then has used `core_seconds`."""
        if not self.asked and time.time() + seconds > self.ends:
            self.asked, self.reason = True, BUDGET
        if not self.asked and core_seconds > self.core_seconds:
            self.asked, self.reason = True, CORE_HOURS
        return not self.asked

    def heed(self) -> None:
        """Raise `Stopped` if the run is to stop; called during long work of the driver itself."""
        if self.overdue or self.asked:
            raise Stopped

    def announce(self, console: Console) -> None:
        """Say once why the run stops."""
        if self.asked and not self._announced:
            self._announced = True
            left = max(0.0, self._deadline - time.monotonic())
            how_long = "" if math.isinf(left) else f"up to {left:.0f} s "
            console.print(
                f"stopping ({self.reason}): waiting {how_long}for the tasks under way; "
                "a second signal stops at once"
            )

    @contextmanager
    def shield(self) -> Iterator[None]:
        """A context that a second signal must not interrupt: it is raised afterwards."""
        self._shielded += 1
        before = self._signals
        try:
            yield
        finally:
            self._shielded -= 1
        if self._signals > max(1, before) and not self._shielded:
            raise KeyboardInterrupt

    def listen(self) -> dict[int, Any]:
        """Install the signal handlers (again after the start of Ray, which replaces them).

        Returns the previous handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        # Under `nohup` SIGHUP is ignored, and stays ignored.
        heard = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
        return {number: signal.signal(number, self.ask) for number in heard}

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Listen, and restore the previous handlers afterwards."""
        before = self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
