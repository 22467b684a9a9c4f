"""One finite instance for any activations: the lowest eigenpairs of its Hessian, and their overlaps.

H is pN x pN with blocks H_kl = (1/N) sum_mu D^mu_kl x^mu x^mu^T. ``dense`` forms it, ``explicit`` only
multiplies with it, and ``dice`` draws only the data that its iteration needs; the last agrees in law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, eigh

from bendscape.core.activations.activation import Network
from bendscape.core.activations.theory import SampleTheory, sample_theory
from bendscape.core.activations.weight import Weight, weight_of
from bendscape.core.errors import ParameterError
from bendscape.core.numerics.lanczos import EIGVAL_TOLERANCE, VECTOR_TOLERANCE, lowest_eigenpairs
from bendscape.core.quadratic.model import Model, sample_count
from bendscape.core.quadratic.sampling.cost import (
    MAX_BYTES,
    SECONDS,
    cost_bytes,
    cost_terms,
    pairs_wanted,
    resolve_method,
)
from bendscape.core.quadratic.sampling.dice import FORMS, TOLERANCE, Weighted, sample_dice
from bendscape.core.quadratic.sampling.inputs import drawn_inputs
from bendscape.core.quadratic.sampling.reveal import Array, Workspace

FloatArray = npt.NDArray[np.float64]

METHODS = ("auto", "dense", "explicit", *FORMS)
BLOCK = 4
"""Vectors that the explicit method multiplies at once."""
MOST_STEPS = 5000
EXPLICIT = 4.0
"""Time of the explicit method over that of the square, whose products go block by block through the cache."""


class Observation(NamedTuple):
    """Measured values of one cell, all nan if the eigensolver gave up.

    ``overlap_sq`` and ``overlap_sq_space`` are those of the quadratic network: of the lowest vector, and the
    mean over the lowest p p_star. The latter splits by (1, .., 1)/sqrt(p) among the hidden units into
    ``overlap_sq_space_symmetric``, over p_star, and ``overlap_sq_space_relative``, over (p - 1) p_star; nan
    at p = 1.
    ``edge_sample``, ``outlier_sample``, ``overlap_sq_sample``: the theory for the cell's own samples, nan
    where the network is not one of :func:`bendscape.core.activations.theory.check_even`.
    """

    eigval_min: float
    eigval_second: float
    overlap_sq: float
    overlap_sq_space: float
    overlap_sq_space_symmetric: float
    overlap_sq_space_relative: float
    edge_sample: float
    outlier_sample: float
    overlap_sq_sample: float
    alpha_realised: float
    n_matvecs: int
    residual: float
    converged: bool


@dataclass(frozen=True, eq=False)
class Sample:
    """Data, teacher and the weight D of each sample.

    Parameters
    ----------
    inputs : array, shape (M, N)
    teacher_basis : array, shape (N, p_star)
        Orthonormal basis of the span of the teacher weights.
    weight : Weight
        v and e of shape (p, M).
    u_sq : array, shape (M,)
        Mean over l of the squared pre-activations of the teacher.
    """

    inputs: FloatArray
    teacher_basis: FloatArray
    weight: Weight
    u_sq: FloatArray

    def product(self, vectors: FloatArray) -> FloatArray:
        """H times columns, shape (pN, b), without forming H."""
        (M, N), p = self.inputs.shape, len(self.weight.e)
        columns = vectors.reshape(p, N, -1).transpose(1, 0, 2).reshape(N, -1)
        projected = (self.inputs @ columns).reshape(M, p, -1)
        along = np.einsum("km,mkb->mb", self.weight.v, projected)
        projected *= self.weight.e.T[:, :, None]
        projected += self.weight.v.T[:, :, None] * along[:, None, :]
        result = (self.inputs.T @ projected.reshape(M, -1)).reshape(N, p, -1) / N
        return np.asarray(result.transpose(1, 0, 2).reshape(vectors.shape))

    def matrix(self) -> FloatArray:
        """H as a matrix, shape (pN, pN)."""
        N, (v, e) = self.inputs.shape[1], self.weight
        p = len(e)
        matrix = np.empty((p * N, p * N))
        for k in range(p):
            for other in range(k + 1):
                weight = v[k] * v[other] + (e[k] if k == other else 0.0)
                block = (self.inputs.T * weight) @ self.inputs / N
                matrix[k * N : (k + 1) * N, other * N : (other + 1) * N] = block
                matrix[other * N : (other + 1) * N, k * N : (k + 1) * N] = block
        return matrix


def weigh(network: Network, fields: FloatArray, teacher_fields: FloatArray) -> tuple[Weight, FloatArray]:
    """D and the mean of u_l^2 of samples with pre-activations (p, M) and (p_star, M)."""
    y = network.teacher.value(teacher_fields).mean(axis=0)
    return weight_of(network, fields, y), (teacher_fields**2).mean(axis=0)


def draw(
    network: Network, alpha: float, N: int, rng: np.random.Generator, *, inputs: str = "gaussian"
) -> Sample:
    """Draw weights uniform on spheres of radius sqrt(N), data, M = sample_count(alpha, N), and D."""
    M, N, p = sample_count(alpha, N), int(N), finite_width(network)
    weights = rng.standard_normal((p + network.p_star, N))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    data = np.asarray(drawn_inputs(inputs, M, N, rng).stored("float64"), dtype=np.float64)
    fields = weights @ data.T
    weight, u_sq = weigh(network, fields[:p], fields[p:])
    return Sample(data, np.linalg.qr(weights[p:].T)[0], weight, u_sq)


def finite_width(network: Network) -> int:
    """p as an int; infinite width is refused."""
    if math.isinf(network.p):
        raise ParameterError("p", network.p, "finite for sampling", "at p = inf there is only theory")
    return int(network.p)


def observe(
    network: Network,
    alpha: float,
    N: int,
    rng: np.random.Generator,
    method: str = "auto",
    *,
    inputs: str = "gaussian",
    max_bytes: float = MAX_BYTES,
    tolerance: float | None = None,
) -> Observation:
    """Draw one instance and measure the lower end of its Hessian's spectrum.

    m^2 = sum_k |Q^T v_k|^2 with Q an orthonormal basis of the teacher span, of the lowest max(2, p p_star)
    eigenvectors.

    Parameters
    ----------
    network : Network
        Any activations, finite p.
    alpha : float
        Samples per dimension; M = sample_count(alpha, N).
    N : int
        Input dimension.
    rng : numpy.random.Generator
        First the instance, then (``explicit``) the start vectors: ``dense`` and ``explicit`` see the same
        instance.
    method : {"auto", "dense", "explicit", "dice", "dice_wide", "dice_compact"}
        As in :func:`bendscape.core.quadratic.sampling.observe.observe`. "auto" takes the one of the first
        three that is expected to be fastest within ``max_bytes``.
    inputs : {"gaussian", "rademacher"}
        Law of the data; dice in its three forms takes only the first.
    max_bytes : float
        Memory that "auto" chooses by.
    tolerance : float, optional
        As in :func:`bendscape.core.quadratic.sampling.observe.observe`.

    Returns
    -------
    Observation
        Eigenvalues in the units of H, overlaps in [0, 1].

    Raises
    ------
    ParameterError
        A parameter out of range, or a method that cannot serve these sizes.

    Notes
    -----
    Limits as N -> inf: :mod:`bendscape.core.activations.theory` and
    :mod:`bendscape.core.activations.sectors`. For two squares the law is that of the quadratic network's
    ``observe``, not its bits. Held by ``tests/test_activations.py``.
    """
    method = method_for(network, alpha, N, method, max_bytes=max_bytes, inputs=inputs)
    N = int(N)
    if method in FORMS:
        return _observe_dice(network, alpha, N, rng, tolerance, method)
    sample = draw(network, alpha, N, rng, inputs=inputs)
    count = pairs_wanted(costed_as(network), N)
    values, vectors, n_matvecs = _lowest(sample, network, count, rng, method, tolerance)
    lowest = vectors[:, :2]
    residuals = np.linalg.norm(sample.product(lowest) - lowest * values[:2], axis=0)
    parts = vectors.reshape(len(sample.weight.e), N, -1)
    components = np.tensordot(sample.teacher_basis, parts, axes=(0, 1)).transpose(2, 1, 0)
    solved = values if len(values) else None
    return _observation(network, solved, components, residuals, sample.weight, sample.u_sq, N, n_matvecs)


def _lowest(
    sample: Sample, network: Network, count: int, rng: np.random.Generator, method: str,
    tolerance: float | None,
) -> tuple[FloatArray, FloatArray, int]:  # fmt: skip
    """Lowest pairs, none where the solver gave up, and the number of products."""
    size = len(sample.weight.e) * sample.inputs.shape[1]
    if method == "dense":
        try:
            values, vectors = eigh(
                sample.matrix(), subset_by_index=(0, count - 1), overwrite_a=True, check_finite=False
            )
        except LinAlgError:
            return np.empty(0), np.empty((size, 0)), 0
        return values, vectors, 0
    factor = 1.0 if tolerance is None else tolerance / VECTOR_TOLERANCE
    found = lowest_eigenpairs(
        sample.product,
        rng.standard_normal((size, min(BLOCK, size))),
        count,
        space=min(int(network.p) * network.p_star, count),
        eigval_tolerance=factor * EIGVAL_TOLERANCE,
        vector_tolerance=factor * VECTOR_TOLERANCE,
        max_steps=MOST_STEPS,
    )
    if not found.converged:
        return np.empty(0), np.empty((size, 0)), found.n_products
    return found.values, found.vectors, found.n_products


def _observe_dice(
    network: Network, alpha: float, N: int, rng: np.random.Generator, tolerance: float | None, method: str
) -> Observation:
    kept: list[tuple[Weight, FloatArray]] = []

    def weights(space: Workspace, fields: FloatArray, teacher_fields: FloatArray) -> Weighted:
        weight, u_sq = weigh(network, fields, teacher_fields)
        kept.append((weight, u_sq))
        v, scaled = space.spread(weight.v), space.spread(weight.v / N)
        e = space.spread(weight.e / N)

        def of_block(b: int, rows: Array) -> Array:
            along = space.xp.sum(v[b, :, :] * rows, axis=0, keepdims=True)
            return e[b, :, :] * rows + scaled[b, :, :] * along

        outputs = network.student.value(fields).mean(axis=0)
        return Weighted(network.teacher.value(teacher_fields).mean(axis=0), outputs, of_block)

    squared = TOLERANCE if tolerance is None else tolerance**2
    found = sample_dice(
        costed_as(network), alpha, N, rng, tolerance=squared, weights=weights, **FORMS[method]
    )
    solved = found.eigvals if found.converged else None
    weight, u_sq = kept[0]
    return _observation(network, solved, found.components, found.residuals, weight, u_sq, N, found.steps)


def _observation(
    network: Network,
    values: FloatArray | None,
    components: FloatArray,
    residuals: FloatArray,
    weight: Weight,
    u_sq: FloatArray,
    N: int,
    n_matvecs: int,
) -> Observation:
    """From the lowest eigenvalues (None if the solver gave up) and the components of their vectors along the
    teacher, (vectors, p, p_star)."""
    p, p_star = finite_width(network), network.p_star
    even = network.teacher.even and (p == 1 or network.student.even)
    theory = sample_theory(weight, u_sq, N) if even else SampleTheory(math.nan, math.nan, math.nan)
    values = np.full(2, math.nan) if values is None else values
    overlap = space = symmetric = relative = residual = math.nan
    if converged := bool(np.isfinite(values).all()):
        overlaps = (components**2).sum(axis=(1, 2))
        overlap, space = float(overlaps[0]), float(overlaps[: p * p_star].mean())
        residual = float(residuals[:2].max())
        if p > 1:
            along = components[: p * p_star].sum(axis=1)
            symmetric = float((along**2).sum()) / (p * p_star)
            relative = max(0.0, (p * space - symmetric) / (p - 1))
    return Observation(
        float(values[0]),
        float(values[1]),
        overlap,
        space,
        symmetric,
        relative,
        *theory,
        alpha_realised=len(u_sq) / N,
        n_matvecs=n_matvecs,
        residual=residual,
        converged=converged,
    )


def costed_as(network: Network) -> Model:
    """The quadratic network of the same sizes, whose numbers of steps and costs stand for this one's."""
    return Model(finite_width(network), network.p_star, network.a)


