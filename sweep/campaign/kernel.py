"""The seam to what a cell computes: a kernel declares its variables, costs and version, and one function."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import inspect
import math
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axes, Cell, check_axes
from bendscape.sweep.texts import clean, message_of

if TYPE_CHECKING:
    from bendscape.sweep.campaign.grid import Grid

STATUS = {"absent": 0, "done": 1, "failed": 2, "not_converged": 3}
"""Codes of the `status` variable, written last: a cell is stored exactly when its status is not absent."""

NOT_WANTED = -1
"""What readers see as the status of a cell that the campaign does not ask for; it is never stored."""


BOOKKEEPING = frozenset({"status", "n_seeds", "wanted", "coverage"})
"""Names that readers give to what the engine knows of cells: no variable of a kernel has one."""

_NOT_OURS = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)  # what a module may raise
_BY_NAME = "rename it; a campaign asks for an installed kernel by its name alone"
_WHERE = "a Python file or an importable module that defines KERNEL"
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "float64": (float, int),
    "float32": (float, int),
    "complex128": (complex, float, int),
    "complex64": (complex, float, int),
    "int64": (int, bool),
    "int8": (int, bool),
}
"""Types of number that each dtype takes, where it holds the value exactly."""

_LONGEST_NAME, _LONGEST_TEXT = 100, 1000  # characters: of a kernel or variable, and of what is said of one


MOST_BYTES = 2**20
"""Of one variable in one cell."""
ROUNDING = 1e-6
"""By how much a value may miss an end of its range, relative to that end or to 1 if that is more."""


Dtype = Literal["float64", "float32", "complex128", "complex64", "int64", "int8", "str"]


@dataclass(frozen=True)
class Dimension:
    """An inner dimension of variables, always whole in a store: its coordinates, which never change."""

    name: str
    values: tuple[int | float, ...]
    long_name: str = ""
    units: str = "1"


@dataclass(frozen=True)
class Variable:
    """What a kernel returns for each cell, as it is stored: one number, or an array over inner dimensions.

    Absent and failed cells hold NaN, integers the lowest number of their type.

    `valid_range` holds every value that the variable can have, its ends included; NaN is always accepted.
    `flags` are the meanings of the values 0, 1, ... of an int8. `nan` tells whether a reference can be NaN;
    where it cannot, a NaN in a store is damage. `dims` are inner dimensions that the kernel declares.
    """

    name: str
    long_name: str
    dtype: Dtype = "float64"
    units: str = "1"
    valid_range: tuple[float, float] = (-math.inf, math.inf)
    flags: tuple[str, ...] = ()
    nan: bool = True
    dims: tuple[str, ...] = ()

    @property
    def fill_value(self) -> float | int | str:
        """What an absent cell holds."""
        if self.dtype == "str":
            return ""
        if np.dtype(self.dtype).kind == "i":
            return int(np.iinfo(self.dtype).min) if self.name != "status" else 0
        return math.nan

    @property
    def attributes(self) -> dict[str, Any]:
        """As the CF conventions have them: `long_name`, `units`, the ends of the range that are finite as
        `valid_min` and `valid_max`, flags."""
        kind = int if self.dtype.startswith("int") else float
        ends = zip(("valid_min", "valid_max"), self.valid_range, strict=True)
        found: dict[str, Any] = {"long_name": self.long_name, "units": self.units}
        found |= {name: kind(end) for name, end in ends if math.isfinite(end)}
        if self.flags:
            found |= {"flag_values": list(range(len(self.flags))), "flag_meanings": " ".join(self.flags)}
        return found


FINITE = (-sys.float_info.max, sys.float_info.max)
"""Range of whatever must be finite."""


def range_in_words(low: float, high: float) -> str:
    """What a range accepts."""
    return "a finite number" if (low, high) == FINITE else f"in [{low:g}, {high:g}]"


def outside_range(values: npt.ArrayLike, low: float, high: float) -> npt.NDArray[np.bool_]:
    """Which values lie outside [low, high] by more than `ROUNDING`; NaN never does."""
    values = np.asarray(values)
    least, most = (
        end + sign * ROUNDING * max(1.0, abs(end)) if abs(end) < FINITE[1] else end
        for sign, end in ((-1, low), (1, high))
    )
    found: npt.NDArray[np.bool_] = (values < least) | (values > most)
    return found


@dataclass(frozen=True)
class Outcome:
    """What a kernel returns for one cell: a value for every declared variable, and whether it converged.

    A value is a plain number of Python or NumPy that its variable holds exactly, or an array of the shape of
    its inner dimensions. NaN is a value like any other: a cell that holds it is done.
    """

    values: Mapping[str, complex | npt.NDArray[Any]]
    converged: bool = True


@dataclass(frozen=True)
class Reference:
    """What is known of the points of a grid without drawing anything: kept in the store beside the cells.

    Parameters
    ----------
    variables
        What `compute` returns.
    over
        Names of the axes that it depends on: all model axes, or all of them and the curve.
    compute
        Values of these axes as flat arrays, by name, to a flat array for each variable. For an axis with a
        default its argument has that default too.
    """

    variables: tuple[Variable, ...]
    over: tuple[str, ...]
    compute: Callable[..., Mapping[str, npt.NDArray[Any]]]

    def on(self, axes: Axes) -> Reference:
        """The reference of a kernel that lacks some of the axes with a default."""
        known = {axis.name for axis in axes.declared}
        return replace(self, over=tuple(name for name in self.over if name in known))


NO_AXES = Axes(())


@dataclass(frozen=True)
class Kernel:
    """What a cell computes; `docs/kernels.md` shows how to write one.

    Parameters
    ----------
    name, version
        Identity: a store never mixes two kernels or two versions. Raise the version when bits change.
    variables
        What `compute` returns for each cell.
    compute
        `compute(cell, rng) -> Outcome`. A pure function of the cell and its random stream; an exception
        marks this cell as failed, and its traceback is kept.
    seconds, peak_bytes
        Estimates on one core, as functions of the cell: they size tiles and tasks and predict the end.
        Finite; seconds > 0, bytes >= 0.
    digest
        BLAKE2b of the source that it was loaded from: set by `load_kernel` for a module that was named to it,
        by `hold` from the text of its function; empty for an installed kernel, which stands by its version.
    axes
        Of its cells; where it declares none, `load_kernel` gives it those of the default kernel that have no
        default (of later ones its code knows nothing), with their references and their check.
    references
        What is known of the points of a grid.
    dimensions
        Inner dimensions of the variables, with their coordinates.
    options, configure
        A pydantic model of what is constant in a campaign and decides bits, the table `[kernel]` of its file,
        and the kernel for options of that model. `settings` are those it has, as a store keeps them.
    check
        Raises ParameterError for a grid with points that no cell can be computed at.
    """

    name: str
    version: int
    variables: tuple[Variable, ...]
    compute: Callable[[Cell, np.random.Generator], Outcome]
    seconds: Callable[[Cell], float]
    peak_bytes: Callable[[Cell], float]
    digest: str = ""
    axes: Axes = NO_AXES
    references: tuple[Reference, ...] = ()
    check: Callable[[Grid], None] | None = None
    dimensions: tuple[Dimension, ...] = ()
    options: type[BaseModel] | None = None
    configure: Callable[[Any], Kernel] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def inner_shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of a variable in one cell."""
        lengths = {dimension.name: len(dimension.values) for dimension in self.dimensions}
        return tuple(lengths[name] for name in variable.dims)

    def cell_bytes(self) -> int:
        """Bytes of one cell before compression, status included."""
        sizes = (math.prod(self.inner_shape(of)) * np.dtype(of.dtype).itemsize for of in self.variables)
        return sum(sizes) + 1


