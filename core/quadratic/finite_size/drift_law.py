"""The increase with N of the threshold of a discontinuous transition: how often labels hide the teacher.

Beyond the crossover size, at a load between alpha_0 and alpha_bbp, a sample has on average kappa = N alpha
sum_c P(D_c < 0) directions beyond the pole of the principal-value outlier. It shows the teacher only if it
has none, which is the case for a fraction exp(-kappa) of all samples. kappa = 1 at alpha_bbp(N).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.quadratic.finite_size.crossover import tail_probability, window_end
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.branch import load_on_branch, overlap_sq_on_branch, principal_value, psi
from bendscape.core.quadratic.theory.integrals import averages
from bendscape.core.quadratic.theory.outlier import transition_at

FloatArray = npt.NDArray[np.float64]

_POINTS = 400
_NEAREST = 0.02  # of the branch's length in gamma: closer to alpha_bbp labels hide the teacher at no size
_LOWEST = 1e-280  # smallest probability of a label beyond the pole


class HidingCurve(NamedTuple):
    """The principal-value branch of a discontinuous transition, from its end to near alpha_bbp.

    Parameters
    ----------
    alpha : array, shape (n,)
        Loads, increasing from the end of the branch (alpha_0).
    log_rate : array, shape (n,)
        log of alpha sum_c P(D_c < 0); adding log N gives log kappa.
    overlap_sq : array, shape (n,)
        Squared overlap m^2 of the principal-value outlier.
    """

    alpha: FloatArray
    log_rate: FloatArray
    overlap_sq: FloatArray

    def log_kappa(self, alpha: FloatArray, N: float) -> FloatArray:
        """log kappa at any loads: extrapolated linearly in alpha below the branch's end, -inf above its
        start."""
        found = np.interp(alpha, self.alpha, self.log_rate, right=-math.inf)
        slope = (self.log_rate[1] - self.log_rate[0]) / (self.alpha[1] - self.alpha[0])
        below = self.log_rate[0] + slope * (alpha - self.alpha[0])
        return np.where(alpha < self.alpha[0], below, found) + math.log(N)

    def threshold(self, N: float) -> float:
        """Load at which kappa = 1, for N beyond the crossover size: alpha_bbp(N)."""
        return float(np.interp(math.log(N), -self.log_rate, self.alpha))


@lru_cache(maxsize=256)
def hiding_curve(model: Model) -> HidingCurve:
    """Loads, hiding rates and overlaps along the principal-value branch.

    Parameters
    ----------
    model : Model
        Finite p and a discontinuous transition.

    Returns
    -------
    HidingCurve
        Empty arrays if the transition is continuous or p = inf.

    Notes
    -----
    Linear interpolation is accurate to 1e-3 in log kappa for kappa between 1e-3 and 1e3. Held by
    ``tests/test_drift.py``. Source: this project's own.
    """
    if math.isinf(model.p) or transition_at(model).kind == "continuous":
        return HidingCurve(*np.empty((3, 0)))
    end = window_end(model)[0]
    rows = []
    for gamma in 1 + (end - 1) * np.linspace(1.0, _NEAREST, _POINTS):
        at_gamma = principal_value(model, float(gamma))
        load = load_on_branch(gamma, at_gamma).real
        rate = max(load * tail_probability(model, float(gamma)), _LOWEST)
        overlap_sq = overlap_sq_on_branch(gamma, at_gamma).real
        rows.append((load, math.log(rate), min(1.0, max(0.0, overlap_sq))))
    found = np.array(rows).T
    falls = np.flatnonzero(np.diff(found[0]) <= 0)  # the load can turn around just before the end
    return HidingCurve(*found[:, 1 + int(falls[-1]) if falls.size else 0 :])


def drift_amplitude(model: Model) -> float:
    """Amplitude K of the leading order alpha_bbp - alpha_bbp(N) = K/log N.

    K = (p_star a/2) |d alpha/d gamma| at gamma = 1, with d alpha/d gamma = (psi - gamma B_y)/(gamma F)^2.
    With noise, a is replaced by a/(1 + noise).

    Parameters
    ----------
    model : Model

    Returns
    -------
    float
        > 0; nan for a continuous transition and at p = inf.

    Notes
    -----
    Limits: the asymptotic value is far from that at any size within reach: (alpha_bbp - alpha_bbp(N)) log N
    tends to 3.0 at (2, 1, 1.5), and is 4.2 at N = 1e7. Held by ``tests/test_drift.py``. Source: this
    project's own.
    """
    if math.isinf(model.p) or transition_at(model).kind == "continuous":
        return math.nan
    at_one = averages(model, 1.0)
    slope = float((psi(1.0, at_one) - at_one.B_y).real) / float(at_one.F.real) ** 2
    return model.p_star * model.a / (2 * (1 + model.noise)) * abs(slope)
