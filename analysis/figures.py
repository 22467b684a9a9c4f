"""Figures of a sweep next to the theory, and the numbers behind them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.curves import Flags, Floats
from bendscape.analysis.estimators import DONE, realised_alpha
from bendscape.analysis.style import (
    FAINT,
    MARKERS,
    THEORY,
    THRESHOLD,
    columns_of,
    size_colours,
    small_multiples,
    style,
)
from bendscape.analysis.thresholds import alpha_dimension, at_point
from bendscape.core import outlier
from bendscape.core.model import TRANSITION_KINDS, Model, ParameterError
from bendscape.core.precision import unwarned
from bendscape.sweep.output import check_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")
_FINE = 161
_BESIDE = 1e-8
_QUANTITIES = {"overlap": "overlap_sq", "eigenvalue": "eigval_min"}
PANELS = 12
"""Panels on one page of a figure: more would neither fit a page nor be laid out in linear time."""

asymptotics = lru_cache(maxsize=2**16)(outlier.asymptotics)
"""The theory at a point, kept: both figures and both tables ask for the same points."""


class Means(NamedTuple):
    """Mean over seeds of one variable with its standard error and the seeds behind it, (N, alpha), nan
    without data."""

    mean: Floats
    error: Floats
    n_seeds: Any


class Panel(NamedTuple):
    """The numbers of one model: theory on a fine line of alpha, and means over seeds of each variable that a
    figure shows. ``alpha`` is as the campaign wants it, ``alpha_realised``, (N, alpha), the abscissa."""

    p: int
    p_star: int
    a: float
    transition: str
    alpha_bbp: float
    alpha_line: Floats
    lambda_minus: Floats
    lambda_star: Floats
    overlap_sq: Floats
    alpha: Floats
    alpha_realised: Floats
    N: list[int]
    measured: Mapping[str, Means]


def panels(ds: xr.Dataset) -> list[Panel]:
    """Theory and means of both figures for every (p, p_star, a) that has data.

    mean = sum over done seeds of x / n, error = sqrt(sum (x - mean)^2 / (n (n - 1))). Points lie at the mean
    of alpha_realised = M / N, at alpha where the dataset has no alpha_realised.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns; one (p, p_star, a) at a time
        is read.

    Returns
    -------
    list of Panel
        In the order of the axes, with the means of ``overlap_sq`` and ``eigval_min``. ``error`` is nan where
        a single seed is done, and both are nan where none is.

    Notes
    -----
    The mean and error against their definitions are held by ``tests/test_figures.py``.
    """
    alpha_dim = alpha_dimension(ds)
    found, realised = [], [name for name in ("alpha_realised",) if name in ds]
    for index in np.ndindex(*(ds.sizes[dim] for dim in ("p", "p_star", "a"))):
        point = dict(zip(("p", "p_star", "a"), index, strict=True))
        block = ds[[*_QUANTITIES.values(), "status", "alpha_bbp", "transition", *realised]]
        block = block.isel(point)
        block = block.transpose("N", alpha_dim, "seed", missing_dims="ignore").compute()
        done = block["status"].values == DONE
        measured = {name: _means(block[name].values, done) for name in _QUANTITIES.values()}
        if not any(means.n_seeds.any() for means in measured.values()):
            continue
        model = Model(*(ds[dim].values[place].item() for dim, place in point.items()))
        alpha = at_point(ds["alpha"], point).values.astype(np.float64)
        alpha_bbp = block["alpha_bbp"].item()
        abscissa = realised_alpha(block, alpha)
        ends = (min(alpha.min(), abscissa.min()), max(alpha.max(), abscissa.max()))
        line = _theory_line(model, alpha_bbp, *map(float, ends))
        kind = TRANSITION_KINDS[block["transition"].item()]
        head = (int(model.p), model.p_star, model.a, kind, alpha_bbp)
        found.append(Panel(*head, *line, alpha, abscissa, block["N"].values.tolist(), measured))
    if not found:
        raise ParameterError(
            "store", ds.attrs.get("name", "this dataset"), "a sweep with at least one cell done"
        )
    return found


def _means(values: Floats, done: Flags) -> Means:
    done = done & np.isfinite(values)
    n = done.sum(axis=2)
    blank = np.full(n.shape, math.nan)
    mean = np.divide(np.where(done, values, 0.0).sum(axis=2), n, out=blank.copy(), where=n > 0)
    squares = np.where(done, (values - mean[..., None]) ** 2, 0.0).sum(axis=2)
    return Means(mean, np.sqrt(np.divide(squares, n * (n - 1.0), out=blank.copy(), where=n > 1)), n)


@lru_cache(maxsize=1024)
def _theory_line(
    model: Model, alpha_bbp: float, first: float, last: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Alpha from first to last with lambda_minus, lambda_star and overlap_sq there; alpha_bbp itself and the
    point just above it show the jump."""
    line = np.linspace(first, last, _FINE)
    line = line[abs(line / alpha_bbp - 1) > _BESIDE]
    if line[0] < alpha_bbp < line[-1]:
        line = np.sort(np.append(line, [alpha_bbp, alpha_bbp * (1 + _BESIDE)]))
    with unwarned():
        theory = [outlier.asymptotics(model, load) for load in line]
    return (
        line,
        np.array([at.lambda_minus for at in theory]),
        np.array([at.lambda_star for at in theory]),
        np.array([at.overlap_sq if at.alpha > alpha_bbp else 0.0 for at in theory]),
    )