class BadOutcome(TypeError):
    """What `compute` returned is not what its kernel declares; it marks the cell as failed."""


DEFAULT = "hessian"
"""The kernel of a campaign that names none; a kernel that declares no axes has those of its axes that have no
default."""


def load_kernel(
    name: str = DEFAULT, modules: Iterable[str] = (), options: Mapping[str, Any] | None = None
) -> Kernel:
    """Find a kernel by name: an installed entry point of `bendscape.kernels`, or one in the given modules.

    A module is named on the command line, never in a campaign file: a path to a Python file, or a dotted
    name, which defines `KERNEL`. Nothing else is imported: of the installed kernels only the one asked for.

    Returns
    -------
    Kernel
        With axes, and functions that are held to the declaration: estimates that are not what they should be
        raise ParameterError, and `compute` raises BadOutcome where its outcome has other variables or types.

    Raises
    ------
    ParameterError
        No kernel of that name (the line lists those there are), a module that cannot be imported, one name
        for two kernels, or a declaration that is not accepted.
    """
    installed = _installed()
    own = _own(modules, installed)
    if name in own:
        kernel, source = own[name]
        return with_options(_held(kernel, source), options or {}, source)
    if name not in installed:
        known = ", ".join(sorted({*installed, *own}))
        raise ParameterError("campaign.kernel", name, known, "name a module of your own with --kernel-module")
    return with_options(_load(installed[name]), options or {}, installed[name].value)


