"""Error estimates of the theory's results, propagated from the averages through the roots, and the warning.

A quantity of the theory is an expression in gamma and the averages there, and gamma is often the root of an
equation in the same averages. To first order its error is the sum of two parts: the effect of the error of
each average at fixed gamma, and the effect of the error of gamma. The latter is the error of the equation
divided by its slope, so that a badly conditioned root is visible. The estimates are absolute, and meant as
bounds.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bendscape.core.errors import PrecisionWarning
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.integrals import Averages, averages_errors

TOLERANCE = 1e-10
"""Relative error estimate above which a :class:`PrecisionWarning` is raised."""

_ARITHMETIC = 8 * sys.float_info.epsilon  # relative rounding of an expression, and a root's last step
_RELATIVE_STEP = 1e-6  # of the central difference in gamma: errors need only two digits of a slope

Expression = Callable[[complex, Averages], complex]


class Known(NamedTuple):
    """Averages at one gamma, with the errors of both: numbers, or arrays with one element for each model."""

    gamma: Any
    gamma_error: Any
    values: Any  # Averages, like the next two, or a named tuple that has their fields
    errors: Any
    prime: Any


def known_at(model: Model, gamma: complex, values: Averages, *, ray: float = 0.0) -> Known:
    """The averages ``values`` at an exact gamma, with their errors (``ray`` as for ``averages``)."""
    errors, prime = averages_errors(model, gamma, values, ray=ray)
    return Known(gamma, 0.0, values, errors, prime)


def known_at_root(
    model: Model, gamma: complex, values: Averages, equation: Expression, *, ray: float = 0.0
) -> Known:
    """The averages ``values`` at a gamma computed as the zero of ``equation``, with the errors of both."""
    return as_root(known_at(model, gamma, values, ray=ray), equation)


def as_root(exact: Known, equation: Expression) -> Known:
    """The averages and errors at an exact gamma, with gamma now taken as a computed zero of ``equation``."""
    slope = abs(_slope(exact, equation))
    shift = _from_averages(exact, equation) / slope if np.all(slope) else math.inf
    return exact._replace(gamma_error=shift + _ARITHMETIC * abs(exact.gamma))


def error_of(known: Known, expression: Expression) -> float:
    """Error estimate of an expression in gamma and the averages there, absolute."""
    rounding = _ARITHMETIC * abs(expression(known.gamma, known.values))
    error = rounding + _from_averages(known, expression)
    if np.any(known.gamma_error):
        error += known.gamma_error * abs(_slope(known, expression))
    return error


def _from_averages(known: Known, expression: Expression) -> float:
    """Effect of the errors of the averages on an expression; imaginary errors are those of derivatives."""
    here, total = expression(known.gamma, known.values), 0.0
    for field, error in known.errors._asdict().items():
        for shift in (error.real, 1j * error.imag):
            if np.any(shift):
                moved = known.values._replace(**{field: getattr(known.values, field) + shift})
                total += abs(expression(known.gamma, moved) - here)
    return total


def _slope(known: Known, expression: Expression) -> complex:
    """Total derivative of an expression in gamma, including that of the averages."""
    h = _RELATIVE_STEP * abs(known.gamma)

    def shifted(by: float) -> complex:
        moved = {
            field: value + by * getattr(known.prime, field) for field, value in known.values._asdict().items()
        }
        return expression(known.gamma + by, known.values._replace(**moved))

    slope: complex = (shifted(h) - shifted(-h)) / (2 * h)
    return slope


def warn_of_lost_precision(
    model: Model | str, unit: float | None = None, **quantities: tuple[float, float]
) -> None:
    """Give one PrecisionWarning that names the quantities, given as (value, error), beyond the tolerance.

    Errors are relative to the value; those of eigenvalues (lambda_...), which may vanish, to the scale of the
    spectrum where that is larger: ``unit``, or 2/p of the model.
    """
    if not isinstance(model, str):
        unit = 2 / model.p
    scale = {name: unit or 0.0 if name.startswith("lambda") else 0.0 for name in quantities}
    lost = [
        f"{name} = {value:.12g} +- {error:.1g}"
        for name, (value, error) in quantities.items()
        if not (math.isnan(value) or error <= TOLERANCE * max(abs(value), scale[name]))
    ]
    if lost:
        warnings.warn(
            f"{', '.join(lost)} of {model}: error estimate above {TOLERANCE:g} relative",
            PrecisionWarning,
            stacklevel=3,
        )
