"""The `memory` kernel: what a network has stored by a learning rule, and from how far it retrieves it."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bendscape.core.errors import ParameterError
from bendscape.core.memory import theory
from bendscape.core.memory.daydreaming import daydream, schedule
from bendscape.core.memory.dynamics import is_fixed
from bendscape.core.memory.patterns import FloatArray, draw, pattern_number
from bendscape.core.memory.pseudo_likelihood import pseudo_likelihood
from bendscape.core.memory.retrieval import basin_overlap, retrieval_map, stabilities
from bendscape.core.memory.rules import hebb, pseudo_inverse
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import FINITE, Dimension, Kernel, Outcome, Reference, Variable
from bendscape.sweep.kernels.options import INCREASING, MOST_VALUES, KernelOptions

RULES = ("daydreaming", "hebb", "pseudo_inverse", "pseudo_likelihood")
OVERLAPS = tuple(round(0.1 * k, 1) for k in range(1, 11))
BINS = tuple(round(-2 + 0.25 * k, 2) for k in range(25))

LEAST_DURATION = 8.0
"""Shorter trainings by Daydreaming are never called converged: parts of the couplings move slowly."""

Overlap = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Edge = Annotated[float, Field(allow_inf_nan=False)]


class Cell(Protocol):
    """A cell of this kernel."""

    rule: str
    alpha_D: float
    beta: float
    tau: float
    alpha: float
    N: int
    seed: int


class Options(KernelOptions):
    """The settings that are constant in a campaign and decide its bits."""

    overlaps: Annotated[tuple[Overlap, ...], INCREASING] = Field(
        default=OVERLAPS, min_length=2, max_length=MOST_VALUES, description="initial overlaps, increasing"
    )
    bins: Annotated[tuple[Edge, ...], INCREASING] = Field(
        default=BINS,
        min_length=2,
        max_length=MOST_VALUES,
        description="edges of the histogram of stabilities, increasing",
    )
    trials: int = Field(
        default=32, ge=1, le=10_000, description="patterns tried, of each kind: the first of the stored ones"
    )
    recovered_at: float = Field(
        default=0.9, gt=0, le=1, description="final overlap from which a pattern counts as recovered"
    )
    update: Literal["asynchronous", "parallel"] = Field(
        default="asynchronous", description="order of the zero-temperature dynamics"
    )
    regularisation: float = Field(
        default=0.01, gt=0, allow_inf_nan=False, description="lambda of the pseudo-likelihood"
    )
    duration: float = Field(
        default=16.0, ge=1, le=1000, description="training of Daydreaming, in units of tau epochs of N dreams"
    )
    tolerance: float = Field(
        default=1e-4, ge=1e-10, le=1e-1, description="largest residual of a converged pseudo-likelihood"
    )
    drift: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="largest residual of converged Daydreaming, of duration 8 or more",
    )


DEFAULTS = Options()
SHARE, OVERLAP = (0.0, 1.0), (-1.0, 1.0)

VARIABLES = (
    Variable("stability_min", "smallest stability of the stored patterns", valid_range=FINITE),
    Variable("stability_mean", "mean stability of the stored patterns", valid_range=FINITE),
    Variable(
        "stability_histogram",
        "share of the stabilities in each bin; the first and the last hold those beyond the edges too",
        valid_range=SHARE,
        dims=("bin",),
    ),
    Variable("fixed_points", "share of the stored patterns that are fixed points", valid_range=SHARE),
    Variable("final_overlap", "mean final overlap with the pattern", valid_range=OVERLAP, dims=("overlap",)),
    Variable("recovered_share", "share of the patterns recovered", valid_range=SHARE, dims=("overlap",)),
    Variable(
        "recovered", "whether at least half of the patterns are recovered from themselves", "int8",
        valid_range=SHARE,
    ),
    Variable(
        "basin_overlap",
        "initial overlap from which half of the patterns are recovered; NaN where they never are",
        valid_range=SHARE,
    ),
    Variable("unseen_overlap", "mean overlap of unseen examples with where they end", valid_range=OVERLAP),
    Variable("unseen_recovered", "share of unseen examples with an attractor nearby", valid_range=SHARE),
    Variable(
        "feature_overlap", "the same of the features; NaN for independent patterns", valid_range=OVERLAP
    ),
    Variable("unsettled", "share of the states that reached no fixed point", valid_range=SHARE),
    Variable(
        "residual",
        "pseudo-likelihood: largest relative gradient; Daydreaming: relative change of the couplings when "
        "training is doubled; else 0",
        valid_range=(0.0, FINITE[1]),
    ),
)  # fmt: skip

AXES = Axes(
    (
        Axis("rule", "str", choices=RULES, long_name="learning rule"),
        Axis(
            "alpha_D",
            long_name="latent dimension over N of random-features patterns; 0: independent patterns",
            least=0,
            default=0.0,
        ),
        Axis(
            "beta", long_name="inverse temperature of the pseudo-likelihood", least=0, above=True, default=1.0
        ),
        Axis("tau", long_name="time constant of Daydreaming", least=1, most=1e4, default=16.0),
        Axis("alpha", "float64", "curve", "patterns per neuron, P / N", least=0, above=True),
        Axis("N", "int64", "size", "number of neurons", least=8),
        Axis("seed", "int64", "seed", "realisation", least=0),
    )
)


def _references(options: Options) -> tuple[Reference, ...]:
    def stability(rule: str, beta: float, alpha: float) -> float:
        if rule == "hebb":
            return theory.hebb_stability(alpha)
        if rule == "pseudo_inverse":
            return theory.pseudo_inverse_stability(alpha)
        if rule == "pseudo_likelihood":
            return theory.pseudo_likelihood_stability(alpha, beta, options.regularisation)
        return math.nan

    def compute(
        rule: NDArray[Any],
        alpha: NDArray[Any],
        alpha_D: NDArray[Any] | float = 0.0,
        beta: NDArray[Any] | float = 1.0,
        tau: NDArray[Any] | float = 16.0,
    ) -> dict[str, NDArray[np.float64]]:
        points = list(
            zip(*(column.tolist() for column in np.broadcast_arrays(rule, alpha, alpha_D, beta)), strict=True)
        )
        return {
            "stability_theory": np.array(
                [math.nan if D else stability(name, beta, load) for name, load, D, beta in points]
            ),
            "overlap_theory": np.array(
                [
                    theory.hebb_overlap(load) if name == "hebb" and not D else math.nan
                    for name, load, D, _ in points
                ]
            ),
        }

    return (
        Reference(
            (
                Variable(
                    "stability_theory", "mean stability, N to infinity; NaN for Daydreaming and for features"
                ),
                Variable(
                    "overlap_theory", "final overlap of Hebb's rule from a pattern, N to infinity; NaN: none"
                ),
            ),
            ("rule", "alpha_D", "beta", "tau", "alpha"),
            compute,
        ),
    )


def compute(cell: Cell, rng: np.random.Generator, options: Options = DEFAULTS) -> Outcome:
    """Draw the cell's patterns, learn them, and start the dynamics near stored and unseen ones."""
    patterns = draw(cell.alpha, cell.N, rng, alpha_D=cell.alpha_D, unseen=options.trials)
    couplings, residual, accepted = learn(cell, patterns.stored, rng, options)
    stability = stabilities(couplings, patterns.stored)
    inside = np.clip(stability, options.bins[0], options.bins[-1])

    def ends(of: FloatArray, overlaps: tuple[float, ...]) -> tuple[FloatArray, float]:
        found = retrieval_map(couplings, of[: options.trials], overlaps, rng, update=options.update)
        return found.final_overlap, found.unsettled

    stored, unsettled = ends(patterns.stored, options.overlaps)
    unseen, _ = ends(patterns.unseen, (1.0,))
    features = ends(patterns.features, (1.0,))[0].mean() if len(patterns.features) else math.nan
    itself, _ = ends(patterns.stored, (1.0,))
    share = (stored >= options.recovered_at).mean(axis=1)
    values = {
        "stability_min": stability.min(),
        "stability_mean": stability.mean(),
        "stability_histogram": np.histogram(inside, options.bins)[0] / stability.size,
        "fixed_points": is_fixed(couplings, patterns.stored).mean(),
        "final_overlap": stored.mean(axis=1),
        "recovered_share": share,
        "recovered": int((itself >= options.recovered_at).mean() >= 0.5),
        "basin_overlap": basin_overlap(options.overlaps, share),
        "unseen_overlap": unseen.mean(),
        "unseen_recovered": (unseen >= options.recovered_at).mean(),
        "feature_overlap": features,
        "unsettled": unsettled,
        "residual": residual,
    }
    return Outcome(values, converged=residual <= accepted)


