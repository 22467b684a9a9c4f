"""The refiner of a quantity: the state of every model of a store, and the cells of the next round."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bendscape.analysis.dataset.analyses import NETWORK
from bendscape.analysis.refine.design_model import Fitted, Quantity
from bendscape.analysis.refine.states import Held, Row, row_of, within
from bendscape.analysis.refine.trust import halved
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Scalar
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.grid import NO_SIZE
from bendscape.sweep.campaign.kernel import NOT_WANTED, STATUS, Kernel
from bendscape.sweep.campaign.target import Proposal, Refiner, Target
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.store.root import Store
from bendscape.sweep.store.runs import core_seconds_spent

_OF_MODELS = ("status", "transition", "alpha_bbp")  # what readers add to the variables of a kernel
_REAL = ("float64", "float32", "int64", "int8")


def refiner(quantity: Quantity) -> Refiner:
    """What an entry point of `bendscape.refiners` provides, for a quantity."""

    def refine(store: Any, target: Target) -> Proposal:
        rows = rows_of(quantity, store, target)
        return Proposal(tuple(one for row in rows for one in row.additions), tuple(row.state for row in rows))

    def lacks(kernel: Kernel) -> str:
        names = {of.name for of in (*kernel.variables, *(v for r in kernel.references for v in r.variables))}
        axes = {axis.name: xr.Variable((), 0, {"role": axis.role}) for axis in kernel.axes.declared}
        known = xr.Dataset({**dict.fromkeys((*names, *_OF_MODELS), 0), **axes})
        numbers = {of.name for of in kernel.variables if not of.dims and of.dtype in _REAL}
        found = [
            *quantity.needs.lacking(known),
            *_no_numbers(quantity, [str(k) for k in known.variables], numbers),
        ]
        return ", ".join([*found, *([] if kernel.axes.curve else ["a curve axis"])])

    return Refiner(refine, lacks)


def _no_numbers(quantity: Quantity, names: Collection[str], numbers: Collection[str]) -> list[str]:
    return [
        f"{name} as one real number a cell"
        for name in quantity.numbers
        if name in names and name not in numbers
    ]


def rows_of(quantity: Quantity, store: Store, target: Target) -> list[Row]:
    """The state of every model for which the target asks something, and the next round for those that are
    open.

    A model is `met` only if its estimate is sound and its standard error, which is not below what its 95 %
    interval implies, is at most the one wanted. An estimate that meets the precision and is suspect gets as
    many cells again. One that is refuted, that moves significantly and by more than the precision under
    another choice of the fit, or that is still suspect at half the error wanted, is `unreachable`, with the
    reason, if the odd and the even cells fail a test each on their own, and `met` if they do not and the
    precision is twice the one wanted. Tests are repeated every round and hence fail more often than once; by
    chance they fail in both halves with the square of the probability.

    Parameters
    ----------
    quantity : Quantity
    store : Store
        Complete or not. Cells that its campaign asks for and that are not computed yet count as coming.
    target : Target
        Its core-hours, less those that the receipts record, limit the round: the models with the shortest
        rounds come first.

    Raises
    ------
    ParameterError
        The store lacks a variable or an axis of the quantity.
    """
    sweep = Sweep(quantity, store)
    rows = []
    with threadpool_limits(1):  # small matrices: more threads are slower
        for model, block in sweep.models():
            if target.of(model) is not None:
                fitted, held = quantity.fit(block), sweep.held(model, block)
                rows.append(row_of(fitted, held, target.wanted(model, fitted.value), sweep.halves(block)))
    return (
        rows
        if target.core_hours is None
        else within(rows, 3600 * target.core_hours - core_seconds_spent(store.ledger))
    )


class Sweep:
    """A store as a refiner sees it: its models, the cells at every point, and what a cell costs."""

    def __init__(self, quantity: Quantity, store: Store) -> None:
        self.quantity, self.store = quantity, store
        self.ds = xr.open_dataset(store, engine="bendscape", chunks={})  # type: ignore[arg-type]
        self.sweep = quantity.needs.sweep(self.ds)
        axes = store.layout.axes
        if axes.curve is None or store.layout.curve is None:
            raise ParameterError("store", store.url, "a sweep with a curve axis", "its kernel has none")
        cells = self.sweep["status"].dims
        variables = {str(name): of for name, of in self.sweep.data_vars.items()}
        numbers = {k for k, of in variables.items() if of.dims == cells and of.dtype.name in _REAL}
        if lacks := _no_numbers(quantity, [str(k) for k in self.sweep.variables], numbers - {"status"}):
            raise ParameterError("store", store.url, f"a sweep with {', '.join(lacks)}")
        self.axes, self.axis, self.curve = axes, axes.curve, store.layout.curve
        self.size = axes.size.name if axes.size is not None else None

    @cached_property
    def kernel(self) -> Kernel | None:
        """The kernel of the store; None if it is not installed, as one of a notebook or a module."""
        try:
            return self.store.kernel()
        except ParameterError:
            return None

    @cached_property
    def seconds_of_size(self) -> Mapping[int, float]:
        """From the receipts, by size: measured over estimated seconds of a cell or, without the kernel and
        its estimates, measured seconds of a cell."""
        records = self.store.ledger.records
        if self.kernel is not None:
            campaign = parse_campaign(self.store.attributes["campaign"], source=self.store.url)
            plan = plan_campaign(campaign, self.kernel, self.store.layout, records)
            return {size: plan.correction(size) for size in plan.sizes}
        sums = {size: (of.seconds.sum(), of.computed.sum()) for size, of in records.sizes.items()}
        return {size: float(seconds / cells) for size, (seconds, cells) in sums.items() if seconds and cells}

    def models(self) -> Iterator[tuple[dict[str, Scalar], xr.Dataset]]:
        """Every model with a wanted cell: the values of its axes, and its part of the sweep, in memory."""
        inner = {self.curve, self.size, self.axes.seed.name}
        dims = [str(dim) for dim in self.sweep["status"].dims if dim not in inner]
        named = [name for name in self.store.layout.dims if name != self.curve]
        needed = [name for entry in self.quantity.needs.variables for name in np.atleast_1d(entry).tolist()]
        extra = ("alpha_realised",) if self.quantity.needs.axes == NETWORK else ()
        names = [name for name in ("status", *needed, *extra) if name in self.sweep.data_vars]
        part = self.sweep[list(dict.fromkeys(names))]
        for index in np.ndindex(*(part.sizes[dim] for dim in dims)):
            block = part.isel(dict(zip(dims, index, strict=True))).load()
            if (block["status"] != NOT_WANTED).any():
                at = {name: block[name] if name in block.coords else self.ds[name] for name in named}
                yield {name: np.atleast_1d(value.values)[0].item() for name, value in at.items()}, block

    def halves(self, block: xr.Dataset) -> Callable[[], tuple[Fitted, Fitted]]:
        """The fits to both halves of the cells of one model, when they are asked for."""

        def fits() -> tuple[Fitted, Fitted]:
            one, other = halved(block, self.axes.seed.name)
            return self.quantity.fit(one), self.quantity.fit(other)

        return fits

    def held(self, model: Mapping[str, Scalar], block: xr.Dataset) -> Held:
        """The cells of one model."""
        size, seed = [self.size] if self.size is not None else [], self.axes.seed.name
        codes = block["status"].transpose(self.curve, *size, seed).values
        codes = codes if size else codes[:, None]
        sizes = block[self.size].values.tolist() if self.size is not None else [NO_SIZE]
        coordinates = block[self.curve].values.astype(np.float64)
        values = np.asarray(block[self.axis.name].values, dtype=np.float64)
        far = int(np.abs(coordinates).argmax())
        unit = float(values[far] / coordinates[far]) if coordinates[far] else 1.0
        cells, missing = {}, {}
        for i, x in enumerate(coordinates.tolist()):
            for k, N in enumerate(sizes):
                cells[x, int(N)] = int((codes[i, k] != NOT_WANTED).sum())
                missing[x, int(N)] = int((codes[i, k] == STATUS["absent"]).sum())

        def cost(coordinate: float, N: int) -> float:
            if self.kernel is None:
                return self.seconds_of_size.get(N, max(self.seconds_of_size.values(), default=1.0))
            at: dict[str, Any] = {**model, self.axis.name: coordinate * unit, seed: 0}
            at |= dict.fromkeys(size, int(N))
            cell = self.axes.cell(coordinate, **at)
            return float(self.kernel.seconds(cell)) * self.seconds_of_size.get(N, 1.0)

        return Held(
            model, unit, cells, missing, cost, self.axis.holds, int((codes == STATUS["failed"]).sum())
        )