def overlap_figure(ds: xr.Dataset) -> Figure:
    """Squared overlap of the lowest eigenvector with the teacher against alpha, one panel a model, all on one
    page.

    Points: <overlap_sq> and its standard error, a colour a size. Line: the asymptotic overlap, 0 up to
    alpha_bbp (dashed, vertical).
    """
    return _draw(panels(ds), "overlap")


def eigenvalue_figure(ds: xr.Dataset) -> Figure:
    """Lowest eigenvalue against alpha with the asymptotic edge and outlier, one panel a model, all on one
    page.

    Points: <eigval_min> and its standard error, a colour a size. Lines: lambda_minus (thin) and, above
    alpha_bbp, lambda_star.
    """
    return _draw(panels(ds), "eigenvalue")


def figure_pages(found: Sequence[Panel], name: str) -> Iterator[tuple[str, Figure]]:
    """The figure ``overlap`` or ``eigenvalue`` in pages of at most ``PANELS`` panels, one at a time.

    Each comes with its name: that of the figure where one page holds all, ``<figure>-1`` and so on where
    there are more."""
    for start in range(0, len(found), PANELS):
        page = f"{name}-{start // PANELS + 1}" if len(found) > PANELS else name
        yield page, _draw(found[start : start + PANELS], name)


def _draw_overlap(axes: Any, panel: Panel) -> None:
    jump = panel.alpha_line > panel.alpha_bbp
    axes.plot(panel.alpha_line[~jump], panel.overlap_sq[~jump], color=THEORY, zorder=3)
    axes.plot(panel.alpha_line[jump], panel.overlap_sq[jump], color=THEORY, zorder=3, label=r"$N \to \infty$")
    top = float(np.nanmax(panel.measured["overlap_sq"].mean, initial=0.0))
    axes.set_ylim(bottom=min(0.0, -0.02 * top))


def _draw_eigenvalue(axes: Any, panel: Panel) -> None:
    axes.plot(panel.alpha_line, panel.lambda_minus, color=FAINT, zorder=3, label=r"edge $\lambda_-$")
    axes.plot(panel.alpha_line, panel.lambda_star, color=THEORY, zorder=3, label=r"outlier $\lambda_\star$")


def _draw(found: Sequence[Panel], name: str) -> Figure:
    draw_theory, label = {
        "overlap": (_draw_overlap, "squared overlap  $m^2$"),
        "eigenvalue": (_draw_eigenvalue, r"lowest eigenvalue  $\lambda$"),
    }[name]
    with style():
        figure, all_axes = small_multiples(len(found))
        sizes = sorted({N for panel in found for N in panel.N})
        colours = dict(zip(sizes, size_colours(len(sizes)), strict=True))
        for axes, panel in zip(all_axes, found, strict=True):
            axes.axvline(panel.alpha_bbp, color=THRESHOLD, linestyle=(0, (4, 2)), linewidth=1.0, zorder=1)
            means = panel.measured[_QUANTITIES[name]]
            for k, N in enumerate(panel.N):
                seen = np.isfinite(means.mean[k])
                if seen.any():
                    axes.errorbar(
                        panel.alpha_realised[k][seen],
                        means.mean[k][seen],
                        np.nan_to_num(means.error[k][seen]),
                        color=colours[N],
                        marker=MARKERS[sizes.index(N) % len(MARKERS)],
                        linestyle="none",
                        elinewidth=0.9,
                        label=f"$N = {N}$",
                        zorder=4,
                    )
            draw_theory(axes, panel)
            axes.set_title(
                f"$p = {panel.p}$, $p^* = {panel.p_star}$, $a = {panel.a:g}$: {panel.transition}\n"
                rf"$\alpha_{{\rm BBP}} = {panel.alpha_bbp:.4f}$"
            )
            axes.set_xlabel(r"$\alpha$")
            axes.set_ylabel(label)
        _legend(figure, all_axes)
        return figure


