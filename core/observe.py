"""One cell measured: the lowest eigenpairs of its Hessian and what they know of the teacher.

Two methods find the eigenpairs, and agree on the same random state: ``dense`` forms the matrix and reduces
it, ``explicit`` only multiplies with it. ``auto`` takes the one the cost model below expects to be faster.
``conditional`` draws only the labels and gives what the theory makes of them: no matrix, no eigenpair, any N.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from bendscape.core.conditional import (
    BLOCK_NUMBERS,
    KEPT_SAMPLES,
    conditional_theory,
    sample_conditional,
)
from bendscape.core.hessian import (
    Instance,
    hessian_operator,
    lower_hessian,
    refuse_infinite_width,
    sample_instance,
)
from bendscape.core.model import Model, ParameterError, sample_count

FloatArray = npt.NDArray[np.float64]

METHODS = ("dense", "explicit", "conditional", "auto")
"""Accepted values of ``method``."""

MEASURED = ("eigval_min", "eigval_second", "overlap_sq", "overlap_sq_space", "residual")
"""Fields of an observation that only eigenpairs give."""

MAX_BYTES = 8 * 2.0**30
"""Memory one cell may take unless the caller says otherwise."""

KRYLOV_TOLERANCE = (
    1e-10  # residual relative to the eigenvalue; the eigenvalue's own error is its square over the gap
)
KRYLOV_RESTARTS = 1000
_RESTARTS_TAKE_RNG = "rng" in inspect.signature(eigsh).parameters

# Seconds on one quiet core with one BLAS thread, fitted over p = 1, 2, 4 and N = 128 .. 2048.
_SECONDS_FIXED = 1.2e-3
_SECONDS_NORMAL = 9.5e-9  # a Gaussian number
_SECONDS_GRAM = 2.6e-11  # a multiplication in the Gram matrices
_SECONDS_EIGH = 5.0e-11  # n^3 of the reduction
_SECONDS_EIGH_FIXED = 1.0e-8  # n^2 of the reduction
_SECONDS_PASS = 2.6e-10  # a multiplication of a product with the data, for one vector
_SECONDS_PRODUCT = 1.5e-5  # any product
_SECONDS_KRYLOV = 1.0e-8  # an entry of a Krylov vector, with its orthogonalisation
_SECONDS_SUM = 5e-8  # a sample in one sum of the conditional theory, both of its directions
_PASSES = 20.0  # sums of the conditional theory: Newton steps for edge and outlier
_PRODUCTS, _PRODUCTS_EXPONENT = 25.0, 0.43  # products until convergence: 25 N^0.43, at any p


@dataclass(frozen=True)
class Observation:
    """What one cell shows.

    Parameters
    ----------
    eigval_min, eigval_second : float
        The two lowest eigenvalues of H.
    overlap_sq : float
        Squared overlap m^2 of the lowest eigenvector with the span of the teacher weights, in [0, 1].
    overlap_sq_space : float
        Its mean over the lowest p p_star eigenvectors, which the splitting of the outliers does not bias.
    edge_sample, outlier_sample, overlap_sq_sample : float
        The conditional theory of the cell's own labels; the last two are nan where it has no outlier.
    alpha_realised : float
        M/N.
    n_matvecs : int
        Products with H that the eigensolver spent; 0 for ``dense``.
    residual : float
        max |H v - lambda v| over the two lowest pairs, with H as an operator in either method.
    converged : bool
        False where the eigensolver gave up; everything measured is then nan.
    method : str
        "dense", "explicit" or "conditional"; with the last, nothing is measured: all of it is nan.
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
    """Lowest eigenpairs in ascending order (None where the solver gave up) and the products spent."""

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
    max_bytes: float = MAX_BYTES,
) -> Observation:
    """Draw one instance and measure the low end of its Hessian's spectrum.

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
        see the same instance. "conditional" draws labels of the same law, but not the same labels.
    method : {"auto", "dense", "explicit", "conditional"}
        "explicit" needs more than max(2, p p_star) dimensions. "conditional" gives ``edge_sample``,
        ``outlier_sample`` and ``overlap_sq_sample`` alone; "auto" never takes it.
    max_bytes : float
        Refuse a cell whose :func:`cost_bytes` exceeds it; "auto" first tries "explicit", which needs less.

    Returns
    -------
    Observation
        Eigenvalues in the units of H, overlaps in [0, 1].

    Notes
    -----
    Limits: lambda_minus or lambda_star, and overlap_sq, as N -> inf. Eigenvalues are accurate to 1e-9 and
    overlaps to 1e-8 where the lowest eigenvalue is simple; ``residual`` is measured, not assumed. Same rng
    state, machine and number of BLAS threads: same bits. Held by ``tests/test_samplers.py``. Source:
    arXiv:2510.18435.
    """
    p = refuse_infinite_width(model)
    wanted, method = method, _resolve(model, alpha, N, method)
    needed = cost_bytes(model, alpha, N, method)
    if wanted == "auto" and needed > max_bytes:
        method = _resolve(model, alpha, N, "explicit")
        needed = cost_bytes(model, alpha, N, method)
    if needed > max_bytes:
        raise ParameterError(
            "N",
            N,
            f"small enough for {max_bytes:.3g} bytes ({needed:.3g} for {method}, p = {p}, alpha = {alpha:g})",
            "lower N or raise max_bytes",
        )
    if method == "conditional":
        return Observation(
            **dict.fromkeys(MEASURED, math.nan),
            **sample_conditional(model, alpha, N, rng)._asdict(),
            alpha_realised=sample_count(alpha, N) / int(N),
            n_matvecs=0,
            converged=True,
            method=method,
        )
    instance = sample_instance(model, alpha, N, rng)
    predicted = conditional_theory(model, instance.N, instance.y, instance.yhat)
    operator = hessian_operator(instance)
    count = _pairs_wanted(model, instance.N)
    pairs = _solve_dense(instance, count) if method == "dense" else _solve_explicit(operator, count, rng)

    values, vectors = pairs.values, pairs.vectors
    if values is None:
        measured = dict.fromkeys(MEASURED, math.nan)
    else:
        overlaps = instance.teacher_overlap_sq(vectors)
        space = min(p * model.p_star, count)
        lowest = vectors[:, :2]
        residuals = np.linalg.norm(operator.matmat(lowest) - lowest * values[:2], axis=0)
        measured = {
            "eigval_min": float(values[0]),
            "eigval_second": float(values[1]),
            "overlap_sq": float(overlaps[0]),
            "overlap_sq_space": float(overlaps[:space].mean()),
            "residual": float(residuals.max()),
        }
    return Observation(
        **measured,
        **predicted._asdict(),
        alpha_realised=instance.alpha_realised,
        n_matvecs=pairs.n_matvecs,
        converged=values is not None,
        method=method,
    )


