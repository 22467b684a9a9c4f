"""Figures of descents: recovery against alpha, half loads against N, loss of the direction, amplification,
edge and outlier along the path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bendscape.analysis.figures.style import (
    DASHED,
    FAINT,
    INK,
    MARKERS,
    THRESHOLD,
    draw_points,
    model_title,
    plain_logarithmic,
    shared_legend,
    size_colours,
    size_looks,
    small_multiples,
    style,
)
from bendscape.analysis.figures.tables import Numbers, groups, left_out, rows_where, table
from bendscape.analysis.findings.descent import (
    FREE,
    confined_threshold,
    is_confined,
    loads_of,
    model_points,
)
from bendscape.analysis.findings.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OF_MODEL = ("p", "p_star", "a", "noise", "dynamics")
"""The columns that distinguish the panels."""

Point = dict[str, Any]
_PLAIN: Point = {"noise": 0.0, "dynamics": FREE}


def _blocks(
    name: str, results: Results, block: Callable[[Point, xr.Dataset], dict[str, Any] | None]
) -> dict[str, xr.Dataset]:
    """One table with the rows of every model, size and load; ``block`` gives the columns of one."""
    found, blocks = results.descent, []
    for point, at in model_points(found):
        head = _PLAIN | point
        for N in at["N"].values.tolist():
            for load, one in loads_of(at, N):
                more = block(head, one)
                if more:
                    blocks.append(head | {"N": N, "alpha": load} | more)
    if not blocks:
        raise left_out(name, "no cell is done that it shows")
    return {name: table(blocks)}


def _success(point: Point) -> str:
    return "kept" if is_confined(point) else "recovered"


def recovery_numbers(results: Results) -> Numbers:
    """Rates of recovery by the last time or, confined, of keeping the direction, with their half load."""

    def block(point: Point, at: xr.Dataset) -> dict[str, Any] | None:
        one, name = at.isel(time=-1), _success(point)
        if not one[f"{name}_n_cells"] > 0:
            return None
        names = ("rate", "rate_low", "rate_high", "n_cells", "half", "half_low", "half_high")
        return {"time": one["time"].item()} | {of: one[f"{name}_{of}"].item() for of in names}

    return _blocks("recovery", results, block)


def half_load_numbers(results: Results) -> Numbers:
    """The half load of :func:`recovery_numbers` at each size and recorded time."""
    found, blocks = results.descent, []
    for point, at in model_points(found):
        head, name = _PLAIN | point, _success(point)
        for N in at["N"].values.tolist():
            for time in at["time"].values.tolist():
                one = at.sel(N=N, time=time)
                if np.isfinite(one[f"{name}_half"]):
                    row = {of: one[f"{name}_{of}"].item() for of in ("half", "half_low", "half_high")}
                    blocks.append(head | {"N": N, "time": time} | row)
    if not blocks:
        raise left_out("half_load", "no success rate passes one half yet")
    return {"half_load": table(blocks)}


def _network(point: Point) -> tuple[Any, ...]:
    """The model of a point without its dynamics."""
    return tuple((_PLAIN | point)[name] for name in OF_MODEL if name != "dynamics")


def loss_numbers(results: Results) -> Numbers:
    """Median time at which the direction is lost, and the confined threshold at the last time."""
    thresholds = {
        _network(point): confined_threshold(at.assign_attrs(results.descent.attrs))
        for point, at in model_points(results.descent)
        if is_confined(point)
    }

    def block(point: Point, at: xr.Dataset) -> dict[str, Any] | None:
        if not at["n_seen"] > 0:
            return None
        names = ("n_seen", "n_lost", "time_lost", "time_lost_low", "time_lost_high")
        of = thresholds.get(_network(point))
        ends = (np.nan,) * 3 if of is None else (of.value, of.low, of.high)
        return {name: at[name].item() for name in names} | dict(
            zip(("threshold", "threshold_low", "threshold_high"), ends, strict=True)
        )

    return _blocks("loss", results, block)


def amplification_numbers(results: Results) -> Numbers:
    """N times the mean alignment against time, of free descents."""

    def block(point: Point, at: xr.Dataset) -> dict[str, Any] | None:
        seen = np.isfinite(at["amplification"].values)
        if is_confined(point) or not seen.any():
            return None
        names = ("amplification", "amplification_low", "amplification_high")
        return {"time": at["time"].values[seen]} | {name: at[name].values[seen] for name in names}

    return _blocks("amplification", results, block)


def path_numbers(results: Results) -> Numbers:
    """Edge and outlier of the cells' own labels against time."""

    def block(point: Point, at: xr.Dataset) -> dict[str, Any] | None:
        seen = np.isfinite(at["edge"].values)
        if not seen.any():
            return None
        columns = {"edge_median": "edge", "outlier_median": "outlier"}
        columns |= {"outlier_low": "outlier_low", "outlier_high": "outlier_high"}
        return {"time": at["time"].values[seen]} | {to: at[of].values[seen] for to, of in columns.items()}

    return _blocks("path", results, block)


