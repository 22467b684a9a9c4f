"""What a run tells Prometheus: scraped from a real Ray, and read by the dashboard and the alerts."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import bendscape

from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.metrics import ALERTS, DASHBOARD, file_of
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine import metrics
from bendscape.sweep.engine.executor import SerialExecutor, executor_at
from bendscape.sweep.engine.metrics import METRICS, can_export, check_port, wait_for_port
from campaigns import RANDOM, campaign_text, make_campaign, run

KernelFile = Callable[..., str]
SMALL = {"p": [1], "a": [0.7, 1.5], "alpha": [1.0, 2.0], "N": [64], "seeds": 6}
FAILING = f"if cell.seed == 1: raise ValueError('no')\n{RANDOM}"
EXPORTED = {metric.exported for metric in METRICS.values()}


class Counted(SerialExecutor):
    """The serial executor, with metrics that are added up here."""

    def __init__(self) -> None:
        self.campaigns, self.reports = set[str](), 0
        self.totals, self.gauges = dict[str, float](), dict[str, float]()

    def report(self, campaign: str, added: Mapping[str, float], now: Mapping[str, float]) -> None:
        self.campaigns.add(campaign)
        self.reports += 1
        for name, amount in added.items():
            self.totals[name] = self.totals.get(name, 0.0) + amount
        self.gauges = dict(now)


def scraped(port: int, campaign: str) -> dict[str, float]:
    """Our metrics of one campaign, by name; the tags of each are looked at, too."""
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples if "bendscape" in sample.name]
    ours = [sample for sample in samples if sample.labels["campaign"] == campaign]
    of_ray = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
    for sample in ours:
        labels = {name for name in sample.labels if not name.startswith("otel_scope")}
        assert labels == {*of_ray, "campaign"}, "one series for each campaign and driver, none for a tile"
    return {sample.name: sample.value for sample in ours}


@pytest.mark.ray
@pytest.mark.metrics
def test_a_scrape_of_ray_agrees_with_the_final_status(
    tmp_path: Path, kernel_file: KernelFile, local_ray: None
) -> None:
    import ray

    from bendscape.sweep.engine.ray_executor import RayExecutor

    campaign = make_campaign(**SMALL)
    name = 'a "name" \\ λ'
    campaign = campaign.model_copy(update={"campaign": campaign.campaign.model_copy(update={"name": name})})
    run(tmp_path / "s.zarr", kernel_file(FAILING), campaign, RayExecutor({}, 2))
    status = store_status(tmp_path / "s.zarr")
    (node,) = ray.nodes()
    until, tag, found = time.monotonic() + 60, 'a "name" \\ \\u03bb', dict[str, float]()
    counted, ended = [f"ray_bendscape_cells_{kind}_total" for kind in ("done", "failed")], 24
    while time.monotonic() < until and sum(found.get(name, 0) for name in counted) < ended:
        time.sleep(0.5)  # Ray hands metrics on every ten seconds, those of a slow run in several parts
        found = scraped(node["MetricsExportPort"], tag)
    assert set(found) == EXPORTED
    core_seconds = found.pop("ray_bendscape_core_seconds_total")
    assert core_seconds == pytest.approx(status["runs"][-1]["core_seconds"])
    del found["ray_bendscape_campaign_core_seconds_left"]
    assert found == {
        "ray_bendscape_cells_done_total": status["done"],
        "ray_bendscape_cells_failed_total": status["failed"],
        "ray_bendscape_tasks_lost_total": 0,
        "ray_bendscape_campaign_cells": 24,
        "ray_bendscape_campaign_cells_done": 20,
        "ray_bendscape_campaign_cells_failed": 4,
        "ray_bendscape_campaign_cells_left": 0,
        "ray_bendscape_tiles_in_flight": 0,
        "ray_bendscape_slots": 2,
    }


def test_counters_of_a_run_that_resumes_begin_at_zero_and_gauges_know_the_ledger(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(FAILING)
    run(tmp_path / "s.zarr", module, make_campaign(**{**SMALL, "seeds": 4}))
    executor = Counted()
    run(tmp_path / "s.zarr", module, make_campaign(**SMALL), executor)
    status = store_status(tmp_path / "s.zarr")
    assert executor.campaigns == {"probe"}
    assert executor.totals["cells_done"] == 8 == status["runs"][-1]["cells"]
    assert executor.totals["cells_failed"] == 0
    assert executor.totals["core_seconds"] == pytest.approx(status["runs"][-1]["core_seconds"])
    assert executor.gauges["campaign_cells_done"] == status["done"] == 20
    assert executor.gauges["campaign_cells_failed"] == status["failed"] == 4
    assert executor.gauges["campaign_cells_left"] == executor.gauges["tiles_in_flight"] == 0
    assert set(executor.totals) | set(executor.gauges) == set(METRICS)
    again = Counted()
    run(tmp_path / "s.zarr", module, make_campaign(**SMALL), again, retry_failed=True)
    assert (again.totals["cells_done"], again.totals["cells_failed"]) == (0, 4)


def test_tiles_are_in_flight_until_they_come_back_and_lost_tasks_are_counted(
    tmp_path: Path, kernel_file: KernelFile, pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "REPORT_SECONDS", 0.0)
    seen = Counted()

    def follow(campaign: str, added: Mapping[str, float], now: Mapping[str, float]) -> None:
        Counted.report(seen, campaign, added, now)
        flying.append(now["tiles_in_flight"])
        assert now["campaign_cells_left"] + now["campaign_cells_done"] == now["campaign_cells"]

    executor, flying = pool(), list[float]()
    executor.report = follow
    body = f"if cell.seed == 3 and not Path(r'{tmp_path}/once').exists():\n"
    body += f"    Path(r'{tmp_path}/once').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n{RANDOM}"
    run(tmp_path / "s.zarr", kernel_file(body), make_campaign(**SMALL), executor)
    assert seen.totals["tasks_lost"] >= 1
    assert seen.totals["cells_done"] == 24
    assert max(flying) >= 1
    assert flying[-1] == 0


# -- the port


def test_a_port_is_refused_where_no_ray_of_our_own_would_serve_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match=r"--metrics-port.*--address ray"):
        executor_at("local", 1, metrics_port=9464)
    with pytest.raises(ParameterError, match=r"--metrics-port.*ray start --metrics-export-port"):
        executor_at("127.0.0.1:1", 1, metrics_port=9464)
    for port in (0, 65536, True):
        with pytest.raises(ParameterError, match=r"an integer from 1 to 65535"):
            check_port(port, "ray", here=True)
    monkeypatch.setattr(metrics, "NEEDED", ())  # as if the extra were installed
    assert check_port(9464, "ray", here=True) == 9464


def test_a_port_that_a_killed_run_still_holds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        release = threading.Timer(0.7, taken.close)
        release.start()
        wait_for_port(port, said.append)
        release.join()
    assert said == [f"port {port} is taken, perhaps by the Ray of a run that was killed: waiting for it"]
    with socket.create_server(("127.0.0.1", port)):
        monkeypatch.setattr(metrics, "PORT_SECONDS", 0.1)
        with pytest.raises(ParameterError, match=r"a port that is free"):
            wait_for_port(port, said.append)


def test_a_ray_that_cannot_export_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "NEEDED", ("json",))
    assert can_export()
    monkeypatch.setattr(metrics, "NEEDED", ("no_such_module_anywhere",))
    with pytest.raises(ParameterError, match=r"pip install 'bendscape\[metrics\]'"):
        check_port(9464, "ray", here=True)
    assert "pip install 'bendscape[metrics]'" in bendscape("metrics").stdout


# -- the dashboard and the alerts


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", expression))


def test_every_expression_of_the_dashboard_reads_metrics_that_there_are() -> None:
    board = json.loads(bendscape("metrics", "--dashboard").stdout)
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    variables = [of["query"]["query"] for of in board["templating"]["list"] if of["type"] == "query"]
    used = set[str]()
    for expression in [*expressions, *variables]:
        assert names_in(expression), expression
        assert names_in(expression) <= EXPORTED, expression
        used |= names_in(expression)
    assert used == EXPORTED, "every metric is shown somewhere"
    for expression in expressions:
        assert expression.count('{campaign=~"$campaign"}') == len(re.findall(r"\bray_\w+", expression))
        for counter in re.findall(r"\w+\((ray_\w+_total)", expression):
            assert re.search(rf"(rate|increase)\({counter}", expression)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in board["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)), "no panel lies over another"
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_has_the_shape_that_grafana_imports() -> None:
    """What Grafana 10.1 declares of a dashboard, as far as this one uses it."""
    board = json.loads(bendscape("metrics", "--dashboard").stdout)
    assert board["schemaVersion"] == 36, "that of 10.1, which later ones migrate"
    assert "id" not in board, "the number of a database; the uid names it"
    source, campaign = board["templating"]["list"]
    assert (source["type"], source["query"], campaign["type"]) == ("datasource", "prometheus", "query")
    asked = {"type": "prometheus", "uid": f"${{{source['name']}}}"}
    assert campaign["datasource"] == asked
    assert set(campaign["query"]) == {"query", "refId"}
    for panel in board["panels"]:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["datasource"] == asked
        assert set(panel["fieldConfig"]) == {"defaults", "overrides"}
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0
        assert all(target["datasource"] == asked for target in panel["targets"])
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"], "the model of Grafana hides it by default"
        else:
            assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]


def test_every_alert_reads_metrics_that_there_are_and_says_what_to_do() -> None:
    text = bendscape("metrics", "--alerts").stdout
    (group,) = yaml.safe_load(text)["groups"]
    for rule in group["rules"]:
        assert names_in(rule["expr"]) <= EXPORTED, rule["expr"]
        assert set(rule["annotations"]) == {"summary", "description"}
    assert bendscape("metrics", "--alerts", "--dashboard").returncode == 2
    assert (file_of(ALERTS), file_of(DASHBOARD)) == (text, bendscape("metrics", "--dashboard").stdout)


def test_the_list_of_metrics_is_a_document_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "NEEDED", ())
    document = json.loads(bendscape("metrics", "--json").stdout)
    assert {row["name"] for row in document["metrics"]} == EXPORTED
    assert document["exported"] is True


# -- jobs


def test_the_first_node_of_a_slurm_job_serves_metrics_at_the_port_that_was_asked_for(tmp_path: Path) -> None:
    from bendscape.cluster.ray_node import Node, ray_start
    from bendscape.cluster.slurm_ray import Told, node_command

    told = Told("5", tmp_path, 2, 2, 0, 3600.0, 120.0, (20000, 30000), ["true"], 9464)
    first, second = (node_command(told, index, "10.0.0.1", "10.0.0.1:20001") for index in (0, 1))
    assert first[first.index("--metrics-port") + 1] == "9464"
    assert "--metrics-port" not in second
    node = Node("10.0.0.1", "10.0.0.1:20001", True, 2, 10**9, "/tmp/b/j5-0", metrics_port=9464)
    ports = range(20002, 20030)
    option = "--metrics-export-port="
    (served,) = (part for part in ray_start(node, ports) if part.startswith(option))
    assert served == f"{option}9464"
    drawn = [part for part in ray_start(node._replace(metrics_port=0), ports) if part.startswith(option)]
    assert [int(part.removeprefix(option)) in ports for part in drawn] == [True]


def test_a_port_for_metrics_among_the_options_of_a_job_is_refused_before_it_waits(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(campaign_text(**SMALL, store=str(tmp_path / "s.zarr")))
    done = bendscape("submit", "local", file, "--dry-run", "--", "--metrics-port", "9464")
    assert done.returncode == 2
    assert "--metrics-port" in done.stderr
    assert "--address ray" in done.stderr


def test_the_head_of_a_job_on_kubernetes_says_where_its_metrics_are() -> None:
    from bendscape.cluster.place import Job
    from bendscape.cluster.ray_job import KubeRayParameters, render_job

    job = Job("/campaign/campaign.toml", "s3://bucket/night.zarr", "night")
    (ray_job,) = (
        one for one in render_job(job, KubeRayParameters(image="i"), "night", {}) if one["kind"] == "RayJob"
    )
    cluster = ray_job["spec"]["rayClusterSpec"]
    head, worker = (group["template"] for group in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]))
    port = cluster["headGroupSpec"]["rayStartParams"]["metrics-export-port"]
    assert head["metadata"]["annotations"]["prometheus.io/port"] == port
    assert {"name": "metrics", "containerPort": int(port)} in head["spec"]["containers"][0]["ports"]
    assert "prometheus.io/scrape" not in worker["metadata"]["annotations"]
