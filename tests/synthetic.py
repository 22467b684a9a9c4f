"""Sweeps like those read from a store, made in memory with planted thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from bendscape.analysis.estimate.critical import critical_point
from bendscape.core.quadratic.model import EDGE_KINDS, TRANSITION_KINDS, Model
from bendscape.core.quadratic.theory.bulk import left_edge
from bendscape.core.quadratic.theory.outlier import asymptotics, transition

MEASURED = {
    "eigval_min": "lowest eigenvalue",
    "eigval_second": "second lowest eigenvalue",
    "overlap_sq": "squared overlap of the lowest eigenvector",
    "overlap_sq_space": "mean squared overlap of the lowest p p* eigenvectors",
    "edge_sample": "edge of this sample's labels",
    "outlier_sample": "outlier of this sample's labels",
    "overlap_sq_sample": "squared overlap of this sample's labels",
    "alpha_realised": "M / N",
    "residual": "residual of the eigenpair",
}
CAMPAIGN = '[campaign]\nname = "planted"\n\n[grid]\np = [1]\n'


def frame(
    p: Sequence[int],
    p_star: Sequence[int],
    a: Sequence[float],
    seeds: Mapping[int, int],
    *,
    alpha: Sequence[float] | npt.NDArray[np.float64] | None = None,
    alpha_factor: Sequence[float] | npt.NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """A dataset with coordinates and theory in place and every cell absent."""
    loads = np.asarray(alpha if alpha_factor is None else alpha_factor, dtype=np.float64)
    dim = "alpha" if alpha_factor is None else "alpha_factor"
    sizes, longest = sorted(seeds), max(seeds.values())
    points, shape = (
        (len(p), len(p_star), len(a)),
        (len(p), len(p_star), len(a), len(loads), len(seeds), longest),
    )
    names, at_point = ("p", "p_star", "a", dim, "N", "seed"), ("p", "p_star", "a")
    ds = xr.Dataset(
        coords={
            "p": np.asarray(p, np.int64),
            "p_star": np.asarray(p_star, np.int64),
            "a": np.asarray(a, np.float64),
            dim: loads,
            "N": np.asarray(sizes, np.int64),
            "seed": np.arange(longest, dtype=np.int64),
        }
    )
    ds = ds.assign_coords(n_seeds=("N", np.asarray([seeds[N] for N in sizes], np.int64)))
    theory = {
        name: np.full((*points, len(loads)), np.nan)
        for name in ("lambda_minus", "lambda_star", "overlap_sq_theory", "alpha")
    }
    edge, kind = np.zeros((*points, len(loads)), np.int8), np.zeros(points, np.int8)
    alpha_bbp, alpha_sharp = np.zeros(points), np.zeros(points)
    for i, j, k in np.ndindex(*points):
        model = Model(int(p[i]), int(p_star[j]), float(a[k]))
        at_bbp = transition(model)
        alpha_bbp[i, j, k], alpha_sharp[i, j, k] = at_bbp.alpha_bbp, at_bbp.alpha_sharp
        kind[i, j, k] = TRANSITION_KINDS.index(at_bbp.kind)
        theory["alpha"][i, j, k] = loads if alpha_factor is None else loads * at_bbp.alpha_bbp
        for n, load in enumerate(theory["alpha"][i, j, k]):
            at = asymptotics(model, float(load))
            edge[i, j, k, n] = EDGE_KINDS.index(at.edge)
            theory["lambda_minus"][i, j, k, n] = at.lambda_minus
            theory["lambda_star"][i, j, k, n] = at.lambda_star
            theory["overlap_sq_theory"][i, j, k, n] = at.overlap_sq
    if alpha_factor is not None:
        ds = ds.assign_coords(alpha=((*at_point, dim), theory["alpha"]))
        ds.attrs["around"] = "alpha_bbp"
    ds["alpha_bbp"], ds["alpha_sharp"] = (at_point, alpha_bbp), (at_point, alpha_sharp)
    ds["transition"] = (
        at_point,
        kind,
        {"flag_values": np.arange(2, dtype=np.int8), "flag_meanings": " ".join(TRANSITION_KINDS)},
    )
    ds["edge"] = (
        (*at_point, dim),
        edge,
        {"flag_values": np.arange(2, dtype=np.int8), "flag_meanings": " ".join(EDGE_KINDS)},
    )
    for name in ("lambda_minus", "lambda_star", "overlap_sq_theory"):
        ds[name] = (*at_point, dim), theory[name]
    for name, words in MEASURED.items():
        ds[name] = names, np.full(shape, np.nan), {"long_name": words, "units": "1"}
    ds["n_matvecs"] = names, np.zeros(shape, np.int64)
    ds["status"] = names, np.zeros(shape, np.int8)
    ds.attrs |= {
        "campaign": CAMPAIGN,
        "name": "planted",
        "kernel": "hessian",
        "kernel_version": 1,
        "entropy": "20261122",
        "spec_hash": "0123456789abcdef",
        "code_version": "0.1.0",
        "packages": '{"numpy": "2.4.6", "scipy": "1.17.1"}',
        "created": "2026-11-22T15:00:00+00:00",
        "bendscape_store_version": 1,
    }
    return with_coverage(ds)


def with_coverage(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with its coverage computed anew from the status."""
    planned = ds["seed"] < ds["n_seeds"]
    return ds.assign(coverage=(ds["status"] == 1).sum("seed") / planned.sum("seed"))


