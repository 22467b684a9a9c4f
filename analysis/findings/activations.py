"""What sweeps of activations show: critical loads without theory's help, and overlaps above the threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.analyses import NETWORK, Analysis, sweep_of_network
from bendscape.analysis.dataset.models import MODEL, alpha_axis
from bendscape.analysis.estimate.edge_fits import LEAST_SEEDS, widened
from bendscape.analysis.estimate.notation import with_error
from bendscape.analysis.findings.overlap_above import ACCURACY
from bendscape.analysis.findings.panels import means_of
from bendscape.analysis.findings.size_pairs import PairLoad, pair_load
from bendscape.core.activations.activation import Network
from bendscape.core.activations.published import TRANSITION_KINDS, is_split

PAIR = ("activation", "teacher_activation")
CELLS = ("overlap_sq", "overlap_sq_space", "overlap_sq_space_relative", "eigval_min")
OF_MODELS = (
    *("alpha_bbp", "alpha_bbp_error", "alpha_bbp_symmetric", "alpha_bbp_relative"),
    *("alpha_0_tangent", "transition"),
)
OF_LOADS = ("lambda_minus", "lambda_star", "overlap_sq_theory", "theory_error")

ABOVE = 1.25
"""Least load, over alpha_bbp, at which overlaps are compared with theory: nearer, finite size dominates."""


TANGENT = 0.15
"""Error of alpha_0 by the tangent, as a share of its distance from alpha_bbp. For the square, the other two
definitions lie up to 0.1 of it away."""


class ActivationModel(NamedTuple):
    """One network of a sweep: its theory, its measured load (None where sizes do not cross), and its overlap
    above the threshold beside theory's (None without such loads)."""

    network: Network
    transition: str
    alpha_bbp: float
    alpha_bbp_error: float
    alpha_bbp_symmetric: float
    alpha_bbp_relative: float
    alpha_0_tangent: float
    load: PairLoad | None
    above: OverlapRatio | None

    @property
    def shown(self) -> float:
        """Theory's load at which sizes within reach show the transition, of which ``shown_error`` is the
        error: alpha_bbp or, for a discontinuous one, about alpha_0 by the tangent."""
        return self.alpha_0_tangent

    @property
    def shown_error(self) -> float:
        """A share of the distance from alpha_bbp to alpha_0; none for a continuous transition."""
        return TANGENT * abs(self.alpha_bbp - self.alpha_0_tangent)

    @property
    def pair(self) -> tuple[str, str]:
        """Activations of student and teacher."""
        return self.network.activation, self.network.teacher_activation


class OverlapRatio(NamedTuple):
    """Measured overlap over theory's for all loads above ``ABOVE`` alpha_bbp together, at the largest size
    measured there; its error, statistical and that of finite size; and the mean of both over the loads."""

    N: int
    loads: int
    ratio: float
    error: float
    measured: float
    theory: float


def activation_means(ds: xr.Dataset) -> xr.Dataset:
    """Means over seeds for every network of a sweep of activations, with their theory.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns for a store of the kernel
        ``activations``, complete or not.

    Returns
    -------
    xarray.Dataset
        Lazy if ``ds`` is. Over (activation, teacher_activation, p, p_star, a, N, alpha) what
        :func:`bendscape.analysis.findings.panels.means_of` returns for ``CELLS``; and the theory of the
        store, ``OF_MODELS`` and ``OF_LOADS``.

    Notes
    -----
    Held by ``tests/test_activation_findings.py``.
    """
    ANALYSIS.check(ds)
    kept = [*CELLS, "status", *(name for name in ("alpha_realised",) if name in ds)]
    cells = ds[kept]
    cells.attrs = {}  # whose campaign names the axes that the parts lack
    names = [np.atleast_1d(ds[name].values).tolist() for name in PAIR]
    rows = []
    for student in names[0]:
        row = []
        for teacher in names[1]:
            part = _one(_one(cells, "activation", student), "teacher_activation", teacher)
            found = means_of(sweep_of_network(part), CELLS)
            beside = [name for name in found.coords if name not in found.dims]
            found = found.reset_coords(beside)[[*found.data_vars, *(n for n in beside if n == "alpha")]]
            row.append(found.expand_dims({"activation": [student], "teacher_activation": [teacher]}))
        rows.append(_joined(row, "teacher_activation"))
    out = _joined(rows, "activation")
    out = out.set_coords("alpha") if "alpha" not in out.dims else out
    of_models, of_loads = ((*PAIR, *MODEL), (*PAIR, *MODEL, alpha_axis(ds)))
    theory = {name: _whole(ds[name], out, of_models) for name in OF_MODELS}
    theory |= {name: _whole(ds[name], out, of_loads) for name in OF_LOADS}
    return out.assign(theory)