def with_options(kernel: Kernel, options: Mapping[str, Any], source: str) -> Kernel:
    """A kernel for the options of a campaign; its own defaults stand for what is not given.

    Raises
    ------
    ParameterError
        An option that the kernel does not have, or a value that it does not accept.
    """
    if kernel.options is None or kernel.configure is None:
        for name, value in options.items():
            raise ParameterError(f"kernel.{name}", value, f"absent: kernel {kernel.name!r} has no options")
        return kernel
    try:
        chosen = kernel.options.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            accepted = f"absent; options of {kernel.name!r} are {', '.join(kernel.options.model_fields)}"
        else:
            accepted = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        raise ParameterError(f"kernel.{name}", first["input"], accepted) from None
    settings = chosen.model_dump(mode="json")
    if not options:
        return replace(kernel, settings=settings)
    made = kernel.configure(chosen)
    if (made.name, made.version) != (kernel.name, kernel.version):
        raise ParameterError("KERNEL.configure", made.name, f"a kernel of the name {kernel.name!r}")
    _check(made, source)
    return _held(replace(made, digest=kernel.digest, settings=settings), source)


def hold(kernel: object, source: str) -> Kernel:
    """A kernel that is at hand, as `load_kernel` gives it; `source` says in errors where it is declared.

    Raises
    ------
    ParameterError
        A declaration that is not accepted, or the name of an installed kernel.
    """
    if not isinstance(kernel, Kernel):
        remedy = "decorate a function with bendscape.sweep.kernel"
        raise ParameterError("kernel", kernel, "a bendscape Kernel", remedy)
    _check(kernel, source)
    if kernel.name in _installed():
        raise ParameterError("KERNEL.name", kernel.name, "a name that no installed kernel has", _BY_NAME)
    return _held(replace(kernel, digest=kernel.digest or source_digest(kernel.compute)), source)


def source_digest(function: Callable[..., Any]) -> str:
    """Digest of the text of a function; empty where Python cannot read it."""
    try:
        return _digest(textwrap.dedent(inspect.getsource(function)).encode())
    except (OSError, TypeError):
        return ""


def load_kernels(modules: Iterable[str] = ()) -> dict[str, Kernel | ParameterError]:
    """Every kernel that there is, by name: those of the given modules, and the installed ones.

    An installed kernel that cannot be loaded has its error in its place; what a module of the caller's own
    raises is raised, as by `load_kernel`.
    """
    installed = _installed()
    own = _own(modules, installed)
    found: dict[str, Kernel | ParameterError] = {}
    for name in sorted({*installed, *own}):
        try:
            found[name] = _held(*own[name]) if name in own else _load(installed[name])
        except ParameterError as error:
            if name in own:
                raise
            found[name] = error
    return found


