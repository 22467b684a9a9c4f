"""How a value and its error are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def compact(estimate: Mapping[str, Any]) -> str:
    """One estimate in a few characters.

    1.243(12); 1.95(8)* if its interval leaves the alphas measured; > 1.99 or < 0.75 if there is no crossing
    between them (rounded to the safe side); otherwise a dash."""
    if estimate["flag"] == "above_the_alpha_range":
        return f"> {math.floor(100 * estimate['last'] + 1e-6) / 100:.2f}"
    if estimate["flag"] == "below_the_alpha_range":
        return f"< {math.ceil(100 * estimate['first'] - 1e-6) / 100:.2f}"
    if not math.isfinite(estimate["value"]):
        return "–"
    return with_error(estimate["value"], estimate["error"]) + ("" if estimate["flag"] == "estimated" else "*")


def with_error(value: float, error: float) -> str:
    """A value with its standard error in units of its last digit, as 1.243(12), with at most four decimals;
    1.24(?) if the error is not known."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.2f}(?)"
    digits = min(4, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f}({max(1, round(error * 10**digits))})"