def _joined(parts: list[xr.Dataset], dim: str) -> xr.Dataset:
    return xr.concat(parts, dim, data_vars="all", coords="minimal", compat="override", join="exact")


def _one(ds: xr.Dataset, axis: str, value: str) -> xr.Dataset:
    return (ds.sel({axis: value}) if axis in ds.dims else ds).drop_vars(axis)


def _whole(array: xr.DataArray, over: xr.Dataset, own: tuple[str, ...]) -> xr.DataArray:
    """Theory on its own dimensions, where a mask has spread it over the cells; and on axes of one value."""
    spread = [dim for dim in array.dims if dim not in own]
    array = array.max(spread, keep_attrs=True) if spread else array
    missing = {
        dim: np.atleast_1d(over[dim].values)
        for dim in (*PAIR, *MODEL)
        if dim not in array.dims and over.sizes[dim] == 1
    }
    return array.reset_coords(drop=True).expand_dims(missing)


def activation_models(found: xr.Dataset) -> list[ActivationModel]:
    """Every network with a cell done, in the order of the axes.

    The measured load is where the curves N^(1/3) <overlap_sq_space> of the two largest sizes cross
    (:func:`bendscape.analysis.findings.size_pairs.pair_load`): alpha_bbp for a continuous transition; alpha_0
    for a discontinuous one, whose alpha_bbp no size within reach shows. With two sectors the overlap is that
    of the relative one.

    Parameters
    ----------
    found : xarray.Dataset
        What :func:`activation_means` returns, computed.
    """
    rows, alpha_dim = [], alpha_axis(found)
    dims = (*PAIR, *MODEL)
    for index in np.ndindex(*(found.sizes[name] for name in dims)):
        at = found.isel(dict(zip(dims, index, strict=True))).transpose("N", alpha_dim, missing_dims="ignore")
        student, teacher, p, p_star, a = (at[name].item() for name in dims)
        network = Network(p, p_star, a, student, teacher)
        variable = "overlap_sq_space_relative" if is_split(network) else "overlap_sq_space"
        if not at[f"{variable}_n_seeds"].values.any():
            continue
        rows.append(
            ActivationModel(
                network,
                TRANSITION_KINDS[int(at["transition"])],
                float(at["alpha_bbp"]),
                float(at["alpha_bbp_error"]),
                float(at["alpha_bbp_symmetric"]),
                float(at["alpha_bbp_relative"]),
                float(at["alpha_0_tangent"]),
                pair_load(at, variable),
                _above(at, variable),
            )
        )
    return rows


