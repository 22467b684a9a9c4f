"""When a schedule may compute: windows of the week in a time zone, and the moments at which a timer fires.

Everything here is arithmetic on a moment that is given: nothing looks at a clock.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

from bendscape.core.errors import ParameterError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WORDS = {"nights": "daily 20:00-08:00", "weekends": "sat 00:00 - mon 00:00", "always": "daily 00:00-24:00"}
LONGEST = timedelta(days=8)
ACCEPTED = (
    'DAYS HH:MM-HH:MM such as "mon-fri 20:00-06:00", "sat,sun" or "daily 22:00-04:00", '
    'DAY HH:MM - DAY HH:MM such as "fri 20:00 - mon 06:00", or one of ' + ", ".join(WORDS)
)
_DAY, _TIME = "|".join(DAYS), "([01][0-9]|2[0-4]):([0-5][0-9])"


@dataclass(frozen=True, order=True)
class Window:
    """One window: from its start up to its end, which is no part of it. Both are in UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


@dataclass(frozen=True)
class _Rule:
    """A window of every week: days (0 is Monday) on which it starts, and minutes since their midnight."""

    days: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Windows:
    """The windows of a schedule: rules as texts, and the time zone whose clocks they mean.

    A clock that is put forward skips times: a start or end among them is the moment of the change, and a
    window with nothing else in it does not take place. A clock that is put back shows times twice: the first
    counts. Windows that overlap are one; windows that only meet are two.

    Raises
    ------
    ParameterError
        A rule that cannot be read, no such time zone, or windows that overlap without end.
    """

    rules: tuple[str, ...]
    zone: str

    def __post_init__(self) -> None:
        if not self.rules:
            raise ParameterError("--window", "", f"given at least once: {ACCEPTED}")
        for window in self._around(date(2026, 1, 1), date(2026, 1, 29)):
            if window.end - window.start > LONGEST:
                raise ParameterError(
                    "--window", ", ".join(self.rules), "windows that leave a gap, or only meet",
                    "these overlap without end, so that no window would ever end",
                )  # fmt: skip

    @cached_property
    def _parsed(self) -> tuple[_Rule, ...]:
        return tuple(rule for text in self.rules for rule in _parse(text))

    @cached_property
    def tz(self) -> ZoneInfo:
        """The time zone."""
        return zone_of(self.zone)

    def between(self, start: datetime, end: datetime) -> list[Window]:
        """The windows that start within [start, end), in order."""
        days = (moment.astimezone(self.tz).date() for moment in (start, end))
        return [window for window in self._around(*days) if start <= window.start < end]

    def _around(self, first: date, last: date) -> list[Window]:
        # Those that start on these days, whole, among others.
        day, found = first - 2 * LONGEST, []
        while day <= last + 2 * LONGEST:
            found += [w for rule in self._parsed if (w := self._on(day, rule)) is not None]
            day += timedelta(days=1)
        return _merged(found)

    def open_at(self, moment: datetime) -> Window | None:
        """The window that is open at a moment."""
        found = [w for w in self.between(moment - LONGEST, moment + timedelta(seconds=1)) if moment in w]
        return found[0] if found else None

    def next_after(self, moment: datetime) -> Window:
        """The first window that starts after a moment."""
        later = moment + timedelta(microseconds=1)
        for days in (8, 400):  # a rule for a time that is skipped may leave out a week
            if found := self.between(later, later + timedelta(days=days)):
                return found[0]
        raise ParameterError("--window", ", ".join(self.rules), "a time that clocks show")

    def _on(self, day: date, rule: _Rule) -> Window | None:
        if day.weekday() not in rule.days:
            return None
        start, end = (_moment(day, minutes, self.tz) for minutes in (rule.start, rule.end))
        return Window(start, end) if start < end else None

    def ticks(self, every: int, start: datetime, days: int) -> Iterator[datetime]:
        """Moments in open windows at which a timer looks whether a run is due: each start, and every so many
        minutes after it."""
        for window in self.between(start, start + timedelta(days=days)):
            moment = window.start
            while moment < window.end:
                yield moment
                moment += timedelta(minutes=every)


def _parse(text: str) -> Iterator[_Rule]:
    words = " ".join(WORDS.get(text.strip(), text).lower().split())
    if found := re.fullmatch(f"({_DAY}) {_TIME} ?- ?({_DAY}) {_TIME}", words):
        first, last = DAYS.index(found[1]), DAYS.index(found[4])
        start, end = _minutes(found[2], found[3], text), _minutes(found[5], found[6], text)
        length = ((last - first) * 1440 + end - start) % (7 * 1440)
        if not length or start == 1440:
            raise ParameterError("--window", text, ACCEPTED)
        yield _Rule((first,), start, start + length)
        return
    found = re.fullmatch(rf"([a-z,-]*)(?:(?:^| ){_TIME} ?- ?{_TIME})?", words)
    if not words or found is None:
        raise ParameterError("--window", text, ACCEPTED)
    start, end = (0, 1440) if found[2] is None else (
        _minutes(found[2], found[3], text), _minutes(found[4], found[5], text)
    )  # fmt: skip
    if start == end or start == 1440:
        raise ParameterError("--window", text, ACCEPTED, "a whole day is 00:00-24:00")
    yield _Rule(tuple(_days(found[1] or "daily", text)), start, end if end > start else end + 1440)


