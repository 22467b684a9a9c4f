"""Theory and means over seeds for every model of a sweep: the contents of the figures against alpha."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.counts import DONE, realised_alpha
from bendscape.analysis.dataset.curves import Flags, Floats
from bendscape.analysis.dataset.models import MODEL, alpha_axis, map_models, number_output
from bendscape.core.errors import ParameterError, unwarned
from bendscape.core.quadratic.model import TRANSITION_KINDS, Model
from bendscape.core.quadratic.theory import outlier

VARIABLES = ("overlap_sq", "overlap_sq_space", "eigval_min")
"""The variables whose means are taken."""

_FINE = 161
_BESIDE = 1e-8


class Means(NamedTuple):
    """Mean over seeds of one variable, with its standard error and the number of seeds, (N, alpha); nan
    without data."""

    mean: Floats
    error: Floats
    n_seeds: Any


class Panel(NamedTuple):
    """The numbers of one model: theory on a fine grid of alpha, and means over seeds of ``VARIABLES``.
    ``alpha`` are the campaign's values; ``alpha_realised``, (N, alpha), is the abscissa."""

    p: int
    p_star: int
    a: float
    transition: str
    alpha_bbp: float
    alpha_line: Floats
    lambda_minus: Floats
    lambda_star: Floats
    overlap_sq: Floats
    alpha: Floats
    alpha_realised: Floats
    N: list[int]
    measured: Mapping[str, Means]


def means(ds: xr.Dataset) -> xr.Dataset:
    """Means over seeds of every model, alpha and size, with their standard errors.

    mean = sum over done seeds of x / n, error = sqrt(sum (x - mean)^2 / (n (n - 1))).

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not; read in one
        pass of :func:`bendscape.analysis.dataset.models.map_models` when the result is computed.

    Returns
    -------
    xarray.Dataset
        Lazy if ``ds`` is. Over (p, p_star, a, N, alpha), for each of ``VARIABLES``: ``name``, its mean,
        ``name_error`` and ``name_n_seeds``; ``alpha_realised``, the mean of M / N, or alpha without data.
        ``error`` is nan with a single seed, and mean and error are nan with none.

    Notes
    -----
    Held by ``tests/test_figures.py``.
    """
    return means_of(ANALYSIS.sweep(ds), VARIABLES)


def means_of(ds: xr.Dataset, variables: Sequence[str]) -> xr.Dataset:
    """The same of any variables, for a sweep in the form of
    :func:`bendscape.analysis.dataset.analyses.sweep_of_network`."""
    alpha_dim = alpha_axis(ds)
    dims = ("N", alpha_dim)
    outputs = {"alpha_realised": number_output(dims, "number of samples over N")}
    for name in variables:
        outputs[name] = number_output(dims, f"mean of {name}")
        outputs[f"{name}_error"] = number_output(dims, "its standard error")
        outputs[f"{name}_n_seeds"] = number_output(dims, "seeds behind it", np.int64)
    realised = [name for name in ("alpha_realised",) if name in ds]
    of_model = partial(_means_of_model, alpha_dim=alpha_dim, variables=tuple(variables))
    return map_models(ds, of_model, outputs, [*variables, "status", *realised])


def _means_of_model(
    block: xr.Dataset, *, alpha_dim: str, variables: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    block = block.transpose("N", alpha_dim, "seed", missing_dims="ignore")
    found = {"alpha_realised": realised_alpha(block, block["alpha"].values.astype(np.float64))}
    done = block["status"].values == DONE
    for name in variables:
        at = _means(block[name].values, done)
        found |= {name: at.mean, f"{name}_error": at.error, f"{name}_n_seeds": at.n_seeds}
    return found


def panels(ds: xr.Dataset, found: xr.Dataset | None = None) -> list[Panel]:
    """Theory and means for every (p, p_star, a) that has data.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns.
    found : xarray.Dataset, optional
        The result of :func:`means`; computed if not given.

    Returns
    -------
    list of Panel
        In the order of the axes, with the means of ``VARIABLES``. Points lie at the mean of alpha_realised.
    """
    ds = ANALYSIS.sweep(ds)
    alpha_dim = alpha_axis(ds)
    found = (means(ds) if found is None else found).compute()
    theory = ds[["alpha_bbp", "transition"]].compute()
    listed = []
    for index in np.ndindex(*(ds.sizes[dim] for dim in MODEL)):
        point = dict(zip(MODEL, index, strict=True))
        at = found.isel(point).transpose("N", alpha_dim)
        measured = {
            name: Means(*(at[f"{name}{part}"].values for part in ("", "_error", "_n_seeds")))
            for name in VARIABLES
        }
        if not any(mean.n_seeds.any() for mean in measured.values()):
            continue
        model = Model(*(ds[dim].values[place].item() for dim, place in point.items()))
        at_model = {dim: place for dim, place in point.items() if dim in ds["alpha"].dims}
        alpha = ds["alpha"].isel(at_model).values.astype(np.float64)
        alpha_bbp = theory["alpha_bbp"].isel(point).item()
        abscissa = at["alpha_realised"].values
        ends = (min(alpha.min(), abscissa.min()), max(alpha.max(), abscissa.max()))
        line = _theory_line(model, alpha_bbp, *map(float, ends))
        kind = TRANSITION_KINDS[theory["transition"].isel(point).item()]
        head = (int(model.p), model.p_star, model.a, kind, alpha_bbp)
        listed.append(Panel(*head, *line, alpha, abscissa, at["N"].values.tolist(), measured))
    if not listed:
        raise ParameterError(
            "store", ds.attrs.get("name", "this dataset"), "a sweep with at least one cell done"
        )
    return listed


def _means(values: Floats, done: Flags) -> Means:
    done = done & np.isfinite(values)
    n = done.sum(axis=2)
    blank = np.full(n.shape, math.nan)
    mean = np.divide(np.where(done, values, 0.0).sum(axis=2), n, out=blank.copy(), where=n > 0)
    squares = np.where(done, (values - mean[..., None]) ** 2, 0.0).sum(axis=2)
    return Means(mean, np.sqrt(np.divide(squares, n * (n - 1.0), out=blank.copy(), where=n > 1)), n)


@lru_cache(maxsize=1024)
def _theory_line(
    model: Model, alpha_bbp: float, first: float, last: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Alpha from first to last with lambda_minus, lambda_star and overlap_sq there; alpha_bbp itself and the
    point just above it show the jump."""
    line = np.linspace(first, last, _FINE)
    line = line[abs(line / alpha_bbp - 1) > _BESIDE]
    if line[0] < alpha_bbp < line[-1]:
        line = np.sort(np.append(line, [alpha_bbp, alpha_bbp * (1 + _BESIDE)]))
    with unwarned():
        theory = [outlier.asymptotics(model, load) for load in line]
    return (
        line,
        np.array([at.lambda_minus for at in theory]),
        np.array([at.lambda_star for at in theory]),
        np.array([at.overlap_sq if at.alpha > alpha_bbp else 0.0 for at in theory]),
    )


ANALYSIS = Analysis("means", means, ("status", *VARIABLES, "alpha_bbp", "transition"))