def _own(modules: Iterable[str], installed: Mapping[str, EntryPoint]) -> dict[str, tuple[Kernel, str]]:
    # The kernels of modules, with where each is from.
    own: dict[str, tuple[Kernel, str]] = {}
    for module in dict.fromkeys(modules):
        loaded, digest = _imported(module)
        kernel = replace(_kernel_of(loaded, "KERNEL", "--kernel-module", module), digest=digest)
        if kernel.name in installed or kernel.name in own:
            other = "an installed kernel" if kernel.name in installed else "another --kernel-module"
            remedy = f"{module} has the name of {other}; give it another"
            raise ParameterError("KERNEL.name", kernel.name, "a name that no other kernel has", remedy)
        own[kernel.name] = kernel, module
    return own


def _load(point: EntryPoint) -> Kernel:
    try:
        module_of_point = importlib.import_module(point.module)
    except _NOT_OURS as error:
        accepted = "a kernel whose module can be imported"
        raise ParameterError("kernel", point.name, accepted, _why(error)) from None
    kernel = _kernel_of(module_of_point, point.attr, "entry point", point.value)
    if kernel.name != point.name:
        accepted = f"{point.name!r}, as its entry point {point.value} has it"
        raise ParameterError("KERNEL.name", kernel.name, accepted)
    return _held(kernel, point.value)


def _installed() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group="bendscape.kernels"):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            remedy = f"{other.value} and {point.value} are both installed; remove one"
            raise ParameterError("kernel", point.name, "a name that one installed package has", remedy)
    return found


def _imported(module: str) -> tuple[ModuleType, str]:
    path = Path(module)
    try:
        if path.suffix != ".py":
            named = importlib.import_module(module)
            file = getattr(named, "__file__", None)
            return named, _digest(Path(file).read_bytes()) if file else ""
        name = f"bendscape_kernel_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or not path.is_file():
            raise ParameterError("--kernel-module", module, _WHERE)
        # Compiled here, so that the digest is that of what runs, and no stale bytecode comes between.
        source = path.read_bytes()
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded  # where dataclasses and pickle look for a module
        exec(compile(source, str(path), "exec", dont_inherit=True), loaded.__dict__)
        return loaded, _digest(source)
    except ParameterError:
        raise
    except _NOT_OURS as error:  # whatever the module does when it is imported
        raise ParameterError("--kernel-module", module, _WHERE, _why(error)) from None


def _digest(source: bytes) -> str:
    return hashlib.blake2b(source, digest_size=16).hexdigest()


def _why(error: BaseException) -> str:
    # The error and the line of the module that it comes from, not the machinery that imported it.
    machinery = ("<frozen ", importlib.__file__, __file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(message_of(error).split())}{place}"


def _kernel_of(module: ModuleType, attribute: str, parameter: str, source: str) -> Kernel:
    kernel = getattr(module, attribute, None)
    if not isinstance(kernel, Kernel):
        raise ParameterError(parameter, source, f"a module whose {attribute} is a bendscape Kernel")
    _check(kernel, source)
    return kernel


