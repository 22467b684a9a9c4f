"""What descents say in rows: recovery, loss of the direction, and the confined dynamics, the limit of large
N."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.estimate.half_success import (
    FLAGS,
    HalfSuccess,
    Interval,
    half_success,
    slope_in_log_size,
)

MOVES = 0.1
"""Largest drift over the sizes used, relative to the threshold, that may hide behind the errors."""
CONFINED, FREE = "confined", "free"

Settled = Literal["settled", "moves with N", "not enough data"]


class Confined(NamedTuple):
    """The load up to which confined descents lose the direction by ``time``: the threshold of the dynamics
    at N = infinity, with an interval that contains the drift over ``sizes`` that the data allow."""

    time: float
    value: float
    low: float
    high: float
    sizes: tuple[int, ...]
    drift: float
    outcome: Settled


def model_points(found: xr.Dataset) -> Iterator[tuple[dict[str, Any], xr.Dataset]]:
    """The models of what :func:`bendscape.analysis.estimate.descent.descent` returns that have cells."""
    models = models_of(found)
    for index in np.ndindex(*(found.sizes[dim] for dim in models)):
        at = found.isel(dict(zip(models, index, strict=True)))
        if (at["recovered_n_cells"] > 0).any():
            yield {str(dim): at[dim].item() for dim in models}, at


def models_of(found: xr.Dataset) -> list[str]:
    """The axes that distinguish models."""
    return [str(dim) for dim in found["recovered_slope"].dims if dim != "time"]


def loads_of(at: xr.Dataset, N: int) -> Iterator[tuple[float, xr.Dataset]]:
    """The points of one model and size along the curve axis, each with its load: alpha as it was given or,
    where that is relative to a threshold, M/N."""
    (curve,) = (str(dim) for dim in at["recovered_rate"].dims if dim not in at["recovered_half"].dims)
    one = at.sel(N=N)
    loads = one["abscissa"] if curve == "alpha_factor" else one[curve]
    yield from ((float(load), one.isel({curve: k})) for k, load in enumerate(loads.values))


def is_confined(point: dict[str, Any]) -> bool:
    """Whether the axis ``dynamics`` keeps a model orthogonal to the teacher."""
    return bool(point.get("dynamics", FREE) == CONFINED)


def crossings_of(at: xr.Dataset, name: str, time: int = -1) -> dict[int, HalfSuccess]:
    """The crossings of one of ``recovered``, ``kept``, ``fitted`` at a recorded time, by size, with their
    profiles."""
    found: dict[int, HalfSuccess] = {}
    one = at.isel(time=time) if "time" in at[f"{name}_n_cells"].dims else at
    for N in at["N"].values.tolist():
        row = one.sel(N=N)
        k, n = row[f"{name}_n_success"].values, row[f"{name}_n_cells"].values
        if (n > 0).any():
            order = np.argsort(row["abscissa"].values, kind="stable")
            x = row["abscissa"].values[order]
            found[int(N)] = half_success(x, k[order], n[order], level=float(at.attrs["level"]))
    return found


def confined_threshold(at: xr.Dataset, time: int = -1) -> Confined:
    """Where half of the confined descents keep the direction, at sizes where that no longer moves.

    Sizes are left out from the smallest on, down to two, until the slope in ln N may be zero: its interval
    (with the scatter of sizes from three on, else of the counts) contains it. The threshold then is the
    common one of these sizes. ``drift`` is the largest change over these sizes that the interval allows, and
    extends the interval on both sides; beyond ``MOVES`` of the threshold it is ``not enough data``. If even
    the two largest sizes differ, it ``moves with N`` and there is no value.
    """
    found = crossings_of(at, "kept", time)
    T, level = float(at["time"].values[time]), float(at.attrs["level"])
    nothing = Confined(T, math.nan, -math.inf, math.inf, (), math.nan, "not enough data")
    sizes = [N for N, one in found.items() if one.flag == "estimated"]
    moved = False
    for start in range(len(sizes) - 1):
        used = sizes[start:]
        slope = slope_in_log_size(used, [found[N] for N in used], level)
        ends = slope.total if len(used) > 2 else slope.statistical
        if ends.low > 0 or ends.high < 0:
            moved = True
            continue
        moved = False
        drift = max(abs(ends.low), abs(ends.high)) * math.log(used[-1] / used[0])
        if drift <= MOVES * slope.common.value:
            low, high = slope.common.low - drift, slope.common.high + drift
            return Confined(T, slope.common.value, low, high, tuple(used), drift, "settled")
    return nothing._replace(outcome="moves with N") if moved else nothing


def shown(value: float, low: float, high: float) -> str:
    """A value with its interval, open ends as an ellipsis; without a value its bound, or a dash."""
    if not math.isfinite(value):
        if math.isfinite(low) and not math.isfinite(high):
            return f"> {low:.3g}"
        return f"< {high:.3g}" if math.isfinite(high) and not math.isfinite(low) else "–"
    ends = (f"{end:.3f}" if math.isfinite(end) else "…" for end in (low, high))
    return f"{value:.3f} [{', '.join(ends)}]"


def text(at: Interval | Confined | HalfSuccess) -> str:
    """A value with its interval; a bound; or a dash."""
    return shown(at.value, at.low, at.high)


def recovery_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """For every model and time: the load at half recovery at each size (of confined models, at which half
    keep the direction), its slope in ln N, and where interpolation begins."""
    rows = []
    for point, at in model_points(found):
        name = "kept" if is_confined(point) else "recovered"
        for k, T in enumerate(at["time"].values.tolist()):
            one = at.isel(time=k)
            if not np.isfinite(one[f"{name}_half"].values).any() and k < at.sizes["time"] - 1:
                continue
            rows.append(
                point
                | {"what": name, "time": T}
                | {"sizes": [_half_row(one.sel(N=N), name) | {"N": int(N)} for N in at["N"].values]}
                | {
                    of: float(one[f"{name}_{of}"])
                    for of in ("slope", "slope_low", "slope_high", "slope_counts_low", "slope_counts_high",
                               "line_p_value")
                }
            )  # fmt: skip
    return rows


def _half_row(at: xr.Dataset, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        of: float(at[f"{name}_{of}"]) for of in ("half", "half_low", "half_high", "half_p_value")
    }
    row["flag"] = tuple(FLAGS)[int(at[f"{name}_half_flag"])]
    row["text"] = shown(row["half"], row["half_low"], row["half_high"])
    row["interpolation_below"] = shown(
        *(float(at[f"fitted_{of}"]) for of in ("half", "half_low", "half_high"))
    )
    return row


def loss_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """For every model, size and load with a cell that was seen with the direction: when it was lost, and the
    alignment by then; the amplification at the last time and its saturation."""
    rows = []
    names = [
        *("seen_rate", "n_seen", "n_lost", "time_lost", "time_lost_low", "time_lost_high"),
        *("alignment_lost", "alignment_lost_low", "alignment_lost_high", "overlap_lost"),
        *("time_saturated", "time_saturated_low", "time_saturated_high"),
    ]
    for point, at in model_points(found):
        for N in at["N"].values.tolist():
            for load, one in loads_of(at, N):
                if one["n_seen"] > 0:
                    last = one.isel(time=-1)
                    gain = {
                        of: float(last[of])
                        for of in ("amplification", "amplification_low", "amplification_high")
                    }
                    rows.append(point | {"N": N, "alpha": load} | {of: float(one[of]) for of in names} | gain)
    return rows


def confined_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """:func:`confined_threshold` of every confined model at every recorded time."""
    return [
        point | confined_threshold(at.assign_attrs(found.attrs), k)._asdict()
        for point, at in model_points(found)
        if is_confined(point)
        for k in range(at.sizes["time"])
    ]


def render_descent(found: xr.Dataset) -> str:
    """Tables of what descents show, in Markdown."""
    parts = ["### Load at half success", "", "Free: recovery by T. Confined: the direction is kept to T.", ""]
    recovery = recovery_rows(found)
    sizes = found["N"].values.tolist()
    parts += _table(
        ("model", "T", *(f"N = {N}" for N in sizes), "slope in ln N", "line, p"),
        [
            (
                model_words(row, found), f"{row['time']:g}", *(each["text"] for each in row["sizes"]),
                slope_text(row),
                f"{row['line_p_value']:.2f}" if math.isfinite(row["line_p_value"]) else "–",
            )
            for row in recovery
        ],
    )  # fmt: skip
    last = [row for row in recovery if row["time"] == found["time"].values[-1] and row["what"] == "recovered"]
    parts += ["", "### Interpolation without the signal lies below", ""]
    parts += _table(
        ("model", *(f"N = {N}" for N in sizes)),
        [(model_words(row, found), *(each["interpolation_below"] for each in row["sizes"])) for row in last],
    )
    if confined := confined_rows(found):
        parts += ["", "### Confined dynamics: the threshold at N = infinity", ""]
        parts += _table(
            ("model", "T", "threshold", "sizes", "largest drift over them", "outcome"),
            [
                (
                    model_words(row, found), f"{row['time']:g}", shown(row["value"], row["low"], row["high"]),
                    ", ".join(map(str, row["sizes"])), f"{row['drift']:.3f}" if row["sizes"] else "",
                    row["outcome"],
                )
                for row in confined
            ],
        )  # fmt: skip
    parts += ["", "### Loss of the direction", ""]
    parts += _table(
        ("model", "N", "α", "seen", "lost", "median time of loss", "alignment there", "N C at the last time"),
        [
            (
                model_words(row, found), f"{row['N']:g}", f"{row['alpha']:.4g}", f"{row['n_seen']:.0f}",
                f"{row['n_lost']:.0f}", _between(row["time_lost_low"], row["time_lost_high"]),
                shown(*(row[f"alignment_lost{end}"] for end in ("", "_low", "_high"))),
                shown(*(row[f"amplification{end}"] for end in ("", "_low", "_high"))),
            )
            for row in loss_rows(found)
        ],
    )  # fmt: skip
    return "\n".join(parts) + "\n"


def slope_text(row: dict[str, Any]) -> str:
    """The slope in ln N of a row of :func:`recovery_rows`."""
    if not math.isfinite(row["slope"]):
        return "not enough data"
    return shown(row["slope"], row["slope_low"], row["slope_high"])


def model_words(row: dict[str, Any], found: xr.Dataset) -> str:
    """The model of a row; no noise goes without saying."""
    words = []
    for name in models_of(found):
        value = row[name]
        if isinstance(value, str):
            words.append(value)
        elif name != "noise" or value:
            words.append(f"{'p*' if name == 'p_star' else name} = {value:g}")
    return ", ".join(words)


def _between(low: float, high: float) -> str:
    return f"({low:g}, {high:g}]" if math.isfinite(high) else f"({low:g}, …)"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ("---",) * len(columns), *rows)]
