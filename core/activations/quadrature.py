"""Rules for averages over the pre-activations of student and teacher.

Up to ``WIDEST_PRODUCT`` pre-activations, products of a rule on the line whose error falls exponentially; for
more, scrambled Sobol points, whose error is seen from one scrambling to the next.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import qmc

from bendscape.core.activations.activation import Network
from bendscape.core.errors import ParameterError

FloatArray = npt.NDArray[np.float64]

WIDEST_PRODUCT = 4
"""Largest number of pre-activations with a product rule: its number of nodes grows like n^p / p!."""
WIDEST = 64
"""Largest width of a finite student."""

NODES = {1: 160, 2: 40, 3: 24, 4: 16}
"""Nodes on the half-line for each of p pre-activations."""
BOTH_SIDES = {1: 160, 2: 22, 3: 12, 4: 7}
"""The same where the student is not even, and the nodes lie on both sides."""
COARSE = (0.75, 0.85)
"""Shares of the nodes in the rules that give the error of a product: two, since the error changes sign from
one number of nodes to another, and may by chance be that of the best rule."""

SCRAMBLINGS = 4
POINTS = 1024
"""Sobol points of one scrambling."""
SEED = 20261122
"""Of the scramblings, so that a theory has the same digits every time."""

LEAST_WEIGHT = 1e-17

REACH = 8.0
"""The rule on the line ends here; beyond it a Gaussian has probability 1e-15."""

GRADING = 0.5
"""Below it the rule is dense."""

LOG_STEP, LOG_REACH = 0.3, 30.0
"""Step of the rule in log y, and where it ends: at weights of exp(-30)."""


class Rule(NamedTuple):
    """Nodes of the student's pre-activations, (p, n), with weights (n,); labels y, the mean of u_l^2 at each,
    and weights, (m,). At p = inf one pre-activation stands for all."""

    fields: FloatArray
    weights: FloatArray
    y: FloatArray
    u_sq: FloatArray
    label_weights: FloatArray


class Rules(NamedTuple):
    """The best rule for a network, and those whose results differ from its own by its error."""

    best: Rule
    others: tuple[Rule, ...]
    scrambled: bool

    def error(self, best: float, others: list[float]) -> float:
        """Estimated error of a result: its largest change with a coarser product, or its standard error over
        the scramblings; nan where some rule has no such result."""
        if self.scrambled:
            return float(np.std(others, ddof=1) / math.sqrt(len(others)))
        return float(np.max(np.abs(np.array(others) - best)))


def trapezoid(nodes: int) -> tuple[FloatArray, FloatArray]:
    """Midpoint rule for a Gaussian average, on ``nodes`` points above zero; the error falls exponentially.

    With x = GRADING sinh(t), equidistant in t: at a smooth edge the integrand is narrow around zero.
    """
    step = np.arcsinh(REACH / GRADING) / nodes
    t = (np.arange(nodes) + 0.5) * step
    x = GRADING * np.sinh(t)
    w = np.exp(-x * x / 2) * np.cosh(t)
    return x, w / w.sum()


def _gather(x: FloatArray, w: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """Nodes (width, n) and weights of a product rule for functions symmetric in their arguments."""
    chosen = np.array(list(combinations_with_replacement(range(x.size), width)))
    repeats = (chosen[:, :, None] == np.arange(x.size)).sum(axis=1)
    factorial = np.cumprod(np.concatenate(([1.0], np.arange(1.0, width + 1))))
    weights = w[chosen].prod(axis=1) * factorial[width] / factorial[repeats].prod(axis=1)
    kept = weights > LEAST_WEIGHT
    return np.ascontiguousarray(x[chosen[kept]].T), weights[kept]


@lru_cache(maxsize=32)
def _product(width: int, even: bool, share: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights for symmetric functions of independent Gaussians, even in each or not."""
    x, w = trapezoid(round(share * (NODES if even else BOTH_SIDES)[width]))
    if not even:
        x, w = np.concatenate((-x, x)), np.concatenate((w, w)) / 2
    return _gather(x, w, width)


@lru_cache(maxsize=8)
def _scrambled(width: int) -> FloatArray:
    """Sobol points as Gaussian pre-activations, (scramblings, width, points)."""
    seeds = np.random.SeedSequence(SEED).spawn(SCRAMBLINGS)
    unit = [qmc.Sobol(width, scramble=True, rng=np.random.default_rng(seed)).random(POINTS) for seed in seeds]
    points: FloatArray = ndtri(np.clip(unit, 1e-12, 1 - 1e-12)).transpose(0, 2, 1)
    return points


def _labels(network: Network, share: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Labels y, the mean of u_l^2 at each, and weights; y is gamma distributed for a quadratic teacher."""
    p_star = network.p_star
    if network.teacher_activation == "quadratic" and p_star > 1:
        n = p_star / 2
        step = LOG_STEP / share
        t = np.arange(-LOG_REACH / n, np.log(1 + LOG_REACH / n) + step, step)
        y = np.exp(t)
        w = np.exp(n * (1 + t - y))
        return y, y, w / w.sum()
    x, w = trapezoid(round(share * NODES[max(2, p_star)]))
    u, w = _gather(x, w, p_star)
    return network.teacher.value(u).mean(axis=0), (u * u).mean(axis=0), w


def check_widths(network: Network) -> None:
    """Refuse teachers that are not even, and widths without a rule."""
    if not network.teacher.even:
        raise ParameterError("teacher_activation", network.teacher_activation, "even for this theory")
    if WIDEST < network.p < math.inf:
        raise ParameterError("p", network.p, f"at most {WIDEST}, or inf, for this theory")
    if network.teacher_activation != "quadratic" and network.p_star > WIDEST_PRODUCT:
        raise ParameterError(
            "p_star",
            network.p_star,
            f"at most {WIDEST_PRODUCT} for a teacher that is not quadratic",
            "sample instead",
        )


def rules_of(network: Network, *, both_sides: bool = False) -> Rules:
    """Rules for a network with an even teacher, for functions that are even in each of the student's
    pre-activations if the student is even, or with ``both_sides`` for any.

    Raises
    ------
    ParameterError
        As :func:`check_widths`.
    """
    check_widths(network)
    if WIDEST_PRODUCT < network.p < math.inf:
        labels = _labels(network, 1.0)
        points = _scrambled(int(network.p))
        parts = [Rule(each, np.full(POINTS, 1 / POINTS), *labels) for each in points]
        together = np.concatenate(list(points), axis=1)
        return Rules(
            Rule(together, np.full(together.shape[1], 1 / together.shape[1]), *labels), tuple(parts), True
        )
    width = 1 if math.isinf(network.p) else int(network.p)
    even = network.student.even and not both_sides
    best, *coarse = (
        Rule(*_product(width, even, share), *_labels(network, share)) for share in (1.0, *COARSE)
    )
    return Rules(best, tuple(coarse), False)
