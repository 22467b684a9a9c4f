"""The figures of a sweep by name, written to files together with the numbers behind them."""

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
from bendscape.analysis.figures.descent import (
    OF_MODEL,
    amplification_numbers,
    draw_amplification,
    draw_half_load,
    draw_loss,
    draw_path,
    draw_recovery,
    half_load_numbers,
    loss_numbers,
    path_numbers,
    recovery_numbers,
)
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
    """One figure: the function from the results of a sweep to its numbers, the function from numbers to a
    page, the columns that distinguish its groups of panels, the share of a page that such a group takes, and
    what it needs from the store (:data:`bendscape.analysis.findings.results.PASSES`)."""

    numbers: Callable[[Results], Numbers]
    draw: Callable[[Numbers], Figure]
    by: tuple[str, ...]
    room: int = 1
    needs: tuple[str, ...] = ("means",)


FIGURES: Mapping[str, Drawn] = {
    "overlap": Drawn(overlap_numbers, draw_overlap, MODEL),
    "eigenvalue": Drawn(eigenvalue_numbers, draw_eigenvalue, MODEL),
    "spectrum": Drawn(spectrum_numbers, draw_spectrum, MODEL, room=3),
    "edge": Drawn(edge_numbers, draw_edge, MODEL, needs=("means", "edge_scaling")),
    "thresholds": Drawn(thresholds_numbers, draw_thresholds, ("p_star", "a"), needs=("collapse",)),
    "kinds": Drawn(kinds_numbers, draw_kinds, ("p_star",), needs=("collapse",)),
    "collapse": Drawn(collapse_numbers, draw_collapse, MODEL, room=3, needs=("means", "collapse")),
}
"""The figures by name, in the order in which they are drawn."""

DESCENTS: Mapping[str, Drawn] = {
    "recovery": Drawn(recovery_numbers, draw_recovery, OF_MODEL, needs=()),
    "half_load": Drawn(half_load_numbers, draw_half_load, ("p_star", "a"), needs=()),
    "loss": Drawn(loss_numbers, draw_loss, OF_MODEL, needs=()),
    "amplification": Drawn(amplification_numbers, draw_amplification, OF_MODEL, needs=()),
    "path": Drawn(path_numbers, draw_path, OF_MODEL, needs=()),
}
"""The figures of a store that follows descents in time."""


class Written(NamedTuple):
    """The files of each figure, and for each figure that was left out the reason."""

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
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns; or its ``Results``, to share
        them between several figures.
    name : str
        One of ``FIGURES`` or, of descents, ``DESCENTS``.

    Returns
    -------
    mapping of str to xarray.Dataset
        Tidy tables along ``row``; the meaning of a column is its ``long_name``
        (:data:`bendscape.analysis.figures.tables.COLUMNS`).

    Raises
    ------
    LeftOutError
        The store lacks what this figure needs, perhaps only for now; a ParameterError.
    """
    drawn = _drawn(name)
    results = ds if isinstance(ds, Results) else Results(ds)
    results.read(drawn.needs)
    return drawn.numbers(results)


def draw_figure(ds: xr.Dataset | Results, name: str) -> Figure:
    """A figure by name, with all its panels on one page; arguments and errors as in :func:`numbers_of`."""
    return _drawn(name).draw(numbers_of(ds, name))


def pages(name: str, numbers: Numbers) -> Iterator[tuple[str, Figure]]:
    """A figure in pages of at most ``PANELS`` panels, or as many as fit, one page at a time.

    Each comes with its name: that of the figure if there is one page, otherwise ``<figure>-1`` and so
    on."""
    drawn = _drawn(name)
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
        Made if it does not exist. Files written by an earlier call are replaced, and pages of the same
        figures that this call does not write are removed. If anything else has the name of a file to be
        written, nothing is written.
    formats : sequence of str
        Any of ``FORMATS``.
    only : sequence of str
        Names from ``FIGURES`` or, for a store of descents, ``DESCENTS``; empty means all.
    numbers : {"csv", "zarr"}
        File format of the tables; in CSV an absent number is an empty field.

    Returns
    -------
    Written
        For each figure ``<figure>.<format>`` (with several pages ``<figure>-1.<format>`` and so on) and its
        tables ``<table>.csv`` or ``<table>.zarr``; for each figure whose data are not in the store, or not
        yet, the reason. It is an error only if all figures are left out.
    """
    for name in formats:
        if name not in FORMATS:
            raise ParameterError("format", name, f"one of {', '.join(FORMATS)}")
    if numbers not in NUMBERS:
        raise ParameterError("numbers", numbers, f"one of {', '.join(NUMBERS)}")
    results = Results(ds)
    known = DESCENTS if results.is_of_descents else FIGURES
    asked = [name for name in known if name in {_known(name, known) for name in only} or not only]
    place = Path(directory)
    check_writable(place, folder=True)
    _check_files(place, asked, formats, numbers)
    if known is FIGURES:
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
        raise ParameterError("only", list(left_out), "figures for which this store has data", reasons)
    written = Written(files, left_out)
    _remove_other_pages(place, asked, {path.stem for path in written.paths if path.suffix[1:] in FORMATS})
    return written


def _known(name: str, known: Mapping[str, Drawn]) -> str:
    if name not in known:
        raise ParameterError("figure", name, f"one of {', '.join(known)}")
    return name


def _drawn(name: str) -> Drawn:
    return DESCENTS[name] if name in DESCENTS else FIGURES[_known(name, FIGURES)]


def _write_pages(place: Path, drawn: Iterator[tuple[str, Figure]], formats: Sequence[str]) -> list[Path]:
    written = []
    for page, one in drawn:
        for suffix in formats:
            written.append(place / f"{page}.{suffix}")
            check_replaceable(written[-1], TITLE, what="figure")
            with style(**{"svg.hashsalt": page}), whole(written[-1]) as file:
                one.savefig(file, metadata=_METADATA[suffix])
            one.set_layout_engine("none")  # laid out now: every format has the same places
    return written


def _check_files(place: Path, asked: Sequence[str], formats: Sequence[str], numbers: str) -> None:
    """Before any work, refuse a folder in which something else has the name of a figure or of a table.

    Numbered pages are checked when they are written, since they may never be.
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
    """Remove our own pages of an earlier call with other page breaks, recognised by name and by content."""
    for path in place.iterdir():
        if _is_page(path, asked) and path.stem not in stems and path.is_file() and holds(path, TITLE):
            path.unlink()


_METADATA: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": TITLE},
    "pdf": {"CreationDate": None, "Creator": TITLE},
    "png": {"Software": TITLE},
}
