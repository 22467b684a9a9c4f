"""`bendscape metrics`: what a run tells Prometheus, with the dashboard and the alerts that read it."""

from __future__ import annotations

from typing import Annotated

import typer

from bendscape.sweep.commands.options import Json

DASHBOARD, ALERTS = "grafana.json", "alerts.yaml"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("metrics")(metrics)


def file_of(name: str) -> str:
    """The text of a file beside this module."""
    from importlib.resources import files

    return files("bendscape.sweep.commands").joinpath(name).read_text(encoding="utf-8")


def metrics(
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Print the dashboard for Grafana, as JSON to be imported.")
    ] = False,
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Print the alerts, as a file for `rule_files` of Prometheus.")
    ] = False,
    json: Json = False,
) -> None:
    """List the metrics of a run on Ray; print the dashboard and the alerts that read them.

    docs/metrics.md says where each kind of Ray serves them.
    """
    import sys

    from rich.table import Table

    from bendscape.core.errors import ParameterError
    from bendscape.sweep.commands.console import out, print_json
    from bendscape.sweep.engine.metrics import METRICS, can_export

    if dashboard and alerts:
        raise ParameterError("--alerts", "given", "without --dashboard", "one file at a time")
    if dashboard or alerts:
        sys.stdout.write(file_of(DASHBOARD if dashboard else ALERTS))
        return
    if json:
        rows = [
            {"name": one.exported, "kind": one.kind, "description": one.description}
            for one in METRICS.values()
        ]
        print_json({"metrics": rows, "exported": can_export()})
        return
    table = Table("metric", "kind", "what it says")
    for one in METRICS.values():
        table.add_row(one.exported, one.kind, one.description)
    out().print(table)
    if not can_export():
        out().print(
            "the Ray installed here cannot export them: pip install 'bendscape[metrics]'", markup=False
        )