def _check(kernel: Kernel, source: str) -> None:
    def refuse(part: str, value: object, accepted: str) -> ParameterError:
        return ParameterError(f"KERNEL.{part}", value, accepted, f"it is declared in {source}")

    def told(text: object) -> bool:
        return isinstance(text, str) and clean(text, _LONGEST_TEXT) == text

    if not isinstance(kernel.name, str) or not re.fullmatch(r"[\w.-]{1,100}", kernel.name):
        raise refuse("name", kernel.name, f"letters, digits, _ . -, at most {_LONGEST_NAME}")
    if not isinstance(kernel.version, int) or isinstance(kernel.version, bool) or kernel.version < 1:
        raise refuse("version", kernel.version, "an integer >= 1")
    for dimension in kernel.dimensions:
        numbers = [isinstance(v, int | float) and math.isfinite(v) for v in dimension.values]
        if not dimension.name.isidentifier() or not numbers or not all(numbers):
            raise refuse("dimensions", dimension.name, "a Python name with at least one number")
    variables = kernel.variables
    if not isinstance(variables, tuple) or not variables:
        raise refuse("variables", variables, "a tuple of at least one Variable")
    names: set[str] = set()
    for variable in variables:
        if not isinstance(variable, Variable):
            raise refuse("variables", variable, "a tuple of Variable")
        name = variable.name
        if not isinstance(name, str) or not name.isidentifier() or len(name) > _LONGEST_NAME:
            raise refuse(
                "variables", name, f"named as Python names a variable, in at most {_LONGEST_NAME} letters"
            )
        if name in names:
            raise refuse("variables", name, "of distinct names")
        if unknown := [dim for dim in variable.dims if dim not in {of.name for of in kernel.dimensions}]:
            raise refuse(f"variables, dims of {name},", unknown[0], "one of the kernel's dimensions")
        if variable.dtype not in _ACCEPTED:
            raise refuse(f"variables, dtype of {name},", variable.dtype, f"one of {', '.join(_ACCEPTED)}")
        for of in ("long_name", "units"):
            if not told(getattr(variable, of)):
                accepted = f"text without control characters, at most {_LONGEST_TEXT} characters"
                raise refuse(f"variables, {of} of {name},", getattr(variable, of), accepted)
        _check_range(variable, refuse)
        size = math.prod(kernel.inner_shape(variable)) * np.dtype(variable.dtype).itemsize
        if size > MOST_BYTES:
            raise refuse(f"variables, bytes of {name},", size, f"at most {MOST_BYTES} in a cell")
        names.add(name)
    for part in ("compute", "seconds", "peak_bytes"):
        if not callable(getattr(kernel, part)):
            raise refuse(part, getattr(kernel, part), "a function")