def _above(at: xr.Dataset, variable: str) -> OverlapRatio | None:
    theory = at["overlap_sq_theory"].values
    above = (at["alpha"].values > ABOVE * float(at["alpha_bbp"])) & np.isfinite(theory)
    counts = (at[f"{variable}_n_seeds"].values >= LEAST_SEEDS) & (at[f"{variable}_error"].values > 0)
    use = counts & above
    if not use.any():
        return None
    k = int(np.flatnonzero(use.any(axis=1))[-1])
    N, chosen = int(at["N"].values[k]), use[k]
    measured, expected = at[variable].values[k][chosen].sum(), theory[chosen].sum()
    seeds = zip(
        at[f"{variable}_error"].values[k][chosen],
        at[f"{variable}_n_seeds"].values[k][chosen],
        strict=True,
    )
    statistical = math.sqrt(sum(widened(float(e), int(n) - 1) ** 2 for e, n in seeds)) / expected
    error = math.hypot(statistical, ACCURACY * (128 / N) ** (1 / 3))
    loads = int(chosen.sum())
    return OverlapRatio(N, loads, measured / expected, error, measured / loads, expected / loads)


def families(models: Sequence[ActivationModel]) -> Iterator[list[ActivationModel]]:
    """Groups of at least two measured loads that differ in p alone, in the order of the width."""
    keys = [(of.pair, of.network.p_star, of.network.a) for of in models]
    for key in dict.fromkeys(keys):
        family = [of for of, own in zip(models, keys, strict=True) if own == key and of.load is not None]
        if len(family) > 1:
            yield sorted(family, key=lambda of: of.network.p)


def activation_rows(models: Sequence[ActivationModel]) -> list[dict[str, Any]]:
    """Rows of the table of networks, for JSON: model, theory's thresholds, measured load and overlap."""
    rows = []
    for of in models:
        network, load, above = of.network, of.load, of.above
        rows.append(
            {
                "activation": network.activation,
                "teacher_activation": network.teacher_activation,
                "p": network.p,
                "p_star": network.p_star,
                "a": network.a,
                "transition": of.transition,
                "alpha_bbp": of.alpha_bbp,
                "alpha_bbp_error": of.alpha_bbp_error,
                "alpha_bbp_symmetric": of.alpha_bbp_symmetric,
                "alpha_bbp_relative": of.alpha_bbp_relative,
                "alpha_0_tangent": of.alpha_0_tangent,
                "load": math.nan if load is None else load.load,
                "load_error": math.nan if load is None else load.error,
                "load_sizes": [] if load is None else [load.small, load.large],
                "overlap_sq": math.nan if above is None else above.measured,
                "overlap_sq_theory": math.nan if above is None else above.theory,
                "overlap_ratio_error": math.nan if above is None else above.error,
            }
        )
    return rows


COLUMNS: Mapping[str, str] = {
    "activation": "student",
    "teacher_activation": "teacher",
    "p_star": "p*",
    "a": "a",
    "p": "p",
    "transition": "kind",
    "alpha_bbp": "alpha_bbp",
    "alpha_bbp_symmetric": "symmetric",
    "alpha_bbp_relative": "relative",
    "alpha_0_tangent": "alpha_0, tangent",
    "load": "sizes cross at",
    "load_sizes": "sizes",
    "overlap_sq": "overlap_sq above",
    "overlap_sq_theory": "theory",
}
"""Fields of a row that tables show, with their headings."""


def activation_texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of ``COLUMNS`` as texts."""
    texts = []
    for name in COLUMNS:
        value = row[name]
        if name == "load" and not math.isnan(value):
            texts.append(with_error(value, row["load_error"]))
        elif name == "load_sizes":
            texts.append(", ".join(map(str, value)) or "–")
        elif isinstance(value, float):
            texts.append("–" if math.isnan(value) else f"{value:.4g}" if name == "a" else f"{value:.4f}")
        else:
            texts.append(str(value))
    return tuple(texts)


def render_activations(models: Sequence[ActivationModel]) -> str:
    """The table of networks in Markdown."""
    rows = [tuple(COLUMNS.values()), ("---",) * len(COLUMNS), *map(activation_texts, activation_rows(models))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


ANALYSIS = Analysis(
    "activation_means",
    activation_means,
    ("status", *CELLS, *OF_MODELS, *OF_LOADS),
    {**NETWORK, **dict.fromkeys(PAIR, "model")},
)
