"""Campaigns of one model on planted curves, refined in memory: cells are drawn when a round asks for them,
and stay as they are when a later round asks for more at the same point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from planted_collapse import corrections

from bendscape.analysis.estimate.collapse_fits import MEANS
from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.refine.critical_load import fit_critical_load
from bendscape.analysis.refine.design_model import Fitted
from bendscape.analysis.refine.states import Held, Row, row_of
from bendscape.analysis.refine.trust import halved
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import transition
from bendscape.sweep.campaign.kernel import NOT_WANTED
from bendscape.sweep.campaign.loading import load_kernel

SIZES = (256, 512, 1024, 2048, 4096)
PILOT = {(round(float(x), 12), N): 8 for x in np.linspace(0.4, 1.6, 13) for N in SIZES}
"""A coarse uniform grid, 13 values by 5 sizes by 8 seeds, from which refinement starts."""

KERNEL = load_kernel()

Asked = dict[tuple[float, int], int]


@lru_cache
def unit_of(model: Model) -> float:
    """The threshold that the curve axis is relative to."""
    return transition(model).alpha_bbp


@lru_cache(maxsize=100_000)
def seconds(model: Model, factor: float, N: int) -> float:
    """Seconds of one cell by the kernel's cost model."""
    unit = unit_of(model)
    at = {"p": int(model.p), "p_star": model.p_star, "a": model.a, "alpha": factor * unit, "N": N, "seed": 0}
    return float(KERNEL.seconds(KERNEL.axes.cell(factor, **at)))


class Planted(NamedTuple):
    """Curves of the universal shape, N^(1/3) <overlap_sq_space> = ``amplitude`` A phi_r(w) +
    :func:`planted_collapse.corrections` with the coefficients ``correction``, with gamma cells of the given
    relative spread. With amplitude 1 theory's curve is right.
    """

    model: Model
    correction: Sequence[float] = MEANS
    amplitude: float = 1.0
    spread: float = 1.0
    entropy: int = 0

    @property
    def truth(self) -> float:
        """The critical load."""
        return critical_point(self.model).alpha

    @property
    def unit(self) -> float:
        """The threshold that the curve axis is relative to."""
        return unit_of(self.model)

    def cells(self, factor: float, N: int, count: int) -> npt.NDArray[np.float64]:
        """The first cells at a point: overlaps."""
        critical = critical_point(self.model)
        w = (factor * self.unit - critical.alpha) * N ** (1 / 3) / critical.width
        phi = universal_overlap(np.array([w]), int(self.model.p) * self.model.p_star)[0]
        mean = self.amplitude * critical.amplitude * phi
        more = critical.overlap_level * corrections(np.array([w]), N, self.correction)[0]
        mean = max(mean + more, 0.02 * mean) * N ** (-1 / 3)
        stream = np.random.default_rng([20261122, self.entropy, round(factor * 1e9), N])
        drawn = self.spread**2 * stream.standard_gamma(self.spread**-2, count)
        return np.minimum(mean * drawn, 1.0)

    def block(self, asked: Mapping[tuple[float, int], int]) -> xr.Dataset:
        """One model of a sweep, with all cells that are asked for."""
        factors, sizes = sorted({x for x, _ in asked}), sorted({N for _, N in asked})
        shape = (len(factors), len(sizes), max(asked.values()))
        overlap, status = np.full(shape, np.nan), np.full(shape, NOT_WANTED, np.int8)
        for (x, N), n in asked.items():
            at = factors.index(x), sizes.index(N), slice(n)
            overlap[at], status[at] = self.cells(x, N, n), 1
        dims, alpha = ("alpha_factor", "N", "seed"), np.array(factors) * self.unit
        values = {"status": (dims, status), "overlap_sq_space": (dims, overlap)}
        coords = {
            "alpha_factor": factors,
            "N": sizes,
            "alpha": ("alpha_factor", alpha),
            "p": int(self.model.p),
            "p_star": self.model.p_star,
            "a": self.model.a,
        }
        return xr.Dataset(values, coords)

    def held(self, asked: Asked) -> Held:
        """What a refiner knows of these cells."""
        model = {"p": int(self.model.p), "p_star": self.model.p_star, "a": self.model.a}
        return Held(
            model, self.unit, asked, {}, lambda x, N: seconds(self.model, x, N), lambda x: x * self.unit > 0
        )


def halves_of(block: xr.Dataset) -> Callable[[], tuple[Fitted, Fitted]]:
    """The fits to the odd and to the even cells, when they are asked for."""

    def fits() -> tuple[Fitted, Fitted]:
        one, other = halved(block, "seed")
        return fit_critical_load(one), fit_critical_load(other)

    return fits


def refined(
    planted: Planted, relative: float, asked: Asked | None = None, rounds: int = 20
) -> tuple[Row, Asked, list[Row]]:
    """Rounds of analysis and additions until the model is no longer open: the last row, the cells, all
    rows."""
    asked, rows = dict(PILOT if asked is None else asked), []
    for _ in range(rounds):
        block = planted.block(asked)
        fitted = fit_critical_load(block)
        rows.append(row_of(fitted, planted.held(asked), relative * abs(fitted.value), halves_of(block)))
        if not rows[-1].additions:
            break
        for one in rows[-1].additions:
            asked[one.curve, one.size] = one.seeds
    return rows[-1], asked, rows


def core_hours(planted: Planted, asked: Mapping[tuple[float, int], int]) -> float:
    """Cost of cells by the cost model."""
    return sum(n * seconds(planted.model, *at) for at, n in asked.items()) / 3600
