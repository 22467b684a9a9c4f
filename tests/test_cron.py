"""A schedule under a real cron, Debian's (`apt-get install cron`), in a mount namespace of its own.

    pytest -m cron

The namespace has an empty spool and no system crontab, so this cron runs nothing else, and the crontab of
whoever runs the test is neither seen nor changed. It takes about two minutes: cron wakes once a minute.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from campaigns import campaign_text

INSIDE = r"""
set -eu
for folder in /var/spool/cron /etc/cron.d /run; do mount -t tmpfs tmpfs "$folder"; done
mkdir -m 1730 /var/spool/cron/crontabs
chgrp crontab /var/spool/cron/crontabs
mount --bind /dev/null /etc/crontab
cron -f &
daemon=$!
trap 'kill "$daemon"; wait "$daemon" || true' EXIT
"$@"
"""


@pytest.mark.cron
@pytest.mark.skipif(os.getuid() != 0, reason="cron and a mount namespace of its own need root")
def test_a_real_cron_computes_a_campaign_whatever_is_in_its_paths(tmp_path: Path) -> None:
    assert shutil.which("cron"), "apt-get install cron"
    odd = tmp_path / 'it\'s 100% "odd"\nindeed'
    odd.mkdir()
    (odd / "campaign % 'c'.toml").write_text(
        campaign_text(N=[32], a=[0.7], p=[1], alpha=[0.8]).replace('kernel = "probe"\n', "")
    )
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "bash", "-c", INSIDE, "bash"),
            *(sys.executable, __file__, str(odd)),
        ],
        capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "BENDSCAPE_SCHEDULES": str(odd / "schedules %"), "EDITOR": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["installed_twice"].count("schedule run --log") == 1
    assert told["removed"] == told["foreign"], "the line of somebody else is as it was"
    assert told["foreign_ran"], "and went on running"
    (window,) = told["past"]
    assert (window["state"], window["cells"], len(window["runs"])) == ("complete", 6, 1)
    assert told["ticks_after"] == [1], "a later tick found nothing to do, and made no run"
    log = odd / "schedules %" / "probe.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "complete: 6 of 6 cells done" in log.read_text()


def inside(odd: Path) -> dict[str, object]:
    """What the test does beside the daemon; two minutes at most until cron has computed."""
    import time

    from bendscape.cluster.schedule import load, runs_of

    bendscape = [sys.executable, "-P", "-m", "bendscape.sweep"]

    def call(*words: str, text: str | None = None) -> str:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    foreign = textwrap.dedent(f"""\
        # somebody else's
        * * * * * echo 50\\% > {odd.parent}/foreign  # bendscape schedule probe
        """)
    call("crontab", "-", text=foreign)
    file = str(next(odd.glob("*.toml")))
    install = [*bendscape, "schedule", "install", file, "--cron", "--every", "1", "--window", "always"]
    for hours in ("4", "5"):
        store = str(odd.parent / "s 100% 'odd'.zarr")
        call(*install, "--core-hours", hours, "--store", store)
    told: dict[str, object] = {"foreign": foreign, "installed_twice": call("crontab", "-l")}
    store_of = load("probe").store
    deadline = time.monotonic() + 150
    while not any(run.outcome == "complete" for run in runs_of(store_of)):
        assert time.monotonic() < deadline, "cron has computed nothing"
        time.sleep(1)
    time.sleep(65)  # at least one more tick
    told["ticks_after"] = [run.epoch for run in runs_of(store_of)]
    (document,) = json.loads(call(*bendscape, "schedule", "list", "--json"))["schedules"]
    told["past"] = document["past"]
    call(*bendscape, "schedule", "remove", "probe")
    told["removed"] = call("crontab", "-l")
    told["foreign_ran"] = (odd.parent / "foreign").exists()
    return told


if __name__ == "__main__":
    print(json.dumps(inside(Path(sys.argv[1]))))
