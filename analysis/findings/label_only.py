"""Theory of the label-only methods beside the cells of a store that measured them; each point is computed
when it is read, and cached."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.cells import Lazy, Picks
from bendscape.core.errors import unwarned
from bendscape.core.quadratic.theory.label_only import spectral_asymptotics, spectral_transition
from bendscape.core.quadratic.theory.outlier import Asymptotics
from bendscape.sweep.kernels.label_only import WEIGHTS

FIELDS = {
    "lambda_minus": ("lambda_minus", "left edge of the bulk of the label-only matrix"),
    "lambda_star": ("lambda_star", "outlier of the label-only matrix; NaN where there is none"),
    "overlap_sq_theory": ("overlap_sq", "squared overlap of that outlier; NaN where there is none"),
}
"""Variables of the theory for each choice of weights: field and meaning."""

MEASURED = {f"overlap_sq_{suffix}": suffix for suffix in WEIGHTS}
"""What a kernel measures for each choice of weights."""


@lru_cache(maxsize=2**16)
def label_only_asymptotics(weights: str, p_star: int, a: float, alpha: float) -> Asymptotics:
    """Edge, outlier and overlap for the named weights; see
    :func:`bendscape.core.quadratic.theory.label_only.spectral_asymptotics`."""
    with unwarned():
        return spectral_asymptotics(p_star, WEIGHTS[weights][1](a), alpha)


@lru_cache(maxsize=2**12)
def label_only_threshold(weights: str, p_star: int, a: float) -> float:
    """Threshold for the named weights; see
    :func:`bendscape.core.quadratic.theory.label_only.spectral_transition`."""
    with unwarned():
        return spectral_transition(p_star, WEIGHTS[weights][1](a)).alpha_bbp


class _Points(Lazy):
    """One number of the theory at the points of a dataset: the values of p_star, a and alpha, each with the
    dimensions that it depends on."""

    def __init__(
        self, suffix: str, field: str, shape: tuple[int, ...], of: list[tuple[list[int], NDArray[Any]]]
    ) -> None:
        self._suffix, self._field, self._of = suffix, field, of
        self.dtype, self.shape = np.dtype("float64"), shape

    def block(self, picks: Picks) -> NDArray[Any]:
        block = np.empty([len(pick) for pick in picks])
        for place, at in zip(np.ndindex(block.shape), product(*picks), strict=True):
            p_star, a, alpha = (values[tuple(at[k] for k in dims)].item() for dims, values in self._of)
            found = label_only_asymptotics(self._suffix, p_star, a, alpha)
            block[place] = getattr(found, self._field)
        return block


def label_only_theory(ds: xr.Dataset) -> xr.Dataset:
    """For each label-only method that was measured, its limit of large N.

    Parameters
    ----------
    ds : xarray.Dataset
        A store as opened, with some of ``MEASURED``.

    Returns
    -------
    xarray.Dataset
        For each choice of weights ``alpha_bbp_<weights>`` over (p_star, a), and the variables of ``FIELDS``
        over the points of ``ds``, computed when they are read. Empty if the labels are noisy.
    """
    if "noise" in ds and ds["noise"].values.any():
        return xr.Dataset()
    points = [dim for dim in ds["status"].dims if dim not in ("N", "seed")]
    shape = tuple(ds.sizes[dim] for dim in points)
    of = [
        ([points.index(dim) for dim in ds[name].dims], ds[name].values) for name in ("p_star", "a", "alpha")
    ]
    found: dict[str, xr.Variable] = {}
    for measured, suffix in MEASURED.items():
        if measured not in ds:
            continue
        words = WEIGHTS[suffix][0]
        values = [
            [label_only_threshold(suffix, p_star, a) for a in ds["a"].values.tolist()]
            for p_star in ds["p_star"].values.tolist()
        ]
        attributes = {"long_name": f"threshold of the label-only method, {words}", "units": "1"}
        found[f"alpha_bbp_{suffix}"] = xr.Variable(("p_star", "a"), values, attributes)
        for name, (field, long_name) in FIELDS.items():
            attributes = {"long_name": f"{long_name}, {words}", "units": "1"}
            lazy = indexing.LazilyIndexedArray(_Points(suffix, field, shape, of))
            found[f"{name}_{suffix}"] = xr.Variable(points, lazy, attributes)
    return xr.Dataset(found)


ANALYSIS = Analysis("label_only", label_only_theory, ("status", tuple(MEASURED)))
