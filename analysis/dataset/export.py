"""Export of a store as one dataset for sharing (Zarr, Zarr in a zip, or NetCDF4) that plain xarray reads.

The export is `xr.open_dataset(store, engine="bendscape")`, complete or half-filled, bit for bit. If cells
have failed, it also has a group `errors` with one row for each. Integers are written as stored, with a
`_FillValue` for absent cells, which xarray reads as NaN. Memory holds one block of one variable at a time.
The export is written to a hidden folder beside the output and renamed at the end, so anything under the final
name is complete.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import warnings
import zipfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import dask
import numpy as np
import xarray as xr
import zarr

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.kernel import NOT_WANTED, STATUS
from bendscape.sweep.commands.output import check_writable, holds
from bendscape.sweep.store.publish import silence_zarr
from bendscape.sweep.store.root import open_store

FORMATS = {".zarr": "Zarr", ".zip": "Zarr in a zip", ".nc": "NetCDF4"}
CHUNK_BYTES = 2**22
"""Largest chunk in bytes before compression: what is read for a single cell."""
BLOCK_BYTES = 2**26
"""Largest block in bytes: whole chunks that are copied together; with shards, one shard."""
TITLE = "bendscape export of "
_Lengths: TypeAlias = dict[Hashable, tuple[dict[Hashable, int], dict[Hashable, int]]]
_GROWTH = ("seed", "alpha", "alpha_factor", "a", "p_star", "p", "N")
_STORE_MARK = "bendscape_store_version"  # marks a store for `bendscape run` and the backend


def export_store(
    location: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    variables: Sequence[str] = (),
    shards: bool = False,
    overwrite: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, Any]:
    """Write a store as one dataset that can be read without bendscape.

    Parameters
    ----------
    location : path or URL
        The store, which may still be filling.
    output : path
        ``.zarr``, ``.zip`` (the same in one file, not compressed again) or ``.nc``.
    variables : sequence of str
        Variables of the kernel to write, by default all. Status, coverage and theory are always written.
    shards : bool
        For Zarr: one file for each block of chunks instead of one for each chunk.
    overwrite : bool
        Replace an earlier export.
    block_bytes : int
        Largest block of one variable in memory; the total is a few times as much.

    Returns
    -------
    dict
        ``output``, ``format``, ``bytes``, ``files``, ``variables``; of the cells that the campaign wants, the
        number of ``cells`` and of those ``done``, ``failed`` and ``not_converged``; ``coverage``, the
        fraction that is done or not converged; ``errors``, the number of rows of that group.

    Raises
    ------
    ParameterError
        There is no store; a variable or file ending is unknown; the output exists or cannot be written; or
        the NetCDF library is missing.
    """
    path = Path(os.path.abspath(Path(output).expanduser()))
    _check_output(str(output), path, shards, overwrite)
    silence_zarr()
    store: Any = open_store(location)  # xarray passes this type to the engine unchanged
    errors = xr.open_dataset(store, engine="bendscape", group="errors")
    # integers as stored, without conversion: a reader masks them by their _FillValue
    with xr.open_dataset(store, engine="bendscape", mask_and_scale=False) as source:
        ds = _with_attributes(_select(source, variables), path.suffix)
        lengths = _lengths(ds, block_bytes)
        with _aside(path, overwrite) as place, dask.config.set(scheduler="synchronous"):
            if path.suffix == ".nc":
                _write_netcdf(ds, errors, lengths, place)
                with xr.open_dataset(place, engine="h5netcdf", chunks={}) as written:
                    counts = _counts(written)
            else:
                folder = place.with_suffix(".zarr")
                _write_zarr(ds, errors, lengths, folder, shards)
                with xr.open_zarr(folder, chunks={}) as written:
                    counts = _counts(written)
                if path.suffix == ".zip":
                    _zip(folder, place)
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return {
        "output": str(path),
        "format": FORMATS[path.suffix],
        "bytes": sum(file.stat().st_size for file in files),
        "files": len(files),
        "variables": [str(name) for name in ds.data_vars],
        **counts,
        "errors": errors.sizes["failure"],
    }


def _check_output(given: str, path: Path, shards: bool, overwrite: bool) -> None:
    check_writable(given, hierarchy=True, name="--output")
    if path.suffix not in FORMATS:
        raise ParameterError("--output", given, f"a name ending in {', '.join(FORMATS)}")
    if path.suffix == ".nc":
        if shards:
            raise ParameterError("--shards", given, "a .zarr or .zip", "NetCDF4 is one file as it is")
        if not find_spec("h5netcdf") or not find_spec("h5py"):
            raise ParameterError(
                "--output", given, "a .zarr or .zip where NetCDF's library is missing",
                "pip install 'bendscape[netcdf]'",
            )  # fmt: skip
    _check_free(path, overwrite)


def _check_free(path: Path, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise ParameterError("--output", str(path), "a new place", "--overwrite replaces an earlier export")
    if not holds(path, TITLE):
        raise ParameterError("--output", str(path), "a new place, or an earlier export", "choose another")


@contextmanager
def _aside(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary place for `path`, renamed to `path` if the body of the context succeeds.

    The lock on the folder is released when its process ends, so an unlocked folder is a leftover.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.unfinished")
    work.mkdir(exist_ok=True)
    lock = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ParameterError(
                "--output", str(path), "a place that no other export is writing", "wait for it"
            ) from None
        try:
            for leftover in work.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield work / path.name
            _check_free(path, overwrite)  # again, since hours may have passed
            if path.is_dir():
                path.rename(work / "replaced")
            (work / path.name).rename(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _select(ds: xr.Dataset, variables: Sequence[str]) -> xr.Dataset:
    measured = [str(name) for name in ds.data_vars if ds[name].ndim == ds["status"].ndim and name != "status"]
    for name in variables:
        if name not in measured:
            raise ParameterError("--variables", name, ", ".join(measured))
    return ds.drop_vars([name for name in measured if name not in variables]) if variables else ds


def _with_attributes(ds: xr.Dataset, suffix: str) -> xr.Dataset:
    # Without the mark of a store, so that `bendscape run` does not take the export for one.
    kept = {name: value for name, value in ds.attrs.items() if name != _STORE_MARK}
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    ds = ds.assign_attrs()
    ds.attrs = kept | {
        "Conventions": "CF-1.12",
        "title": f"{TITLE}{kept['name']}",
        "history": f"{now} exported by bendscape {version('bendscape')}",
    }
    for variable in ds.variables.values():
        fill = variable.attrs.pop("_FillValue", None)
        variable.encoding = {} if fill is None else {"_FillValue": fill}
        if suffix == ".nc" and "flag_values" in variable.attrs:  # CF: same type as the variable
            flags = np.asarray(variable.attrs["flag_values"], dtype=variable.dtype)
            variable.attrs = {**variable.attrs, "flag_values": flags}
    return ds


def _lengths(ds: xr.Dataset, block_bytes: int) -> _Lengths:
    """Chunk and block shape of every variable: whole curves over seed and alpha first, then models, then
    sizes.

    All variables of cells are cut in the same way, whatever their dtype, so that they are read together.
    """
    cells = ds["status"].variable
    chunk = _grow(cells.sizes, dict.fromkeys(cells.dims, 1), min(CHUNK_BYTES, block_bytes))
    block = _grow(cells.sizes, chunk, block_bytes)
    found: _Lengths = {}
    for name, variable in ds.variables.items():
        if name == "coverage":  # a block of it is computed from a block of the status
            pair = block, block
        elif variable.ndim == cells.ndim:
            pair = chunk, block
        else:
            small = _grow(variable.sizes, dict.fromkeys(variable.dims, 1), CHUNK_BYTES)
            pair = small, small
        found[name] = (
            {dim: pair[0][dim] for dim in variable.dims},
            {dim: pair[1][dim] for dim in variable.dims},
        )
    return found


def _grow(shape: Mapping[Hashable, int], unit: Mapping[Hashable, int], target: int) -> dict[Hashable, int]:
    # Multiples of `unit` below `target` bytes that cut each dimension into equal parts.
    lengths, size = dict(unit), 8 * math.prod(unit.values())
    for dim in (dim for dim in _GROWTH if dim in shape):
        units = math.ceil(shape[dim] / unit[dim])
        parts = math.ceil(units / max(1, min(units, target // size)))
        lengths[dim] = unit[dim] * math.ceil(units / parts)
        size *= lengths[dim] // unit[dim]
    return lengths


def _write_zarr(ds: xr.Dataset, errors: xr.Dataset, lengths: _Lengths, folder: Path, shards: bool) -> None:
    encoding: dict[Any, dict[str, Any]] = {}
    for name, (chunk, block) in lengths.items():
        encoding[name] = {"chunks": tuple(chunk.values())}
        encoding[name] |= ds[name].encoding
        if ds[name].dtype.kind == "f":
            encoding[name]["fill_value"] = np.nan
        if shards and chunk != block:
            encoding[name]["shards"] = tuple(block.values())
    # Empty chunks are written too: NaN has many bit patterns, and each is kept as in the store.
    _in_blocks(ds, lengths).to_zarr(
        folder, mode="w", zarr_format=3, consolidated=False, write_empty_chunks=True, encoding=encoding
    )
    if errors.sizes["failure"]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
            errors.to_zarr(folder, group="errors", mode="a", zarr_format=3, consolidated=True)
    zarr.consolidate_metadata(folder, zarr_format=3)


def _write_netcdf(ds: xr.Dataset, errors: xr.Dataset, lengths: _Lengths, file: Path) -> None:
    packed: dict[str, Any] = {"zlib": True, "complevel": 4, "shuffle": True, "_FillValue": None}
    encoding: dict[Any, dict[str, Any]] = {
        name: {**packed, **ds[name].encoding, "chunksizes": tuple(chunk.values())}
        for name, (chunk, _) in lengths.items()
    }
    _in_blocks(ds, lengths).to_netcdf(file, engine="h5netcdf", format="NETCDF4", encoding=encoding)
    if errors.sizes["failure"]:
        errors.to_netcdf(file, mode="a", group="errors", engine="h5netcdf", format="NETCDF4")


def _in_blocks(ds: xr.Dataset, lengths: _Lengths) -> xr.Dataset:
    return ds.assign({name: array.chunk(lengths[name][1]) for name, array in ds.items()})


def _zip(folder: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for part in sorted(part for part in folder.rglob("*") if part.is_file()):
            archive.write(part, part.relative_to(folder))


def _counts(ds: xr.Dataset) -> dict[str, Any]:
    """The number of cells that the campaign wants, and how many of those written are in which state."""
    cells = int((ds["status"] != NOT_WANTED).sum())
    names = ("done", "failed", "not_converged")
    counts = {name: int((ds["status"] == STATUS[name]).sum()) for name in names}
    present = counts["done"] + counts["not_converged"]
    return {"cells": cells, **counts, "coverage": present / cells if cells else None}