def planted(
    p: Sequence[int] = (1,),
    p_star: Sequence[int] = (1,),
    a: Sequence[float] = (0.7,),
    seeds: Mapping[int, int] | None = None,
    *,
    alpha: Sequence[float] | npt.NDArray[np.float64] | None = None,
    alpha_factor: Sequence[float] | npt.NDArray[np.float64] | None = None,
    overlap_crossing: float | None = None,
    gap_crossing: float | None = None,
    gap_sample_crossing: float | None = None,
    entropy: int = 0,
) -> xr.Dataset:
    """A complete sweep whose mean curves cross exactly at the realised loads given, alpha_bbp where none is.

    N^(1/3) <overlap_sq_space> = overlap_level softplus(1.4 w)/log 2, w = (alpha - overlap_crossing)
    N^(1/3)/width, with gamma noise; both gaps are straight lines in alpha, with normal noise of size N^(-1/2)
    that eigval_min shares with edge_sample."""
    if alpha is None and alpha_factor is None:
        alpha_factor = np.linspace(0.6, 1.6, 21)
    seeds = {128: 64, 512: 32} if seeds is None else seeds
    ds = frame(p, p_star, a, seeds, alpha=alpha, alpha_factor=alpha_factor)
    rng = np.random.default_rng([20261122, entropy])
    for index in np.ndindex(ds["alpha_bbp"].shape):
        point = dict(zip(("p", "p_star", "a"), index, strict=True))
        bbp = float(ds["alpha_bbp"][point])
        model = Model(int(ds["p"][index[0]]), int(ds["p_star"][index[1]]), float(ds["a"][index[2]]))
        scales = critical_point(model)
        level, width = np.nan_to_num(scales.overlap_level, nan=0.5), np.nan_to_num(scales.width, nan=5.0)
        nominal = (
            ds["alpha"].isel({dim: i for dim, i in point.items() if dim in ds["alpha"].dims}).values[:, None]
        )
        for k, (N, count) in enumerate(sorted(seeds.items())):
            load = np.round(nominal * N) / N
            lambda_minus = np.array([[left_edge(model, x).lambda_minus] for x in load[:, 0]])
            shape = (len(load), count)
            w = (load - (bbp if overlap_crossing is None else overlap_crossing)) * N ** (1 / 3) / width
            mean = level * N ** (-1 / 3) * np.logaddexp(0, 1.4 * w) / np.log(2)
            space = mean * rng.gamma(2.0, 0.5, shape)
            shared = rng.normal(0.0, 1.0 / np.sqrt(N), shape)
            gap = 0.3 * (load - (bbp if gap_crossing is None else gap_crossing))
            gap_sample = 0.3 * (load - (bbp if gap_sample_crossing is None else gap_sample_crossing))
            eigval_min = lambda_minus - gap + shared + rng.normal(0.0, 0.3 / np.sqrt(N), shape)
            values = {
                "overlap_sq_space": space,
                "overlap_sq": space * 1.05,
                "overlap_sq_sample": space * 0.9,
                "eigval_min": eigval_min,
                "eigval_second": eigval_min + N ** (-2 / 3),
                "edge_sample": lambda_minus - gap + shared + gap_sample,
                "outlier_sample": np.full(shape, np.nan),
                "alpha_realised": load + np.zeros(shape),
                "residual": np.full(shape, 1e-12),
                "n_matvecs": np.full(shape, 300),
                "status": np.ones(shape, np.int8),
            }
            for name, value in values.items():
                ds[name].values[(*index, slice(None), k, slice(0, count))] = value
    return with_coverage(ds)


def approaching_edge(
    model: Model,
    seeds: Mapping[int, int],
    distance: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    alpha: npt.NDArray[np.float64],
    noise: float = 2.5,
    labels: float = 0.0,
    realised: bool = True,
    entropy: int = 0,
) -> xr.Dataset:
    """A complete sweep of one model with <eigval_min> = lambda_minus + distance(N) at the realised alpha, or
    at alpha itself and without alpha_realised.

    The noise is normal with standard deviation noise N^(-1/2); of its variance the share ``labels`` is common
    with edge_sample, whose mean is lambda_minus."""
    ds = frame((int(model.p),), (model.p_star,), (model.a,), seeds, alpha=alpha)
    rng = np.random.default_rng([20261122, entropy])
    for k, (N, count) in enumerate(sorted(seeds.items())):
        edge, load = ds["lambda_minus"].values[0, 0, 0, :, None], np.round(alpha * N) / N
        if realised:
            edge = np.array([[left_edge(model, x).lambda_minus] for x in load])
        shared, own = noise / np.sqrt(N) * rng.standard_normal((2, len(load), count))
        values = {
            "eigval_min": edge
            + distance(np.array(float(N)))
            + np.sqrt(labels) * shared
            + np.sqrt(1 - labels) * own,
            "edge_sample": edge + np.sqrt(labels) * shared,
            "alpha_realised": load[:, None] + np.zeros(shared.shape),
            "status": np.ones(shared.shape, np.int8),
        }
        for name, value in values.items():
            ds[name].values[0, 0, 0, :, k, :count] = value
    return with_coverage(ds if realised else ds.drop_vars("alpha_realised"))
