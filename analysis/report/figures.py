"""The numbers behind the interactive figures of a report, as a compact JSON document for its script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly
import plotly.offline
from plotly.colors import sample_colorscale

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.collapse_fits import USUAL_WIDTH
from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.laws import lowest_eigenvalue_law, mean_overlap_sq
from bendscape.analysis.estimate.verdicts import expected_definition, landmarks
from bendscape.analysis.figures.gain import Gain
from bendscape.analysis.findings.panels import Panel
from bendscape.analysis.report.symbols import in_text
from bendscape.core.errors import unwarned
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales, share_of_drawn
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import transition_at

WIDTHS = 16
"""Theory is shown at every width up to this one, and at those of the campaign."""

_DIGITS = 6
_SCALED = np.linspace(-3.0, 3.0, 121)
_RANGES = {"light": (0.78, 0.08), "dark": (1.0, 0.48)}  # of viridis, visible on the page


def library() -> str:
    """The JavaScript of plotly, escaped for a script element."""
    return str(plotly.offline.get_plotlyjs()).replace("</script", "<\\/script").replace("<!--", "<\\!--")


def library_version() -> str:
    """Version of the plotly package."""
    return str(plotly.__version__)


def figure_numbers(
    found: Sequence[Panel], loads: Sequence[Mapping[str, Any]], bought: Sequence[Gain]
) -> dict[str, Any]:
    """Everything that the figures show, for all models.

    Parameters
    ----------
    found : sequence of Panel
        Of :func:`bendscape.analysis.findings.panels.panels`.
    loads : sequence of dict
        Of :func:`bendscape.analysis.findings.scaling.load_rows`.
    bought : sequence of Gain
        Of :func:`bendscape.analysis.figures.gain.gains`: which models the campaign wants.

    Returns
    -------
    dict
        ``sizes``, with a colour for each on a ``light`` and a ``dark`` page; ``models``, each with theory
        along ``line``, the measurements at each of ``sizes`` beside theory at that N, and its collapse
        ``scaled``; ``critical``, theory's loads against p at each (p_star, a). Numbers have six digits; null
        stands for nan.

    Notes
    -----
    overlap is the mean over the lowest p p_star eigenvectors, lowest that of the first alone. Theory at N is
    :func:`bendscape.core.quadratic.finite_size.overlap_law.mean_overlap_sq` and
    :func:`bendscape.core.quadratic.finite_size.edge_law.lowest_eigenvalue_law`, interpolated between the
    alphas of the campaign and, for the overlap, the midpoints. It is left out where it is slow: far below
    alpha_0, where labels would be drawn for a second a point, and for the eigenvalue above the threshold if
    p p_star > 1, where the splitting of the outliers takes a tenth of a second at each alpha.
    """
    sizes = sorted({N for panel in found for N in panel.N})
    measured = {(row["p"], row["p_star"], row["a"], row["estimator"]): row for row in loads}
    with unwarned():
        models = [_model(panel, measured) for panel in found]
        critical = [_critical(gain) for gain in bought]
    colours = {theme: _colours(len(sizes), *ends) for theme, ends in _RANGES.items()}
    return {"sizes": sizes, "colours": colours, "models": models, "critical": critical}


def _colours(n: int, first: float, last: float) -> list[str]:
    places = np.linspace(first, last, n).tolist() if n > 1 else [0.5 * (first + last)]
    return [str(colour) for colour in sample_colorscale("Viridis", places)]


def _model(panel: Panel, measured: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> dict[str, Any]:
    model, point = Model(panel.p, panel.p_star, panel.a), (panel.p, panel.p_star, panel.a)
    definitions = landmarks(model).definitions
    row = measured.get((*point, "collapse"))
    critical, r = critical_point(model), panel.p * panel.p_star
    width = USUAL_WIDTH if math.isnan(critical.width) else critical.width
    trusted = row is not None and math.isfinite(row["alpha_c"]) and row["flag"] == "estimated"
    alpha_c = row["alpha_c"] if row is not None and trusted else definitions[_expected(panel, definitions)]
    law = _Laws(model, panel.alpha)
    line = {
        "alpha": panel.alpha_line,
        "edge": panel.lambda_minus,
        "outlier": panel.lambda_star,
        "overlap": panel.overlap_sq,
    }
    return {
        "p": panel.p,
        "p_star": panel.p_star,
        "a": panel.a,
        "kind": panel.transition,
        "alpha_bbp": _short(panel.alpha_bbp),
        "alpha_0": _alpha_0(panel.transition, definitions),
        "line": {name: _list(values) for name, values in line.items()},
        "sizes": [
            _at_size(panel, k, N, law, (alpha_c, width))
            for k, N in enumerate(panel.N)
            if panel.measured["eigval_min"].n_seeds[k].any()
        ],
        "scaled": {
            "alpha_c": _short(alpha_c),
            "trusted": trusted,
            "w": _list(_SCALED),
            "Y": _list(critical.amplitude * universal_overlap(_SCALED, r)),
        },
        "estimates": [
            {
                "name": name.replace("_", " "),
                "value": _short(one["alpha_c"]),
                "error": _short(math.hypot(one["error"], one["systematic"])),
                "statistical": _short(one["error"]),
                "systematic": _short(one["systematic"]),
                "trusted": one["flag"] == "estimated",
                "verdict": one["verdict"],
                "reason": in_text(one["verdict_reason"]),
            }
            for name in ("collapse", "theory_curve")
            if (one := measured.get((*point, name)))
        ],
    }


def _expected(panel: Panel, definitions: Mapping[str, float]) -> str:
    return expected_definition(panel.transition, definitions)


def _alpha_0(kind: str, definitions: Mapping[str, float]) -> float | None:
    """alpha_0 in the definition that the verdicts use; null for a continuous transition."""
    return None if kind == "continuous" else _short(definitions[expected_definition(kind, definitions)])


class _Laws:
    """Theory of one model at finite N, on a grid of alpha and between its points."""

    def __init__(self, model: Model, alpha: Floats) -> None:
        self.model = model
        coarse = np.unique(alpha)
        fine = np.unique(np.append(coarse, 0.5 * (coarse[1:] + coarse[:-1])))
        self.fine = [x for x in fine.tolist() if x in coarse or not self._drawn(x)]
        self.coarse = [x for x in coarse.tolist() if not self._split(x)]

    def _drawn(self, alpha: float) -> bool:
        """Whether the law at this alpha draws extreme labels, which takes some 0.03 seconds a size."""
        return share_of_drawn(edge_scales(self.model, alpha)) > 0

    def _split(self, alpha: float) -> bool:
        """Whether there are several outliers, which split."""
        return self.model.p * self.model.p_star > 1 and math.isfinite(
            edge_scales(self.model, alpha).gamma_star
        )

    def overlap(self, N: int) -> tuple[list[float], list[float]]:
        return self.fine, [mean_overlap_sq(self.model, alpha, N) for alpha in self.fine]

    def eigenvalue(self, N: int) -> tuple[list[float], list[float]]:
        return self.coarse, [lowest_eigenvalue_law(self.model, alpha, N).mean for alpha in self.coarse]


def _at_size(panel: Panel, k: int, N: int, laws: _Laws, scaling: tuple[float, float]) -> dict[str, Any]:
    """The measurements of one size, at alphas with data, beside theory at N and at N = infinity."""
    eigenvalue, lowest, overlap = (
        panel.measured[name] for name in ("eigval_min", "overlap_sq", "overlap_sq_space")
    )
    use = np.isfinite(eigenvalue.mean[k])
    alpha = panel.alpha_realised[k][use]
    mean, error = overlap.mean[k][use], overlap.error[k][use]
    of_overlap, of_eigenvalue = laws.overlap(N), laws.eigenvalue(N)
    bbp, (alpha_c, width), cube_root = panel.alpha_bbp, scaling, math.cbrt(N)
    inner = np.where(alpha > bbp, _at(panel, panel.lambda_star, alpha), _at(panel, panel.lambda_minus, alpha))
    columns = {
        "alpha": alpha,
        "overlap": mean,
        "overlap_error": error,
        "overlap_N": _between(*of_overlap, alpha),
        "overlap_limit": _at(panel, panel.overlap_sq, alpha),
        "lowest": lowest.mean[k][use],
        "lowest_error": lowest.error[k][use],
        "eigenvalue": eigenvalue.mean[k][use],
        "eigenvalue_error": eigenvalue.error[k][use],
        "eigenvalue_N": _between(*of_eigenvalue, alpha),
        "eigenvalue_limit": inner,
        "w": (alpha - alpha_c) * cube_root / width,
        "Y": cube_root * mean,
        "Y_error": cube_root * error,
    }
    curves = {"overlap": of_overlap, "eigenvalue": of_eigenvalue}
    return {
        "N": N,
        "seeds": eigenvalue.n_seeds[k][use].tolist(),
        **{name: _list(values) for name, values in columns.items()},
        "curves": {name: [_list(x), _list(y)] for name, (x, y) in curves.items()},
    }


def _at(panel: Panel, values: Floats, alpha: Floats) -> Floats:
    """Theory's curve at some alphas, on the correct side of the jump."""
    above = panel.alpha_line > panel.alpha_bbp
    found = np.full(len(alpha), math.nan)
    for side, here in ((above, alpha > panel.alpha_bbp), (~above, alpha <= panel.alpha_bbp)):
        if side.any() and here.any():
            found[here] = np.interp(alpha[here], panel.alpha_line[side], values[side])
    return found


