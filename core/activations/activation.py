"""Activations by name, and the network whose student and teacher use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bendscape.core.errors import ParameterError, as_integer, as_positive, as_real

FloatArray = npt.NDArray[np.float64]
Function = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Activation:
    """One activation sigma with what the Hessian needs of it.

    Parameters
    ----------
    value, slope, curvature : callable
        sigma, sigma' and sigma'', elementwise.
    even : bool
        Whether sigma(-x) = sigma(x).
    least, most : float
        Infimum and supremum of sigma.
    """

    value: Function
    slope: Function
    curvature: Function
    even: bool
    least: float
    most: float


ACTIVATIONS: dict[str, Activation] = {
    "quadratic": Activation(
        lambda x: x * x, lambda x: 2 * x, lambda x: np.full_like(x, 2.0), True, 0.0, math.inf
    ),
    "log_cosh": Activation(
        lambda x: np.logaddexp(x, -x) - math.log(2),
        np.tanh,
        lambda x: 1 - np.tanh(x) ** 2,
        True,
        0.0,
        math.inf,
    ),
    "sqrt": Activation(
        lambda x: np.sqrt(1 + x * x),
        lambda x: x / np.sqrt(1 + x * x),
        lambda x: (1 + x * x) ** -1.5,
        True,
        1.0,
        math.inf,
    ),
    "gauss": Activation(
        lambda x: -2 * np.expm1(-x * x / 2),
        lambda x: 2 * x * np.exp(-x * x / 2),
        lambda x: 2 * (1 - x * x) * np.exp(-x * x / 2),
        True,
        0.0,
        2.0,
    ),
    "quartic": Activation(lambda x: x**4, lambda x: 4 * x**3, lambda x: 12 * x * x, True, 0.0, math.inf),
    "softplus": Activation(
        lambda x: np.logaddexp(x, 0.0), expit, lambda x: expit(x) * expit(-x), False, 0.0, math.inf
    ),
    "shifted_quadratic": Activation(
        lambda x: x * x / 2 + x, lambda x: x + 1, np.ones_like, False, -0.5, math.inf
    ),
    "tanh": Activation(
        np.tanh,
        lambda x: 1 - np.tanh(x) ** 2,
        lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
        False,
        -1.0,
        1.0,
    ),
    "sigmoid": Activation(
        expit,
        lambda x: expit(x) * expit(-x),
        lambda x: expit(x) * expit(-x) * (expit(-x) - expit(x)),
        False,
        0.0,
        1.0,
    ),
}
"""By name: x^2, log cosh x, sqrt(1 + x^2), 2(1 - exp(-x^2/2)), x^4, log(1 + e^x), x^2/2 + x, tanh x,
1/(1 + e^-x)."""


@dataclass(frozen=True)
class Network:
    """Student and teacher of one hidden layer with given activations.

    yhat = (1/p) sum_k sigma(lambda_k), y = (1/p_star) sum_l sigma*(u_l); the loss of one sample is
    (1/2) (y - yhat)^2 / (a + y).

    Parameters
    ----------
    p : int or math.inf
        Hidden units of the student, >= 1; infinite for theory only.
    p_star : int
        Hidden units of the teacher, >= 1.
    a : float
        Offset in the denominator of the loss, > 0.
    activation, teacher_activation : str
        Names in ``ACTIVATIONS``.

    Raises
    ------
    ParameterError
        Unknown activation, or a teacher's output that can reach -a: the weights of the samples are then not
        bounded below, and the spectrum has no left edge.
    """

    p: int | float
    p_star: int
    a: float
    activation: str = "quadratic"
    teacher_activation: str = "quadratic"

    def __post_init__(self) -> None:
        if as_real(self.p) != math.inf:
            object.__setattr__(self, "p", as_integer("p", self.p, 1, "an integer >= 1, or inf"))
        object.__setattr__(self, "p_star", as_integer("p_star", self.p_star, 1))
        object.__setattr__(self, "a", as_positive("a", self.a))
        for name in ("activation", "teacher_activation"):
            if getattr(self, name) not in ACTIVATIONS:
                raise ParameterError(name, getattr(self, name), "one of " + ", ".join(ACTIVATIONS))
        if ACTIVATIONS[self.teacher_activation].least + self.a <= 0:
            raise ParameterError(
                "teacher_activation",
                self.teacher_activation,
                f"an activation above -a = {-self.a:g}",
                "the Hessian's spectrum has no left edge otherwise; raise a",
            )

    @property
    def student(self) -> Activation:
        """The student's activation."""
        return ACTIVATIONS[self.activation]

    @property
    def teacher(self) -> Activation:
        """The teacher's activation."""
        return ACTIVATIONS[self.teacher_activation]
