"""The root of a store, read once: what is published there, for all code that reads or resumes the store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray
from obstore.exceptions import BaseError

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import Dimension, Kernel, Reference
from bendscape.sweep.campaign.loading import default_kernel, load_kernel
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.location import folder_of, store_url
from bendscape.sweep.store.compare_and_swap import reading_store
from bendscape.sweep.store.ledger import Ledger, campaign_of
from bendscape.sweep.store.objects import Damaged, connect, read_object

if TYPE_CHECKING:
    from zarr.abc.store import Store as Objects

STORE_VERSION = 3  # 1 lacked checksums and array snapshots; 2 knew the axes of one model only


@dataclass(frozen=True, eq=False)
class Store:
    """A store as published when its root was read. It does not follow later changes by a run.

    Parameters
    ----------
    url
        Where the store lies.
    attributes
        Root attributes: campaign, identity and provenance.
    metadata
        The metadata document of every group and array, by path.
    layout
        Which cells the store has, and where; on the present axes of its kernel if that is installed.
    references
        References of the kernel; if it is not installed, of the default kernel, if the axes are the same.
    held
        The kernel, if it need not be installed; see `with_kernel`.
    """

    url: str
    attributes: dict[str, Any]
    metadata: dict[str, dict[str, Any]]
    layout: Layout
    references: tuple[Reference, ...]
    held: Kernel | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, url: str, attributes: dict[str, Any], metadata: dict[str, dict[str, Any]]) -> Self:
        """The store that a root, or a campaign record, describes."""
        layout = Layout.from_json(attributes["layout"])
        try:
            kernel = load_kernel(attributes["kernel"])
        except ParameterError:
            default, axes = default_kernel(), layout.axes
            alike = axes in (default.axes, default.axes.required)
            references = tuple(of.on(axes) for of in default.references) if alike else ()
        else:
            layout, references = layout.on(kernel.axes), kernel.references
        return cls(url, attributes, metadata, layout, references)

    @property
    def revision(self) -> int:
        """Number of the campaign file published last."""
        return int(self.attributes["revision"])

    @property
    def kernel_name(self) -> str:
        """Name of the kernel that computes the cells."""
        return str(self.attributes["kernel"])

    @property
    def options(self) -> dict[str, Any]:
        """Options of the kernel; empty for stores of version 2."""
        return dict(self.attributes.get("options", {}))

    def with_kernel(self, kernel: Kernel) -> Store:
        """This store with its kernel at hand, which may come from a module or from Python."""
        return replace(self, layout=self.layout.on(kernel.axes), references=kernel.references, held=kernel)

    def kernel(self, modules: Iterable[str] = ()) -> Kernel:
        """The kernel with its options: the one at hand, else installed or from one of the modules.

        Raises
        ------
        ParameterError
            There is no kernel of that name.
        """
        return self.held or load_kernel(self.kernel_name, modules, self.options)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Inner dimensions of its variables."""
        named = self.attributes.get("inner", {}).items()
        return tuple(Dimension(name, tuple(of["values"]), of["long_name"], of["units"]) for name, of in named)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, replayed on first use."""
        ledger = Ledger(connect(self.url))
        ledger.replay()
        return ledger

    def grid(self, revision: int | None = None) -> Grid:
        """The grid of the latest campaign file, or of the file of a given revision; a relative curve has its
        stored values.

        Raises
        ------
        ParameterError
            The store had no such revision.
        """
        text = self.attributes["campaign"] if revision is None else campaign_of(self.ledger, revision)
        grid, layout = parse_campaign(text, source=self.url).to_grid(self.layout.axes), self.layout
        if layout.around is None or layout.axes.curve is None:
            return grid
        places = [[layout.dims[name].index(value) for value in values] for name, values in grid.dims.items()]
        values = self.read(layout.axes.curve.name).astype(np.float64)
        return replace(grid, stored=values[np.ix_(*places)])

    def variables(self, size: int) -> list[str]:
        """Names of the arrays of the cells of one size, `status` included."""
        prefix = f"{self.layout.group(size)}/"
        names = (path.removeprefix(prefix) for path in self.metadata if path.startswith(prefix))
        return [name for name in names if name != "seed"]

    def arrays(self) -> list[str]:
        """Names of the arrays other than cells: dimensions, references and the values of a curve."""
        return [path for path, of in self.metadata.items() if "/" not in path and of["node_type"] == "array"]

    def dims(self, path: str) -> tuple[str, ...]:
        """Dimensions of an array."""
        return tuple(self.metadata[path]["dimension_names"])

    def about(self, path: str) -> dict[str, Any]:
        """Attributes of an array."""
        return dict(self.metadata[path].get("attributes", {}))

    def array(self, path: str) -> zarr.Array[Any]:
        """An array, for reading.

        Raises
        ------
        ParameterError
            The root does not list the array.
        """
        if path not in self.metadata:
            raise ParameterError("store", self.url, "a whole bendscape store", f"{path} is missing")
        return zarr.Array.from_dict(zarr.storage.StorePath(self._objects, path), self.metadata[path])

    def read(self, path: str) -> NDArray[Any]:
        """The values of an array.

        Raises
        ------
        Damaged
            The array cannot be decoded.
        OSError
            The store does not answer.
        """
        try:
            return np.asarray(self.array(path)[...])
        except (OSError, ParameterError):
            raise
        except Exception as error:  # each codec raises its own
            raise Damaged(path, f"{type(error).__name__}: {error}") from None

    @cached_property
    def _objects(self) -> Objects:
        return reading_store(self.url)


def open_store(location: str | os.PathLike[str] | Store) -> Store:
    """The store at a path or URL, which must exist; an open store is returned unchanged.

    Raises
    ------
    ParameterError
        There is no store, or something else is there.
    OSError
        The store does not answer or denies access; `Damaged` if its root cannot be read.
    """
    if isinstance(location, Store):
        return location
    url = store_url(location)
    store = read_store(url)
    if store is None:
        cells = holds_cells(url)
        store = read_store(url)  # again: a driver may have published it and its first cells meanwhile
        if store is None and cells:
            raise rootless(url)
    if store is None:
        raise ParameterError("store", url, "a bendscape store", "there is none: `bendscape run` creates one")
    return store


def read_store(url: str, *, patient: bool = False) -> Store | None:
    """The store as its root describes it now, or None if nothing has been published.

    This is the first thing that a command reads, so an object store that does not answer fails in seconds;
    `patient` as in `connect`.

    Raises
    ------
    ParameterError
        Something other than a bendscape store is there, or a store of a newer version.
    OSError
        The store does not answer or denies access; `Damaged` if the root cannot be read.
    """
    folder = folder_of(url)
    if folder is not None and not folder.exists():
        return None
    if folder is not None and not folder.is_dir():  # checked second: another driver may be creating it
        raise ParameterError("store", str(folder), "a folder, not a file")
    try:
        document = json.loads(read_object(connect(url, patient=patient), "zarr.json"))
    except BaseError as error:  # its first line says enough
        raise OSError(f"{url} cannot be read: {str(error).splitlines()[0]}") from None
    except FileNotFoundError:
        if folder is not None and any(folder.iterdir()) and not (folder / "ledger").is_dir():
            raise ParameterError("store", str(folder), "a bendscape store or a new folder") from None
        return None
    except ParameterError:  # from `connect`; it is a ValueError too
        raise
    except ValueError as error:
        raise Damaged("zarr.json", error) from None
    attributes: dict[str, Any] = document.get("attributes", {}) if isinstance(document, dict) else {}
    version = attributes.get("bendscape_store_version")
    if not isinstance(version, int):
        raise ParameterError("store", url, "a bendscape store", "this is some other Zarr group")
    if version > STORE_VERSION:
        raise ParameterError(
            "store", url, f"store version up to {STORE_VERSION}", f"version {version}: upgrade bendscape"
        )
    try:
        metadata = document["consolidated_metadata"]["metadata"]
        return Store.of(url, attributes, metadata)
    except (KeyError, TypeError) as error:
        raise Damaged("zarr.json", f"it lacks {error}") from None


def rootless(url: str) -> ParameterError:
    """What to raise where there are cells or receipts and still no root: under another layout they would be
    taken for other cells.

    An interrupted creation leaves neither. Look for cells first and for the root second: a driver publishes
    the root before the first cell.
    """
    remedy = f"there are cells but no zarr.json: run `bendscape fsck --repair {url}`"
    return ParameterError("store", url, "a store with its zarr.json", remedy)


def holds_cells(url: str) -> bool:
    """Whether there is any chunk of a kernel's variable, or any receipt."""
    folder = folder_of(url)
    if folder is not None:
        chunks = (path for path in folder.glob("*/*/c") if path.parent.name != "seed")
        places = (folder / "ledger" / "segments", *chunks)
        return any("#" not in path.name and path.is_file() for at in places for path in at.rglob("*"))
    objects = connect(url)
    folders = ["ledger/segments"]
    for size in obstore.list_with_delimiter(objects)["common_prefixes"]:
        if size != "ledger":
            inside = obstore.list_with_delimiter(objects, prefix=size)["common_prefixes"]
            folders += [f"{path}/c" for path in inside if path.rpartition("/")[2] != "seed"]
    return any(page for folder in folders for page in obstore.list(objects, prefix=folder, chunk_size=1))
