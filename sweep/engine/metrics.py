"""What a run tells Prometheus of itself, through the metrics of Ray.

Counters start at zero with each run, as Prometheus expects of a process; gauges are read from the ledger, so
they are right from the first report of a run that resumes. Every series has one label of ours: the name of
the campaign.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from bendscape.core.errors import ParameterError

PORT_SECONDS = 90.0  # how long to wait for a port
REPORT_SECONDS = 1.0  # between two reports; Ray hands them on every ten seconds
LABEL = "campaign"
NEEDED = ("aiohttp", "opencensus", "opentelemetry", "prometheus_client")  # by the part of Ray that exports


class Metric(NamedTuple):
    """A metric: its name here, its kind, and what it says. Ray puts `ray_` before the name."""

    name: str
    kind: Literal["counter", "gauge"]
    description: str

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"ray_{self.name}" + ("_total" if self.kind == "counter" else "")


METRICS = {
    metric.name.removeprefix("bendscape_"): metric
    for metric in (
        Metric("bendscape_cells_done", "counter", "Cells that this run has finished"),
        Metric("bendscape_cells_failed", "counter", "Cells that failed in this run, retried ones included"),
        Metric("bendscape_core_seconds", "counter", "Computing time of the cells of this run on one core"),
        Metric("bendscape_tasks_lost", "counter", "Tasks that this run lost with their workers, and retried"),
        Metric("bendscape_campaign_cells", "gauge", "Cells that the campaign asks for"),
        Metric("bendscape_campaign_cells_done", "gauge", "Cells of the campaign that are done"),
        Metric(
            "bendscape_campaign_cells_failed",
            "gauge",
            "Cells of the campaign that have failed",
        ),
        Metric("bendscape_campaign_cells_left", "gauge", "Cells of the campaign that are not yet computed"),
        Metric("bendscape_tiles_in_flight", "gauge", "Tiles at the workers, or waiting for one"),
        Metric("bendscape_campaign_core_seconds_left", "gauge", "Estimated computing time left on one core"),
        Metric("bendscape_slots", "gauge", "Tasks that can run at the same time"),
    )
}
"""Every metric, by its name without the prefix."""


@runtime_checkable
class Exporter(Protocol):
    """An executor that has metrics of its own."""

    def report(self, campaign: str, added: Mapping[str, float], now: Mapping[str, float]) -> None:
        """Add to the counters of a campaign, and set its gauges."""
        ...


class Tally:
    """Counts what a run does, and reports it to its executor now and then, if that has metrics.

    Parameters
    ----------
    executor
        Any executor; one that is no `Exporter` is told nothing.
    campaign
        The name of the campaign. Characters that Ray does not take (any beyond ASCII) are escaped.
    """

    def __init__(self, executor: object, campaign: str) -> None:
        self._exporter = executor if isinstance(executor, Exporter) else None
        self._campaign = campaign.encode("ascii", "backslashreplace").decode()
        self._added: Counter[str] = Counter(
            {name: 0 for name, metric in METRICS.items() if metric.kind == "counter"}
        )
        self._due = 0.0

    def add(self, name: str, amount: float) -> None:
        """Count; `amount` is not negative."""
        self._added[name] += amount  # type: ignore[assignment]

    @property
    def due(self) -> bool:
        """Whether it is time to report."""
        return self._exporter is not None and time.monotonic() >= self._due

    def report(self, gauges: Mapping[str, float]) -> None:
        """Hand over what was counted since the last report, and the gauges as they are now."""
        if self._exporter is not None:
            self._exporter.report(self._campaign, dict(self._added), gauges)
            self._added = Counter(dict.fromkeys(self._added, 0))
            self._due = time.monotonic() + REPORT_SECONDS


def check_port(port: int, executor: str, here: bool) -> int:
    """A port at which a Ray of our own can serve metrics.

    Parameters
    ----------
    port
        A number.
    executor, here
        What `bendscape.sweep.engine.executor.choose` says of the address.

    Raises
    ------
    ParameterError
        Not a port; no Ray runs, or one that is not ours; Ray cannot export.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ParameterError("--metrics-port", port, "an integer from 1 to 65535")
    if executor != "ray":
        remedy = (
            "metrics are those of Ray, which this run does not start; `bendscape status --watch` needs none"
        )
        raise ParameterError("--metrics-port", port, "together with --address ray", remedy)
    if not here:
        remedy = "a running cluster exports them at the port that `ray start --metrics-export-port` was given"
        raise ParameterError("--metrics-port", port, "together with --address ray", remedy)
    if not can_export():
        remedy = "install it with pip install 'bendscape[metrics]'"
        raise ParameterError("--metrics-port", port, "only where Ray can export metrics", remedy)
    return port


def wait_for_port(port: int, say: Callable[[str], object]) -> None:
    """Wait until nobody listens at a port: the Ray of a run that was killed keeps its own for a minute.

    Raises
    ------
    ParameterError
        It is still taken after `PORT_SECONDS`.
    """
    until, said = time.monotonic() + PORT_SECONDS, False
    while (refusal := _refusal(port)) is not None:
        if time.monotonic() > until:
            raise ParameterError("--metrics-port", port, "a port that is free", refusal)
        if not said:
            say(f"port {port} is taken, perhaps by the Ray of a run that was killed: waiting for it")
            said = True
        time.sleep(0.5)


def _refusal(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return str(error)
    return None


def can_export() -> bool:
    """Whether the installed Ray has the part that exports metrics; without it, they are counted in vain."""
    return all(find_spec(name) is not None for name in NEEDED)
