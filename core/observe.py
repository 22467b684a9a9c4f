"""One cell measured: the lowest eigenpairs of its Hessian and what they know of the teacher.

Two methods find the eigenpairs, and agree on the same random state: ``dense`` forms the matrix and reduces
it, ``explicit`` only multiplies with it. ``auto`` takes the one the cost model below expects to be faster.
``conditional`` draws only the labels and gives what the theory makes of them: no matrix, no eigenpair, any N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, eigh

from bendscape.core.conditional import (
    BLOCK_NUMBERS,
    KEPT_SAMPLES,
    conditional_theory,
    sample_conditional,
)
from bendscape.core.hessian import (
    Instance,
    lower_hessian,
    refuse_infinite_width,
    sample_instance,
)
from bendscape.core.inputs import BLOCK_NUMBERS as DRAWN_NUMBERS
from bendscape.core.inputs import Precision
from bendscape.core.lanczos import default_vectors, lowest_eigenpairs
from bendscape.core.model import Model, ParameterError, sample_count
from bendscape.core.products import hessian_product

FloatArray = npt.NDArray[np.float64]

METHODS = ("dense", "explicit", "conditional", "auto")
"""Accepted values of ``method``."""

MEASURED = ("eigval_min", "eigval_second", "overlap_sq", "overlap_sq_space", "residual")
"""Fields of an observation that only eigenpairs give."""

MAX_BYTES = 8 * 2.0**30
"""Memory one cell may take unless the caller says otherwise."""

LANCZOS_STEPS = 5000
_COLUMNS, _COLUMNS_DRAWN = 4, 16  # multiplied in one pass over data that are kept, or that are drawn

# Seconds on one quiet core with one BLAS thread, fitted over p = 1, 2, 4 and N = 128 .. 2048.
_SECONDS_FIXED = 1.2e-3
_SECONDS_NORMAL = 9.5e-9  # a Gaussian number
_SECONDS_GRAM = 2.6e-11  # a multiplication in the Gram matrices
_SECONDS_EIGH = 5.0e-11  # n^3 of the reduction
_SECONDS_EIGH_FIXED = 1.0e-8  # n^2 of the reduction
_SECONDS_PASS = 1.7e-10  # a multiplication of a block product with the data
_SECONDS_STEP = 3e-4  # any step of the iteration, with its share of Ritz values
_SECONDS_KRYLOV = 2e-7  # an entry of a Krylov vector, with its orthogonalisation
_SECONDS_SUM = 5e-8  # a sample in one sum of the conditional theory, both of its directions
_PASSES = 20.0  # sums of the conditional theory: Newton steps for edge and outlier
_STEPS, _STEPS_EXPONENT = 8.0, 0.45  # steps with blocks of b vectors: 8 N^0.45 / b^0.5, at any p


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
        Products of H with a vector that the eigensolver spent; 0 for ``dense``.
    residual : float
        max |H v - lambda v| over the two lowest pairs, with H as an operator in double precision in either
        method.
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
    inputs: str = "gaussian",
    precision: Precision = "float64",
    stored: bool = True,
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
    inputs : {"gaussian", "rademacher"}
        Law of the data; "conditional" knows the first alone.
    precision : {"float64", "float32"}
        Type in which "explicit" keeps and multiplies the data; "dense" always takes the first.
    stored : bool
        False: "explicit" draws the data anew for every product, in memory that does not grow with M N. The
        instance is the same as with stored data.
    max_bytes : float
        Refuse a cell whose :func:`cost_bytes` exceeds it; "auto" first tries "explicit", which needs less.

    Returns
    -------
    Observation
        Eigenvalues in the units of H, overlaps in [0, 1].

    Notes
    -----
    Limits: lambda_minus or lambda_star, and overlap_sq, as N -> inf. In double precision eigenvalues are
    accurate to 1e-9 and overlaps to 2e-6, as tolerances of the iteration allow. In single precision
    eigenvalues move by 1e-6 and a vector by 1e-6 over its gap, where cells differ by more than 1/sqrt(N).
    ``residual`` is measured, not assumed. Same rng state, machine and number of BLAS threads: same bits. Held
    by ``tests/test_samplers.py``. Source: arXiv:2510.18435.
    """
    p = refuse_infinite_width(model)
    wanted, method = method, _resolve(model, alpha, N, method)
    needed = cost_bytes(model, alpha, N, method, precision=precision, stored=stored)
    if wanted == "auto" and needed > max_bytes:
        method = _resolve(model, alpha, N, "explicit")
        needed = cost_bytes(model, alpha, N, method, precision=precision, stored=stored)
    if needed > max_bytes:
        raise ParameterError(
            "N",
            N,
            f"small enough for {max_bytes:.3g} bytes ({needed:.3g} for {method}, p = {p}, alpha = {alpha:g})",
            "lower N, raise max_bytes or, for explicit, stored=False",
        )
    if method == "conditional":
        if inputs != "gaussian":
            raise ParameterError("inputs", inputs, "gaussian for the conditional method")
        return Observation(
            **dict.fromkeys(MEASURED, math.nan),
            **sample_conditional(model, alpha, N, rng)._asdict(),
            alpha_realised=sample_count(alpha, N) / int(N),
            n_matvecs=0,
            converged=True,
            method=method,
        )
    if method == "dense":
        precision, stored = "float64", True
    instance = sample_instance(model, alpha, N, rng, inputs=inputs, precision=precision, stored=stored)
    predicted = conditional_theory(model, instance.N, instance.y, instance.yhat)
    count = _pairs_wanted(model, instance.N)
    if method == "dense":
        pairs = _solve_dense(instance, count)
    else:
        pairs = _solve_explicit(instance, count, rng, precision, _block_width(p, stored))

    values, vectors = pairs.values, pairs.vectors
    if values is None:
        measured = dict.fromkeys(MEASURED, math.nan)
    else:
        overlaps = instance.teacher_overlap_sq(vectors)
        space = min(p * model.p_star, count)
        lowest = vectors[:, :2]
        residuals = np.linalg.norm(hessian_product(instance)(lowest) - lowest * values[:2], axis=0)
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


