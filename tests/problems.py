"""Models with known answers, and what makes each of them hard.

The answers in ``data/asymptotic_reference.json`` come from an evaluation independent of this package. Every
set there is one problem here; the ``SPOT`` tables add models with separately derived numbers.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendscape.core.quadratic.model import EdgeKind, Model, TransitionKind

REFERENCE = Path(__file__).parent / "data" / "asymptotic_reference.json"


@dataclass(frozen=True)
class Point:
    """Known answers at one load; ``outlier`` says where lambda_star lies."""

    alpha: float
    edge: EdgeKind
    lambda_minus: float
    outlier: str
    lambda_star: float
    overlap_sq: float


@dataclass(frozen=True)
class Problem:
    """One model with its answers."""

    model: Model
    transition: TransitionKind
    alpha_bbp: float
    alpha_sharp: float
    a_tricritical: float
    lambda_minus_at_bbp: float
    overlap_sq_jump: float
    alpha_0: dict[str, float]
    points: tuple[Point, ...]

    @property
    def slug(self) -> str:
        """Readable test id."""
        tags = "".join(f"-{tag}" for tag in sorted(self.tags))
        return f"p{self.model.p}-teacher{self.model.p_star}-a{self.model.a:g}{tags}"

    @property
    def tags(self) -> frozenset[str]:
        """What makes the model hard."""
        hard = {
            "tricritical": abs(self.model.a / self.a_tricritical - 1) < 0.05,
            "divergent": self.model.a <= 0.01,  # averages that diverge as a -> 0
            "wide": self.model.p >= 12,
            "narrow": self.model.p < self.model.p_star,
            "no-zero": math.isnan(self.alpha_0["principal_value"]),
        }
        return frozenset(tag for tag, applies in hard.items() if applies)


def _nan_for_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _read() -> tuple[Problem, ...]:
    return tuple(
        Problem(
            model=Model(known["p"], known["p_star"], known["a"]),
            transition=known["transition"],
            alpha_bbp=known["alpha_bbp"],
            alpha_sharp=known["alpha_sharp"],
            a_tricritical=known["a_tricritical"],
            lambda_minus_at_bbp=known["at_alpha_bbp"]["lambda_minus"],
            overlap_sq_jump=known["at_alpha_bbp"]["overlap_sq"],
            alpha_0=_nan_for_none(known["alpha_0"]),
            points=tuple(Point(**_nan_for_none(point)) for point in known["points"]),
        )
        for known in json.loads(REFERENCE.read_text())["sets"]
    )


PROBLEMS = _read()

SPOT_THRESHOLDS: tuple[tuple[Model, float, TransitionKind], ...] = (
    (Model(1, 1, 0.7), 1.2433879894, "continuous"),
    (Model(1, 1, 1.5), 1.3745292310, "discontinuous"),
    (Model(2, 1, 1.5), 1.3229376071, "discontinuous"),
    (Model(4, 1, 1.5), 1.2889966323, "discontinuous"),
    (Model(3, 1, 0.7), 0.8270708590, "discontinuous"),
    (Model(4, 1, 0.7), 0.8302269200, "discontinuous"),
    (Model(2, 2, 0.5), 2.8265938056, "continuous"),
    (Model(4, 2, 1.5), 2.5779932647, "discontinuous"),
)
"""alpha_bbp to ten digits."""

SPOT_ALPHA_0: tuple[tuple[Model, float, float, float], ...] = (
    (Model(1, 1, 1.5), 1.0964, 1.0842, 1.0978),
    (Model(2, 1, 1.5), 0.8807, 0.9130, 0.9444),
    (Model(4, 1, 1.5), math.nan, 0.8025, 0.8466),
    (Model(3, 1, 0.7), 0.8226, 0.8226, 0.8226),
    (Model(8, 1, 0.7), 0.6858, math.nan, math.nan),  # the other two are not known here
    (Model(4, 2, 1.5), 1.7914, 1.7091, 1.8141),
)
"""alpha_0 by principal value (nan: no zero), tangent and real part of the complex zero, to four decimals."""

SPOT_OUTLIERS: tuple[tuple[Model, float, float, float], ...] = (
    (Model(1, 1, 1.5), 2.0618, -1.6690, 0.1731),
    (Model(2, 1, 1.5), 1.9844, -0.9498, 0.2686),
    (Model(4, 2, 1.5), 3.8670, -0.4815, 0.3479),
)
"""alpha, lambda_star and overlap_sq, to four decimals."""

TRICRITICAL: dict[int, tuple[float, ...]] = {
    1: (1.10876, 0.83039, 0.69364, 0.60331),
    2: (2.16711, 1.22586, 0.96056, 0.81112),
}
"""a_tricritical for p = 1, 2, 3, 4 by p_star, to five decimals."""

THRESHOLDS_AT_SIZE: tuple[tuple[float, float], ...] = (
    (1e4, 1.0964),
    (1e7, 1.0964),
    (1e8, 1.131),
    (1e10, 1.191),
    (1e16, 1.269),
    (1e24, 1.307),
)
"""N and alpha_bbp(N) of Model(1, 1, 1.5), to three decimals."""

CROSSOVER_LOG10: tuple[tuple[Model, float], ...] = (
    (Model(1, 1, 1.5), 7.3),
    (Model(2, 1, 1.5), 4.8),
    (Model(4, 2, 1.5), 5.0),
    (Model(16, 1, 0.7), 4.7),
    (Model(4, 1, 0.7), 12.3),
)
"""log10 of the crossover size, to one decimal."""
