"""What the user sees while a campaign runs: a live bar in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from html import escape
from types import TracebackType
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn
from rich.progress import Task as Row
from rich.text import Text

from bendscape.sweep.engine.plan import Plan, correction

LINE_SECONDS = 10.0
NOTEBOOK_SECONDS = 0.5


def clock(seconds: float) -> str:
    """Hours, minutes, seconds."""
    whole = int(seconds + 0.5)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class _Tail(ProgressColumn):
    """Cells, tiles, failures, rate and time left, computed by `Meter`."""

    def render(self, task: Row) -> Text:
        return Text(str(task.fields["tail"]), no_wrap=True, overflow="ellipsis")


class _Shown(NamedTuple):
    """A bar in a notebook: HTML in a browser, one line of text elsewhere."""

    ended: int
    cells: int
    line: str

    def __repr__(self) -> str:
        return self.line

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self.ended}" max="{self.cells}"></progress>'
        return f"{bar} <code>{escape(self.line)}</code>"


class _NotebookBar:
    """A bar in the output of a notebook cell, redrawn in place; needs no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, shown: _Shown) -> None:
        if self._handle is None:
            from IPython.display import display  # installed in any notebook

            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


class Meter:
    """Counts what was computed, learns the cost of cells, and predicts the end.

    The estimate of what is left is corrected, size by size, by the ratio of measured to estimated seconds
    seen so far, including those of earlier runs (`bendscape.sweep.engine.plan.correction`). Tasks of a size
    run on `slots` cores, or on fewer if `memory` does not suffice for as many.
    """

    def __init__(self, plan: Plan, slots: int, console: Console, memory: float = math.inf) -> None:
        self.cells, self.done = plan.total("cells"), plan.total("done")
        self.tiles, self.tiles_done = plan.total("tiles"), plan.total("tiles") - plan.total("tiles_left")
        self.failed, self.computed = plan.total("failed"), 0
        self._left = {n: s.seconds_left for n, s in plan.sizes.items()}
        self._estimated = {n: s.estimated for n, s in plan.sizes.items()}
        self._measured = {n: s.measured for n, s in plan.sizes.items()}
        fitting = {n: memory // max(1.0, s.peak_bytes) for n, s in plan.sizes.items()}
        self._slots = {n: max(1.0, min(float(slots), count)) for n, count in fitting.items()}
        self._started, self._printed = time.monotonic(), 0.0
        self._console = console
        self._bar: Progress | None = None
        self._notebook = _NotebookBar() if console.is_jupyter and not console.quiet else None
        if console.is_terminal:
            columns = BarColumn(bar_width=10), TaskProgressColumn(), _Tail()  # fits 80 columns
            self._bar = Progress(*columns, console=console)
            self._row = self._bar.add_task("cells", total=self.cells, completed=self.done, tail="")

    def __enter__(self) -> Meter:
        if self._bar is not None:
            self._bar.start()
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show(last=True)
        if self._bar is not None:
            self._bar.stop()

    def advance(
        self, size: int, done: int, failed: int, computed: int, estimated: float, measured: float
    ) -> None:
        """Count a tile that came back: cells newly done and failed, estimated and measured seconds."""
        self.done += done
        self.failed += failed
        self.computed += computed
        self.tiles_done += 1
        self._left[size] = max(0.0, self._left[size] - estimated)
        if computed:
            self._estimated[size] += estimated
            self._measured[size] += measured
        self._show()

    def tick(self) -> None:
        """Update the display when nothing has come back for a while."""
        self._show()

    def correction(self, size: int) -> float:
        """Measured over estimated seconds of one size, see `bendscape.sweep.engine.plan.correction`."""
        return correction(size, self._estimated, self._measured)

    @property
    def core_seconds_left(self) -> float:
        """Estimated core seconds left."""
        return sum(seconds * self.correction(n) for n, seconds in self._left.items())

    @property
    def seconds_left(self) -> float:
        """Estimated seconds until the campaign is complete."""
        return sum(seconds * self.correction(n) / self._slots[n] for n, seconds in self._left.items())

    def line(self) -> str:
        """Progress in one line."""
        elapsed = time.monotonic() - self._started
        rate = self.computed / elapsed if elapsed > 0 else 0.0
        # Until a cell has been measured there is only the kernel's estimate, made for another machine.
        unsure = "" if any(self._estimated.values()) or not self.seconds_left else " (kernel's estimate)"
        return (
            f"{self.done}/{self.cells} cells, {self.tiles_done}/{self.tiles} tiles, {self.failed} failed, "
            f"{rate:.1f}/s, ETA {clock(self.seconds_left)}{unsure}"
        )

    def _show(self, last: bool = False) -> None:
        if self._bar is not None:
            self._bar.update(self._row, completed=self.done + self.failed, tail=self.line())
            return
        pause = NOTEBOOK_SECONDS if self._notebook else LINE_SECONDS
        if not last and time.monotonic() - self._printed < pause:
            return
        self._printed = time.monotonic()
        if self._notebook is not None:
            self._notebook.show(_Shown(self.done + self.failed, self.cells, self.line()))
        else:
            self._console.print(self.line())
