"""Thresholds of many models at once: the transition on the outer product of axes of p, p_star and a.

The equations are those of :mod:`bendscape.core.quadratic.theory.outlier`, the averages those of
:mod:`bendscape.core.quadratic.theory.many`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import elementwise

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import TRANSITION_KINDS, Model
from bendscape.core.quadratic.theory.branch import load_on_branch, overlap_sq_on_branch, psi
from bendscape.core.quadratic.theory.bulk import map_error, reduced_map
from bendscape.core.quadratic.theory.integrals import Rule
from bendscape.core.quadratic.theory.many import (
    CHUNK,
    REAL,
    Floats,
    Models,
    after_last_step,
    approach,
    averages,
    known,
    known_at_zero,
    models_of,
    newton_step,
)
from bendscape.core.quadratic.theory.precision import Known, error_of
from bendscape.core.quadratic.theory.windows import paths, principal_value_and_complex, tangent_and_error

BLOCK = 4096  # models worked on together: temporaries are some hundred doubles for each model

_COARSE_CLOSE = 1e-3  # relative: Newton's next step then lands within the coarse rule's own error
_COARSE_LOG_A = 1e-6
_FINE_CLOSE = 1e-9  # relative: the last step is taken to second order


class Map(NamedTuple):
    """The arguments of ``xarray.Dataset``, in its order: ``xr.Dataset(*transition_map(...))``.

    ``data_vars`` and ``coords`` map a name to (dims, array, attrs).
    """

    data_vars: dict[str, tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]]
    coords: dict[str, tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]]
    attrs: dict[str, Any]


def transitions(models: Models, tricritical: Floats | None = None) -> dict[str, npt.NDArray[Any]]:
    """The fields of ``bendscape.core.quadratic.theory.outlier.Transition`` of checked models as flat arrays.

    The kind is int8. With the tricritical offset of every model also alpha_0 by its three definitions.
    """
    parts = [
        _transitions(models.at(block), tricritical is not None) for block in _slices(len(models.p), BLOCK)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if tricritical is not None:
        _add_windows(found, models, tricritical)
    return found


def transitions_of_models(
    p: npt.ArrayLike,
    p_star: npt.ArrayLike,
    a: npt.ArrayLike,
    noise: npt.ArrayLike = 0.0,
    *,
    alpha_0: bool = False,
) -> dict[str, npt.NDArray[Any]]:
    """The transition of each of a list of models: thresholds, kind, edge and jump.

    The quantities and equations of :func:`transition_map`, without its outer product.

    Parameters
    ----------
    p, p_star, a, noise : array_like
        Of at most one dimension, broadcast against each other, in any order; values as for
        :class:`bendscape.core.quadratic.model.Model`. p may hold inf.
    alpha_0 : bool
        Also the three definitions of alpha_0: ten times the work for discontinuous models.

    Returns
    -------
    dict
        Arrays of shape (models,), including errors, under the names used by ``transition_map``.

    Raises
    ------
    ParameterError
        A value outside its domain.

    Notes
    -----
    Limits and accuracy: as for ``transition_map``. Except for alpha_0, the values of a model do not depend on
    the other models, to the last bit. Some 20,000 models a second on one core, a tenth of that with
    ``alpha_0``; fastest where many differ only in a. Memory in addition to arguments and result: as much
    again, and twenty megabytes. Held by ``tests/test_points.py``. Source: arXiv:2510.18435.
    """
    models = models_of(p, p_star, a, noise)
    # Neighbours have the same p and similar a: they share integration rules.
    order = np.lexsort((models.noise, models.p_star, models.a, models.p))
    sorted_models = models.at(order)
    tricritical = None
    if alpha_0:
        columns = [sorted_models.p, sorted_models.p_star, sorted_models.noise]
        pairs, pair = np.unique(columns, axis=1, return_inverse=True)
        of_pairs = Models(pairs[0], pairs[1], np.ones_like(pairs[0]), pairs[2])
        tricritical = _tricritical_offsets(of_pairs)[pair]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return {name: values[back] for name, values in transitions(sorted_models, tricritical).items()}


def _transitions(models: Models, alpha_0: bool) -> dict[str, npt.NDArray[Any]]:
    """A block of :func:`transitions`, of alpha_0 only the tangent."""
    gamma: Any = np.ones_like(models.a)
    known_at_one = known(models, gamma, averages(models, gamma, REAL.fine), REAL)
    at_one = known_at_one.values
    continuous = np.real(psi(gamma, at_one)) >= 0
    # As if all were discontinuous; models with a sharp edge are overwritten below.
    found: dict[str, Any] = _on_branch(models, known_at_one)
    found["overlap_sq_jump"] = overlap_sq_on_branch(gamma, at_one)
    found["overlap_sq_jump_error"] = error_of(known_at_one, overlap_sq_on_branch)
    found["alpha_sharp"] = 1 / at_one.B
    found["alpha_sharp_error"] = error_of(known_at_one, lambda gamma, at: 1 / at.B)
    if alpha_0:
        found["alpha_0_tangent"], found["alpha_0_tangent_error"] = tangent_and_error(known_at_one)

    sharp = np.flatnonzero(continuous)
    if sharp.size:
        chosen = models.at(sharp)
        bracket = np.zeros(sharp.size), np.ones(sharp.size)
        start = 1 + newton_step(gamma, at_one)[sharp]
        start = np.where(start > 0, start, 0.5)
        rough, _, step = approach(chosen, start, bracket, REAL.coarse, _COARSE_CLOSE * start)
        start = np.clip(rough + step, rough / 2, 1.0)
        here = approach(chosen, start, bracket, REAL.fine, _FINE_CLOSE * start)
        root = known_at_zero(chosen, *after_last_step(*here), REAL)
        for name, values in _on_branch(chosen, root).items():
            found[name][sharp] = values
        found["overlap_sq_jump"][sharp] = found["overlap_sq_jump_error"][sharp] = 0.0
        if alpha_0:
            for suffix in ("", "_error"):
                found[f"alpha_0_tangent{suffix}"][sharp] = found[f"alpha_bbp{suffix}"][sharp]
    kinds = [TRANSITION_KINDS.index(kind) for kind in ("continuous", "discontinuous")]
    found["transition"] = np.where(continuous, *kinds).astype(np.int8)
    return found


def _on_branch(models: Any, at_bbp: Known) -> dict[str, Any]:
    """Quantities that follow from the position of the transition on the branch, with errors."""
    gamma, values = at_bbp.gamma, at_bbp.values
    alpha_bbp: Any = load_on_branch(gamma, values)
    alpha_bbp_error = error_of(at_bbp, load_on_branch)
    along_load = (2 / models.p) * abs(values.A) * alpha_bbp_error
    return {
        "alpha_bbp": alpha_bbp,
        "alpha_bbp_error": alpha_bbp_error,
        "gamma": gamma.copy(),
        "lambda_minus": reduced_map(models, alpha_bbp, gamma, values),
        "lambda_minus_error": map_error(models, alpha_bbp, at_bbp) + along_load,
    }


def _tricritical(models: Models) -> Floats:
    """``a_tricritical`` of flat arrays: the zero of 1 + F/B at gamma = 1, in log a; at p = inf its closed
    form."""
    p, p_star, noise = models.p, models.p_star, models.noise
    a = (1 + noise) ** 2 - 1 + p_star * noise**2 / 2
    finite = np.isfinite(p)
    if not finite.any():
        return np.asarray(a)
    args = (p[finite], p_star[finite], noise[finite])

    def excess(
        log_a: Floats, p: Floats, p_star: Floats, noise: Floats, rule: partial[Rule] = REAL.coarse
    ) -> Floats:
        at_one = averages(Models(p, p_star, np.exp(log_a), noise), np.ones_like(p), rule)
        return np.asarray(1 + at_one.F / at_one.B)

    start = np.zeros_like(args[0])
    bracket = elementwise.bracket_root(excess, start - 1, start + 1, args=args).bracket
    tolerances = {"xatol": _COARSE_LOG_A, "xrtol": 0.0, "fatol": 0.0, "frtol": 0.0}
    found = elementwise.find_root(excess, bracket, args=args, tolerances=tolerances)
    # Two secant steps with the fine rule: errors from 1e-4 and 1e-6 to 1e-10, then to the last digits.
    here = np.where(found.success, found.x, math.nan)
    before = here + 1e-4
    value_before = excess(before, *args, REAL.fine)
    for _ in range(2):
        value = excess(here, *args, REAL.fine)
        slope = (value - value_before) / (here - before)
        before, value_before, here = here, value, here - value / slope
    a[finite] = np.exp(here)
    return np.asarray(a)


def _tricritical_offsets(pairs: Models) -> Floats:
    return np.concatenate([_tricritical(pairs.at(block)) for block in _slices(len(pairs.p), CHUNK)])


def transition_map(
    *,
    p: Iterable[float] | float,
    p_star: Iterable[int] | int,
    a: Iterable[float] | float,
    noise: float = 0.0,
    alpha_0: bool = False,
) -> Map:
    """The transition of every model of a grid: thresholds, kind, edge and jump over (p, p_star, a).

    The quantities of :func:`bendscape.core.quadratic.theory.outlier.transition`, by the same equations:
    psi(gamma) = gamma B + F = 0 in (0, 1) where psi(1) >= 0 (continuous), gamma = 1 otherwise
    (discontinuous), alpha_bbp = -1/(gamma F), alpha_sharp = 1/B(1), lambda_minus = (2/p)(-1/gamma + alpha_bbp
    A), jump psi/(psi - B_y) at gamma = 1.

    Parameters
    ----------
    p, p_star, a : number or iterable of numbers
        The axes, each in the order given, with the domains of :class:`bendscape.core.quadratic.model.Model`;
        p may hold inf.
    noise : float
        Variance of the noise, for every model of the map.
    alpha_0 : bool
        Also the three definitions of :func:`bendscape.core.quadratic.theory.outlier.alpha_0`: ten times the
        work for discontinuous models.

    Returns
    -------
    Map
        ``xr.Dataset(*transition_map(...))`` makes the dataset. On (p, p_star, a): ``alpha_bbp``,
        ``transition`` (int8, with ``flag_values`` and ``flag_meanings``), ``alpha_sharp``, ``gamma``,
        ``lambda_minus`` (in units of the eigenvalues of H), ``overlap_sq_jump`` (limit of overlap_sq from
        above alpha_bbp, 0 when continuous), and with ``alpha_0``: ``alpha_0_principal_value``,
        ``alpha_0_tangent``, ``alpha_0_complex_re``, ``alpha_0_complex_im``. On (p, p_star):
        ``a_tricritical``. nan where a root was not found, or a branch has none. For all except kind, gamma
        and a_tricritical also the absolute error estimate, ``alpha_bbp_error`` and so on;
        ``alpha_0_complex_error`` is for both parts.

    Notes
    -----
    Limits: those of the scalar functions; one element is their value. Accuracy: as estimated, in the same way
    as for the scalar functions but without their warning: look at the errors. Thresholds 1e-11 relative and
    alpha_0 1e-10 for p and p_star up to 512 and p = inf, a from 1e-6 to 1e3, at any distance from
    tricriticality; ``lambda_minus`` and a small jump are differences. Held by ``tests/test_maps.py``. Memory
    in addition to the result: as much again, and a few megabytes. Source: arXiv:2510.18435.
    """
    axes = {
        "p": _axis("p", p, lambda value: Model(value, 1, 1.0).p),
        "p_star": _axis("p_star", p_star, lambda value: Model(1, value, 1.0).p_star),
        "a": _axis("a", a, lambda value: Model(1, 1, value).a),
    }
    shape = tuple(len(values) for values in axes.values())
    columns = np.meshgrid(*(np.asarray(values, dtype=np.float64) for values in axes.values()), indexing="ij")
    noise = Model(1, 1, 1.0, noise).noise
    of_p, of_p_star, of_a = (column.ravel() for column in columns)
    models = Models(of_p, of_p_star, of_a, np.full_like(of_a, noise))
    pairs = models.at(slice(None, None, shape[2]))
    tricritical = _tricritical_offsets(pairs)
    data = transitions(models, np.repeat(tricritical, shape[2]) if alpha_0 else None)
    dims = tuple(axes)
    return Map(
        data_vars={
            **{name: (dims, values.reshape(shape), _attributes(name)) for name, values in data.items()},
            "a_tricritical": (dims[:2], tricritical.reshape(shape[:2]), _attributes("a_tricritical")),
        },
        coords={
            **{name: ((name,), np.array(values), _attributes(name)) for name, values in axes.items()},
            "noise": ((), np.array(noise), _attributes("noise")),
        },
        attrs={"source": "arXiv:2510.18435"},
    )


_LONG_NAMES = {
    "p": "width of the student",
    "p_star": "width of the teacher",
    "a": "constant of the loss",
    "alpha_bbp": "threshold of the teacher's outlier as N goes to infinity",
    "transition": "kind of the transition at alpha_bbp",
    "alpha_sharp": "the left edge is smooth below this alpha and sharp above it",
    "gamma": "reduced Stieltjes variable -2 g/p of the edge at alpha_bbp",
    "lambda_minus": "left edge of the bulk at alpha_bbp",
    "overlap_sq_jump": "squared overlap of the outlier just above alpha_bbp; 0 where continuous",
    "a_tricritical": "the transition is continuous below this a and discontinuous above it",
    "noise": "variance of the noise on the teacher's pre-activations",
    "alpha_0_principal_value": "alpha_0 on the principal-value branch; NaN where that has no zero",
    "alpha_0_tangent": "alpha_0 by the tangent to overlap_sq at alpha_bbp",
    "alpha_0_complex_re": "alpha_0 at the complex zero of the continued branch, real part",
    "alpha_0_complex_im": "alpha_0 at the complex zero of the continued branch, imaginary part",
}


def _attributes(name: str) -> dict[str, Any]:
    of = name.removesuffix("_error")
    if of != name:
        return {"long_name": f"absolute error estimate of {of}, a bound", "units": "1"}
    attributes: dict[str, Any] = {"long_name": _LONG_NAMES[name], "units": "1"}
    if name == "transition":
        attributes["flag_values"] = list(range(len(TRANSITION_KINDS)))
        attributes["flag_meanings"] = " ".join(TRANSITION_KINDS)
    return attributes


def _axis(name: str, values: Any, checked: Callable[[Any], Any]) -> list[Any]:
    given = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if not given:
        raise ParameterError(name, given, "at least one number")
    return [checked(value) for value in given]


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, max(1, length), step))


def _add_windows(data: dict[str, npt.NDArray[Any]], models: Models, tricritical: Floats) -> None:
    """Add alpha_0 where alpha_bbp is discontinuous; elsewhere it is alpha_bbp."""
    for name in ("principal_value", "complex_re"):
        data[f"alpha_0_{name}"] = data["alpha_bbp"].copy()
    for name in ("principal_value", "complex"):
        data[f"alpha_0_{name}_error"] = data["alpha_bbp_error"].copy()
    data["alpha_0_complex_im"] = np.zeros_like(data["alpha_bbp"])
    discontinuous = np.flatnonzero(data["transition"] == TRANSITION_KINDS.index("discontinuous"))
    if not discontinuous.size:
        return
    # For each pair (p, p_star) with one noise, a is followed up to its largest value; the others lie on the
    # way.
    order = np.lexsort((models.a, models.noise, models.p_star, models.p))
    discontinuous = order[np.isin(order, discontinuous)]
    chosen = models.at(discontinuous)
    columns = (chosen.p, chosen.p_star, chosen.noise)
    last = np.append(np.any([of[1:] != of[:-1] for of in columns], axis=0), True)
    pair = np.cumsum(last) - last
    farthest = np.flatnonzero(last)
    for of_pairs in _slices(len(farthest), CHUNK):
        ends = farthest[of_pairs]
        followed = paths(chosen.at(ends), models.a.min(), tricritical[discontinuous[ends]])
        here = np.flatnonzero((pair >= of_pairs.start) & (pair < of_pairs.stop))
        for where in (here[block] for block in _slices(len(here), CHUNK)):
            some = chosen.at(where)
            start = followed.at(pair[where] - of_pairs.start, some.a)
            for name, values in principal_value_and_complex(some, start).items():
                data[f"alpha_0_{name}"][discontinuous[where]] = values
