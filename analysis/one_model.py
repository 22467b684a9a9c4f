"""The commands for a single model: `theory` and `sample`. Heavy imports are inside the functions."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from bendscape.sweep.commands.options import Json, bytes_of

Width = Annotated[str, typer.Option(help="Width of the student: an integer >= 1, or inf.")]
TeacherWidth = Annotated[int, typer.Option(help="Width of the teacher: an integer >= 1.")]
LossConstant = Annotated[float, typer.Option("--a", help="Constant a of the loss, > 0.")]

theory_app = typer.Typer(invoke_without_command=True)


@theory_app.callback()
def theory(
    context: typer.Context,
    a: Annotated[float | None, typer.Option("--a", help="Constant a of the loss, > 0; required.")] = None,
    p: Width = "1",
    p_star: TeacherWidth = 1,
    alpha: Annotated[
        list[float], typer.Option(help="Also the spectrum at this alpha; may be repeated.")
    ] = [],  # noqa: B006
    size: Annotated[
        list[float], typer.Option(help="Also the threshold seen at this N; may be repeated.")
    ] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Thresholds, edge, outlier and overlap as N goes to infinity."""
    from rich.table import Table

    from bendscape.core.errors import ParameterError
    from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, seen_at_size
    from bendscape.core.quadratic.theory.branch import a_tricritical
    from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, transition
    from bendscape.sweep.commands.console import out, print_json

    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    if a is None:
        raise ParameterError("--a", None, "given: a finite number > 0")
    model = _model(p, p_star, a)
    at, bound = transition(model), alpha_0(model)
    points = [asymptotics(model, value) for value in alpha]
    sizes = [(value, alpha_bbp_at_size(model, value), seen_at_size(model, value)) for value in size]
    if json:
        print_json(
            {
                "p": model.p if isinstance(model.p, int) else "inf",
                "p_star": model.p_star,
                "a": model.a,
                "alpha_bbp": at.alpha_bbp,
                "transition": at.kind,
                "overlap_sq_jump": at.overlap_sq_jump,
                "a_tricritical": a_tricritical(model.p, model.p_star),
                "errors": {field: getattr(at, field) for field in at._fields if field.endswith("_error")},
                "alpha_0": dict(zip(bound._fields[:4], bound[:4], strict=True)),
                "alpha_sharp": at.alpha_sharp,
                "points": [point._asdict() for point in points],
                "sizes": [
                    {"N": value, "alpha_bbp_at_size": threshold, "seen": shown}
                    for value, threshold, shown in sizes
                ],
            }
        )
        return
    table = Table("quantity", "value", title=f"p = {model.p}, p* = {model.p_star}, a = {model.a:g}")
    rows = {
        "alpha_bbp": at.alpha_bbp,
        "alpha_sharp": at.alpha_sharp,
        "alpha_0, principal value": bound.principal_value,
        "alpha_0, tangent": bound.tangent,
        "alpha_0, complex": complex(bound.complex_re, bound.complex_im),
        "overlap_sq_jump": at.overlap_sq_jump,
    }
    table.add_row("transition", at.kind)
    for name, value in rows.items():
        table.add_row(name, _number(value))
    table.add_row("continuous below a", _number(a_tricritical(model.p, model.p_star)))
    for value, threshold, shown in sizes:
        table.add_row(f"{shown} at N = {value:g}", _number(threshold))
    out().print(table)
    if points:
        spectrum = Table("alpha", "edge", "lambda_minus", "lambda_star", "overlap_sq")
        for point in points:
            spectrum.add_row(
                f"{point.alpha:g}",
                point.edge,
                *map(_number, (point.lambda_minus, point.lambda_star, point.overlap_sq)),
            )
        out().print(spectrum)


def sample(
    a: LossConstant,
    alpha: Annotated[float, typer.Option(help="Samples per dimension, M / N.")],
    size: Annotated[int, typer.Option(help="Dimension N.")],
    p: Width = "1",
    p_star: TeacherWidth = 1,
    seed: Annotated[int, typer.Option(help="Seed of the realisation, >= 0.")] = 0,
    method: Annotated[
        str, typer.Option(help="dense, explicit, dice, dice_wide, dice_compact, conditional or auto.")
    ] = "auto",
    inputs: Annotated[str, typer.Option(help="Law of the data: gaussian or rademacher.")] = "gaussian",
    max_memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Refuse what needs more, e.g. 12GB; by default 8 GiB.")
    ] = "",
    json: Json = False,
) -> None:
    """One random Hessian: its lowest eigenvalues and the overlap with the teacher."""
    import resource
    import time
    from dataclasses import asdict

    import numpy as np
    from rich.table import Table

    from bendscape.core.errors import ParameterError
    from bendscape.core.quadratic.sampling.cost import MAX_BYTES
    from bendscape.core.quadratic.sampling.observe import observe
    from bendscape.sweep.commands.console import console, out, print_json

    if seed < 0:
        raise ParameterError("seed", seed, "an integer >= 0")
    model = _model(p, p_star, a)
    started = time.perf_counter()
    memory = bytes_of("--max-memory", max_memory) if max_memory else MAX_BYTES
    observed = observe(
        model, alpha, size, np.random.default_rng(seed), method, inputs=inputs, max_bytes=memory
    )
    scale = 1 if sys.platform == "darwin" else 1024
    document: dict[str, Any] = {
        **asdict(observed),
        "inputs": inputs,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale,
    }
    if json:
        print_json(document)
    else:
        table = Table(
            "variable",
            "value",
            caption=f"p = {model.p}, p* = {model.p_star}, a = {a:g}, alpha = {alpha:g}, N = {size}",
        )
        for name, value in document.items():
            table.add_row(name, _number(value) if isinstance(value, float) else str(value))
        out().print(table)
    if not observed.converged:
        console().print(
            f"not converged after {observed.n_matvecs} products: nothing was measured; take another method"
        )
        raise typer.Exit(1)


def _refuse_options_before(context: typer.Context) -> None:
    """Refuse options of `theory` given before a subcommand, which has options of its own."""
    from bendscape.core.errors import ParameterError

    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            below, option = context.invoked_subcommand, parameter.opts[0]
            value = context.params[str(parameter.name)]
            remedy = f"`bendscape theory {below} --help` lists the options that follow it"
            raise ParameterError(option, value, f"absent before {below}", remedy)


def _model(p: str, p_star: int, a: float) -> Any:
    from bendscape.core.errors import ParameterError
    from bendscape.core.quadratic.model import Model

    try:
        width = int(p) if p.strip().lstrip("+-").isdigit() else float(p)
    except ValueError:
        raise ParameterError("p", p, "an integer >= 1, or inf") from None
    return Model(width, p_star, a)


def _number(value: complex) -> str:
    return f"{value:.10g}" if value == value else "none"


def register(app: typer.Typer) -> None:
    """Add `theory`, a group to which other layers may add commands, and `sample`."""
    app.add_typer(theory_app, name="theory")
    app.command()(sample)
