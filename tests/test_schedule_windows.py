"""Windows of the week, on clocks that change: against a count of minutes, cron's own rules and systemd."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bendscape.cluster.schedule_windows import Windows, calendar, cron_lines, local_zone
from bendscape.core.errors import ParameterError

BERLIN, NEW_YORK, KATHMANDU = "Europe/Berlin", "America/New_York", "Asia/Kathmandu"
HOUR = timedelta(hours=1)
RULES = [
    ("mon-fri 20:00-06:00",),
    ("sat,sun",),
    ("fri 20:00 - mon 06:00",),
    ("nights", "weekends"),
    ("daily 12:30-13:30", "wed 01:15-02:45"),
    ("sat-mon 23:45-00:15",),
]


def utc(*of: int) -> datetime:
    return datetime(*of, tzinfo=UTC)  # type: ignore[arg-type, misc]


def shown(moment: datetime, zone: str = BERLIN) -> str:
    return moment.astimezone(ZoneInfo(zone)).strftime("%a %d %H:%M %z")


def meant(rules: tuple[str, ...], clock: datetime) -> bool:
    """Whether a clock shows a time of a window, told by hand for the rules above."""
    day, time = clock.weekday(), clock.strftime("%H:%M")
    before = (day - 1) % 7
    late, early = time >= "20:00", time < "06:00"
    return {
        RULES[0]: (late and day < 5) or (early and before < 5),
        RULES[1]: day >= 5,
        RULES[2]: (day == 4 and late) or day >= 5 or (day == 0 and early),
        RULES[3]: late or time < "08:00" or day >= 5,
        RULES[4]: "12:30" <= time < "13:30" or (day == 2 and "01:15" <= time < "02:45"),
        RULES[5]: (time >= "23:45" and day in (5, 6, 0)) or (time < "00:15" and before in (5, 6, 0)),
    }[rules]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, KATHMANDU])
def test_a_window_is_open_exactly_when_the_clock_shows_its_times(rules: tuple[str, ...], zone: str) -> None:
    windows = Windows(rules, zone)
    first = utc(2026, 10, 15)  # both kinds of clock are put back within a month, none within these windows
    spans = windows.between(first - timedelta(days=9), first + timedelta(days=33))
    for k in range(33 * 24 * 4):
        moment = first + k * timedelta(minutes=15)
        clock = moment.astimezone(ZoneInfo(zone))
        twice = clock.fold or clock.replace(fold=1).utcoffset() != clock.replace(fold=0).utcoffset()
        if not twice:
            assert any(moment in window for window in spans) == meant(rules, clock), clock


def test_a_night_is_an_hour_longer_or_shorter_when_clocks_change_and_starts_on_time() -> None:
    windows = Windows(("daily 20:00-06:00",), BERLIN)
    spring = windows.between(utc(2026, 3, 27, 12), utc(2026, 3, 30, 12))
    assert [(shown(w.start), (w.end - w.start) / HOUR) for w in spring] == [
        ("Fri 27 20:00 +0100", 10),
        ("Sat 28 20:00 +0100", 9),
        ("Sun 29 20:00 +0200", 10),
    ]
    autumn = windows.between(utc(2026, 10, 24, 12), utc(2026, 10, 25, 23))
    assert [(shown(w.start), (w.end - w.start) / HOUR) for w in autumn] == [
        ("Sat 24 20:00 +0200", 11),
        ("Sun 25 20:00 +0100", 10),
    ]


def test_times_that_clocks_skip_are_the_moment_of_the_change_and_times_shown_twice_count_once() -> None:
    def of_day(rule: str, *day: int) -> list[tuple[str, str]]:
        found = Windows((rule,), BERLIN).between(utc(*day), utc(*day) + timedelta(hours=22))
        return [(shown(w.start), shown(w.end)) for w in found]

    assert of_day("daily 02:30-04:00", 2026, 3, 29) == [("Sun 29 03:00 +0200", "Sun 29 04:00 +0200")]
    assert of_day("daily 01:00-02:30", 2026, 3, 29) == [("Sun 29 01:00 +0100", "Sun 29 03:00 +0200")]
    assert of_day("daily 02:15-02:45", 2026, 3, 29) == [], "no clock shows it on this day"
    assert of_day("daily 02:15-02:45", 2026, 10, 25) == [("Sun 25 02:15 +0200", "Sun 25 02:45 +0200")]
    assert of_day("daily 02:30-03:00", 2026, 10, 25) == [("Sun 25 02:30 +0200", "Sun 25 03:00 +0100")]


def test_the_window_after_one_that_a_change_of_clocks_left_out_is_the_next() -> None:
    found = Windows(("sun 02:15-02:45",), BERLIN).next_after(utc(2026, 3, 28))
    assert shown(found.start) == "Sun 05 02:15 +0200"


def test_overlapping_windows_are_one_and_windows_that_meet_are_two() -> None:
    both = Windows(("mon-fri 20:00-06:00", "sat 00:00 - mon 00:00"), "UTC")
    weekend = both.open_at(utc(2026, 11, 28, 12))
    assert weekend is not None
    assert (weekend.start, weekend.end) == (utc(2026, 11, 27, 20), utc(2026, 11, 30))
    days = Windows(("sat,sun",), "UTC").between(utc(2026, 11, 28), utc(2026, 11, 30))
    assert [window.end for window in days] == [utc(2026, 11, 29), utc(2026, 11, 30)]
    edge = Windows(("daily 20:00-06:00",), "UTC")
    assert edge.open_at(utc(2026, 11, 28, 6)) is None, "the end is no part of it"
    assert edge.open_at(utc(2026, 11, 28, 20)) is not None
    with pytest.raises(ParameterError, match="overlap without end"):
        Windows(("daily 00:00-12:00", "daily 11:00-00:30"), "UTC")


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "mon", "monday", "20:00-06:00", "mon 25:00-26:00", "mon 24:00-06:00", "mon 20:00-20:00"),
        *("mon,", "mon 20:00", "mon 20:61-21:00", "mon 20:00 - mon 20:00", "20:00-24:30", "mon-xyz"),
        "Mon 8:00-9:00",
    ],
)
def test_a_rule_is_read_or_refused_with_what_is_accepted(text: str) -> None:
    if text in ("mon", "20:00-06:00"):  # a whole day, and every day
        assert Windows((text,), "UTC").between(utc(2026, 11, 23), utc(2026, 11, 24))
        return
    with pytest.raises(ParameterError, match=r"--window must be DAYS HH:MM-HH:MM such as"):
        Windows((text,), "UTC")


def test_a_time_zone_that_is_none_is_refused() -> None:
    for name in ("Mars/Olympus", "../etc/passwd", "", "/etc/localtime"):
        with pytest.raises(ParameterError, match="a name of the time zone database"):
            Windows(("nights",), name)


def test_the_zone_of_this_machine_is_that_of_its_clock(tmp_path: Path) -> None:
    etc = tmp_path
    assert local_zone(etc) == "UTC"
    (etc / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert local_zone(etc) == BERLIN
    (etc / "localtime").unlink()
    (etc / "localtime").write_bytes(b"TZif")
    with pytest.raises(ParameterError, match="has no name"):
        local_zone(etc)
    (etc / "timezone").write_text("Asia/Tokyo\n")
    assert local_zone(etc) == "Asia/Tokyo"


# -- timers


def fires(line: str, clock: datetime) -> bool:
    """Whether cron starts a line at a minute of its clock."""
    minute, hour, day, month, of_week = line.split()
    assert (day, month) == ("*", "*")

    def has(field: str, value: int) -> bool:
        parts = [part.partition("-") for part in field.split(",")]
        return field == "*" or any(int(a) <= value <= int(b or a) for a, _, b in parts)

    return has(minute, clock.minute) and has(hour, clock.hour) and has(of_week, clock.isoweekday() % 7)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("clock", ["UTC", BERLIN, NEW_YORK, KATHMANDU])
def test_cron_looks_at_the_start_of_every_window_and_all_through_it_on_any_clock(
    rules: tuple[str, ...], clock: str
) -> None:
    windows = Windows(rules, BERLIN)
    (line,) = cron_lines(windows, 15, clock, utc(2026, 1, 10))
    exact = cron_lines(windows, 15, clock, utc(2026, 1, 10), starts_only=True)
    moments = list(windows.ticks(15, utc(2026, 2, 1), 365))[::11]
    assert len(moments) > 20
    for moment in moments:
        assert fires(line, moment.astimezone(ZoneInfo(clock))), moment
    for window in windows.between(utc(2026, 2, 1), utc(2027, 1, 30)):
        assert any(fires(one, window.start.astimezone(ZoneInfo(clock))) for one in exact)


def test_where_each_start_costs_an_allocation_cron_fires_at_starts_alone() -> None:
    def lines(*rules: str, clock: str = "UTC") -> list[str]:
        return cron_lines(Windows(rules, "UTC"), 15, clock, utc(2026, 1, 1), starts_only=True)

    assert lines("mon-fri 20:00-06:00") == ["0 20 * * 1-5"]
    assert lines("mon-fri 20:00-06:00", "sun 08:30-12:00") == ["0 20 * * 1-5", "30 8 * * 0"]
    assert lines("mon 20:00-06:00", clock=NEW_YORK) == ["0 15,16 * * 1"], "in winter and in summer"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="only systemd knows its calendar events")
@pytest.mark.parametrize("rules", RULES)
def test_systemd_looks_at_the_same_moments(rules: tuple[str, ...]) -> None:
    windows, start = Windows(rules, BERLIN), utc(2026, 10, 22)
    event = calendar(windows, 30, start)
    count = 200
    asked = ["systemd-analyze", "calendar", f"--base-time={start:%Y-%m-%d %H:%M:%S} UTC"]
    done = subprocess.run(
        [*asked, f"--iterations={count}", event], capture_output=True, text=True, timeout=60, check=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )  # fmt: skip
    times = [line.partition(":")[2].strip() for line in done.stdout.splitlines()]
    shown = {time for time in times if time.endswith(" UTC")}
    assert len(shown) >= count
    last = max(datetime.strptime(time[4:], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC) for time in shown)
    wanted = [moment for moment in windows.ticks(30, start, 40) if start < moment <= last]
    assert len(wanted) > 10
    for moment in wanted:
        # Of an hour that the clock shows twice systemd takes one.
        twice = moment.astimezone(ZoneInfo(BERLIN)).strftime("%m-%d %H") == "10-25 02"
        assert twice or f"{moment:%a %Y-%m-%d %H:%M:%S UTC}" in shown, moment
