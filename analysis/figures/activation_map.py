"""Maps of the thresholds of networks with other activations than the square, on a grid of models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bendscape.analysis.figures.style import (
    DASHED,
    INK,
    plain_logarithmic,
    shared_legend,
    size_colours,
    small_multiples,
    style,
)
from bendscape.analysis.figures.theory_map import TITLE
from bendscape.core.activations.activation import Network
from bendscape.core.activations.published import (
    TRANSITION_KINDS,
    check_theory,
    has_theory,
    thresholds_of,
    typical_threshold,
)
from bendscape.core.activations.weight import least_weight

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIMS = ("p", "p_star", "a")
WORDS = {
    "alpha_bbp": "lower threshold of both sectors; NaN where there is none or no theory",
    "alpha_bbp_error": "error of quadrature of alpha_bbp",
    "alpha_bbp_symmetric": "threshold of the symmetric sector",
    "alpha_bbp_relative": "threshold of the relative sector",
    "alpha_0_tangent": "alpha_0 by the tangent to the squared overlap at alpha_bbp",
}
CONTINUOUS, UNKNOWN = map(TRANSITION_KINDS.index, ("continuous", "unknown"))
TYPICAL = "at p = inf, threshold where the student's output is at its mean; NaN at finite p"


def activation_map(
    *, p: list[float], p_star: list[float], a: list[float], activation: str, teacher_activation: str
) -> xr.Dataset:
    """Thresholds over (p, p_star, a) for one pair of activations.

    Parameters
    ----------
    p, p_star, a : list of float
        Values of the axes; p may be inf.
    activation, teacher_activation : str
        Names in :data:`bendscape.core.activations.activation.ACTIVATIONS`.

    Returns
    -------
    xarray.Dataset
        The variables of ``WORDS``, ``alpha_bbp_typical`` and ``transition``; the activations as scalar
        coordinates.

    Raises
    ------
    ParameterError
        A model whose spectrum has no left edge, or no model with a theory.

    Notes
    -----
    About a second for a model of finite width. Held by ``tests/test_activation_findings.py``.
    """
    names = {"activation": activation, "teacher_activation": teacher_activation}
    shape = (len(p), len(p_star), len(a))
    networks = [Network(width, int(units), a[0], **names) for width in p for units in p_star]
    if not any(map(has_theory, networks)):
        check_theory(networks[0])
    found = {name: np.full(shape, math.nan) for name in WORDS}
    typical, kinds = np.full(shape, math.nan), np.zeros(shape, dtype=np.int8)
    for i, j, k in np.ndindex(*shape):
        network = Network(p[i], int(p_star[j]), a[k], **names)
        least_weight(network)
        at = thresholds_of(network)
        for name, values in found.items():
            values[i, j, k] = getattr(at, name)
        typical[i, j, k] = typical_threshold(network)
        kinds[i, j, k] = TRANSITION_KINDS.index(at.transition)
    about = {
        "long_name": "kind of the transition at alpha_bbp",
        "flag_values": np.arange(len(TRANSITION_KINDS), dtype=np.int8),
        "flag_meanings": " ".join(TRANSITION_KINDS),
    }
    variables = {name: (DIMS, found[name], {"long_name": WORDS[name], "units": "1"}) for name in WORDS}
    variables["alpha_bbp_typical"] = (DIMS, typical, {"long_name": TYPICAL, "units": "1"})
    coords = {"p": np.array(p), "p_star": np.array(p_star, dtype=np.int64), "a": np.array(a)}
    return xr.Dataset(variables | {"transition": (DIMS, kinds, about)}, coords | names, {"title": TITLE})


def threshold_figure(ds: xr.Dataset) -> Figure:
    """alpha_bbp against a, a line for each width and a panel for each p_star, of an :func:`activation_map`.

    Open symbols: continuous transitions; full ones: discontinuous. Bars are errors of quadrature. p = inf is
    black; dashed is its other order of limits, where that differs. Models without a threshold or without a
    theory are left out.
    """
    with style():
        figure, all_axes = small_multiples(ds.sizes["p_star"])
        finite = np.isfinite(ds["p"].values)
        colours = iter(size_colours(int(finite.sum())))
        looks = [next(colours) if width else INK for width in finite]
        for axes, p_star in zip(all_axes, ds["p_star"].values, strict=True):
            for p, colour in zip(ds["p"].values, looks, strict=True):
                at = ds.sel(p=p, p_star=p_star)
                open_ = at["transition"].values == CONTINUOUS
                a, alpha = at["a"].values, at["alpha_bbp"].values
                name = rf"$p = {p:g}$" if math.isfinite(p) else r"$p = \infty$"
                axes.plot(a, alpha, color=colour, label=name)
                for kind, face in ((open_, "white"), (~open_, colour)):
                    axes.errorbar(
                        a[kind], alpha[kind], at["alpha_bbp_error"].values[kind],
                        fmt="o", color=colour, markerfacecolor=face, linewidth=0.8,
                    )  # fmt: skip
                typical = at["alpha_bbp_typical"].values
                if not np.allclose(typical, alpha, equal_nan=True) and not math.isfinite(p):
                    axes.plot(a, typical, color=colour, linestyle=DASHED, label="typical")
            axes.set_xscale("log")
            axes.set_yscale("log")
            plain_logarithmic(axes.xaxis)
            plain_logarithmic(axes.yaxis)
            axes.set_xlabel("constant of the loss  $a$")
            axes.set_ylabel(r"$\alpha_{\rm BBP}$")
            axes.set_title(f"$p^* = {p_star}$")
        shared_legend(figure, all_axes)
        return figure
