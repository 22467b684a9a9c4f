"""A sweep as one self-contained HTML page."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from bendscape.analysis.estimators import ESTIMATORS, SHORT_NAMES
from bendscape.analysis.figures import PANELS, figure_pages, panels
from bendscape.analysis.gain import Gain, gain_pages, gains
from bendscape.analysis.style import style
from bendscape.analysis.thresholds import alpha_dimension, compact, thresholds, thresholds_table
from bendscape.sweep.kernel import STATUS
from bendscape.sweep.output import check_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LISTED = 50
"""Failed cells that are listed one by one."""

_POINT = ("p", "p_star", "a")
_FIGURES = {
    "overlap": (
        "Squared overlap of the lowest eigenvector",
        " with the teacher: mean over seeds and its standard error. Line: the limit of large N, zero below "
        "the threshold (dashed).",
    ),
    "eigenvalue": (
        "Lowest eigenvalue of the Hessian",
        ": mean over seeds and its standard error. Lines: the asymptotic left edge of the bulk and, above "
        "the threshold (dashed), the outlier.",
    ),
}
_GAIN = (
    ": the limit of large N, from theory. Full lines: the Hessian of a student of width p; labels alone: the "
    "weights that its Hessian has as p grows (dashed), and the optimal ones, which no line crosses."
)
_OUTCOMES = {code: name.replace("_", " ") for name, code in STATUS.items()}
_PRESENT = {code: words for code, words in _OUTCOMES.items() if code != STATUS["absent"]}
_PROVENANCE = {
    "name": "Campaign",
    "kernel": "Kernel",
    "kernel_version": "Kernel version",
    "entropy": "Entropy",
    "spec_hash": "Hash of the specification",
    "code_version": "Code version",
    "created": "Created",
    "bendscape_store_version": "Store format",
}


def coverage_by_size(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Cells planned at each N and how many of them are absent, done, failed and not converged."""
    others = [dim for dim in ds["status"].dims if dim != "N"]
    planned = (ds["coverage"].notnull() * ds["n_seeds"]).sum(
        [dim for dim in ds["coverage"].dims if dim != "N"]
    )
    counts = xr.concat([(ds["status"] == code).sum(others) for code in _PRESENT], "code").compute()
    rows = []
    for k, total in enumerate(planned.values.tolist()):
        row = {"N": int(ds["N"][k]), "planned": int(total)}
        row |= dict(zip(_PRESENT.values(), counts.isel(N=k).values.tolist(), strict=True))
        row["absent"] = row["planned"] - sum(row[name] for name in _PRESENT.values())
        rows.append(row)
    return rows


def failed_cells(ds: xr.Dataset, limit: int = LISTED) -> list[dict[str, Any]]:
    """Coordinates of cells that failed or did not converge, at most limit of them, in the order of the
    axes."""
    alpha_dim, found = alpha_dimension(ds), []
    for index in np.ndindex(*(ds.sizes[dim] for dim in _POINT)):
        point = dict(zip(_POINT, index, strict=True))
        status = ds["status"].isel(point).transpose(alpha_dim, "N", "seed").values
        for i, k, n in np.argwhere(np.isin(status, (STATUS["failed"], STATUS["not_converged"]))):
            alpha = (
                ds["alpha"].isel({dim: {**point, alpha_dim: i}[str(dim)] for dim in ds["alpha"].dims}).item()
            )
            cell = {dim: ds[dim].values[place].item() for dim, place in point.items()}
            cell |= {"alpha": alpha, "N": int(ds["N"][k]), "seed": int(ds["seed"][n])}
            found.append(cell | {"outcome": _OUTCOMES[int(status[i, k, n])]})
            if len(found) == limit:
                return found
    return found


