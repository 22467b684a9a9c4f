"""Descent on data that are there: one pass over X gives loss and force."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt

from bendscape.core.quadratic.descent.landscape import Evaluation, LongArray, on_spheres
from bendscape.core.quadratic.sampling.hessian import Instance
from bendscape.core.quadratic.sampling.inputs import Precision, RealArray, row_blocks, rows_of_block
from bendscape.core.quadratic.sampling.products import hessian_product

FloatArray = npt.NDArray[np.float64]

_BLOCK_BYTES = 2**20
"""Rows of X that are multiplied with the weights and, transposed, with the pulls while in the cache."""


class ExplicitData:
    """One instance with its data, kept or drawn again for every pass (any law of the inputs).

    Parameters
    ----------
    instance : Instance
        From :func:`bendscape.core.quadratic.sampling.hessian.sample_instance`.
    precision : {"float64", "float32"}
        Type of the products with X; sums over its blocks and the weights are in double precision.

    Notes
    -----
    An evaluation costs 4 p M N operations in one pass over X. Accuracy of the force relative to its sum of
    absolute terms: 1e-15, or 1e-7 in single precision. Held by ``tests/test_descent.py`` against finite
    differences of the loss.
    """

    def __init__(self, instance: Instance, precision: Precision = "float64") -> None:
        self.instance, self.precision = instance, precision
        self.model, self.N, self.M = instance.model, instance.N, len(instance.inputs)
        self.rounding = float(np.finfo(precision).eps)
        self.students, self.teachers = instance.students, instance.teachers
        self.y: LongArray = instance.y[np.newaxis].astype(precision, copy=False)

    @property
    def directions(self) -> int:
        """All of R^N."""
        return self.N

    def evaluate(self, w: FloatArray) -> Evaluation:
        """Loss and force at weights w, shape (p, N)."""
        p = len(w)
        W = (w / math.sqrt(self.N)).astype(self.precision)
        fields = np.empty((1, p, self.M), dtype=self.precision)
        yhat = np.empty((1, self.M), dtype=self.precision)
        y, a = self.y[0], self.model.a
        downhill = np.zeros((p, self.N))
        loss = 0.0
        step = max(1, min(rows_of_block(self.N), _BLOCK_BYTES // (self.N * W.itemsize)))
        for first, block in row_blocks(self.instance.inputs, self.precision):
            part = np.zeros((p, self.N), dtype=self.precision)
            for i in range(0, len(block), step):
                X = block[i : i + step]
                at = slice(first + i, first + i + len(X))
                here = self._products(W, X.T)
                fields[0, :, at] = here
                np.einsum("kr,kr->r", here, here, out=yhat[0, at])
                yhat[0, at] *= 1 / p
                miss = y[at] - yhat[0, at]
                pull = miss / (a + y[at])
                loss += float(miss @ pull) / 2
                part += self._products(pull * here, X)
            downhill += part
        force, multiplier = on_spheres(downhill * (2 / (p * math.sqrt(self.N))), w)
        return Evaluation(force, loss / self.N, multiplier, fields, yhat)

    @staticmethod
    def _products(rows: RealArray, matrix: RealArray) -> RealArray:
        """Products of p rows with a matrix; one row as a vector, for which BLAS copies nothing."""
        products: RealArray = (rows[0] @ matrix)[np.newaxis] if len(rows) == 1 else rows @ matrix
        return products

    def hessian_times(self, here: Evaluation, v: FloatArray, *, once: bool = False) -> FloatArray:
        """H v for v of shape (p, N), with the Euclidean Hessian of L where ``here`` was evaluated.

        ``once`` is for revealed data and changes nothing here.
        """
        product = hessian_product(self._instance_at(here), self.precision)
        return product(v.reshape(-1, 1)).reshape(v.shape)

    def _instance_at(self, here: Evaluation) -> Instance:
        """The instance with the pre-activations of another point; its students are not used."""
        fields = np.ascontiguousarray(here.fields[0].T, dtype=np.float64)
        yhat = here.yhat[0].astype(np.float64)
        old = self.instance
        return Instance(old.model, old.inputs, old.students, old.teachers, fields, old.y, yhat)

    def fork(self) -> AbstractContextManager[None]:
        """Nothing to forget: products reveal nothing."""
        return nullcontext()