def _check_range(variable: Variable, refuse: Callable[[str, object, str], ParameterError]) -> None:
    try:
        low, high = (float(end) for end in variable.valid_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low <= high:
        accepted = "two numbers (low, high), low <= high"
        raise refuse(f"variables, valid_range of {variable.name},", variable.valid_range, accepted)


@lru_cache(maxsize=1)
def default_kernel() -> Kernel:
    """The kernel of a campaign that names none."""
    return load_kernel(DEFAULT)


def _held(kernel: Kernel, source: str) -> Kernel:
    if not kernel.axes.declared:
        default = default_kernel()
        axes = default.axes.required
        references = tuple(of.on(axes) for of in default.references)
        kernel = replace(kernel, axes=axes, references=references, check=default.check)
    check_axes(kernel.axes)
    taken = {
        *BOOKKEEPING,
        *(name for axis in kernel.axes.declared for name in (axis.name, f"{axis.name}_factor")),
    }
    taken |= {variable.name for reference in kernel.references for variable in reference.variables}
    for name in (of.name for declared in (kernel.variables, kernel.dimensions) for of in declared):
        if name in taken:
            accepted = f"named otherwise than {', '.join(sorted(taken))}"
            raise ParameterError("KERNEL.variables", name, accepted, f"it is declared in {source}")
    return replace(
        kernel,
        compute=partial(_compute, kernel),
        seconds=partial(_estimate, kernel.seconds, "seconds", "> 0"),
        peak_bytes=partial(_estimate, kernel.peak_bytes, "peak_bytes", ">= 0"),
    )


def _estimate(of: Callable[[Cell], float], field: str, bound: str, cell: Cell) -> float:
    accepted, at = f"a finite number {bound} for every cell", f"this is at {cell}"
    try:
        value = float(of(cell))
    except _NOT_OURS as error:
        raise ParameterError(f"KERNEL.{field}", _why(error), accepted, at) from None
    if not math.isfinite(value) or value < 0 or (value == 0 and bound == "> 0"):
        raise ParameterError(f"KERNEL.{field}", value, accepted, at)
    return value


def _compute(kernel: Kernel, cell: Cell, rng: np.random.Generator) -> Outcome:
    outcome = kernel.compute(cell, rng)
    if not isinstance(outcome, Outcome):
        raise BadOutcome(f"compute returned {type(outcome).__name__}, not an Outcome")
    declared, values = {v.name for v in kernel.variables}, outcome.values
    if not isinstance(values, Mapping):
        raise BadOutcome(f"the values of an Outcome must be a mapping, not {_kind(values)}")
    if missing := [name for name in declared if name not in values]:
        raise BadOutcome(f"compute returned no value for {', '.join(missing)}")
    if unknown := [str(name) for name in values if name not in declared]:
        raise BadOutcome(f"compute returned {', '.join(unknown)}, which KERNEL.variables does not declare")
    if type(outcome.converged) not in (bool, np.bool_):
        raise BadOutcome(f"converged must be True or False, not {_kind(outcome.converged)}")
    numbers = {
        of.name: _array(of, values[of.name], kernel.inner_shape(of))
        if of.dims
        else _number(of.name, values[of.name], of.dtype)
        for of in kernel.variables
    }
    for variable in kernel.variables:
        if variable.dtype.startswith("complex"):
            continue
        low, high = variable.valid_range
        outside = outside_range(numbers[variable.name], low, high)
        if outside.any():
            found, accepted = np.asarray(numbers[variable.name])[outside][0], range_in_words(low, high)
            raise BadOutcome(f"{variable.name} = {found} must be {accepted}, as its valid_range declares")
    return Outcome(numbers, bool(outcome.converged))


def _array(variable: Variable, value: object, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    # Of the declared type, or of one whose every value it holds; a list or a masked array may mean more.
    name, dtype = variable.name, np.dtype(variable.dtype)
    if type(value) is not np.ndarray:
        raise BadOutcome(f"{name} must be a NumPy array of shape {shape}, not {_kind(value)}")
    if value.shape != shape:
        raise BadOutcome(
            f"{name} must have the shape {shape} of {', '.join(variable.dims)}, not {value.shape}"
        )
    if not np.can_cast(value.dtype, dtype, "safe"):
        raise BadOutcome(
            f"{name} must be of type {dtype}, not {value.dtype}: round it, astype({str(dtype)!r})"
        )
    cast_to = value.astype(dtype)
    if dtype.kind == "i" and (cast_to == np.iinfo(dtype).min).any():
        raise BadOutcome(f"{name} holds the lowest {dtype}, which stands for a cell that is not there")
    return cast_to


def _number(name: str, value: object, dtype: str) -> complex:
    # By exact type: what only can be turned into a number may mean more than the number (a mask, a unit,
    # further digits), which would be lost without a word.
    plain = value
    of_numpy = isinstance(value, np.generic | np.ndarray) and type(value) in (value.dtype.type, np.ndarray)
    if of_numpy and value.shape == () and value.dtype.kind in "biufc":  # type: ignore[attr-defined]
        plain = value.item()  # type: ignore[attr-defined]  # of a long double it is no float
    if type(plain) not in _ACCEPTED[dtype]:
        raise BadOutcome(f"{name} must be one number of type {dtype}, not {_kind(value)}")
    if not dtype.startswith("int"):
        return _held_exactly(name, cast(complex, plain), dtype)
    number = cast(int, plain)
    if not np.iinfo(dtype).min < number <= np.iinfo(dtype).max:
        # the lowest value is what readers are given for a cell that is not there
        accepted = f"{np.iinfo(dtype).min + 1} to {np.iinfo(dtype).max}"
        raise BadOutcome(f"{name} = {_shown(number)} is outside the range of {dtype} variables, {accepted}")
    return number


def _held_exactly(name: str, number: complex, dtype: str) -> complex:
    try:
        held = complex(np.dtype(dtype).type(number))
    except OverflowError:
        held = complex(math.inf)
    if held != number and not (number != number and held != held):  # NaN is held as NaN
        shown = _shown(number) if isinstance(number, int) else number
        remedy = "float(...), or declare int64" if dtype == "float64" else f"np.{dtype}(...)"
        raise BadOutcome(f"{name} = {shown} is no {dtype}: round it, {remedy}")
    return number


def _shown(number: float | int) -> str:
    return str(number) if abs(number) < 10**40 else "an integer of more than 40 digits"


def _kind(value: object) -> str:
    if np.ma.isMA(value):
        return "a masked value or array"
    if isinstance(value, np.ndarray) and value.shape:
        return f"an array of shape {value.shape}"
    return clean(type.__dict__["__name__"].__get__(type(value)), _LONGEST_NAME)
