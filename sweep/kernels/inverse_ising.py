"""The `inverse_ising` kernel: couplings of an Ising model inferred from samples, against the true ones."""

from __future__ import annotations

from functools import partial
from typing import Protocol, get_args

import numpy as np
from pydantic import Field

from bendscape.core.errors import ParameterError
from bendscape.core.inverse_ising.estimate import Estimate, Flag, score
from bendscape.core.inverse_ising.exact import MOST_SPINS
from bendscape.core.inverse_ising.maximum_likelihood import maximum_likelihood
from bendscape.core.inverse_ising.mean_field import empirical_moments, naive_mean_field, tap
from bendscape.core.inverse_ising.model import (
    LEAST_SIDE,
    MOST_DEGREE,
    FloatArray,
    Ising,
    Name,
    Spins,
    has_regular_graph,
    random_regular_graph,
    sherrington_kirkpatrick,
    side_of_lattice,
    square_lattice,
)
from bendscape.core.inverse_ising.pseudo_likelihood import pseudo_likelihood
from bendscape.core.inverse_ising.sampling import LEAST_CLUSTER_CHAINS, LEAST_HEAT_BATH_CHAINS, draw_samples
from bendscape.sweep.campaign.axes import Axes, Axis, cell_rng
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import FINITE, Kernel, Outcome, Variable
from bendscape.sweep.kernels.options import KernelOptions

METHODS = ("pseudo_likelihood", "naive_mean_field", "tap", "maximum_likelihood")
MOST_DIFFERENCE = 5.0
"""Standard errors between hot and cold starts beyond which a cell has not converged: in equilibrium, at most
3e-6 of the cells."""
ERROR, SHARE = (0.0, FINITE[1]), (0.0, 1.0)


class Cell(Protocol):
    """A cell of this kernel."""

    model: Name
    method: str
    beta: float
    field: float
    samples: int
    N: int
    seed: int
    coordinate: int


class Options(KernelOptions):
    """The settings that are constant in a campaign and decide its bits."""

    degree: int = Field(default=3, ge=1, le=MOST_DEGREE, description="of random_regular_graph")
    random_signs: bool = Field(
        default=False, description="couplings of random_regular_graph +-1 with equal probability, else 1"
    )
    l2: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="precision of a Gaussian prior of beta J, for pseudo_likelihood and maximum_likelihood",
    )
    sweeps: int = Field(default=100, ge=1, description="Monte Carlo sweeps of each chain, for N > 16")


DEFAULTS = Options()

VARIABLES = (
    Variable("reconstruction_error", "relative root mean square error of the couplings", valid_range=ERROR),
    Variable("error_edges", "the same over the pairs that are coupled", valid_range=ERROR),
    Variable(
        "error_non_edges",
        "root mean square of the other couplings found, over that of the true ones; NaN without such pairs",
        valid_range=ERROR,
    ),
    Variable(
        "edge_auc", "area under the ROC curve of |coupling|; NaN if every pair is coupled", valid_range=SHARE
    ),
    Variable(
        "recovered",
        "1 if every coupled pair has a larger |coupling| than every other, else 0; NaN as the area",
        valid_range=SHARE,
    ),
    Variable("outcome", "whether there is an estimate, and why not", "int8", flags=get_args(Flag)),
    Variable(
        "start_difference",
        "energies of chains from hot and cold starts: difference in standard errors; NaN for exact samples",
    ),
)

AXES = Axes(
    (
        Axis("model", "str", choices=get_args(Name), long_name="graph and law of the couplings"),
        Axis("method", "str", choices=METHODS, long_name="method of inference"),
        Axis("beta", "float64", long_name="inverse temperature", least=0, above=True),
        Axis("field", "float64", long_name="external field on every spin", least=0, default=0.0),
        Axis("samples", "int64", "curve", "number of samples", least=2),
        Axis("N", "int64", "size", "number of spins", least=4),
        Axis("seed", "int64", "seed", "realisation", least=0),
    )
)
SHARED = Axes(tuple(axis for axis in AXES.declared if axis.name != "method"))
"""The axes that decide couplings and samples: all methods infer from the same ones."""