def _minutes(hour: str, minute: str, text: str) -> int:
    minutes = 60 * int(hour) + int(minute)
    if minutes > 1440:
        raise ParameterError("--window", text, ACCEPTED)
    return minutes


def _days(words: str, text: str) -> Iterator[int]:
    for part in words.split(","):
        first, dash, last = part.partition("-")
        if part == "daily":
            yield from range(7)
        elif first in DAYS and (last in DAYS if dash else True):
            start, end = DAYS.index(first), DAYS.index(last if dash else first)
            yield from (day % 7 for day in range(start, end + 1 if end >= start else end + 8))
        else:
            raise ParameterError("--window", text, ACCEPTED)


def _moment(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """The moment at which clocks show a time: the first of two, the change itself where they skip it."""
    midnight = datetime(day.year, day.month, day.day)
    shown = (midnight + timedelta(minutes=minutes)).replace(tzinfo=zone)
    moment = shown.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == shown.replace(tzinfo=None):
        return moment
    before, after = shown.replace(fold=1).astimezone(UTC), moment  # around the change
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def _merged(windows: Iterable[Window]) -> list[Window]:
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.start < merged[-1].end:
            merged[-1] = Window(merged[-1].start, max(merged[-1].end, window.end))
        else:
            merged.append(window)
    return merged


# -- time zones


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name, such as Europe/Berlin.

    Raises
    ------
    ParameterError
        There is none.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise ParameterError(
            "--time-zone", name, "a name of the time zone database, such as Europe/Berlin or UTC",
            "if it is right, install the package tzdata",
        ) from None  # fmt: skip


def local_zone(etc: Path = Path("/etc")) -> str:
    """The name of the time zone of this machine's clock; UTC where it has none.

    Raises
    ------
    ParameterError
        The clock has a zone without a name.
    """
    link, named = etc / "localtime", etc / "timezone"
    _, found, name = str(link.resolve()).partition("/zoneinfo/")
    if found or not link.exists():
        return name or "UTC"
    if named.is_file():
        return named.read_text().strip()
    raise ParameterError(
        "--time-zone", "", "given", f"{link} is no link into the time zone database, so it has no name"
    )


# -- what timers understand


def cron_lines(
    windows: Windows, every: int, clock: str, start: datetime, *, starts_only: bool = False
) -> list[str]:
    """Times in the five fields of cron, on a clock in the time zone `clock`, in which a run may be due.

    They cover every tick of a year (or every start of a window), so that they hold whatever the clocks of the
    two zones do; a moment outside a window is found out when it comes. With `starts_only` each line is
    exact as far as one clock goes, and there are as many as it takes; otherwise there is one, which may fire
    on a day without a window.
    """
    zone = zone_of(clock)
    if starts_only:
        moments: Iterable[datetime] = (w.start for w in windows.between(start, start + timedelta(days=371)))
    else:
        moments = windows.ticks(every, start, 371)
    days: dict[tuple[int, int], set[int]] = defaultdict(set)
    for moment in moments:
        shown = moment.astimezone(zone)
        days[shown.hour, shown.minute].add(shown.isoweekday() % 7)
    if not starts_only:
        on = set().union(*days.values())
        days = defaultdict(set, dict.fromkeys(days, on))
    # Hours that have the same minutes on the same days share a line.
    minutes: dict[tuple[int, tuple[int, ...]], set[int]] = defaultdict(set)
    for (hour, minute), of_week in days.items():
        minutes[hour, tuple(sorted(of_week))].add(minute)
    if not starts_only:  # one line: every minute at which any hour has a tick
        all_minutes = set().union(*minutes.values())
        minutes = defaultdict(set, dict.fromkeys(minutes, all_minutes))
    hours: dict[tuple[tuple[int, ...], tuple[int, ...]], set[int]] = defaultdict(set)
    for (hour, of_days), at in minutes.items():
        hours[tuple(sorted(at)), of_days].add(hour)
    return [
        f"{_field(at_minutes, 60)} {_field(sorted(in_hours), 24)} * * {_field(of_days, 7)}"
        for (at_minutes, of_days), in_hours in sorted(hours.items())
    ]


def calendar(windows: Windows, every: int, start: datetime) -> str:
    """The same as one line, as a calendar event of systemd, which knows time zones itself."""
    (line,) = cron_lines(windows, every, windows.zone, start)
    minute, hour, *_, days = line.split()
    names = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
    of_week = "" if days == "*" else ",".join(names[int(day)] for day in _listed(days)) + " "
    at, of_hour = (",".join(f"{n:02d}" for n in _listed(f)) if f != "*" else "*" for f in (minute, hour))
    return f"{of_week}*-*-* {of_hour}:{at}:00 {windows.zone}"


def _field(values: Sequence[int], whole: int) -> str:
    if len(values) == whole:
        return "*"
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def _listed(field: str) -> list[int]:
    found: list[int] = []
    for part in field.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