def _title(point: tuple[Any, ...]) -> str:
    p, p_star, a, noise, dynamics = point
    after = (f", noise {noise:g}" if noise else "") + ("" if dynamics == FREE else f", {dynamics}")
    return model_title(p, p_star, a, after=after)


def _panels(numbers: Numbers, draw: Callable[[Any, dict[str, Any], tuple[Any, ...]], None]) -> Figure:
    """One panel for each model; ``draw`` fills it."""
    found = next(iter(numbers.values()))
    points = groups(numbers, OF_MODEL)
    with style():
        figure, all_axes = small_multiples(len(points))
        for axes, point in zip(all_axes, points, strict=True):
            draw(axes, rows_where(found, **dict(zip(OF_MODEL, point, strict=True))), point)
            axes.set_title(_title(point))
        shared_legend(figure, all_axes)
    return figure


def _ends(rows: dict[str, Any], name: str, use: Any) -> Any:
    """Distances of the ends of an interval from the value; 0 for an open end."""
    y, low, high = (rows[of][use] for of in (name, f"{name}_low", f"{name}_high"))
    ends = np.stack([y - low, high - y])
    return np.where(np.isfinite(ends), np.maximum(ends, 0.0), 0.0)


def draw_recovery(numbers: Numbers) -> Figure:
    """Success rate against alpha at every size; vertical lines where it passes one half."""
    looks = size_looks(next(iter(numbers.values()))["N"].values.tolist())

    def draw(axes: Any, rows: dict[str, Any], point: tuple[Any, ...]) -> None:
        for N, look in looks.items():
            use = rows["N"] == N
            if use.any():
                draw_points(axes, rows["alpha"][use], rows["rate"][use], _ends(rows, "rate", use), look)
                axes.plot(rows["alpha"][use], rows["rate"][use], color=look["color"], linewidth=0.7)
                axes.axvline(rows["half"][use][0], color=look["color"], linestyle=DASHED, linewidth=0.8)
        axes.axhline(0.5, color=FAINT, linewidth=0.6, zorder=0)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(r"$\alpha$")
        success = "recovered" if point[-1] == FREE else "direction kept"
        axes.set_ylabel(f"{success} by $t = {rows['time'][0]:g}$")

    return _panels(numbers, draw)


def draw_half_load(numbers: Numbers) -> Figure:
    """Half loads at the last time against N, for every width; open symbols: confined."""
    found = numbers["half_load"]
    points = groups(numbers, ("p_star", "a", "noise"))
    kinds = groups(numbers, ("p", "dynamics"))
    colours = dict(zip(sorted({p for p, _ in kinds}), size_colours(len({p for p, _ in kinds})), strict=True))
    with style():
        figure, all_axes = small_multiples(len(points))
        for axes, (p_star, a, noise) in zip(all_axes, points, strict=True):
            for k, (p, dynamics) in enumerate(kinds):
                rows = rows_where(found, p_star=p_star, a=a, noise=noise, p=p, dynamics=dynamics)
                use = rows["time"] == found["time"].values.max()
                look = {"color": colours[p], "marker": MARKERS[k % len(MARKERS)]}
                look |= {"label": f"$p = {p}$, {dynamics}", "linestyle": "none"}
                look |= {} if dynamics == FREE else {"markerfacecolor": "white"}
                if use.any():
                    draw_points(axes, rows["N"][use], rows["half"][use], _ends(rows, "half", use), look)
            axes.set_xscale("log")
            plain_logarithmic(axes.xaxis, sorted(set(found["N"].values.tolist())))
            axes.set_xlabel("$N$")
            axes.set_ylabel(r"$\alpha$ at half success")
            axes.set_title(f"$p^* = {p_star}$, $a = {a:g}$" + (f", noise {noise:g}" if noise else ""))
        shared_legend(figure, all_axes)
    return figure


