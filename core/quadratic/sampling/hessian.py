"""One finite instance of the model and its Hessian at initialisation as a matrix.

H is pN x pN with blocks H_kl = (1/N) sum_mu D_kl x x^T. The p x p weight of one sample is D = s lambda
lambda^T + d_perp I with s = (4/p^2)/(a + y) and d_perp = (2/p) (yhat - y)/(a + y): it is given by the numbers
s and d_perp and the vector lambda of pre-activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model, sample_count
from bendscape.core.quadratic.sampling.inputs import (
    PRECISIONS,
    DrawnInputs,
    Precision,
    RealArray,
    drawn_inputs,
)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Instance:
    """One draw of weights and data, with everything the Hessian needs.

    Parameters
    ----------
    model : Model
        With finite p.
    inputs : array or DrawnInputs, shape (M, N)
        Data X, one sample x_mu per row: kept, or drawn again whenever they are read.
    students : array, shape (p, N)
        Student weights w_k, each of norm sqrt(N).
    teachers : array, shape (p_star, N)
        Teacher weights w*_l, each of norm sqrt(N).
    fields : array, shape (M, p)
        Student pre-activations lambda_k = w_k.x / sqrt(N).
    y : array, shape (M,)
        Labels.
    yhat : array, shape (M,)
        Student outputs.
    """

    model: Model
    inputs: RealArray | DrawnInputs
    students: FloatArray
    teachers: FloatArray
    fields: FloatArray
    y: FloatArray
    yhat: FloatArray

    @property
    def N(self) -> int:
        """Input dimension."""
        return int(self.inputs.shape[1])

    @property
    def size(self) -> int:
        """Dimension pN of the Hessian."""
        return self.N * int(self.students.shape[0])

    @property
    def alpha_realised(self) -> float:
        """Load M/N of this instance."""
        return len(self.inputs) / self.N

    @property
    def d_perp(self) -> FloatArray:
        """Weight (2/p) (yhat - y)/(a + y) of each sample across its pre-activations, shape (M,)."""
        d_perp: FloatArray = (2 / self.model.p) * (self.yhat - self.y) / (self.model.a + self.y)
        return d_perp

    @property
    def d_par(self) -> FloatArray:
        """Weight (2/p) (3 yhat - y)/(a + y) of each sample along its pre-activations, shape (M,)."""
        d_par: FloatArray = (2 / self.model.p) * (3 * self.yhat - self.y) / (self.model.a + self.y)
        return d_par

    @property
    def rank_one_weight(self) -> FloatArray:
        """Factor s = (4/p^2)/(a + y) of lambda lambda^T in the weight of each sample, shape (M,)."""
        weight: FloatArray = (4 / self.model.p**2) / (self.model.a + self.y)
        return weight

    def teacher_overlap_sq(self, vectors: FloatArray) -> FloatArray:
        """Squared overlap m^2 of vectors with the teacher.

        m^2 = sum_k |Q^T v_k|^2 with Q an orthonormal basis of the span of the teacher weights, v_k the k-th
        part of v.

        Parameters
        ----------
        vectors : array, shape (pN, b)
            Unit columns.

        Returns
        -------
        array, shape (b,)
            In [0, 1].

        Notes
        -----
        For orthogonal teacher weights this is sum_kl (v_k.w*_l)^2 / N. Held by ``tests/test_samplers.py``.
        """
        basis, _ = np.linalg.qr(self.teachers.T)
        parts = vectors.reshape(self.students.shape[0], self.N, -1)
        components = np.tensordot(basis, parts, axes=(0, 1))
        overlap_sq: FloatArray = np.einsum("lkb,lkb->b", components, components)
        return overlap_sq


def refuse_infinite_width(model: Model) -> int:
    """Return p as an int, or raise ParameterError at p = inf, which has no samples."""
    if math.isinf(model.p):
        raise ParameterError("p", model.p, "finite for sampling", "at p = inf there is only theory")
    return int(model.p)


def sample_instance(
    model: Model,
    alpha: float,
    N: int,
    rng: np.random.Generator,
    *,
    inputs: str = "gaussian",
    precision: Precision = "float64",
    stored: bool = True,
) -> Instance:
    """Draw one instance: weights uniform on their spheres, independent data, and the resulting labels.

    lambda_k = w_k.x/sqrt(N), yhat = (1/p) sum_k lambda_k^2, u_l = w*_l.x/sqrt(N) + sqrt(noise) xi_l, y =
    (1/p_star) sum_l u_l^2.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension; M = sample_count(alpha, N).
    N : int
        Input dimension, >= 2.
    rng : numpy.random.Generator
        Source of randomness, used in the order students, teachers, key of the data, and, if there is any,
        noise.
    inputs : {"gaussian", "rademacher"}
        Law of the entries of x. The theory is for the first; its statements for large N hold for both.
    precision : {"float64", "float32"}
        Type in which the data are kept; labels come from the data before rounding.
    stored : bool
        If False, the data are not kept but drawn again whenever they are read, with the same bits each time.

    Returns
    -------
    Instance
        With |w_k|^2 = |w*_l|^2 = N to rounding.

    Raises
    ------
    ParameterError
        p is infinite, ``inputs`` or ``precision`` is unknown, or :func:`sample_count` refuses ``alpha`` and
        N.

    Notes
    -----
    The same rng state gives the same bits on one machine and BLAS. Held by ``tests/test_samplers.py``.
    Source: arXiv:2510.18435.
    """
    p = refuse_infinite_width(model)
    if precision not in PRECISIONS:
        raise ParameterError("precision", precision, "one of " + ", ".join(PRECISIONS))
    M = sample_count(alpha, N)
    N = int(N)
    students = _on_sphere(rng.standard_normal((p, N)))
    teachers = _on_sphere(rng.standard_normal((model.p_star, N)))
    drawn = drawn_inputs(inputs, M, N, rng)
    data: RealArray | DrawnInputs = np.empty((M, N), dtype=precision) if stored else drawn
    weights = np.concatenate([students, teachers]).T / math.sqrt(N)
    preactivations = np.empty((M, weights.shape[1]))
    for first, X in drawn.blocks("float64"):
        rows = slice(first, first + len(X))
        preactivations[rows] = X @ weights
        if not isinstance(data, DrawnInputs):
            data[rows] = X
    fields, teacher_fields = preactivations[:, :p], preactivations[:, p:]
    if model.noise:
        teacher_fields = teacher_fields + math.sqrt(model.noise) * rng.standard_normal((M, model.p_star))
    y = np.einsum("ml,ml->m", teacher_fields, teacher_fields) / model.p_star
    yhat = np.einsum("mk,mk->m", fields, fields) / p
    return Instance(model, data, students, teachers, np.ascontiguousarray(fields), y, yhat)


def _on_sphere(weights: FloatArray) -> FloatArray:
    scaled: FloatArray = weights * (
        math.sqrt(weights.shape[1]) / np.linalg.norm(weights, axis=1, keepdims=True)
    )
    return scaled


def _kept(instance: Instance) -> FloatArray:
    """All data of an instance, in double precision."""
    if isinstance(instance.inputs, DrawnInputs):
        return np.asarray(instance.inputs.stored("float64"), dtype=np.float64)
    return np.asarray(instance.inputs, dtype=np.float64)


def _gram_lower(rows: FloatArray, factor: float, onto: FloatArray | None = None) -> FloatArray:
    """Lower triangle of factor rows^T rows, added to the lower triangle of a matrix, which it overwrites."""
    if onto is None:
        return np.asarray(blas.dsyrk(factor, rows.T, lower=1))
    return np.asarray(blas.dsyrk(factor, rows.T, beta=1.0, c=onto, overwrite_c=1, lower=1))


def _signed_gram_lower(instance: Instance, weight: FloatArray) -> FloatArray:
    """Lower triangle of (1/N) X^T diag(weight) X, with the samples of either sign treated separately."""
    gram: FloatArray | None = None
    X = _kept(instance)
    for sign in (1.0, -1.0):
        chosen = np.flatnonzero(sign * weight > 0)
        if chosen.size:
            rows = X[chosen]
            rows *= np.sqrt(sign * weight[chosen])[:, np.newaxis]
            gram = _gram_lower(rows, sign / instance.N, gram)
    return np.zeros((instance.N, instance.N), order="F") if gram is None else gram


def _rank_one_rows(instance: Instance) -> FloatArray:
    """Rows sqrt(s) (lambda_1 x, ..., lambda_p x), shape (M, pN): their Gram matrix is what lambda adds."""
    scaled = instance.fields * np.sqrt(instance.rank_one_weight)[:, np.newaxis]
    return (scaled[:, :, np.newaxis] * _kept(instance)[:, np.newaxis, :]).reshape(-1, instance.size)


def lower_hessian(instance: Instance) -> FloatArray:
    """Lower triangle of the Hessian, in Fortran order; entries above the diagonal have no meaning.

    See :func:`dense_hessian`, which mirrors it.
    """
    p, N = instance.students.shape
    if p == 1:
        return _signed_gram_lower(instance, instance.d_par)
    hessian = _gram_lower(_rank_one_rows(instance), 1 / N)
    diagonal_block = _signed_gram_lower(instance, instance.d_perp)
    for k in range(p):
        hessian[k * N : (k + 1) * N, k * N : (k + 1) * N] += diagonal_block
    return hessian


def dense_hessian(instance: Instance) -> FloatArray:
    """Hessian H of the loss at initialisation, as a matrix.

    H_kl = (1/N) sum_mu (s lambda_k lambda_l + d_perp delta_kl) x x^T.

    Parameters
    ----------
    instance : Instance
        One draw of weights and data.

    Returns
    -------
    array, shape (pN, pN)
        Exactly symmetric. It is the Euclidean Hessian of L = (1/2) sum_mu (y - yhat)^2/(a + y); on the
        product of spheres there are in addition a projection and one constant shift.

    Notes
    -----
    For p = 1 the weight of a sample is the one number d_par. Accuracy 1e-14 relative to the norm of H; held
    by ``tests/test_samplers.py`` against finite differences of the loss. Source: arXiv:2510.18435.
    """
    hessian = lower_hessian(instance)
    mirrored: FloatArray = np.tril(hessian) + np.tril(hessian, -1).T
    return mirrored
