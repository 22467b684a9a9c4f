"""A sweep as one self-contained HTML page."""

from __future__ import annotations

import io
import json
import math
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from bendscape.analysis.dataset.models import MODEL
from bendscape.analysis.estimate.collapse_fits import ESTIMATORS as LOAD_DEFINITIONS
from bendscape.analysis.estimate.estimators import ESTIMATORS, SHORT_NAMES
from bendscape.analysis.estimate.notation import compact, with_error
from bendscape.analysis.estimate.thresholds import thresholds_table
from bendscape.analysis.figures.gain import Gain, gain_pages, gains
from bendscape.analysis.figures.style import style
from bendscape.analysis.findings.activation_claims import claims_of_models
from bendscape.analysis.findings.activations import COLUMNS, activation_rows, activation_texts
from bendscape.analysis.findings.results import OF_A_REPORT, Results
from bendscape.analysis.findings.scaling import LAWS, load_rows
from bendscape.analysis.report.descent import descent_figures, descent_tables
from bendscape.analysis.report.figures import figure_numbers, library, library_version
from bendscape.analysis.report.symbols import in_html, in_text, thousands
from bendscape.analysis.report.tables import (
    OUTCOMES,
    coverage_by_size,
    edges_by_model,
    failed_cells,
)
from bendscape.sweep.commands.output import check_report, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCRIPTS = ("figures.js", "report.js")

_LOAD_ESTIMATORS = ("collapse", "theory_curve")
_ANSWERS = {
    "critical": (
        "Critical loads against the student's width",
        " for the chosen p*, the chosen a in full colour. Full lines: theory's alpha_bbp; dotted: alpha_0, "
        "where the transition is discontinuous; dashed: p* (a + 1)/2, alpha_bbp of an infinitely wide "
        "student. Diamonds: alpha_c from the data, with its total error.",
    ),
    "overlap": (
        "Squared overlap with the teacher",
        ", mean over the p p* lowest eigenvectors: mean over seeds and its standard error. Thin lines: "
        "theory at each N, up to 40 per cent above samples far below alpha_0; thick: the limit of large N, "
        "zero below the threshold (dashed). Dotted: alpha_0, where a discontinuous transition begins to show "
        "at sizes within reach.",
    ),
}
"""The figures that the page opens with: title and caption."""
_FIGURES = {
    "eigenvalue": (
        "Lowest eigenvalue of the Hessian",
        ": mean over seeds and its standard error. Thin lines: theory at each N, for p p* > 1 below the "
        "threshold alone; thick: the asymptotic left edge of the bulk and, above the threshold (dashed), the "
        "outlier.",
    ),
    "scaled": (
        "Collapse of all sizes",
        " on one curve, with alpha_c from the collapse, or theory's where there is none to be trusted. Line: "
        "theory's universal curve.",
    ),
}
_GAIN = (
    ": the limit of large N, from theory. Full lines: the Hessian of a student of width p; labels alone: the "
    "weights that its Hessian has as p grows (dashed), and the optimal ones, which no line crosses."
)
_PROVENANCE = {
    "name": "Campaign",
    "selected": "Only the cells with",
    "kernel": "Kernel",
    "kernel_version": "Kernel version",
    "entropy": "Entropy",
    "spec_hash": "Hash of the specification",
    "bendscape_version": "Version of bendscape",
    "code_version": "Version of bendscape",  # the name in older stores
    "created": "Created",
    "bendscape_store_version": "Store format",
}


def inline_svg(figure: Figure, prefix: str, title: str) -> str:
    """A figure as an svg element for HTML: every id starts with prefix, and the title is its alternative
    text."""
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
    # The minimum width keeps it legible on a phone, where it scrolls.
    view = f'viewBox="0 0 {width:g} {height:g}" style="min-width: {0.6 * width:.0f}pt"'
    head = f'<svg class="plot" role="img" aria-labelledby="{prefix}-title" {view}>'
    return f'{head}<title id="{prefix}-title">{escape(title)}</title>{svg[svg.index(">") + 1 :].strip()}'


