"""Products with the Hessian of one instance, in one pass over its data and without the matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas
from scipy.sparse.linalg import LinearOperator

from bendscape.core.quadratic.sampling.hessian import Instance
from bendscape.core.quadratic.sampling.inputs import Precision, RealArray, row_blocks, rows_of_block

FloatArray = npt.NDArray[np.float64]

_SMALL_PRODUCT = 2**21  # bytes of rows times columns: at this size BLAS still multiplies without packing
_FEWEST_ROWS = 4


def hessian_product(
    instance: Instance, precision: Precision = "float64"
) -> Callable[[FloatArray], FloatArray]:
    """Block product V -> H V in one pass over the data, for any number of vectors.

    (H v)_k = (1/N) sum over blocks of rows X^T [d_perp P_k + s lambda_k sum_l lambda_l P_l], P_k = X v_k: the
    block is still in the cache when its transpose is multiplied.

    Parameters
    ----------
    instance : Instance
        One draw of weights and data, whose inputs may be kept or drawn.
    precision : {"float64", "float32"}
        Type of the products with a block; sums over blocks are in double precision.

    Returns
    -------
    callable
        Takes an array of shape (pN, b) and returns one of the same shape, in double precision.

    Notes
    -----
    Cost 4 p M N operations per vector; memory of one block and 3 p N b numbers. Accuracy relative to the norm
    of H: 1e-14, or in single precision 5e-7, which moves an eigenvalue of order 1 by 1e-6, while it
    fluctuates by more than 1/sqrt(N). The result has the same bits for kept and for drawn data. Held by
    ``tests/test_lanczos.py``.
    """
    p, N = instance.students.shape
    fields = np.ascontiguousarray(instance.fields.T, dtype=precision)
    across = (instance.d_perp / N).astype(precision)
    along_too = np.ascontiguousarray((instance.fields.T * (instance.rank_one_weight / N)), dtype=precision)
    alone = (instance.d_par / N).astype(precision)
    double = precision == "float64"
    gemm = blas.dgemm if double else blas.sgemm

    def weighted(P: RealArray, at: slice) -> RealArray:
        if p == 1:
            P *= alone[at]
            return P
        P = P.reshape(-1, p, P.shape[1])
        onto = np.einsum("kr,jkr->jr", fields[:, at], P)
        P *= across[at]
        P += along_too[:, at] * onto[:, np.newaxis, :]
        return P.reshape(-1, P.shape[2])

    def product(vectors: FloatArray) -> FloatArray:
        b = vectors.shape[1]
        width = p * b
        V = np.ascontiguousarray(vectors.T, dtype=precision).reshape(width, N)
        total = np.zeros((width, N))
        part = total if double else np.zeros((width, N), dtype=np.float32)
        step = max(_FEWEST_ROWS, min(rows_of_block(N), _SMALL_PRODUCT // (N * width * V.itemsize)))
        for first, block in row_blocks(instance.inputs, precision):
            for i in range(0, len(block), step):
                X = block[i : i + step]
                R = weighted(V @ X.T, slice(first + i, first + i + len(X)))
                if width == 1:
                    part += R @ X
                else:
                    gemm(1.0, X.T, R.T, beta=1.0, c=part.T, overwrite_c=1)
            if not double:
                total += part
                part[:] = 0
        return total.reshape(b, p * N).T

    return product


def hessian_operator(instance: Instance) -> LinearOperator:
    """Hessian H as an operator that never forms the matrix: :func:`hessian_product` in double precision.

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
    Accuracy 1e-14 relative to the norm of H; held by ``tests/test_samplers.py`` against
    :func:`dense_hessian`. Source: arXiv:2510.18435.
    """
    product, size = hessian_product(instance), instance.size

    def matvec(vector: FloatArray) -> FloatArray:
        return product(vector.reshape(size, 1))[:, 0]

    return LinearOperator(
        (size, size), matvec=matvec, rmatvec=matvec, matmat=product, rmatmat=product, dtype=np.float64
    )