def compute(cell: Cell, rng: np.random.Generator, options: Options = DEFAULTS) -> Outcome:
    """Draw couplings and samples, which are the same for all methods, and infer the couplings."""
    shared = {axis.name: getattr(cell, axis.name) for axis in SHARED.declared}
    seeds = rng.bit_generator.seed_seq  # of this cell; its entropy is that of the campaign
    rng = cell_rng(seeds.entropy, SHARED.cell(cell.coordinate, **shared))  # type: ignore[attr-defined]
    model = Ising(cell.beta * _couplings(cell, rng, options), np.full(cell.N, cell.beta * cell.field))
    samples = draw_samples(model, cell.samples, rng, options.sweeps)
    found = infer(cell.method, samples.spins, options.l2)
    scores = score(found.theta, model.theta)
    return Outcome(
        {
            "reconstruction_error": scores.error,
            "error_edges": scores.error_edges,
            "error_non_edges": scores.error_non_edges,
            "edge_auc": scores.edge_auc,
            "recovered": scores.edges_recovered,
            "outcome": get_args(Flag).index(found.flag),
            "start_difference": samples.start_difference,
        },
        converged=not abs(samples.start_difference) > MOST_DIFFERENCE,
    )


def infer(method: str, spins: Spins, l2: float = 0.0) -> Estimate:
    """The estimate of one method."""
    if method == "pseudo_likelihood":
        return pseudo_likelihood(spins, l2)
    if method == "maximum_likelihood":
        return maximum_likelihood(spins, l2)
    return {"naive_mean_field": naive_mean_field, "tap": tap}[method](*empirical_moments(spins))


def _couplings(cell: Cell, rng: np.random.Generator, options: Options) -> FloatArray:
    if cell.model == "square_lattice":
        return square_lattice(cell.N)
    if cell.model == "sherrington_kirkpatrick":
        return sherrington_kirkpatrick(cell.N, rng)
    return random_regular_graph(cell.N, options.degree, rng, random_signs=options.random_signs)


def _seconds(cell: Cell, options: Options = DEFAULTS) -> float:
    """Seconds on one core, to a factor of 3."""
    M, N = cell.samples, cell.N
    found = 2e-3
    if N > MOST_SPINS:
        chains = _chains(cell, options)
        if _glassy(cell, options):
            found += (options.sweeps + 10) * N * (4e-5 + chains * (2e-8 + 1e-10 * N))
        else:
            found += options.sweeps * chains * N * 1e-7
    if cell.method == "pseudo_likelihood":
        found += 3e-7 * M * N + 3e-9 * M * N**2
    if cell.method == "maximum_likelihood":
        found += 1.5e-6 * 2**N
    return found + 2e-10 * M * N**2


def _peak_bytes(cell: Cell, options: Options = DEFAULTS) -> float:
    chains, N = _chains(cell, options), cell.N
    bonds = 0.5 * N * (4 if cell.model == "square_lattice" else options.degree)
    return 5e6 + 60.0 * chains * (N + bonds) + 80.0 * N**2


def _chains(cell: Cell, options: Options) -> int:
    return max(cell.samples, LEAST_HEAT_BATH_CHAINS if _glassy(cell, options) else LEAST_CLUSTER_CHAINS)


def _glassy(cell: Cell, options: Options) -> bool:
    signs = cell.model == "random_regular_graph" and options.random_signs
    return cell.model == "sherrington_kirkpatrick" or signs


def check(grid: Grid, options: Options = DEFAULTS) -> None:
    """Refuse sizes that a model does not have, and maximum likelihood above 16 spins."""
    for N in grid.sizes:
        points, wanted = grid.points(N), grid.wanted(N).reshape(-1)
        models, methods = (set(points[name][wanted]) for name in ("model", "method"))
        if "square_lattice" in models and side_of_lattice(N) is None:
            accepted = f"the square of an integer >= {LEAST_SIDE} for the model square_lattice"
            raise ParameterError("grid.N", N, accepted)
        if "random_regular_graph" in models and not has_regular_graph(N, options.degree):
            d = options.degree
            accepted = f"N > {d} with {d} N even for random_regular_graph of degree {d}"
            raise ParameterError("grid.N", N, accepted)
        if "maximum_likelihood" in methods and N > MOST_SPINS:
            accepted = f"at most {MOST_SPINS} for the method maximum_likelihood"
            remedy = f"where = \"N <= {MOST_SPINS} or method != 'maximum_likelihood'\""
            raise ParameterError("grid.N", N, accepted, remedy)


def configured(options: Options) -> Kernel:
    """The kernel with the given options."""
    return Kernel(
        name="inverse_ising",
        version=1,
        variables=VARIABLES,
        compute=partial(compute, options=options),
        seconds=partial(_seconds, options=options),
        peak_bytes=partial(_peak_bytes, options=options),
        axes=AXES,
        options=Options,
        configure=configured,
        check=partial(check, options=options),
    )


KERNEL = configured(DEFAULTS)