def inline_svg(figure: Figure, prefix: str, title: str) -> str:
    """A figure as an svg element for use inside HTML: every id starts with prefix, the title is its
    alternative text."""
    text = io.StringIO()
    with style(**{"svg.hashsalt": prefix}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href=", "href=")
    svg = re.sub(r'\s(?:d|x|y)="[^"]*"', _two_decimals, svg)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg).replace("url(#", f"url(#{prefix}-")
    width, height = (float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    # The least width keeps it legible on a phone, where it scrolls.
    view = f'viewBox="0 0 {width:g} {height:g}" style="min-width: {0.6 * width:.0f}pt"'
    head = f'<svg class="plot" role="img" aria-labelledby="{prefix}-title" {view}>'
    return f'{head}<title id="{prefix}-title">{escape(title)}</title>{svg[svg.index(">") + 1 :].strip()}'


def _two_decimals(attribute: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point: further digits cannot be seen."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])


def render_report(ds: xr.Dataset, result: xr.Dataset) -> str:
    """One HTML page: what was run, the thresholds, the figures, and where the numbers come from.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not.
    result : xarray.Dataset
        What :func:`bendscape.analysis.thresholds.thresholds` made of it.

    Returns
    -------
    str
        HTML with inline style and inline SVG: it loads nothing. The same input gives the same text.
    """
    sizes, rows = coverage_by_size(ds), thresholds_table(result)
    total = {key: sum(row[key] for row in sizes) for key in ("planned", *_OUTCOMES.values())}
    models = {(row["p"], row["p_star"], row["a"]): row for row in rows}
    figures: list[dict[str, str]] = []
    if rows:
        n, all_sizes = len(models), ", ".join(str(row["N"]) for row in sizes)
        what = f"against alpha, {n} {'model' if n == 1 else 'models'}, N = {all_sizes}"
        found = panels(ds)
        n_pages = -(-len(found) // PANELS)
        for figure, (quantity, caption) in _FIGURES.items():
            figures += _inline(figure_pages(found, figure), n_pages, f"{quantity} {what}", quantity, caption)
    bought = gains(ds)
    quantity = "Squared overlap of students and of label-only methods"
    drawn = _inline(
        gain_pages(bought), -(-len(bought) // PANELS), f"{quantity} against alpha", quantity, _GAIN
    )
    environment = Environment(
        loader=PackageLoader("bendscape.analysis", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["estimate"] = compact
    environment.filters["interval"] = _interval
    environment.filters["overlap"] = _overlap
    return environment.get_template("report.html.jinja").render(
        name=ds.attrs.get("name", "") or "sweep",
        sizes=sizes,
        total=total,
        share=math.floor(1000 * total["done"] / max(1, total["planned"])) / 10,  # 100.0 only when all are
        failed=failed_cells(ds),
        axes={dim: [f"{value:g}" for value in ds[dim].values.tolist()] for dim in _POINT},
        alphas=ds.sizes[alpha_dimension(ds)],
        alpha_around=ds.attrs.get("alpha_around", ""),
        models=[[row for row in rows if (row["p"], row["p_star"], row["a"]) == model] for model in models],
        estimators=ESTIMATORS,
        short_names=SHORT_NAMES,
        level=f"{100 * float(result.attrs['level']):g}",
        n_boot=int(result.attrs["n_boot"]),
        figures=figures,
        gains=[(gain, gain_in_words(gain)) for gain in bought],
        gain_figures=drawn,
        provenance=[(words, ds.attrs[key]) for key, words in _PROVENANCE.items() if key in ds.attrs],
        packages=_packages(ds.attrs.get("packages", "")),
        campaign=ds.attrs.get("campaign", ""),
    )


def _inline(
    pages: Iterator[tuple[str, Figure]], n_pages: int, title: str, quantity: str, caption: str
) -> list[dict[str, str]]:
    """The pages of a figure as svg with their captions; title is the alternative text."""
    found = []
    for number, (page, drawn) in enumerate(pages, start=1):
        place = f" (page {number} of {n_pages})" if n_pages > 1 else ""
        svg = inline_svg(drawn, page, f"{title}{place}")
        found.append({"svg": svg, "caption": f"{quantity}{place}{caption}"})
    return found


def gain_in_words(gain: Gain) -> str:
    """What the numbers of one (p_star, a) say."""
    least, first, last = gain.least, gain.widths[0], gain.widths[-1]
    beside = 100 * (least.over_hessian_limit - 1)
    share = f"{abs(beside):.1f} % {'more' if beside > 0 else 'fewer'} samples than"
    share = "as many samples as" if abs(beside) < 0.05 else share
    words = [
        f"Labels alone show the teacher above alpha = {gain.optimal:.4g} with the optimal weights, and above "
        f"{gain.hessian_limit:.4g} with those of an infinitely wide student."
    ]
    if first is last:
        words.append(f"The student of width {first.p} shows it above {first.alpha_bbp:.4f}.")
    else:
        way = "falls" if last.alpha_bbp < first.alpha_bbp else "rises"
        words.append(
            f"From p = {first.p} to p = {last.p} the student's threshold {way} from {first.alpha_bbp:.4f} to "
            f"{last.alpha_bbp:.4f}; its lowest at these widths is {least.alpha_bbp:.4f}, at p = {least.p}."
        )
    words.append(
        f"This takes {share} an infinitely wide student, and {least.over_optimal:.2f} times as many as the "
        "optimal method."
    )
    overlaps = [
        _overlap(row.overlap_sq[-1]) + f" at p = {row.p}"
        for row in ((first,) if first is last else (first, last))
    ]
    limit, best = (_overlap(gain.overlap_sq[weights][-1]) for weights in ("hessian_limit", "optimal"))
    words.append(
        f"At alpha = {gain.loads[-1]:.4g} the squared overlap is {' and '.join(overlaps)}, against {limit} "
        f"for infinite width and {best} for the optimal method."
    )
    return " ".join(words)


def write_report(ds: xr.Dataset, path: str | Path, result: xr.Dataset | None = None) -> Path:
    """Write the page of :func:`render_report`; result is computed with its defaults where it is not given. A
    path that cannot be written is refused before that."""
    place = Path(path)
    check_writable(place)
    text = render_report(ds, thresholds(ds) if result is None else result)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")
    return place


def _interval(estimate: dict[str, Any]) -> str:
    """The interval, with an ellipsis for an end beyond the alphas measured; empty without an estimate."""
    if not math.isfinite(estimate["value"]):
        return ""
    low, high = (f"{end:.3f}" if math.isfinite(end) else "…" for end in (estimate["low"], estimate["high"]))
    return f"[{low}, {high}]"


def _overlap(overlap_sq: float) -> str:
    """Three digits; 0 without an outlier."""
    return f"{overlap_sq:.3f}" if overlap_sq else "0"


def _packages(text: str) -> dict[str, str]:
    """Versions by package; what is not the JSON it should be is shown as it is."""
    try:
        packages = json.loads(text or "{}")
    except json.JSONDecodeError:
        packages = text
    return (
        {str(k): str(v) for k, v in packages.items()}
        if isinstance(packages, dict)
        else {"packages": str(packages)}
    )
