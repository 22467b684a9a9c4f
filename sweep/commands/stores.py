"""The commands that inspect a store: status, errors, fsck. Heavy imports are inside the functions."""

from __future__ import annotations

from typing import Annotated

import typer

from bendscape.sweep.commands.options import Json, Modules, seconds_of

StorePath = Annotated[str, typer.Argument(metavar="STORE", help="Path or URL of a store.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("status")(status)
    app.command("errors")(errors)
    app.command("fsck")(check_store)


def status(
    store: StorePath,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="List also host, seconds, attempts and run of every tile.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Show it again and again, until every cell is done or has failed; Ctrl-C ends it."
        ),
    ] = False,
    interval: Annotated[
        str, typer.Option(metavar="TIME", help="With --watch: time between two looks; by default 5s.")
    ] = "",
    kernel_module: Modules = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Done, failed and missing cells, the rate, the time left, and which run is at work.

    With --watch: redrawn in place in a terminal; elsewhere a line whenever something has changed, and with
    --json one document per line. It waits for a store that does not exist yet or does not answer. Exit
    code with --watch: 0: complete; 1: finished with failed cells; 3: target unreachable; 130: ended by
    Ctrl-C.
    """
    from datetime import datetime

    from bendscape.core.errors import ParameterError
    from bendscape.sweep.commands.console import console, out, print_json, results_only
    from bendscape.sweep.commands.status import store_status, store_tiles
    from bendscape.sweep.commands.watching import shown, watch_status
    from bendscape.sweep.engine.hidden import Hidden
    from bendscape.sweep.store.root import holds_cells, open_store

    if watch or interval:
        if tiles or not watch:
            raise ParameterError(
                "--tiles" if tiles else "--interval", interval or "given",
                "without --watch" if tiles else "together with --watch",
            )  # fmt: skip
        raise typer.Exit(watch_status(store, kernel_module, seconds_of("--interval", interval or "5s"), json))
    with results_only():
        opened = open_store(store)
        document = store_status(opened, kernel_module)
    # A worker writes the cells before the driver records them, so a run at work proves nothing.
    at_work = document["holder"] is not None and document["holder"]["alive"] is not False
    if not document["done"] + document["failed"] and not at_work and holds_cells(document["store"]):
        console().print(
            "the store has cells that its ledger does not know: `bendscape fsck --repair` or the next run "
            "records them"
        )
    if tiles:
        document["tiles"] = store_tiles(opened)
    if json:
        print_json(document)
        return
    table, lines = shown(document)
    out().print(table)
    for line in lines:
        out().print(line, markup=False, soft_wrap=True)
    if line := Hidden(**document["hidden"]).line(document["store"]):
        out().print(line, markup=False, soft_wrap=True)
    for row in document.get("tiles", ()):
        when = datetime.fromtimestamp(row["finished"]).isoformat(" ", "seconds")
        out().print(
            f"{row['tile']}: {row['done']} done, {row['failed']} failed, {row['seconds']:.3g} s in "
            f"{row['attempts']} attempts, last on {row['host']} in run {row['epoch']}, {when}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def errors(store: StorePath, json: Json = False) -> None:
    """List every failed cell: its coordinates, error, traceback, attempts and host."""
    from dataclasses import asdict

    from bendscape.sweep.campaign.tiles import coordinate_in_words
    from bendscape.sweep.commands.console import out, print_json
    from bendscape.sweep.store.root import open_store

    opened = open_store(store)
    grid, place = opened.grid(), opened.layout.place
    failures = opened.ledger.records.failures()
    found = [error for key, error in failures if grid.holds(place(key, error.bit))]
    if json:
        print_json({"store": opened.url, "errors": [asdict(error) for error in found]})
        return
    for error in found:
        at = ", ".join(f"{name} = {coordinate_in_words(value)}" for name, value in error.cell.items())
        out().print(f"{at}\n  attempt {error.attempts} on {error.host}\n{error.traceback}", markup=False)
    out().print(f"{len(found)} failed cells")


def check_store(
    store: StorePath,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Repair the ledger; the next run computes what is damaged or lost."),
    ] = False,
    json: Json = False,
) -> None:
    """Compare every tile with its checksum in the ledger; list files that belong to no part of the store.

    Exit code 0: sound, or repaired; 1: data and ledger differ; 2: a run is at work (with --repair).
    """
    from bendscape.sweep.commands.console import console, out, print_json
    from bendscape.sweep.store.fsck import fsck, summary
    from bendscape.sweep.store.ledger import LeaseHeld

    say = console()
    try:
        found = fsck(store, repair=repair, say=lambda line: say.print(line, markup=False))
    except LeaseHeld as error:
        say.print(f"error: {error}", markup=False)
        raise typer.Exit(2) from None
    code = 0 if found.sound or found.repaired else 1
    if json:
        print_json({**summary(found), "exit_code": code})
        raise typer.Exit(code)
    lines = [
        *(f"{path}: damaged: {why}" for path, why in (found.ledger | found.hierarchy).items()),
        *(f"{tile}: damaged: {why}" for tile, why in found.damaged.items()),
        *(f"{tile}: {cells} cells of the ledger are missing" for tile, cells in found.absent.items()),
        *(f"{tile}: {cells} cells are not yet in the ledger" for tile, cells in found.unrecorded.items()),
        *(f"{path}: left behind by a killed writer, removed" for path in found.removed),
        *(
            f"{path}: not part of the store, may be deleted"
            for path in found.orphans
            if path not in found.removed
        ),
    ]
    for line in lines:
        out().print(line, markup=False, highlight=False, soft_wrap=True)
    repaired = "repaired" if found.repaired else "not sound: --repair repairs the ledger"
    state = "sound" if found.sound else repaired
    out().print(
        f"{found.tiles} tiles, {found.cells} finished cells, {found.unverified} tiles without a checksum; "
        f"{state}",
        highlight=False,
    )
    raise typer.Exit(code)
