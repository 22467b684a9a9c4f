"""Nothing is lost under any failure: campaigns are disturbed on a real Ray cluster, and resumed.

Each episode of `tests/chaos.py` checks: the resumed dataset is that of a serial run, bit for bit; what the
ledger knew before the resume is never computed again; no more work is lost than what was under way; the
cell to blame, and no other, is recorded as failed, with error, traceback, attempts and host.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import DEEDS, EVENTS, FIRST, Chaos, script

MORE = range(len(FIRST), len(FIRST) + 100)


@pytest.fixture(scope="module")
def chaos() -> Iterator[Chaos]:
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))  # Ray's sockets want a short path
    world = Chaos(folder)
    yield world
    world.close()
    shutil.rmtree(folder, ignore_errors=True)


def play(chaos: Chaos, number: int) -> None:
    verdict = chaos.play(number)
    if "skip" in verdict:
        pytest.skip(verdict["skip"])
    assert "failure" not in verdict, f"{verdict['script']}: {verdict['failure']}"
    print(verdict)


@pytest.mark.ray
@pytest.mark.parametrize("number", range(len(FIRST)), ids=[": ".join(names) for names in FIRST])
def test_nothing_is_lost(chaos: Chaos, number: int) -> None:
    play(chaos, number)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", MORE)
def test_nothing_is_lost_whatever_happens_at_whatever_moment(chaos: Chaos, number: int) -> None:
    play(chaos, number)


def test_the_episodes_hold_every_event_and_every_deed() -> None:
    drawn = [script(number) for number in MORE]
    assert {event for event, _ in drawn} | {"nothing"} == set(EVENTS)
    assert {deed for _, deed in drawn} == set(DEEDS)
