"""The commands of analysis. Heavy imports are inside the functions, so that help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bendscape.analysis import one_model
from bendscape.analysis.refine.command import refine
from bendscape.sweep.commands.options import Json, Modules

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

Store = Annotated[str, typer.Argument(metavar="STORE", help="Path or URL of a store.")]
LeastSize = Annotated[
    int | None,
    typer.Option(min=2, help="Leave smaller sizes out; 256, or the smallest where fewer than two reach it."),
]
Sel = Annotated[
    list[str],
    typer.Option(
        "--sel",
        metavar="AXIS=VALUES",
        help="Only the cells with these values on an axis, such as noise=0 or p=1,2; may be repeated.",
    ),
]
SCALING = {name: f"bendscape scaling: {name}" for name in ("collapse", "edge_scaling", "drift")}
"""Titles of the datasets that `scaling` writes; an earlier one is recognised by its title."""


def register(app: typer.Typer) -> None:
    """Add the commands of analysis to the command line."""
    one_model.register(app)  # theory and sample
    app.command("thresholds")(thresholds)
    app.command("scaling")(scaling)
    app.command("claims")(claims)
    app.command("descent")(descent)
    app.command("refine")(refine)
    app.command("figures")(figures)
    app.command("report")(report)
    app.command("export")(export)
    app.command("analyses")(analyses)
    app.command("watch")(watch)
    for group in app.registered_groups:
        if group.name == "theory" and group.typer_instance is not None:
            group.typer_instance.command("map")(phase_map)


def thresholds(
    store: Store,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    sel: Sel = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Measured thresholds with error bars at each size, next to theory; of a store of activations, loads at
    which sizes cross, next to theory's thresholds. The store may still be filling."""
    from bendscape.analysis.estimate.estimators import ESTIMATORS
    from bendscape.analysis.estimate.thresholds import render_thresholds, thresholds, thresholds_table
    from bendscape.analysis.findings.activations import activation_rows, render_activations
    from bendscape.analysis.findings.results import Results
    from bendscape.sweep.commands.console import out, print_json

    with _opened(store, sel) as ds:
        results = Results(ds)
        if results.is_of_activations:
            models = results.activations
            if json:
                print_json({"store": store, "sel": sel, "rows": activation_rows(models)})
            else:
                print(render_activations(models), end="")
            return
        result = thresholds(ds, level=level).compute()
    if json:
        print_json(
            {
                "store": store,
                "sel": sel,
                "level": level,
                "estimators": dict(ESTIMATORS),
                "rows": thresholds_table(result),
            }
        )
    else:
        out().print(render_thresholds(result))