def learn(
    cell: Cell, patterns: FloatArray, rng: np.random.Generator, options: Options
) -> tuple[FloatArray, float, float]:
    """The couplings of the cell's rule, the residual, and the largest that counts as converged."""
    if cell.rule == "hebb":
        return hebb(patterns), 0.0, 0.0
    if cell.rule == "pseudo_inverse":
        return pseudo_inverse(patterns), 0.0, 0.0
    if cell.rule == "pseudo_likelihood":
        found = pseudo_likelihood(patterns, cell.beta, options.regularisation, tolerance=options.tolerance)
        return found.couplings, found.residual, options.tolerance
    dreamed = daydream(patterns, cell.tau, rng, duration=options.duration)
    accepted = options.drift if options.duration >= LEAST_DURATION else -math.inf
    return dreamed.couplings, dreamed.drift, accepted


def _seconds(cell: Cell, options: Options = DEFAULTS) -> float:
    """Seconds on one core, to a factor of 2."""
    N, P = cell.N, cell.alpha * cell.N
    states = options.trials * (len(options.overlaps) + 3)
    relaxed = 2.5e-4 * N + 1e-9 * states * N**2
    if cell.rule == "pseudo_likelihood":
        learned = 60 * (1e-10 * P * N**2 + 1.5e-8 * N * (N + P))
    elif cell.rule == "daydreaming":
        updates, dreams = schedule(cell.tau, round(P), N)
        one = 1.8e-5 * N * (1 + dreams / 16) + (1e-8 + 2.6e-9 * dreams) * N**2
        learned = max(4.0, options.duration * cell.tau) * updates * one
    else:
        learned = 2e-9 * P * N**2
    return float(0.01 + relaxed + learned)


