"""The figures of a sweep by their names, and the numbers behind them, written to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import xarray as xr

from bendscape.analysis.dataset.models import MODEL
from bendscape.analysis.figures.alpha import (
    draw_eigenvalue,
    draw_overlap,
    eigenvalue_numbers,
    overlap_numbers,
)
from bendscape.analysis.figures.collapse import collapse_numbers, draw_collapse
from bendscape.analysis.figures.edge import draw_edge, edge_numbers
from bendscape.analysis.figures.spectrum import draw_spectrum, spectrum_numbers
from bendscape.analysis.figures.style import PANELS, style
from bendscape.analysis.figures.tables import (
    NUMBERS,
    TITLE,
    LeftOutError,
    Numbers,
    check_table,
    groups,
    restricted,
    write_numbers,
)
from bendscape.analysis.figures.thresholds import (
    draw_kinds,
    draw_thresholds,
    kinds_numbers,
    thresholds_numbers,
)
from bendscape.analysis.findings.results import Results
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.output import check_replaceable, check_writable, holds, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")


class Drawn(NamedTuple):
    """One figure: its numbers from the results of a sweep, its page from its numbers, the columns that tell
    its groups of panels apart, how much room of a page such a group takes, and what of the store it needs
    (:data:`bendscape.analysis.findings.results.PASSES`)."""

    numbers: Callable[[Results], Numbers]
    draw: Callable[[Numbers], Figure]
    by: tuple[str, ...]
    room: int = 1
    needs: tuple[str, ...] = ("means",)


FIGURES: Mapping[str, Drawn] = {
    "overlap": Drawn(overlap_numbers, draw_overlap, MODEL),
    "eigenvalue": Drawn(eigenvalue_numbers, draw_eigenvalue, MODEL),
    "spectrum": Drawn(spectrum_numbers, draw_spectrum, MODEL, room=3),
    "edge": Drawn(edge_numbers, draw_edge, MODEL, needs=("means", "edge")),
    "thresholds": Drawn(thresholds_numbers, draw_thresholds, ("p_star", "a"), needs=("loads",)),
    "kinds": Drawn(kinds_numbers, draw_kinds, ("p_star",), needs=("loads",)),
    "collapse": Drawn(collapse_numbers, draw_collapse, MODEL, room=3, needs=("means", "loads")),
}
"""Figures by name, in the order in which they are drawn."""


class Written(NamedTuple):
    """The files of each figure, and of each that was left out why."""

    files: dict[str, list[Path]]
    left_out: dict[str, str]

    @property
    def paths(self) -> list[Path]:
        """All files, in the order of ``FIGURES``."""
        return [path for paths in self.files.values() for path in paths]


def numbers_of(ds: xr.Dataset | Results, name: str) -> Numbers:
    """The numbers behind a figure.

    Parameters
    ----------
    ds : xarray.Dataset or Results
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns; its ``Results`` where several
        figures are to share them.
    name : str
        One of ``FIGURES``.

    Returns
    -------
    mapping of str to xarray.Dataset
        Tidy tables along ``row``, whose columns carry their meaning as ``long_name``
        (:data:`bendscape.analysis.figures.tables.COLUMNS`).

    Raises
    ------
    LeftOutError
        The store lacks what this figure needs, or lacks it yet; a ParameterError.
    """
    drawn = FIGURES[_known(name)]
    results = ds if isinstance(ds, Results) else Results(ds)
    results.read(drawn.needs)
    return drawn.numbers(results)


def draw_figure(ds: xr.Dataset | Results, name: str) -> Figure:
    """A figure by its name, all its panels on one page; arguments and errors as :func:`numbers_of`."""
    return FIGURES[_known(name)].draw(numbers_of(ds, name))


def pages(name: str, numbers: Numbers) -> Iterator[tuple[str, Figure]]:
    """A figure in pages of at most ``PANELS`` panels, or as many as fit, one at a time.

    Each comes with its name: that of the figure where one page holds all, ``<figure>-1`` and so on where
    there are more."""
    drawn = FIGURES[name]
    found, each = groups(numbers, drawn.by), max(1, PANELS // drawn.room)
    for start in range(0, len(found), each):
        page = f"{name}-{start // each + 1}" if len(found) > each else name
        yield page, drawn.draw(restricted(numbers, drawn.by, found[start : start + each]))


def write_figures(
    ds: xr.Dataset,
    directory: str | Path,
    formats: Sequence[str] = FORMATS,
    only: Sequence[str] = (),
    numbers: str = "csv",
) -> Written:
    """Write figures in each format, and the numbers behind them.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns.
    directory : path
        Made if it is not there; files that an earlier call wrote are replaced, and pages of the same figures
        that this one does not write are removed. Where anything else has the name of a file, nothing is
        written.
    formats : sequence of str
        Any of ``FORMATS``.
    only : sequence of str
        Names of ``FIGURES``; all where it is empty.
    numbers : {"csv", "zarr"}
        How tables are written; in CSV an absent number is an empty field.

    Returns
    -------
    Written
        Of each figure ``<figure>.<format>``, where there are more panels than fit a page
        ``<figure>-1.<format>`` and so on, and its tables ``<table>.csv`` or ``<table>.zarr``; of each figure
        whose data are not in the store, or not yet, why it was left out. It is an error only if that is all
        of them.
    """
    for name in formats:
        if name not in FORMATS:
            raise ParameterError("format", name, f"one of {', '.join(FORMATS)}")
    if numbers not in NUMBERS:
        raise ParameterError("numbers", numbers, f"one of {', '.join(NUMBERS)}")
    asked = [name for name in FIGURES if name in set(map(_known, only)) or not only]
    place = Path(directory)
    check_writable(place, folder=True)
    _check_files(place, asked, formats, numbers)
    results = Results(ds)
    results.read(["means", *(need for name in asked for need in FIGURES[name].needs)])
    results.panels  # noqa: B018  # a store without a single cell is refused as such
    files: dict[str, list[Path]] = {}
    left_out: dict[str, str] = {}
    for name in asked:
        try:
            found = numbers_of(results, name)
        except LeftOutError as error:
            left_out[name] = error.remedy
            continue
        place.mkdir(parents=True, exist_ok=True)
        files[name] = [
            *_write_pages(place, pages(name, found), formats),
            *write_numbers(found, place, numbers),
        ]
    if not files:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ParameterError("only", list(left_out), "figures that this store has the data of", reasons)
    written = Written(files, left_out)
    _remove_other_pages(place, asked, {path.stem for path in written.paths if path.suffix[1:] in FORMATS})
    return written


def _known(name: str) -> str:
    if name not in FIGURES:
        raise ParameterError("figure", name, f"one of {', '.join(FIGURES)}")
    return name


def _write_pages(place: Path, drawn: Iterator[tuple[str, Figure]], formats: Sequence[str]) -> list[Path]:
    written = []
    for page, one in drawn:
        for suffix in formats:
            written.append(place / f"{page}.{suffix}")
            check_replaceable(written[-1], TITLE, what="figure")
            with style(**{"svg.hashsalt": page}), whole(written[-1]) as file:
                one.savefig(file, metadata=_METADATA[suffix])
    return written


def _check_files(place: Path, asked: Sequence[str], formats: Sequence[str], numbers: str) -> None:
    """Refuse, before any work, a folder in which something else has the name of a figure or of its table.

    A page with a number may never be written: it is looked at when it is.
    """
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.stem in asked and path.suffix[1:] in formats:
            check_replaceable(path, TITLE, what="figure")
        elif path.suffix == f".{numbers}" and path.stem.partition("-")[0] in asked:
            check_table(path) if numbers == "csv" else check_replaceable(path, TITLE, what="table")


def _is_page(path: Path, asked: Sequence[str]) -> bool:
    name, _, number = path.stem.partition("-")
    return name in asked and (not number or number.isdecimal()) and path.suffix[1:] in FORMATS


def _remove_other_pages(place: Path, asked: Sequence[str], stems: set[str]) -> None:
    """Remove pages of ours that an earlier call divided otherwise: by name, and by what is written inside."""
    for path in place.iterdir():
        if _is_page(path, asked) and path.stem not in stems and path.is_file() and holds(path, TITLE):
            path.unlink()


_METADATA: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": TITLE},
    "pdf": {"CreationDate": None, "Creator": TITLE},
    "png": {"Software": TITLE},
}