def scaling(
    store: Store,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the datasets collapse.zarr, edge_scaling.zarr and drift.zarr.",
        ),
    ] = None,
    n_boot: Annotated[int, typer.Option(help="Bootstrap resamplings of the seeds.")] = 1000,
    least_size: LeastSize = None,
    sel: Sel = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Finite-size scaling: critical loads from the collapse of all sizes, with the definitions and the kind
    of transition that they support; the law by which the lowest eigenvalue approaches the edge; and, beyond
    the crossover size of a discontinuous transition, the climb of the threshold. Results for which the store
    lacks variables are left out, with a message. The store may still be filling."""
    from bendscape.analysis.estimate.edge_fits import LEAST_DOF, LEAST_SEEDS
    from bendscape.analysis.figures.tables import replace_zarr
    from bendscape.analysis.findings.results import Results
    from bendscape.analysis.findings.scaling import (
        drift_rows,
        edge_rows,
        load_rows,
        render_drift,
        render_edges,
        render_loads,
    )
    from bendscape.sweep.commands.console import console, out, print_json
    from bendscape.sweep.commands.output import check_replaceable, check_writable

    names = tuple(SCALING)
    places = {} if output is None else {name: output / f"{name}.zarr" for name in names}
    for name, place in places.items():
        check_replaceable(place, SCALING[name], what=SCALING[name], name="--output")
        check_writable(place, hierarchy=True, name="--output")
    with _opened(store, sel) as ds:
        results = Results(ds, n_boot=n_boot, least_size=least_size)
        found = results.possible(names)
        results.read(found)
    written = [places[name] for name in found if name in places]
    for name in found if places else ():
        replace_zarr(results[name].assign_attrs(title=SCALING[name]), places[name], "--output")
    rows_of = {"collapse": load_rows, "edge_scaling": edge_rows, "drift": drift_rows}
    rows = {name: rows_of[name](results[name]) if name in found else [] for name in names}
    for name in names:
        if lacking := results.lacking(name):
            console().print(f"left out {name}: this store lacks {', '.join(lacking)}", markup=False)
    if found == ["drift"] and not rows["drift"]:
        console().print("no size is beyond a crossover size, where the threshold begins to climb")
    if "edge_scaling" in found and not rows["edge_scaling"]:
        console().print(
            f"no law of the edge: it needs, at a load below threshold, {LEAST_DOF + 1} sizes of "
            f"N >= {results['edge_scaling'].attrs['least_size']} with {LEAST_SEEDS} seeds or more"
        )
    if json:
        print_json({"store": store, "sel": sel, **rows})
        return
    render_of = {"collapse": render_loads, "edge_scaling": render_edges, "drift": render_drift}
    for name in names:
        if rows[name] or (name in found and name == "collapse"):
            out().print(render_of[name](rows[name]))
    if written:
        console().print("wrote " + ", ".join(map(str, written)), markup=False)


def claims(
    stores: Annotated[
        list[str], typer.Argument(metavar="STORE", help="Paths or URLs of stores with different cells.")
    ],
    least_size: LeastSize = None,
    extra_draws: Annotated[
        int,
        typer.Option(help="Labels drawn for every cell: the control variate of the edge."),
    ] = 0,
    sel: Sel = [],  # noqa: B006
    json: Json = False,
) -> None:
    """What sweeps say about each claim of arXiv:2510.18435, in Markdown: verdict, power of the test, numbers.
    Several stores are read together. For a store of descents, the claims of the abstract of arXiv:2403.02418;
    for one of activations, whether width bends the landscape for each. A store may still be filling."""
    from bendscape.analysis.estimate.descent import ANALYSIS as DESCENT
    from bendscape.analysis.findings.activation_claims import claims_of_models
    from bendscape.analysis.findings.claims import Readings, claims_of, readings, render_claims
    from bendscape.analysis.findings.descent_claims import claims_of_descents
    from bendscape.analysis.findings.results import Results
    from bendscape.sweep.commands.console import print_json

    every, others, networks = Readings([], [], [], [], []), [], []
    for store in stores:
        with _opened(store, sel) as ds:
            if not DESCENT.lacking(ds):
                others += claims_of_descents(ds)
                continue
            results = Results(ds, least_size=least_size, extra_draws=extra_draws)
            if results.is_of_activations:
                networks += results.activations
                continue
            results.read(made_of := ("collapse", "edge_scaling", "means"))
            every = every + readings(*(results[name] for name in made_of))
    others += claims_of_models(networks)
    found = [*(claims_of(every) if any(every) or not others else []), *others]
    if json:
        print_json({"stores": stores, "sel": sel, "claims": [claim._asdict() for claim in found]})
    else:
        print(render_claims(found), end="")


def descent(
    store: Store,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    direction: Annotated[
        str, typer.Option(help="Where the downward direction is read: own_labels, or eigenvector.")
    ] = "own_labels",
    sel: Sel = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Descents: the load of half recovery and its drift with N, the loss of the downward direction, the
    confined dynamics, interpolation. The store may still be filling."""
    from bendscape.analysis.estimate.descent import descent
    from bendscape.analysis.findings.descent import (
        confined_rows,
        loss_rows,
        recovery_rows,
        render_descent,
    )
    from bendscape.sweep.commands.console import print_json

    with _opened(store, sel) as ds:
        found = descent(ds, level=level, direction=direction)
    if json:
        rows = {"half": recovery_rows(found), "confined": confined_rows(found), "loss": loss_rows(found)}
        print_json({"store": store, "sel": sel, "level": level, **rows})
    else:
        print(render_descent(found), end="")