def _solve_explicit(
    instance: Instance, count: int, rng: np.random.Generator, precision: Precision, width: int
) -> _Pairs:
    found = lowest_eigenpairs(
        hessian_product(instance, precision),
        rng.standard_normal((instance.size, min(width, instance.size))),
        count,
        space=min(int(instance.model.p) * instance.model.p_star, count),
        max_steps=LANCZOS_STEPS,
    )
    return _Pairs(found.values if found.converged else None, found.vectors, found.n_products)


def _block_width(p: int, stored: bool) -> int:
    """Vectors multiplied at a time: p columns for each, as many as hide behind reading or drawing X."""
    return max(1, (_COLUMNS if stored else _COLUMNS_DRAWN) // p)


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

    A sum of measured power laws: Gaussian numbers, then Gram matrices and reduction (dense) or steps until
    convergence (explicit, with stored data in double precision); or sums over the labels (conditional).

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
    width = _block_width(int(model.p), stored=True)
    step = _SECONDS_STEP + (_SECONDS_PASS * M + _SECONDS_KRYLOV) * size * width
    return drawn + _STEPS * math.pow(N, _STEPS_EXPONENT) / math.sqrt(width) * step


def cost_bytes(
    model: Model,
    alpha: float,
    N: int,
    method: str = "auto",
    *,
    precision: Precision = "float64",
    stored: bool = True,
) -> float:
    """Memory one cell takes at its peak.

    Data M N, and for dense the Hessian (pN)^2 with the weighted rows it is made from; for explicit the Krylov
    basis, and without stored data no M N. For conditional one block of samples, and the labels where there
    are few enough to keep.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension.
    N : int
        Input dimension.
    method : {"auto", "dense", "explicit", "conditional"}
        As in :func:`observe`, and so are the others.

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
        return 8.0 * (numbers + small)
    width = min(_block_width(p, stored), size)
    basis = default_vectors(size, count, width) + width
    drawn = 8.0 * max(N, min(M * N, DRAWN_NUMBERS))
    single = precision == "float32"
    data = (4.0 if single else 8.0) * M * N if stored else drawn * (1.5 if single else 1.0)
    held = size * (basis + 5.0 * width + count) + 0.4 * min(size, 4096) * basis + 2.4 * basis**2
    labels = M * (4.0 * p + 2.0 * model.p_star + 14.0) + 2e4
    return data + max(8.0 * held, drawn if stored else 0.0) + 8.0 * labels
