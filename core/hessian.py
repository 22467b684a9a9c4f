"""One finite instance of the model and its Hessian at initialisation, as a matrix and as an operator.

H is pN x pN with blocks H_kl = (1/N) sum_mu D_kl x x^T. The p x p weight of one sample is D = s lambda
lambda^T + d_perp I with s = (4/p^2)/(a + y) and d_perp = (2/p) (yhat - y)/(a + y): all that is needed of it
are the numbers s and d_perp and the vector lambda of pre-activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas
from scipy.sparse.linalg import LinearOperator

from bendscape.core.model import Model, ParameterError, sample_count

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Instance:
    """One draw of weights and data, with everything the Hessian needs.

    Parameters
    ----------
    model : Model
        With finite p.
    inputs : array, shape (M, N)
        Data X, one Gaussian sample x_mu a row.
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
    inputs: FloatArray
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
        raise ParameterError("p", model.p, "finite for sampling", "p = inf has theory only")
    return int(model.p)


def sample_instance(model: Model, alpha: float, N: int, rng: np.random.Generator) -> Instance:
    """Draw one instance: weights uniform on their spheres, Gaussian data, and the labels that follow.

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
        Source of randomness, used in the order students, teachers, data, and, if there is any, noise.

    Returns
    -------
    Instance
        With |w_k|^2 = |w*_l|^2 = N to rounding.

    Notes
    -----
    The same rng state gives the same bits on one machine and BLAS. Held by ``tests/test_samplers.py``.
    Source: arXiv:2510.18435.
    """
    p = refuse_infinite_width(model)
    M = sample_count(alpha, N)
    N = int(N)
    students = _on_sphere(rng.standard_normal((p, N)))
    teachers = _on_sphere(rng.standard_normal((model.p_star, N)))
    inputs = rng.standard_normal((M, N))
    preactivations = inputs @ (np.concatenate([students, teachers]).T / math.sqrt(N))
    fields, teacher_fields = preactivations[:, :p], preactivations[:, p:]
    if model.noise:
        teacher_fields = teacher_fields + math.sqrt(model.noise) * rng.standard_normal((M, model.p_star))
    y = np.einsum("ml,ml->m", teacher_fields, teacher_fields) / model.p_star
    yhat = np.einsum("mk,mk->m", fields, fields) / p
    return Instance(model, inputs, students, teachers, np.ascontiguousarray(fields), y, yhat)


def _on_sphere(weights: FloatArray) -> FloatArray:
    scaled: FloatArray = weights * (
        math.sqrt(weights.shape[1]) / np.linalg.norm(weights, axis=1, keepdims=True)
    )
    return scaled


def _gram_lower(rows: FloatArray, factor: float, onto: FloatArray | None = None) -> FloatArray:
    """Lower triangle of factor rows^T rows, added onto a matrix of which it overwrites the lower triangle."""
    if onto is None:
        return np.asarray(blas.dsyrk(factor, rows.T, lower=1))
    return np.asarray(blas.dsyrk(factor, rows.T, beta=1.0, c=onto, overwrite_c=1, lower=1))


def _signed_gram_lower(instance: Instance, weight: FloatArray) -> FloatArray:
    """Lower triangle of (1/N) X^T diag(weight) X, from the samples of either sign apart."""
    gram: FloatArray | None = None
    for sign in (1.0, -1.0):
        chosen = np.flatnonzero(sign * weight > 0)
        if chosen.size:
            rows = instance.inputs[chosen]
            rows *= np.sqrt(sign * weight[chosen])[:, np.newaxis]
            gram = _gram_lower(rows, sign / instance.N, gram)
    return np.zeros((instance.N, instance.N), order="F") if gram is None else gram


def _rank_one_rows(instance: Instance) -> FloatArray:
    """Rows sqrt(s) (lambda_1 x, ..., lambda_p x), shape (M, pN): their Gram matrix is what lambda adds."""
    scaled = instance.fields * np.sqrt(instance.rank_one_weight)[:, np.newaxis]
    return (scaled[:, :, np.newaxis] * instance.inputs[:, np.newaxis, :]).reshape(-1, instance.size)


def lower_hessian(instance: Instance) -> FloatArray:
    """Lower triangle of the Hessian, in Fortran order; what is above the diagonal has no meaning.

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
        product of spheres a projection and one constant shift come on top.

    Notes
    -----
    For p = 1 the weight of a sample is the one number d_par. Accuracy 1e-14 relative to the norm of H; held
    by ``tests/test_samplers.py`` against finite differences of the loss. Source: arXiv:2510.18435.
    """
    hessian = lower_hessian(instance)
    mirrored: FloatArray = np.tril(hessian) + np.tril(hessian, -1).T
    return mirrored


def hessian_operator(instance: Instance) -> LinearOperator:
    """Hessian H as an operator that never forms the matrix.

    (H v)_k = (1/N) X^T [d_perp P_k + s lambda_k sum_l lambda_l P_l], P_k = X v_k: two passes over the data
    for any number of vectors.

    Parameters
    ----------
    instance : Instance
        One draw of weights and data.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Symmetric, of shape (pN, pN), double precision; holds a reference to the instance.

    Notes
    -----
    Cost 4 p M N operations a vector, for any p and p_star. Accuracy 1e-14 relative to the norm of H; held by
    ``tests/test_samplers.py`` against :func:`dense_hessian`. Source: arXiv:2510.18435.
    """
    X, fields = instance.inputs, instance.fields
    M, N = X.shape
    p = fields.shape[1]
    d_perp = (instance.d_perp / N)[:, np.newaxis]
    weighted_fields = fields * (instance.rank_one_weight / N)[:, np.newaxis]
    d_par = instance.d_par / N

    def matvec(vector: FloatArray) -> FloatArray:
        if p == 1:
            return np.asarray((d_par * (X @ vector.reshape(N))) @ X)
        P = X @ vector.reshape(p, N).T
        along = np.einsum("mk,mk->m", fields, P)[:, np.newaxis]
        R = d_perp * P + weighted_fields * along
        return np.asarray((R.T @ X).reshape(p * N))

    def matmat(vectors: FloatArray) -> FloatArray:
        b = vectors.shape[1]
        P = (X @ vectors.reshape(p, N, b).transpose(1, 0, 2).reshape(N, p * b)).reshape(M, p, b)
        along = np.einsum("mk,mkb->mb", fields, P)
        R = d_perp[:, :, np.newaxis] * P + weighted_fields[:, :, np.newaxis] * along[:, np.newaxis, :]
        return np.asarray((X.T @ R.reshape(M, p * b)).reshape(N, p, b).transpose(1, 0, 2).reshape(p * N, b))

    return LinearOperator(
        (p * N, p * N), matvec=matvec, rmatvec=matvec, matmat=matmat, rmatmat=matmat, dtype=np.float64
    )
