"""What the options of every kernel that follows a path in time have in common."""

from __future__ import annotations

import itertools

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

MOST_TIMES = 256


class PathOptions(BaseModel):
    """Settings that are constant in a campaign and decide its bits: the fields of the kernel, which are
    ``times``, ``method``, ``learning_rate`` (in this order, the last validated by default) and its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("times", check_fields=False)
    @classmethod
    def _increasing(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        if not all(a < b for a, b in itertools.pairwise(times)):
            raise ValueError("times in increasing order")
        return times

    @field_validator("learning_rate", check_fields=False)
    @classmethod
    def _of_gradient_descent(cls, rate: float | None, info: ValidationInfo) -> float | None:
        descent = info.data.get("method") == "gradient_descent"
        if descent and rate is None:
            raise ValueError('given with kernel.method = "gradient_descent"')
        if rate is not None and not descent:
            raise ValueError('absent, or kernel.method = "gradient_descent"')
        return rate