def _pairs_wanted(model: Model, N: int) -> int:
    p = int(model.p)
    return min(max(2, p * model.p_star), p * N)


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


def _solve_explicit(operator: LinearOperator, count: int, rng: np.random.Generator) -> _Pairs:
    size = operator.shape[0]
    n_matvecs = 0

    def counted(vector: FloatArray) -> FloatArray:
        nonlocal n_matvecs
        n_matvecs += 1
        return np.asarray(operator.matvec(vector))

    try:
        values, vectors = eigsh(
            LinearOperator(operator.shape, matvec=counted, dtype=np.float64),
            k=count,
            which="SA",
            v0=rng.standard_normal(size),
            ncv=_krylov_vectors(size, count),
            tol=KRYLOV_TOLERANCE,
            maxiter=KRYLOV_RESTARTS,
            **({"rng": rng} if _RESTARTS_TAKE_RNG else {}),
        )
    except ArpackNoConvergence:
        return _Pairs(None, np.empty((size, 0)), n_matvecs)
    order = np.argsort(values)
    return _Pairs(values[order], vectors[:, order], n_matvecs)


def _krylov_vectors(size: int, count: int) -> int:
    """Krylov vectors kept between restarts: 40 needs the fewest products at p p_star of a few."""
    return min(size, max(40, 3 * count))


