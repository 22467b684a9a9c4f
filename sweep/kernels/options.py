"""What the options of kernels have in common."""

from __future__ import annotations

import itertools

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

MOST_VALUES = 256
"""Longest list among the options: it is a dimension of the store."""


def _increasing(values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(a < b for a, b in itertools.pairwise(values)):
        raise ValueError("numbers in increasing order")
    return values


INCREASING = AfterValidator(_increasing)


class KernelOptions(BaseModel):
    """Settings that are constant in a campaign and decide its bits."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PathOptions(KernelOptions):
    """Those of a kernel that follows a path in time: ``times``, ``method``, ``learning_rate`` (in this order,
    the last validated by default) and its own, all of them fields of the kernel."""

    @field_validator("learning_rate", check_fields=False)
    @classmethod
    def _of_gradient_descent(cls, rate: float | None, info: ValidationInfo) -> float | None:
        descent = info.data.get("method") == "gradient_descent"
        if descent and rate is None:
            raise ValueError('given with kernel.method = "gradient_descent"')
        if rate is not None and not descent:
            raise ValueError('absent, or kernel.method = "gradient_descent"')
        return rate
