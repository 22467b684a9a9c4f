"""The phase diagram: the transition of every model of a grid as a dataset, and its figure in the (p, a)
plane."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.interpolate import PchipInterpolator

from bendscape.analysis.figures.style import FAINT, INK, THRESHOLD, plain_logarithmic, small_multiples, style
from bendscape.analysis.figures.tables import replace_zarr
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.theory.maps import transition_map
from bendscape.sweep.commands.output import check_replaceable, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")
TITLE = "bendscape theory map"
MAX_POINTS = 10_000
"""Largest number of values on one axis of a map."""

_RANGE = "numbers and ranges START:STOP:COUNT or START:STOP:COUNT:log, separated by commas"
_ALPHA_0 = "alpha_0_complex_re"  # the definition that exists for every model
_CONTINUOUS, _DISCONTINUOUS = "#ffffff", "#ebedf0"
_SOLID: dict[str, Any] = {"color": THRESHOLD, "linestyle": "solid", "linewidth": 1.2}
_BROKEN: dict[str, Any] = {"color": INK, "linestyle": (0, (3, 2)), "linewidth": 0.9}
_SHORTEST_NAMED, _APART = 0.2, 0.12  # in panel widths: shortest labelled contour, distance between labels
_OFF_THE_LINE = 0.25  # in log a
_METADATA: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": TITLE},
    "pdf": {"CreationDate": None, "Creator": TITLE},
    "png": {"Software": TITLE},
}
_WIDTHS = 160  # number of points of lines drawn between integer widths


def parse_axis(option: str, text: str, *, integer: bool = False) -> list[float]:
    """Values of an axis from text such as ``1,2,4,8``, ``0.1:10:60:log`` or ``1:8:8,16,inf``.

    Parameters
    ----------
    option : str
        Name of the option, for errors.
    text : str
        Numbers and ranges ``START:STOP:COUNT[:log]``, both ends included, separated by commas.
    integer : bool
        Round the values of ranges to integers.

    Returns
    -------
    list of float
        In increasing order, without repetition. Their range is checked by the caller.
    """
    values: list[float] = []
    for item in text.split(","):
        start, *rest = item.split(":")
        try:
            if not rest:
                values.append(float(start))
                continue
            stop, count, *spacing = rest
            if spacing not in ([], ["log"]) or not 1 <= int(count) <= MAX_POINTS:
                raise ValueError
            low, high = float(start), float(stop)
            if not (math.isfinite(low) and math.isfinite(high)) or (spacing and min(low, high) <= 0):
                raise ValueError
        except ValueError:
            raise ParameterError(option, text, _RANGE) from None
        run = np.geomspace(low, high, int(count)) if spacing else np.linspace(low, high, int(count))
        values += (np.rint(run) if integer else run).tolist()
    return sorted(set(values))


def theory_map(
    *, p: list[float], p_star: list[float], a: list[float], noise: float = 0.0, alpha_0: bool = True
) -> xr.Dataset:
    """The map as a dataset over (p, p_star, a); with ``alpha_0``, also alpha_0 by its three definitions.

    See :func:`bendscape.core.quadratic.theory.maps.transition_map` for the variables, each with its error
    estimate. ``transition`` has its flags as attributes; ``noise``, one number for the whole map, is a
    coordinate.
    """
    ds = xr.Dataset(*transition_map(p=p, p_star=p_star, a=a, noise=noise, alpha_0=alpha_0))  # type: ignore[arg-type]
    return ds.assign_attrs(title=TITLE)


def write_map(ds: xr.Dataset, output: str | Path) -> Path:
    """Write a map as a Zarr dataset. Only an earlier map is replaced; anything else is refused."""
    path = Path(output)
    replace_zarr(ds, path, "--output")
    return path


def check_figure(path: Path, axes: Mapping[str, list[float]]) -> None:
    """Before any work, refuse a file, or options with too few finite values for a diagram."""
    if path.suffix.removeprefix(".") not in FORMATS:
        raise ParameterError("--figure", str(path), f"a file named .{', .'.join(FORMATS)}")
    check_replaceable(path, TITLE, what="diagram", name="--figure")
    for name, values in axes.items():
        finite = [value for value in values if math.isfinite(value)]
        if len(finite) < 2:
            raise ParameterError(name, finite, "at least two finite values for a figure")


def phase_figure(ds: xr.Dataset) -> Figure:
    """The (p, a) plane, one panel for each p_star: the two kinds, and contours of alpha_bbp and alpha_0.

    Grey: discontinuous, above the tricritical line a_tricritical(p). Contours are linear between
    the values of a; p = inf is left out. alpha_0 is its complex definition, drawn where its imaginary
    part, which measures how sharply it is defined, is below its real part; it splits off alpha_bbp at the
    tricritical line. Between integer widths, where there is no model, lines are monotone cubics in log p.
    """
    ds = ds.sel(p=np.isfinite(ds["p"]))
    with style():
        figure, all_axes = small_multiples(ds.sizes["p_star"])
        for axes, p_star in zip(all_axes, ds["p_star"].values, strict=True):
            draw_phase(axes, ds.sel(p_star=p_star))
            axes.set_title(f"$p^* = {p_star}$")
        _legend(figure, _ALPHA_0 in ds)
        return figure


def draw_phase(axes: Any, ds: xr.Dataset) -> None:
    """One panel of :func:`phase_figure`, for the dataset over finite p and a."""
    widths = ds["p"].values
    ds = _between_widths(ds)
    p, a = ds["p"].values, ds["a"].values
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(p[0], p[-1])
    axes.set_ylim(a[0], a[-1])
    axes.set_facecolor(_CONTINUOUS)
    tricritical = ds["a_tricritical"].values
    grey = axes.fill_between(
        p, np.clip(tricritical, a[0], a[-1]), a[-1], color=_DISCONTINUOUS, linewidth=0, zorder=0
    )
    axes.plot(p, tricritical, color=INK, linewidth=1.6, zorder=4)

    drawn = {"alpha_bbp": ds["alpha_bbp"]}
    if _ALPHA_0 in ds:
        drawn[_ALPHA_0] = ds[_ALPHA_0].where(ds["alpha_0_complex_im"] < ds[_ALPHA_0])
    levels = _levels(np.stack([values.values for values in drawn.values()]))
    taken: list[Any] = []
    for name, values in drawn.items():
        broken = name == _ALPHA_0
        look = _BROKEN if broken else _SOLID
        lines = axes.contour(
            p, a, values.transpose("a", "p").values, levels,
            colors=[look["color"]], linestyles=[look["linestyle"]], linewidths=look["linewidth"],
        )  # fmt: skip
        spots = [
            _spot(axes, line, np.interp(line[:, 0], p, tricritical), broken, taken)
            for level in lines.allsegs
            for line in level
        ]
        axes.clabel(lines, fontsize=6.5, fmt="%g", inline_spacing=2, manual=[at for at in spots if at])
        if broken:  # below the tricritical line it equals alpha_bbp
            lines.set_clip_path(grey.get_paths()[0], axes.transData)
    axes.set_xticks(widths if len(widths) <= 6 else [x for x in 2.0 ** np.arange(10) if p[0] <= x <= p[-1]])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_locator(_no_ticks())
    plain_logarithmic(axes.yaxis)
    axes.set_xlabel("student width  $p$")
    axes.set_ylabel("constant of the loss  $a$")


def _between_widths(ds: xr.Dataset) -> xr.Dataset:
    """The numbers drawn, at many widths: smooth curves through the integer ones."""
    p = ds["p"].values
    fine = np.unique(np.append(np.geomspace(p[0], p[-1], _WIDTHS)[1:-1], p))
    names = [name for name in ("a_tricritical", "alpha_bbp", _ALPHA_0, "alpha_0_complex_im") if name in ds]
    found = xr.Dataset(coords={"p": fine, "a": ds["a"].values})
    for name in names:
        values = ds[name].transpose("p", ...).values
        found[name] = (("p", "a")[: values.ndim], _curve(np.log(p), values, np.log(fine)))
    return found


def _curve(x: Any, values: Any, at: Any) -> Any:
    """Monotone cubics along each column; nan before its first and after its last number."""
    if values.ndim > 1:
        return np.stack([_curve(x, column, at) for column in values.T], axis=1)
    known = np.isfinite(values)
    if known.sum() < 2:
        return np.full(len(at), math.nan)
    return PchipInterpolator(x[known], values[known], extrapolate=False)(at)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _levels(values: Any) -> Any:
    """Round contour levels, closer together where the range is small."""
    low, high = np.nanmin(values), np.nanmax(values)
    low = low if low > 0 else high / 100
    steps = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if high / low < 20 else (1, 1.5, 2, 3, 5, 7)
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return np.outer(decades, steps).ravel()


def _spot(axes: Any, line: Any, edge: Any, above: bool, taken: list[Any]) -> tuple[float, float] | None:
    """Where to label a contour: well inside the panel, away from the tricritical line and other labels."""
    x, y = places = axes.transAxes.inverted().transform(axes.transData.transform(line)).T
    run = np.append(0.0, np.hypot(np.diff(x), np.diff(y)).cumsum())
    off = np.log(line[:, 1] / edge)
    free = (abs(x - 0.5) < 0.43) & (abs(y - 0.5) < 0.45) & ((off if above else abs(off)) > _OFF_THE_LINE)
    for other in taken:
        free &= np.hypot(*(places - other[:, np.newaxis])) > _APART
    if run[-1] < _SHORTEST_NAMED or not free.any():
        return None
    chosen = np.flatnonzero(free)[abs(run[free] / run[-1] - 0.6).argmin()]
    taken.append(places[:, chosen])
    return float(line[chosen, 0]), float(line[chosen, 1])


def phase_handles(*, alpha_0: bool) -> list[Any]:
    """Legend entries for :func:`draw_phase`."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Line2D([], [], **_SOLID, label=r"$\alpha_{\rm BBP}$"),
        *([Line2D([], [], **_BROKEN, label=r"$\alpha_0$")] if alpha_0 else []),
        Line2D([], [], color=INK, linewidth=1.6, label="tricritical"),
        Patch(facecolor=_CONTINUOUS, edgecolor=FAINT, linewidth=0.6, label="continuous"),
        Patch(facecolor=_DISCONTINUOUS, edgecolor=FAINT, linewidth=0.6, label="discontinuous"),
    ]


def _legend(figure: Figure, alpha_0: bool) -> None:
    figure.legend(
        handles=phase_handles(alpha_0=alpha_0),
        loc="outside upper left",
        ncols=5 if len(figure.axes) > 1 else 3,
        columnspacing=1.2,
    )


def write_figure(figure: Figure, path: str | Path) -> Path:
    """Write a diagram in the format given by the file name; a file of another origin is not replaced."""
    place = Path(path)
    check_replaceable(place, TITLE, what="diagram", name="--figure")
    with style(**{"svg.hashsalt": TITLE}), whole(place) as file:
        figure.savefig(file, metadata=_METADATA[place.suffix.removeprefix(".")])
    return place