def _resolve(model: Model, alpha: float, N: int, method: str) -> str:
    """Name of the method that will run."""
    p = refuse_infinite_width(model)
    if method not in METHODS:
        raise ParameterError("method", method, "one of " + ", ".join(METHODS))
    sample_count(alpha, N)
    possible = _pairs_wanted(model, int(N)) < p * int(N)
    if method == "explicit" and not possible:
        raise ParameterError(
            "N", N, f"> {max(2, p * model.p_star) // p} for the explicit method", "use dense"
        )
    if method != "auto":
        return method
    faster = _seconds(model, alpha, N, "explicit") < _seconds(model, alpha, N, "dense")
    return "explicit" if possible and faster else "dense"


def cost_seconds(model: Model, alpha: float, N: int, method: str = "auto") -> float:
    """Time one cell takes on one core.

    A sum of measured power laws: Gaussian numbers, then Gram matrices and reduction (dense) or products until
    convergence (explicit); or sums over the labels (conditional).

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension.
    N : int
        Input dimension.
    method : {"auto", "dense", "explicit", "conditional"}
        As in :func:`observe`.

    Returns
    -------
    float
        Seconds.

    Notes
    -----
    Good to a factor of 2 on a quiet core; for planning, and for the choice ``auto`` makes. Only its growth is
    held by ``tests/test_samplers.py``. Source: this project's measurements.
    """
    return _seconds(model, alpha, N, _resolve(model, alpha, N, method))


def _seconds(model: Model, alpha: float, N: int, method: str) -> float:
    M, size = sample_count(alpha, N), int(model.p) * int(N)
    if method == "conditional":
        draws = 1.0 if M <= KEPT_SAMPLES else _PASSES
        drawn = draws * (_SECONDS_NORMAL + 2e-10 * (model.p + model.p_star)) * (model.p + model.p_star) * M
        return _SECONDS_FIXED + drawn + _PASSES * _SECONDS_SUM * M
    drawn = _SECONDS_FIXED + _SECONDS_NORMAL * M * N
    if method == "dense":
        return drawn + _SECONDS_GRAM * M * size**2 + _SECONDS_EIGH * size**3 + _SECONDS_EIGH_FIXED * size**2
    product = _SECONDS_PRODUCT + _SECONDS_PASS * M * size + _SECONDS_KRYLOV * size
    products = _PRODUCTS * math.pow(N, _PRODUCTS_EXPONENT)
    return drawn + products * product


def cost_bytes(model: Model, alpha: float, N: int, method: str = "auto") -> float:
    """Memory one cell takes at its peak.

    Data M N, and for dense the Hessian (pN)^2 with the weighted rows it is made from; for explicit the Krylov
    basis. For conditional one block of samples, and the labels where there are few enough to keep.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension.
    N : int
        Input dimension.
    method : {"auto", "dense", "explicit", "conditional"}
        As in :func:`observe`.

    Returns
    -------
    float
        Bytes, without the interpreter and its libraries.

    Notes
    -----
    An upper bound to the arrays allocated, within a factor of 2; held by ``tests/test_samplers.py`` against
    the allocator.
    """
    method = _resolve(model, alpha, N, method)
    M, p, size = sample_count(alpha, N), int(model.p), int(model.p) * int(N)
    count = _pairs_wanted(model, int(N))
    if method == "conditional":
        width = p + model.p_star
        block = min(M, max(1, BLOCK_NUMBERS // width))
        kept = 2.0 * M if M <= KEPT_SAMPLES else 0.0
        return 8.0 * (kept + block * (2.0 * min(width, int(N)) + 10.0) + width**2) + 2e4
    small = 16.0 * M * (p + model.p_star) + 3.0 * size * count + 2e4
    if method == "dense":
        rows = M * (size if p > 1 else N)
        numbers = M * N + rows + size**2 + (N**2 if p > 1 else 0) + 40.0 * size
    else:
        numbers = M * N + (_krylov_vectors(size, count) + 8.0) * size
    return 8.0 * (numbers + small)
