"""What a Slurm job decides: after each round of its driver, and on its other nodes when the first is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bendscape.cluster import slurm_job, slurm_ray
from bendscape.sweep.engine.stop import BUDGET, CORE_HOURS


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)


class Rounds:
    """A job whose driver ends with the codes that are listed, on a clock of its own."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, codes: list[tuple[int, int | None]]
    ) -> None:
        self.codes, self.folder, self.requeued, self.left = codes, folder, 0, 3600.0
        self.heard = slurm_job.Heard()
        self.told = slurm_job.Told("5", folder, 1, 2, 0, 3600.0, 120.0, (20000, 30000), ["true"])
        monkeypatch.setattr(slurm_job, "play", self.play)
        monkeypatch.setattr(slurm_job, "ask", self.ask)
        monkeypatch.setattr(slurm_job.time, "sleep", lambda _: None)
        monkeypatch.setattr(slurm_job.Clock, "left", lambda _: self.left)

    def play(self, *_: object) -> slurm_job.Round:
        code, computed = self.codes.pop(0)
        return slurm_job.Round(code, computed, 10.0)

    def ask(self, *command: str, **_: object) -> str:
        assert command == ("scontrol", "requeue", "5")
        self.requeued += 1
        return ""

    def __call__(self) -> int:
        return slurm_job.run(self.told, self.heard)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 70])
def test_a_job_stops_when_its_driver_is_done_or_refuses(
    code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rounds = Rounds(monkeypatch, tmp_path, [(code, 5)])
    assert rounds() == code
    assert rounds.requeued == 0


def test_a_job_goes_on_where_it_is_while_there_is_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rounds = Rounds(monkeypatch, tmp_path, [(75, 4), (74, 1), (-9, None), (0, 2)])
    assert rounds() == 0
    assert rounds.requeued == 0


def test_a_requeued_job_waits_for_a_driver_that_still_holds_the_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    rounds = Rounds(monkeypatch, tmp_path, [(2, None), (2, None), (0, 5)])
    assert rounds() == 0


def test_a_job_requeues_itself_at_the_end_of_the_wall_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rounds = Rounds(monkeypatch, tmp_path, [(75, 4)])
    rounds.left = 100.0
    assert rounds() == 75
    assert rounds.requeued == 1


def test_the_early_signal_is_the_end_of_the_wall_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rounds = Rounds(monkeypatch, tmp_path, [(75, 4)])
    rounds.heard.early = True
    assert rounds() == 75
    assert rounds.requeued == 1


def test_a_job_that_was_told_to_end_does_not_requeue_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rounds = Rounds(monkeypatch, tmp_path, [(75, 4)])
    rounds.heard.early = rounds.heard.end = True
    assert rounds() == 75
    assert rounds.requeued == 0


def test_a_job_that_was_cancelled_while_it_waited_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cancelled").touch()
    rounds = Rounds(monkeypatch, tmp_path, [])
    assert rounds() == 75
    assert rounds.requeued == 0


def test_a_job_that_computes_nothing_gives_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_text('{"exit_code": 75, "computed": 3, "fruitless": fal\n')
    rounds = Rounds(monkeypatch, tmp_path, [(75, 3), (75, 0), (74, None), (75, 0), (0, 1)])
    assert rounds() == 75
    assert rounds.codes == [(0, 1)]
    assert rounds.requeued == 0


def test_a_site_that_refuses_requeues_is_told_of_and_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = Rounds(monkeypatch, tmp_path, [(75, 3)])
    left = iter([100.0, 100.0, 50.0, 20.0, 5.0])

    def refuse(*_: str) -> str:
        raise OSError("scontrol: Requested operation is presently disabled")

    monkeypatch.setattr(slurm_job, "ask", refuse)
    monkeypatch.setattr(slurm_job.Clock, "left", lambda _: next(left))
    assert rounds() == 75
    assert "this site does not requeue jobs" in capsys.readouterr().err


@pytest.mark.parametrize(("reason", "rounds"), [(CORE_HOURS, 1), (BUDGET, 2)])
def test_a_job_ends_when_its_core_hours_are_used_up(
    reason: str, rounds: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "driver"
    driver.write_text(
        f"#!/bin/sh\necho >>{tmp_path}/calls\n"
        f"""printf '{{"computed": 3, "reason": "{reason}"}}'\nexit 75\n"""
    )
    driver.chmod(0o700)
    requeued = []
    monkeypatch.setattr(slurm_job, "ask", lambda *command, **_: requeued.append(command))
    monkeypatch.setattr(slurm_job.time, "sleep", lambda _: None)
    left = iter([3600.0, 3600.0, 3600.0, 100.0, 100.0])
    monkeypatch.setattr(slurm_job.Clock, "left", lambda _: next(left))
    told = slurm_job.Told("5", tmp_path, 1, 2, 0, 3600.0, 120.0, (20000, 30000), [str(driver)])
    assert slurm_job.run(told, slurm_job.Heard()) == 75
    assert (tmp_path / "calls").read_text().count("\n") == rounds
    assert len(requeued) == rounds - 1


def test_failed_cells_are_tried_again_until_a_round_has_computed_something(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Where they take as long as a round does, the job would requeue itself for ever.
    driver = tmp_path / "driver"
    driver.write_text(
        f"#!/bin/sh\necho $1 $2 >>{tmp_path}/calls\nrounds=$(wc -l <{tmp_path}/calls)\n"
        """printf '{"computed": %d}' $((rounds - 1))\n[ $rounds = 3 ] || exit 75\n"""
    )
    driver.chmod(0o700)
    monkeypatch.setattr(slurm_job.time, "sleep", lambda _: None)
    monkeypatch.setattr(slurm_job.Clock, "left", lambda _: 3600.0)
    command = [str(driver), "--retry-failed", "c.toml"]
    told = slurm_job.Told("5", tmp_path, 1, 2, 0, 3600.0, 120.0, (20000, 30000), command)
    assert slurm_job.run(told, slurm_job.Heard()) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["--retry-failed c.toml", "--retry-failed c.toml", "c.toml --address"]


class Orphan:
    """Slurm's answers about a job of which the first node may be lost."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, nodes: str, state: str = "RUNNING", head: int = 99
    ) -> None:
        self.nodes, self.state, self.head, self.requeued = nodes, state, head, 0
        monkeypatch.setattr(slurm_ray, "ask", self.ask)
        monkeypatch.setattr(slurm_ray, "answers", self.answers)

    def answers(self, _: str) -> bool:
        self.head -= 1
        return self.head < 0

    def ask(self, *command: str) -> str:
        if command[1] == "requeue":
            self.requeued += 1
            return ""
        if command[2] == "hostnames":
            return "\n".join(self.nodes.split(","))
        return f"JobId=5 JobState={self.state} BatchHost=n1 NodeList={self.nodes} Comment=a b=c"


@pytest.mark.parametrize(
    ("told", "requeued"),
    [
        ({"nodes": "n2,n3"}, 1),
        ({"nodes": "n1,n2", "head": 3}, 0),
        ({"nodes": "n2", "state": "PENDING"}, 0),
        ({"nodes": "n2", "head": 0}, 0),
    ],
)
def test_a_job_whose_first_node_is_lost_is_requeued_by_another(
    told: dict[str, Any], requeued: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = Orphan(monkeypatch, **told)
    slurm_ray.guard("5", "10.0.0.1:20001", seconds=5, pause=0)
    assert orphan.requeued == requeued