def _peak_bytes(cell: Cell, options: Options = DEFAULTS) -> float:
    N, P = cell.N, cell.alpha * cell.N
    learned = 80.0 * N * (N + P) if cell.rule == "pseudo_likelihood" else 40.0 * N * (N + P)
    return 2e6 + max(learned, 48.0 * N**2 + 40.0 * N * options.trials * len(options.overlaps))


def check(grid: Grid) -> None:
    """Refuse points without a pattern, and the pseudo-inverse of N patterns or more."""
    for size in grid.sizes:
        wanted = grid.wanted(size)
        points = grid.points(size)
        alpha, rule = (points[name].reshape(wanted.shape)[wanted] for name in ("alpha", "rule"))
        if alpha.size and not pattern_number(float(alpha.min()), size):
            least = f"alpha N >= 1/2, so alpha >= {0.5 / size:.6g} at N = {size}"
            raise ParameterError("grid.alpha", float(alpha.min()), least)
        if (many := alpha[(rule == "pseudo_inverse") & (alpha * size + 0.5 >= size)]).size:
            remedy = "leave these points out: where = \"rule != 'pseudo_inverse' or alpha < 0.99\""
            raise ParameterError(
                "grid.alpha", float(many.min()), "such that P < N for the rule pseudo_inverse", remedy
            )


def configured(options: Options) -> Kernel:
    """The kernel with the given options."""
    return Kernel(
        name="memory",
        version=2,
        variables=VARIABLES,
        compute=partial(compute, options=options),
        seconds=partial(_seconds, options=options),
        peak_bytes=partial(_peak_bytes, options=options),
        axes=AXES,
        references=_references(options),
        dimensions=(
            Dimension("overlap", options.overlaps, "initial overlap with the pattern"),
            Dimension("bin", _centres(options.bins), "middle of the bin of stabilities"),
        ),
        options=Options,
        configure=configured,
        check=check,
    )


def _centres(edges: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((a + b) / 2 for a, b in itertools.pairwise(edges))


KERNEL = configured(DEFAULTS)
