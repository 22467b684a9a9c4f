"""Measurement of one cell: the lowest eigenpairs of its Hessian and their overlap with the teacher.

Three methods find the eigenpairs. ``dense`` forms the matrix and reduces it, ``explicit`` only multiplies
with it, and both agree on the same random state; ``dice`` draws only the data that its iteration needs, and
agrees in law. ``auto`` chooses the method that :mod:`bendscape.core.quadratic.sampling.cost` expects to be
fastest. ``conditional`` draws only the labels and evaluates the theory for them: no matrix, no eigenpair, any
N.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, eigh

from bendscape.core.errors import ParameterError, as_real
from bendscape.core.numerics.lanczos import EIGVAL_TOLERANCE, VECTOR_TOLERANCE, lowest_eigenpairs
from bendscape.core.quadratic.model import Model, sample_count
from bendscape.core.quadratic.sampling.cost import (
    MAX_BYTES,
    block_width,
    cost_bytes,
    pairs_wanted,
    resolve_method,
)
from bendscape.core.quadratic.sampling.dice import (
    FORMS,
    PATIENCE,
    TOLERANCE,
    dice_bytes,
    expected_steps,
    sample_dice,
)
from bendscape.core.quadratic.sampling.drawn_labels import drawn_labels_theory, sample_drawn_labels
from bendscape.core.quadratic.sampling.hessian import (
    Instance,
    lower_hessian,
    refuse_infinite_width,
    sample_instance,
)
from bendscape.core.quadratic.sampling.inputs import PRECISIONS, Precision
from bendscape.core.quadratic.sampling.products import hessian_product

FloatArray = npt.NDArray[np.float64]

MEASURED = ("eigval_min", "eigval_second", "overlap_sq", "overlap_sq_space", "residual")
"""Fields of an observation that need eigenpairs."""

LANCZOS_STEPS = 5000

LEAST_TOLERANCE, MOST_TOLERANCE = 1e-10, 1e-3
"""Accepted range of ``tolerance``: below it is rounding, and at 1e-2 an iteration can stop before it has
found one of the lowest pairs."""


@dataclass(frozen=True)
class Observation:
    """Measured values of one cell.

    Parameters
    ----------
    eigval_min, eigval_second : float
        The two lowest eigenvalues of H.
    overlap_sq : float
        Squared overlap m^2 of the lowest eigenvector with the span of the teacher weights, in [0, 1].
    overlap_sq_space : float
        Its mean over the lowest p p_star eigenvectors, which the splitting of the outliers does not bias.
    edge_sample, outlier_sample, overlap_sq_sample : float
        The theory for the cell's own labels; the last two are nan where it has no outlier.
    alpha_realised : float
        M/N.
    n_matvecs : int
        Number of products of H with a vector that the eigensolver used; 0 for ``dense``.
    residual : float
        max |H v - lambda v| over the two lowest pairs, with H as an operator in double precision; for dice as
        given by the iteration.
    converged : bool
        False if the eigensolver gave up; all measured values are then nan.
    method : str
        "dense", "explicit", "dice", "dice_wide", "dice_compact" or "conditional"; with the last nothing is
        measured, and all measured values are nan.
    """

    eigval_min: float
    eigval_second: float
    overlap_sq: float
    overlap_sq_space: float
    edge_sample: float
    outlier_sample: float
    overlap_sq_sample: float
    alpha_realised: float
    n_matvecs: int
    residual: float
    converged: bool
    method: str


class _Pairs(NamedTuple):
    """Lowest eigenpairs in ascending order (None if the solver gave up) and the number of products used."""

    values: FloatArray | None
    vectors: FloatArray
    n_matvecs: int


def observe(
    model: Model,
    alpha: float,
    N: int,
    rng: np.random.Generator,
    method: str = "auto",
    *,
    inputs: str = "gaussian",
    precision: Precision | None = None,
    stored: bool = True,
    max_bytes: float = MAX_BYTES,
    tolerance: float | None = None,
) -> Observation:
    """Draw one instance and measure the lower end of its Hessian's spectrum.

    Eigenpairs of H v = lambda v, lowest max(2, p p_star) of them (at most pN); m^2 = sum_k |Q^T v_k|^2 with Q
    an orthonormal basis of the span of the teacher weights.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension; M = sample_count(alpha, N).
    N : int
        Input dimension, >= 2.
    rng : numpy.random.Generator
        Source of randomness: first the instance, then (``explicit``) the start vector, so that both methods
        see the same instance. Dice in its three forms and "conditional" draw instances of the same law, but
        not the same ones.
    method : {"auto", "dense", "explicit", "dice", "dice_wide", "dice_compact", "conditional"}
        "explicit" needs more than max(2, p p_star) dimensions, "dice" p + p_star. "dice_wide" is dice for
        wide students, p > 4, and "dice_compact" for sizes of which memory is the limit. "conditional" gives
        only ``edge_sample``, ``outlier_sample`` and ``overlap_sq_sample``. "auto" never chooses one of these
        three.
    inputs : {"gaussian", "rademacher"}
        Law of the data; the three forms of dice and "conditional" accept only the first.
    precision : {"float64", "float32"}, optional
        Type in which "explicit" keeps and multiplies the data, by default the first, which "dense" always
        uses; also the type of dice's long vectors, by default that of
        :func:`bendscape.core.quadratic.sampling.dice.sample_dice`.
    stored : bool
        If False, "explicit" draws the data again for every product, in memory that does not grow with M N.
        The instance is the same as with stored data.
    max_bytes : float
        Refuse a cell whose :func:`bendscape.core.quadratic.sampling.cost.cost_bytes` exceeds it; "auto"
        chooses among the methods that fit. Dice, whose number of steps is not known in advance, stops at this
        limit, not converged.
    tolerance : float, optional
        Where the iteration stops: the sine of the angle between computed and exact eigenvectors, as estimated
        by residual/gap, for the lowest vector and for the space of the lowest p p_star; from 1e-10 to 1e-3.
        By default 1e-6 for "explicit", which also stops eigenvalues at a thousandth of it (absolute), and
        1e-3 for dice in its three forms. "dense" and "conditional" do not iterate.

    Returns
    -------
    Observation
        Eigenvalues in the units of H, overlaps in [0, 1].

    Notes
    -----
    Limits: lambda_minus or lambda_star, and overlap_sq, as N -> inf. In double precision eigenvalues are
    accurate to 1e-9 and overlaps to 2e-6, as the default tolerance allows. In single precision
    eigenvalues move by 1e-6 and a vector by 1e-6 over its gap, where cells differ by more than 1/sqrt(N).
    Dice stops where the error of an eigenvalue is 1e-6 of the gap beside it, and that of an overlap 2e-3 of
    its root at worst. ``residual`` is measured, not assumed (for dice: by the recurrence). Same rng state,
    machine and number of BLAS threads: same bits. Held by ``tests/test_samplers.py``. Source:
    arXiv:2510.18435.
    """
    p = refuse_infinite_width(model)
    if tolerance is not None and not LEAST_TOLERANCE <= as_real(tolerance) <= MOST_TOLERANCE:
        raise ParameterError(
            "tolerance", tolerance, f"from {LEAST_TOLERANCE:g} to {MOST_TOLERANCE:g}", "None for the default"
        )
    if precision is not None and precision not in PRECISIONS:
        raise ParameterError("precision", precision, "one of " + ", ".join(PRECISIONS))
    method = resolve_method(model, alpha, N, method, max_bytes=max_bytes, inputs=inputs)
    needed = cost_bytes(model, alpha, N, method, precision=precision, stored=stored, tolerance=tolerance)
    if needed > max_bytes:
        raise ParameterError(
            "N",
            N,
            f"small enough for {max_bytes:.3g} bytes ({needed:.3g} for {method}, p = {p}, alpha = {alpha:g})",
            "lower N or allow more memory" + (", or stored=False" if method == "explicit" and stored else ""),
        )
    if method == "conditional":
        return Observation(
            **dict.fromkeys(MEASURED, math.nan),
            **sample_drawn_labels(model, alpha, N, rng)._asdict(),
            alpha_realised=sample_count(alpha, N) / int(N),
            n_matvecs=0,
            converged=True,
            method=method,
        )
    if method in FORMS:
        return _observe_dice(model, alpha, int(N), rng, method, precision, max_bytes, tolerance)
    single = precision if precision and method == "explicit" else "float64"
    instance = sample_instance(
        model, alpha, N, rng, inputs=inputs, precision=single, stored=stored or method == "dense"
    )
    count = pairs_wanted(model, instance.N)
    if method == "dense":
        pairs = _solve_dense(instance, count)
    else:
        pairs = _solve_explicit(instance, count, rng, single, block_width(p, stored), tolerance)

    values, vectors = pairs.values, pairs.vectors
    if values is None:
        measured = dict.fromkeys(MEASURED, math.nan)
    else:
        lowest = vectors[:, :2]
        residuals = np.linalg.norm(hessian_product(instance)(lowest) - lowest * values[:2], axis=0)
        measured = _measured(model, values, instance.teacher_overlap_sq(vectors), residuals)
    return Observation(
        **measured,
        **drawn_labels_theory(model, instance.N, instance.y, instance.yhat)._asdict(),
        alpha_realised=instance.alpha_realised,
        n_matvecs=pairs.n_matvecs,
        converged=values is not None,
        method=method,
    )


def _measured(
    model: Model, values: FloatArray, overlaps_sq: FloatArray, residuals: FloatArray
) -> dict[str, float]:
    return {
        "eigval_min": float(values[0]),
        "eigval_second": float(values[1]),
        "overlap_sq": float(overlaps_sq[0]),
        "overlap_sq_space": float(overlaps_sq[: int(model.p) * model.p_star].mean()),
        "residual": float(residuals[:2].max()),
    }


def _observe_dice(
    model: Model,
    alpha: float,
    N: int,
    rng: np.random.Generator,
    method: str,
    precision: Precision | None,
    max_bytes: float,
    tolerance: float | None,
) -> Observation:
    form = FORMS[method]
    possible = range(1, PATIENCE * expected_steps(model, N) + 1)
    steps = bisect_right(
        possible, max_bytes, key=lambda steps: dice_bytes(model, alpha, N, steps, precision, **form)
    )
    steps = max(steps, pairs_wanted(model, N) + 1)
    squared = TOLERANCE if tolerance is None else tolerance**2
    found = sample_dice(model, alpha, N, rng, dtype=precision, tolerance=squared, max_steps=steps, **form)
    measured = _measured(model, found.eigvals, found.overlaps_sq, found.residuals)
    return Observation(
        **(measured if found.converged else dict.fromkeys(MEASURED, math.nan)),
        **drawn_labels_theory(model, N, found.y, found.yhat)._asdict(),
        alpha_realised=len(found.y) / N,
        n_matvecs=found.steps,
        converged=found.converged,
        method=method,
    )


def _solve_dense(instance: Instance, count: int) -> _Pairs:
    try:
        values, vectors = eigh(
            lower_hessian(instance),
            lower=True,
            subset_by_index=(0, count - 1),
            driver="evr",
            overwrite_a=True,
            check_finite=False,
        )
    except LinAlgError:
        return _Pairs(None, np.empty((instance.size, 0)), 0)
    return _Pairs(values, vectors, 0)


def _solve_explicit(
    instance: Instance,
    count: int,
    rng: np.random.Generator,
    precision: Precision,
    width: int,
    tolerance: float | None,
) -> _Pairs:
    factor = 1.0 if tolerance is None else tolerance / VECTOR_TOLERANCE
    found = lowest_eigenpairs(
        hessian_product(instance, precision),
        rng.standard_normal((instance.size, min(width, instance.size))),
        count,
        space=min(int(instance.model.p) * instance.model.p_star, count),
        eigval_tolerance=factor * EIGVAL_TOLERANCE,
        vector_tolerance=factor * VECTOR_TOLERANCE,
        max_steps=LANCZOS_STEPS,
    )
    return _Pairs(found.values if found.converged else None, found.vectors, found.n_products)