def draw_loss(numbers: Numbers) -> Figure:
    """Median time of loss against alpha: bars from the last recorded time before it to the first after it."""
    found = next(iter(numbers.values()))
    looks = size_looks(found["N"].values.tolist())
    last = found["time_lost_low"].values.max()

    def draw(axes: Any, rows: dict[str, Any], point: tuple[Any, ...]) -> None:
        for N, look in looks.items():
            use = (rows["N"] == N) & ((rows["time_lost_low"] > 0) | np.isfinite(rows["time_lost_high"]))
            if use.any():
                x, low, high = (rows[of][use] for of in ("alpha", "time_lost_low", "time_lost_high"))
                axes.vlines(x, low, np.where(np.isfinite(high), high, 3 * low), color=look["color"], lw=0.9)
                y = np.where(np.isfinite(rows["time_lost"][use]), rows["time_lost"][use], low)
                draw_points(axes, x, y, np.zeros((2, len(x))), look)
        if np.isfinite(rows["threshold"][0]):
            axes.axvline(rows["threshold"][0], color=THRESHOLD, linestyle=DASHED, label="confined threshold")
            axes.axvspan(
                rows["threshold_low"][0], rows["threshold_high"][0], color=THRESHOLD, alpha=0.12, linewidth=0
            )
        if last > 0:
            axes.set_yscale("log")
        axes.set_xlabel(r"$\alpha$")
        axes.set_ylabel("median time of loss")

    return _panels(numbers, draw)


def _loads_of_largest(rows: dict[str, Any]) -> tuple[Any, list[tuple[float, Any, Any]]]:
    """The largest size, and for each of its loads the place of its rows and a colour."""
    N = rows["N"].max()
    loads = sorted(set(rows["alpha"][rows["N"] == N].tolist()))
    colours = size_colours(len(loads))
    chosen = [
        (load, (rows["N"] == N) & (rows["alpha"] == load), colour)
        for load, colour in zip(loads, colours, strict=True)
    ]
    return N, chosen


def _time_axis(axes: Any, time: Any) -> None:
    """A logarithmic axis of times, with a linear part if 0 is among them."""
    if time.min() > 0:
        axes.set_xscale("log")
    elif time.max() > 0:
        axes.set_xscale("symlog", linthresh=float(time[time > 0].min()))
        axes.set_xlim(left=0)
    axes.set_xlabel("$t$")


def draw_amplification(numbers: Numbers) -> Figure:
    """N times the mean alignment against time at the largest size, for every load."""

    def draw(axes: Any, rows: dict[str, Any], point: tuple[Any, ...]) -> None:
        N, chosen = _loads_of_largest(rows)
        for load, use, colour in chosen:
            look = {"color": colour, "marker": "o", "label": rf"$\alpha = {load:g}$", "linestyle": "solid"}
            y = rows["amplification"][use]
            draw_points(axes, rows["time"][use], y, _ends(rows, "amplification", use), look)
        axes.axhline(N, color=INK, linestyle=DASHED, linewidth=0.7)
        _time_axis(axes, rows["time"])
        axes.set_yscale("log")
        axes.set_ylabel(rf"$N \langle q^2 \rangle$ at $N = {N:.0f}$")

    return _panels(numbers, draw)


def draw_path(numbers: Numbers) -> Figure:
    """Edge (lines) and outlier (points) against time at the largest size, for every load."""

    def draw(axes: Any, rows: dict[str, Any], point: tuple[Any, ...]) -> None:
        N, chosen = _loads_of_largest(rows)
        for load, use, colour in chosen:
            axes.plot(rows["time"][use], rows["edge_median"][use], color=colour, linewidth=0.9)
            y = rows["outlier_median"][use]
            ends = np.stack([y - rows["outlier_low"][use], rows["outlier_high"][use] - y])
            ends = np.where(np.isfinite(ends), np.maximum(ends, 0.0), 0.0)
            look = {"color": colour, "marker": "o", "label": rf"$\alpha = {load:g}$"}
            draw_points(axes, rows["time"][use], y, ends, look)
        _time_axis(axes, rows["time"])
        axes.set_ylabel(f"edge, outlier at $N = {N:.0f}$")

    return _panels(numbers, draw)