def _two_decimals(attribute: re.Match[str]) -> str:
    """Coordinates rounded to a hundredth of a point: further digits are invisible."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])


def page_environment() -> Environment:
    """Template environment: inserted values are escaped, both as text and as JSON inside a script."""
    environment = Environment(
        loader=PackageLoader("bendscape.analysis.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    filters = {"estimate": compact, "interval": _interval, "overlap": _overlap, "load": _load}
    environment.filters |= filters | {
        "errors": _errors,
        "symbols": in_html,
        "plain": in_text,
        "thousands": thousands,
    }
    return environment


def render_report(ds: xr.Dataset | Results) -> str:
    """One HTML page: what was run, the thresholds, the figures, and where the numbers come from.

    Parameters
    ----------
    ds : xarray.Dataset or Results
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not; or its
        ``Results``, to share them.

    Returns
    -------
    str
        HTML with inline style, script and SVG, which loads nothing else. Equal input gives equal text.

    Notes
    -----
    Of a store that follows descents, the page of :mod:`bendscape.analysis.report.descent`; of one that sweeps
    activations, claims and thresholds. Makes one pass
    over the store and one over the status of its cells, which is kept in memory, a byte per
    cell. The plotting library takes 5 MB of the page.
    """
    results = ds if isinstance(ds, Results) else Results(ds)
    if results.is_of_descents:
        return _report_of_descents(results)
    if results.is_of_activations:
        return _report_of_activations(results)
    results.read(OF_A_REPORT)
    ds, result = results.ds, results["thresholds"]
    status = ds[["status", "coverage", "alpha"]].compute()
    sizes, rows = coverage_by_size(status), thresholds_table(result)
    total = {key: sum(row[key] for row in sizes) for key in ("planned", *OUTCOMES.values())}
    models = {(row["p"], row["p_star"], row["a"]): row for row in rows}
    loads = load_rows(results["collapse"]) if rows else []
    bought = gains(ds)
    found = results.panels if rows else []
    numbers = figure_numbers(found, loads, bought)
    quantity = "Squared overlap of students and of label-only methods"
    drawn = _inline(list(gain_pages(bought)), f"{quantity} against α", quantity, _GAIN)
    chosen_loads = [row for row in loads if row["estimator"] in _LOAD_ESTIMATORS]
    environment = page_environment()
    return environment.get_template("report.html.jinja").render(
        name=ds.attrs.get("name", "") or "sweep",
        sizes=sizes,
        total=total,
        share=math.floor(1000 * total["done"] / max(1, total["planned"])) / 10,  # 100.0 only if all are done
        failed=failed_cells(status),
        axes={dim: [f"{value:g}" for value in ds[dim].values.tolist()] for dim in MODEL},
        alphas=ds.sizes[results.alpha_dim],
        alpha_around=ds.attrs.get("around", ""),
        models=[[row for row in rows if (row["p"], row["p_star"], row["a"]) == model] for model in models],
        estimators=ESTIMATORS,
        short_names=SHORT_NAMES,
        level=f"{100 * float(result.attrs['level']):g}",
        loads=[
            [row for row in chosen_loads if (row["p"], row["p_star"], row["a"]) == model] for model in models
        ],
        load_estimators=_LOAD_ESTIMATORS,
        load_definitions=LOAD_DEFINITIONS,
        least_size=results.least_size,
        edges=edges_by_model(results["edge_scaling"]) if rows else [],
        laws=LAWS,
        answers=_ANSWERS,
        figures=_FIGURES,
        choices=[
            (id, name, sorted({getattr(panel, axis) for panel in found}))
            for id, name, axis in (
                ("choose-p", "p", "p"),
                ("choose-p-star", "p*", "p_star"),
                ("choose-a", "a", "a"),
            )
        ],
        drawn_sizes=numbers["sizes"],
        numbers=numbers,
        library=library(),
        script="\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _SCRIPTS),
        gains=[(gain, gain_in_words(gain)) for gain in bought],
        gain_figures=drawn,
        provenance=[(words, ds.attrs[key]) for key, words in _PROVENANCE.items() if key in ds.attrs]
        + [("Figures drawn by", f"plotly {library_version()}, embedded in this page")],
        packages=_packages(ds.attrs.get("packages", "")),
        campaign=ds.attrs.get("campaign", ""),
    )


def _report_of_descents(results: Results) -> str:
    drawn, left_out = descent_figures(results)
    return (
        page_environment()
        .get_template("descent.html.jinja")
        .render(
            **_of_store(results.given, "descents"),
            figures=[
                {"svg": inline_svg(figure, page, caption[0]), "title": caption[0], "caption": caption[1]}
                for page, figure, caption in drawn
            ],
            left_out=left_out,
            **descent_tables(results),
        )
    )


def _report_of_activations(results: Results) -> str:
    models = results.activations
    return (
        page_environment()
        .get_template("activations.html.jinja")
        .render(
            **_of_store(results.given, "sweep"),
            claims=claims_of_models(models),
            columns=tuple(COLUMNS.values()),
            rows=[activation_texts(row) for row in activation_rows(models)],
        )
    )


def _of_store(ds: xr.Dataset, name: str) -> dict[str, Any]:
    """What every page says of its store: name, axes, coverage and provenance."""
    sizes = coverage_by_size(ds[["status", "coverage"]].compute())
    total = {key: sum(row[key] for row in sizes) for key in ("planned", *OUTCOMES.values())}
    axes = {dim: ds[dim].values.tolist() for dim in ds["status"].dims if dim not in ("N", "seed")}
    return {
        "name": ds.attrs.get("name", "") or name,
        "sizes": sizes,
        "total": total,
        "share": math.floor(1000 * total["done"] / max(1, total["planned"])) / 10,
        "axes": {dim: [f"{value}" for value in values] for dim, values in axes.items()},
        "provenance": [(words, ds.attrs[key]) for key, words in _PROVENANCE.items() if key in ds.attrs],
        "packages": _packages(ds.attrs.get("packages", "")),
        "campaign": ds.attrs.get("campaign", ""),
    }


def _inline(pages: list[tuple[str, Figure]], title: str, quantity: str, caption: str) -> list[dict[str, str]]:
    """The pages of a figure as svg with their captions; title is the alternative text."""
    found = []
    for number, (page, drawn) in enumerate(pages, start=1):
        place = f" (page {number} of {len(pages)})" if len(pages) > 1 else ""
        svg = inline_svg(drawn, page, f"{title}{place}")
        found.append({"svg": svg, "caption": f"{quantity}{place}{caption}"})
    return found


def gain_in_words(gain: Gain) -> str:
    """The numbers of one (p_star, a), in words."""
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


def write_report(ds: xr.Dataset | Results, path: str | Path) -> Path:
    """Write the page of :func:`render_report`. Before it is made, a path that cannot be written, or that
    holds anything but a report, is refused."""
    place = Path(path)
    check_report(place)
    text = render_report(ds)
    with whole(place) as file:
        file.write_text(text, encoding="utf-8")
    return place


def _load(row: dict[str, Any]) -> str:
    """A critical load with its total error in units of the last digits, or a dash."""
    return with_error(row["alpha_c"], math.hypot(row["error"], row["systematic"])) if _known(row) else "–"


def _errors(row: dict[str, Any]) -> str:
    """Its statistical and systematic error."""
    if not _known(row):
        return ""
    statistical = f"± {row['error']:.3f}" if math.isfinite(row["error"]) else "± ?"
    return f"{statistical} stat. ± {row['systematic']:.3f} syst."


def _known(row: dict[str, Any]) -> bool:
    return math.isfinite(row["alpha_c"])


def _interval(estimate: dict[str, Any]) -> str:
    """The interval, with an ellipsis for an end beyond the measured alphas; empty without an estimate."""
    if not math.isfinite(estimate["value"]):
        return ""
    low, high = (f"{end:.3f}" if math.isfinite(end) else "…" for end in (estimate["low"], estimate["high"]))
    return f"[{low}, {high}]"


def _overlap(overlap_sq: float) -> str:
    """Three digits; 0 if there is no outlier."""
    return f"{overlap_sq:.3f}" if overlap_sq else "0"


def _packages(text: str) -> dict[str, str]:
    """Versions by package; invalid JSON is shown as it is."""
    try:
        packages = json.loads(text or "{}")
    except json.JSONDecodeError:
        packages = text
    return (
        {str(k): str(v) for k, v in packages.items()}
        if isinstance(packages, dict)
        else {"packages": str(packages)}
    )
