"""The page of a store that follows descents in time: claims, half loads, losses, figures, coverage."""

from __future__ import annotations

import math
from typing import Any

from bendscape.analysis.figures.draw import DESCENTS, numbers_of, pages
from bendscape.analysis.figures.tables import LeftOutError
from bendscape.analysis.findings.descent import (
    confined_rows,
    loss_rows,
    model_words,
    recovery_rows,
    shown,
    slope_text,
)
from bendscape.analysis.findings.descent_claims import claims_of_descents
from bendscape.analysis.findings.results import Results

CAPTIONS = {
    "recovery": (
        "Success against alpha",
        ": recovery by the last time or, confined, the direction kept to it; Wilson intervals. Dashed: where "
        "half succeed.",
    ),
    "half_load": (
        "Load of half success against N",
        " at the last time, with the interval that holds whatever the shape of the curve.",
    ),
    "loss": (
        "Median time at which the direction is lost",
        ": bars from the last recorded time surely before it to the first surely after it. Dashed: the "
        "confined threshold, where it no longer moves with N.",
    ),
    "amplification": (
        "Amplification of the overlap",
        ": N times the mean alignment at the largest size, Student's t with skewness. Dashed: N, its "
        "largest value.",
    ),
    "path": (
        "Edge and outlier along the path",
        ", from the cells' own labels, over the cells that have not recovered by then: lines are medians of "
        "the edge, points those of the outlier over the cells that have one. Once the weights have turned to "
        "the signal, the labels' outlier means nothing.",
    ),
}
"""Title and caption of every figure."""


def descent_figures(results: Results) -> tuple[list[tuple[str, Any, tuple[str, str]]], dict[str, str]]:
    """The pages of all figures, with their names and captions; and for figures left out the reason."""
    found, left_out = [], {}
    for name in DESCENTS:
        try:
            numbers = numbers_of(results, name)
        except LeftOutError as error:
            left_out[name] = error.remedy
            continue
        found += [(page, drawn, CAPTIONS[name]) for page, drawn in pages(name, numbers)]
    return found, left_out


def descent_tables(results: Results) -> dict[str, Any]:
    """What the template shows of descents."""
    found = results.descent
    last = found["time"].values[-1]
    recovery = [row for row in recovery_rows(found) if row["time"] == last]
    return {
        "claims": claims_of_descents(results.given, found),
        "time": f"{last:g}",
        "sizes_measured": found["N"].values.tolist(),
        "recovery": [
            row
            | {
                "model": model_words(row, found),
                "slope_text": slope_text(row),
                "line": f"{row['line_p_value']:.2f}" if math.isfinite(row["line_p_value"]) else "–",
            }
            for row in recovery
        ],
        "confined": [
            row | {"model": model_words(row, found), "text": shown(row["value"], row["low"], row["high"])}
            for row in confined_rows(found)
        ],
        "losses": [row | {"model": model_words(row, found)} for row in loss_rows(found)],
        "level": f"{100 * float(found.attrs['level']):g}",
    }