def figures(
    store: Store,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the files.")],
    formats: Annotated[list[str], typer.Option("--format", help="svg, png or pdf; may be repeated.")] = [  # noqa: B006
        "svg",
        "png",
        "pdf",
    ],
    only: Annotated[
        list[str],
        typer.Option(
            "--only",
            metavar="NAME",
            help="overlap, eigenvalue, spectrum, edge, thresholds, kinds or collapse; of descents recovery, "
            "half_load, loss, amplification or path; may be repeated.",
        ),
    ] = [],  # noqa: B006
    numbers: Annotated[str, typer.Option(help="Tables of numbers as csv or zarr.")] = "csv",
    sel: Sel = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Figures and their tables of numbers: overlap and lowest eigenvalue against alpha, spectra, the edge
    against N, thresholds against p, kinds of transition, the collapse of sizes; of descents recovery, loss of
    the direction, amplification, edge and outlier along the path. The store may still be
    filling: figures that lack data are left out, with a message."""
    from bendscape.analysis.figures.draw import write_figures
    from bendscape.sweep.commands.console import console, print_json

    with _opened(store, sel) as ds:
        written = write_figures(ds, output, formats, only, numbers)
    paths = list(map(str, written.paths))
    if json:
        print_json({"store": store, "sel": sel, "files": paths, "left_out": written.left_out})
        return
    for name, reason in written.left_out.items():
        console().print(f"left out {name}: {reason}", markup=False)
    console().print("wrote " + ", ".join(paths), markup=False)


def report(
    store: Store,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")
    ] = Path("report.html"),
    table: Annotated[bool, typer.Option("--table", help="Also print the table of thresholds.")] = False,
    sel: Sel = [],  # noqa: B006
    json: Json = False,
) -> None:
    """One self-contained HTML page: thresholds, figures, coverage and provenance."""
    from bendscape.analysis.estimate.thresholds import render_thresholds, thresholds_table
    from bendscape.analysis.findings.activations import activation_rows, render_activations
    from bendscape.analysis.findings.descent import recovery_rows, render_descent
    from bendscape.analysis.findings.results import Results
    from bendscape.analysis.report.page import write_report
    from bendscape.sweep.commands.console import console, out, print_json
    from bendscape.sweep.commands.output import check_report

    check_report(output, name="--output")
    with _opened(store, sel) as ds:
        results = Results(ds)
        path = str(write_report(results, output))
        descents, of_activations = results.is_of_descents, results.is_of_activations
        if of_activations:
            rows = activation_rows(results.activations)
        else:
            rows = recovery_rows(results.descent) if descents else thresholds_table(results["thresholds"])
    if json:
        print_json({"store": store, "sel": sel, "output": path, "rows": rows})
        return
    if table and of_activations:
        print(render_activations(results.activations), end="")
    elif table and descents:
        print(render_descent(results.descent), end="")
    elif table:
        out().print(render_thresholds(results["thresholds"]))
    console().print(f"wrote {path}", markup=False)


def export(
    store: Store,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", help="FILE.zarr, FILE.zip (Zarr in a zip) or FILE.nc."
        ),
    ],
    variables: Annotated[
        str,
        typer.Option(metavar="A,B", help="Only these of the kernel's variables; status and theory always."),
    ] = "",
    shards: Annotated[
        bool, typer.Option("--shards", help="Zarr in few large files: one for each 64 MiB of a variable.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    json: Json = False,
) -> None:
    """One dataset for sharing, which xarray reads without bendscape. The store may still be filling, and may
    be larger than memory; an interrupted export leaves nothing under the name of its output."""
    from rich.filesize import decimal

    from bendscape.analysis.dataset.export import export_store
    from bendscape.sweep.commands.console import console, print_json

    names = [name.strip() for name in variables.split(",") if name.strip()]
    written = export_store(store, output, variables=names, shards=shards, overwrite=overwrite)
    if json:
        print_json({"store": store, **written})
        return
    finished = written["done"] + written["not_converged"]
    console().print(
        f"wrote {written['output']}: {written['format']}, {decimal(written['bytes'])}, "
        f"{finished} of {written['cells']} cells, {written['failed']} failed",
        markup=False,
    )


def analyses(
    store: Annotated[
        str | None, typer.Argument(metavar="STORE", help="Also list what this store lacks.")
    ] = None,
    json: Json = False,
) -> None:
    """The installed analyses, what each reads, and what a store lacks for it."""
    from contextlib import nullcontext

    from rich import box
    from rich.table import Table

    from bendscape.analysis.dataset.analyses import describe_analyses
    from bendscape.sweep.commands.console import out, print_json

    with _opened(store) if store else nullcontext() as ds:
        rows = describe_analyses(ds)
    if json:
        print_json({"store": store, "analyses": rows})
        return
    columns = ("variables", "axes", *(["lacking"] if store else []))
    table = Table("analysis", *columns, box=box.SIMPLE_HEAD)
    for row in rows:
        cells = [row["error"]] if "error" in row else [", ".join(row[column]) for column in columns]
        table.add_row(row["name"], *cells)
    out().print(table)


def watch(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Path or URL of a store, which need not be there yet.")
    ],
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Port on 127.0.0.1; 0 picks a free one. By default 8642, or a free one if that is taken.",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Also open the page in the browser.")] = False,
    kernel_module: Modules = [],  # noqa: B006
    json: Json = False,
) -> None:
    """A live page of a campaign on 127.0.0.1: coverage of the grid, rate and time left, failures, curves and
    estimates as data arrive. Only reads, and only while the page is open. Prints the address; Ctrl-C ends it.
    With --json prints one frame, all that the page shows, and ends."""
    from bendscape.analysis.live.server import one_frame, serve
    from bendscape.sweep.commands.console import print_json, results_only

    if json:
        with results_only():
            document = one_frame(store, kernel_module)
        print_json(document)
        return
    serve(store, port, kernel_module, show)


def phase_map(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="MAP.zarr", help="The Zarr dataset to write.")
    ],
    p: Annotated[str, typer.Option(help="Widths of the student.", metavar="VALUES")] = "1:16:16",
    p_star: Annotated[str, typer.Option(help="Widths of the teacher.", metavar="VALUES")] = "1",
    a: Annotated[str, typer.Option(help="Constants of the loss.", metavar="VALUES")] = "0.1:10:60:log",
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also draw the (p, a) diagram, or thresholds of other activations: svg, png or pdf.",
        ),
    ] = None,
    alpha_0: Annotated[
        bool,
        typer.Option("--alpha-0/--no-alpha-0", help="Also alpha_0, by its three definitions."),
    ] = True,
    activation: Annotated[str, typer.Option(help="Activation of the student.")] = "quadratic",
    teacher_activation: Annotated[str, typer.Option(help="Activation of the teacher.")] = "quadratic",
    json: Json = False,
) -> None:
    """Phase diagram on a grid of models: kind, alpha_bbp, alpha_sharp, alpha_0, jump, edge, tricritical a;
    for other activations than the square kind, thresholds of both sectors and alpha_0, with their errors.

    VALUES are numbers and ranges START:STOP:COUNT or START:STOP:COUNT:log, separated by commas. Widths are
    rounded to integers; p may be inf.
    """
    from bendscape.analysis.figures.activation_map import UNKNOWN, activation_map, threshold_figure
    from bendscape.analysis.figures.theory_map import (
        TITLE,
        check_figure,
        parse_axis,
        phase_figure,
        theory_map,
        write_figure,
        write_map,
    )
    from bendscape.sweep.commands.console import console, print_json
    from bendscape.sweep.commands.output import check_replaceable, check_writable

    axes = {
        "p": parse_axis("--p", p, integer=True),
        "p_star": parse_axis("--p-star", p_star, integer=True),
        "a": parse_axis("--a", a),
    }
    check_writable(output, hierarchy=True, name="--output")
    check_replaceable(Path(output), TITLE, what="map", name="--output")
    names = {"activation": activation, "teacher_activation": teacher_activation}
    of_square = set(names.values()) == {"quadratic"}
    if figure is not None:
        check_figure(figure, {"--p": axes["p"], "--a": axes["a"]} if of_square else {"--a": axes["a"]})
        check_writable(figure, name="--figure")
    if of_square:
        ds = theory_map(p=axes["p"], p_star=axes["p_star"], a=axes["a"], alpha_0=alpha_0)
    else:
        ds = activation_map(p=axes["p"], p_star=axes["p_star"], a=axes["a"], **names)
        if unknown := int((ds["transition"] == UNKNOWN).sum()):
            console().print(f"no theory for {unknown} of {ds['transition'].size} models: NaN there")
    files = [str(write_map(ds, output))]
    if figure is not None:
        drawn = phase_figure(ds) if of_square else threshold_figure(ds)
        files.append(str(write_figure(drawn, figure)))
    if json:
        print_json({"sizes": dict(ds.sizes), "files": files})
    else:
        console().print("wrote " + ", ".join(files), markup=False)


def _opened(store: str, sel: Sequence[str] = ()) -> xr.Dataset:
    """The dataset of a store, or the part of it that the values of `--sel` name."""
    import xarray as xr

    ds = xr.open_dataset(store, engine="bendscape", chunks={})
    for one in sel:
        ds = _selected(ds, one)
    return ds.assign_attrs(selected=" ".join(sel)) if sel else ds


def _selected(ds: xr.Dataset, one: str) -> xr.Dataset:
    """The part of a dataset with the values `AXIS=VALUES`, in the order of the store. The axis stays, so that
    a report shows it. A constant of the store is an axis of one value."""
    from textwrap import shorten

    import numpy as np

    from bendscape.core.errors import ParameterError

    axis, _, text = one.partition("=")
    axes = [str(name) for name in ds.coords if name in ds["status"].dims or not ds[name].ndim]
    if axis not in axes:
        raise ParameterError("--sel", one, f"AXIS=VALUES with one of the axes {', '.join(axes)}")
    there = np.atleast_1d(ds[axis].values).tolist()
    kind = str if isinstance(there[0], str) else float
    try:
        wanted = [kind(value) for value in text.split(",")]
    except ValueError:
        wanted = []
    if not wanted or set(wanted) - set(there):
        values = shorten(", ".join(map(str, there)), 400, placeholder=" ...")
        raise ParameterError("--sel", one, f"{axis}= with values that the axis has: {values}")
    return ds.sel({axis: [value for value in there if value in wanted]}) if axis in ds.dims else ds
