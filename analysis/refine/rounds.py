"""One round for one model: how many cells, at which points, until the target is expected to be met or the
time of the round is used up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bendscape.analysis.dataset.curves import Flags, Floats
from bendscape.analysis.refine.design_model import DesignModel
from bendscape.analysis.refine.optimum import Points, lattice, optimum, variance, whole_cells

FLAT = 0.25
"""Share of a round's time that is spread over the sizes in use, as the optimal design divides it among them,
and evenly over the values of the curve, so that chi^2 can still tell a wrong curve."""

MARGIN = 0.98
"""A round aims at this times the standard error that is asked for: the measured one scatters around it."""

GROWTH = 3.0
"""A round at most triples the time spent on a model: the design is that of a fit which may still be far
off."""

MOST_CELLS = 2**16
"""Cells at one point beyond which no round goes. An analysis holds a model as an array over the curve, the
sizes and the seeds of its largest point, and the optimum for a free curve would put most cells at one point
of the smallest size: without a limit, memory and time grow with that point, not with the number of cells."""

_STEPS = 8  # of the lattice across the region of one size
_CHOSEN = 0.03  # share of the optimal design above which a size takes part in the flat share
_BISECTIONS = 12
_SHORTEST = 1e-3  # of the longest round


class Candidate(NamedTuple):
    """Points of the lattice: coordinate on the curve axis in the store's units, value of the curve, size,
    cells already there or to come, seconds of one cell; each (n,)."""

    coordinate: Floats
    curve: Floats
    size: Floats
    cells: Floats
    cost: Floats


class Round(NamedTuple):
    """Cells to be added at candidates, their seconds, the standard error expected with them, and the
    certified gap: by how much, relatively, any other division of the optimal share could lower the
    variance."""

    cells: Floats
    seconds: float
    expected: float
    gap: float


def candidates(
    design: DesignModel,
    unit: float,
    accepts: Callable[[float], bool],
    held: Mapping[tuple[float, int], int],
    present: Callable[[int], list[float]],
    cost: Callable[[float, int], float],
) -> Candidate:
    """Points in the trusted region of every size: a lattice of few digits, and the points of the store there.

    Parameters
    ----------
    design : DesignModel
    unit : float
        Value of the curve over its coordinate, for this model.
    accepts : callable
        Whether the curve axis accepts a coordinate.
    held : mapping
        Cells computed or still to come, by coordinate and size.
    present : callable
        ``present(size)``: coordinates at which the store has cells.
    cost : callable
        ``cost(coordinate, size)``: seconds of one cell.
    """
    rows = []
    for size in design.sizes:
        low, high = (end / unit for end in design.region(size))
        inside = [x for x in present(size) if low <= x <= high]
        for x in sorted({*lattice(low, high, _STEPS), *inside}):
            if accepts(x):
                rows.append((x, x * unit, float(size), held.get((x, size), 0), cost(x, size)))
    return Candidate(*np.array(rows, dtype=np.float64).reshape(-1, 5).T)


def next_round(
    design: DesignModel,
    at: Candidate,
    coming: Floats,
    wanted: float,
    inflation: float,
    most_seconds: float,
) -> Round:
    """The cheapest round after which the standard error is expected to be ``MARGIN`` times the one wanted,
    or, if that takes more than ``most_seconds``, the best one of that cost.

    Parameters
    ----------
    design : DesignModel
    at : Candidate
        Where cells can be added.
    coming : array, shape (k, k)
        Information of cells that the campaign already asks for.
    wanted : float
        Standard error asked for.
    inflation : float
        Measured standard error over that of the design model, for the cells that exist; the expected error is
        multiplied by it.
    most_seconds : float
        Longest round.

    Returns
    -------
    Round
        Without cells if the time does not suffice for ``least_seeds`` cells at one point, or every point has
        ``MOST_CELLS``.
    """
    points = Points(
        design.gradient(design.theta, at.curve, at.size), design.sigma(at.curve, at.size), at.cost
    )
    known, direction = design.known() + coming, design.direction
    reserved = _reserved(design, at, most_seconds)
    most_seconds -= float(reserved @ at.cost)
    known = known + design.information(at.curve, at.size, reserved)
    room = np.maximum(MOST_CELLS - at.cells - reserved, 0.0)
    use, full = room >= 1, np.zeros(len(room))  # cells at the points that this round brings to their limit
    cells, gap, aim = np.zeros(len(room)), 0.0, wanted / inflation * MARGIN
    while use.any():
        there = known + design.information(at.curve, at.size, full)
        left = most_seconds - float(full @ at.cost)
        least = design.least_seeds * float(at.cost[use].min())
        if full.any() and (left < least or variance(there, direction) <= aim**2):
            break
        found, gap = _divided(points, there, direction, at, use, aim, left, design)
        if lost := _left_out(design, at, found + full):
            use &= ~np.isin(at.size, lost)
            full[np.isin(at.size, lost)] = 0.0
        elif (over := found > room).any():
            full[over] = room[over]
            use &= ~over
        else:
            cells = found
            break
    cells = cells + full
    rows = points.rows * np.sqrt(cells * points.cost)[:, None]
    expected = inflation * math.sqrt(variance(known + rows.T @ rows, direction))
    cells = cells + reserved
    return Round(cells, float(cells @ at.cost), expected, gap)


def _divided(
    points: Points,
    known: Floats,
    direction: Floats,
    at: Candidate,
    use: Flags,
    wanted: float,
    most: float,
    design: DesignModel,
) -> tuple[Floats, float]:
    """Whole cells of the shortest sufficient round on the candidates in use, and the gap."""
    here = Points(*(values[use] for values in points))
    best = optimum(here, known, direction, most)
    sizes = at.size[use]
    chosen = [N for N in np.unique(sizes) if best.share[sizes == N].sum() >= _CHOSEN]
    flat = np.zeros(len(sizes))
    for N in chosen:
        flat[sizes == N] = best.share[sizes == N].mean()
    flat /= flat.sum()
    rows = here.rows

    def result(seconds: float, start: Floats) -> tuple[Floats, float, float]:
        spread = known + FLAT * seconds * (rows * flat[:, None]).T @ rows
        found = optimum(here, spread, direction, (1 - FLAT) * seconds, np.maximum(start, 1e-6))
        return (1 - FLAT) * found.share + FLAT * flat, found.variance, found.gap

    seconds, (share, value, gap) = most, result(most, best.share)
    if value < wanted**2:
        low, high = _SHORTEST * most, most
        for _ in range(_BISECTIONS):
            seconds = math.sqrt(low * high)
            share, value, gap = result(seconds, share)
            low, high = (low, seconds) if value < wanted**2 else (seconds, high)
        seconds = high
        share, value, gap = result(seconds, share)
    cells = np.zeros(len(use))
    least = design.least_seeds
    cells[use] = whole_cells(share, max(seconds, least * float(here.cost[share.argmax()])), here.cost, least)
    return cells, gap


def _reserved(design: DesignModel, at: Candidate, most: float) -> Floats:
    """Cells for the sizes with fewer than ``least_points`` points in their regions: as many points, evenly
    spaced, with ``least_seeds`` cells each. The sizes with the cheapest cells come first, up to half the
    time."""
    cells, left = np.zeros(len(at.size)), most / 2
    for N in sorted(np.unique(at.size), key=lambda N: float(at.cost[at.size == N].mean())):
        here = np.flatnonzero(at.size == N)
        if (at.cells[here] >= design.least_seeds).sum() >= design.least_points:
            continue
        chosen = here[np.linspace(0, len(here) - 1, design.least_points).round().astype(int)]
        more = np.maximum(design.least_seeds - at.cells[chosen], 0.0)
        if (needed := float(more @ at.cost[chosen])) <= left:
            cells[chosen] = more
            left -= needed
    return cells


def _left_out(design: DesignModel, at: Candidate, added: Floats) -> list[float]:
    """Sizes with new cells that the fit would leave out all the same, for want of cells or points."""
    lost = []
    for N in np.unique(at.size[added > 0]):
        total = np.where(at.size == N, at.cells + added, 0.0)
        had = design.cells[design.size == N].sum()
        enough = max(total.sum(), had) >= design.least_cells
        if not enough or (not had and (total >= design.least_seeds).sum() < design.least_points):
            lost.append(float(N))
    return lost