def method_for(
    network: Network,
    alpha: float,
    N: int,
    method: str,
    *,
    max_bytes: float = MAX_BYTES,
    inputs: str = "gaussian",
) -> str:
    """Name of the method that will run; "auto" takes dice too where that is faster than explicit."""
    if method not in METHODS:
        raise ParameterError("method", method, "one of " + ", ".join(METHODS))
    model = costed_as(network)
    chosen = resolve_method(model, alpha, N, method, max_bytes=max_bytes, inputs=inputs)
    p, M = int(model.p), sample_count(alpha, N)
    enough = p * M >= 20 + 4 * p * model.p_star and p + model.p_star <= int(N)
    if method == "auto" and chosen == "explicit" and inputs == "gaussian" and enough:
        fits = cost_bytes(model, alpha, N, "dice") <= max_bytes
        counts = {name: cost_terms(model, alpha, N, name, wide=False) for name in ("dice", "explicit")}
        seconds = {name: float(terms @ SECONDS[name]) for name, terms in counts.items()}
        if fits and seconds["dice"] < EXPLICIT * seconds["explicit"]:
            return "dice"
    return chosen


def seconds_of(network: Network, alpha: float, N: int, method: str, tolerance: float | None = None) -> float:
    """Time of a cell on one core to a factor of 3, by a resolved method."""
    model = costed_as(network)
    theory = 1e-3 + 4e-6 * sample_count(alpha, N) * model.p
    wide = method != "explicit"  # here it multiplies blocks of vectors at any width
    of_square = float(cost_terms(model, alpha, N, method, tolerance=tolerance, wide=wide) @ SECONDS[method])
    return theory + of_square * (EXPLICIT if method == "explicit" else 1.0)


def bytes_of(network: Network, alpha: float, N: int, method: str, tolerance: float | None = None) -> float:
    """Memory of a cell, by a resolved method; an upper bound within a factor of 3."""
    model, M = costed_as(network), sample_count(alpha, N)
    p = int(model.p)
    of_samples = 8.0 * M * (20 + 6 * p + 2 * p * p + (3 * p * BLOCK if method == "explicit" else 0))
    blocks = 16.0 * M * N if method == "dense" else 0.0
    return of_samples + blocks + cost_bytes(model, alpha, N, method, tolerance=tolerance)