def _between(x: Sequence[float], y: Sequence[float], alpha: Floats) -> Floats:
    """A law, interpolated between the points where it was evaluated; nan outside, up to rounding of M / N."""
    if len(x) < 2:
        return np.full(len(alpha), math.nan)
    slack = 0.2 * (x[1] - x[0])
    inside = (alpha >= x[0] - slack) & (alpha <= x[-1] + slack)
    return np.where(inside, np.interp(alpha, x, y), math.nan)


def _critical(gain: Gain) -> dict[str, Any]:
    """Theory's critical loads against p at one (p_star, a)."""
    wanted = [row.p for row in gain.widths]
    more = range(wanted[0], min(wanted[-1], WIDTHS) + 1)
    widths = sorted({*wanted, *more})
    kinds, bbp, zero = [], [], []
    for p in widths:
        model = Model(p, gain.p_star, gain.a)
        kinds.append(transition_at(model).kind)
        definitions = landmarks(model).definitions
        bbp.append(_short(definitions["alpha_bbp"]))
        zero.append(_alpha_0(kinds[-1], definitions))
    head = {"p_star": gain.p_star, "a": gain.a, "limit": _short(gain.hessian_limit)}
    return head | {"p": widths, "kind": kinds, "alpha_bbp": bbp, "alpha_0": zero}


def _short(value: float) -> float | None:
    """A number with six digits; null if it is not finite."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _list(values: npt.ArrayLike) -> list[float | None]:
    return [_short(value) for value in np.asarray(values, dtype=np.float64).tolist()]