def _legend(figure: Figure, all_axes: list[Any]) -> None:
    entries: dict[str, Any] = {}
    for axes in all_axes:
        entries |= {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    entries[r"$\alpha_{\rm BBP}$"] = all_axes[0].lines[0]
    ordered = sorted(entries, key=lambda text: (not text.startswith("$N ="), _size_of(text)))
    figure.legend(
        [entries[text] for text in ordered],
        ordered,
        loc="outside upper left",
        ncols=4 * columns_of(len(all_axes)),
        columnspacing=1.2,
    )


def _size_of(text: str) -> int:
    return int("".join(filter(str.isdigit, text)) or 0)


def write_figures(ds: xr.Dataset, directory: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write both figures in each format, and the numbers behind them as CSV.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns.
    directory : path
        Made if it is not there; files of the same name are replaced, and pages that an earlier call wrote
        and this one does not are removed.
    formats : sequence of str
        Any of ``FORMATS``.

    Returns
    -------
    list of Path
        ``overlap.<format>``, ``overlap.csv``, ``eigenvalue.<format>``, ``eigenvalue.csv``; where there are
        more than ``PANELS`` models, ``overlap-1.<format>``, ``overlap-2.<format>`` and so on. The columns of
        a CSV are ``p, p_star, a, transition, alpha_bbp, N, alpha, alpha_realised``, the mean, its
        standard error, the number of seeds, and the theory at alpha_realised; an absent number is an empty
        field.
    """
    for name in formats:
        if name not in FORMATS:
            raise ParameterError("format", name, f"one of {', '.join(FORMATS)}")
    place = Path(directory)
    check_writable(place, folder=True)
    found, written = panels(ds), []
    place.mkdir(parents=True, exist_ok=True)
    for name, variable in _QUANTITIES.items():
        for page, figure in figure_pages(found, name):
            for suffix in formats:
                written.append(place / f"{page}.{suffix}")
                with style(**{"svg.hashsalt": page}):
                    figure.savefig(written[-1], metadata=_METADATA[suffix])
        written.append(place / f"{name}.csv")
        write_csv(found, variable, written[-1])
    _remove_other_pages(place, {path.stem for path in written if path.suffix != ".csv"})
    return written


def _remove_other_pages(place: Path, pages: set[str]) -> None:
    """Remove pages of ours that an earlier call divided otherwise: by name, and by what is written inside."""
    for path in place.iterdir():
        name, _, number = path.stem.partition("-")
        ours = name in _QUANTITIES and (not number or number.isdecimal()) and path.suffix[1:] in FORMATS
        if ours and path.stem not in pages and path.is_file() and _MADE_BY.encode() in path.read_bytes():
            path.unlink()


_MADE_BY = "bendscape figures"
_METADATA: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": _MADE_BY},
    "pdf": {"CreationDate": None, "Creator": _MADE_BY},
    "png": {"Software": _MADE_BY},
}


def write_csv(found: Sequence[Panel], variable: str, path: Path) -> None:
    """Write means, errors, counts and theory, one row a point of a figure."""
    theory = ("overlap_sq_theory",) if variable == "overlap_sq" else ("lambda_minus", "lambda_star")
    columns = (variable, f"{variable}_error", "n_seeds", *theory)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("p", "p_star", "a", "transition", "alpha_bbp", "N", "alpha", "alpha_realised", *columns)
        )
        for panel in found:
            model, means = Model(panel.p, panel.p_star, panel.a), panel.measured[variable]
            for i, alpha in enumerate(panel.alpha.tolist()):
                for k, N in enumerate(panel.N):
                    if not means.n_seeds[k, i]:
                        continue
                    realised = float(panel.alpha_realised[k, i])
                    with unwarned():
                        at = asymptotics(model, realised)
                    head = (panel.p, panel.p_star, panel.a, panel.transition, panel.alpha_bbp)
                    measured = (float(means.mean[k, i]), float(means.error[k, i]), int(means.n_seeds[k, i]))
                    limit = (
                        (at.overlap_sq,) if variable == "overlap_sq" else (at.lambda_minus, at.lambda_star)
                    )
                    row = (*head, N, alpha, realised, *measured, *limit)
                    writer.writerow(["" if number != number else number for number in row])
