"""Where kernels come from (installed packages, modules, functions) and how they are sent to workers."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axes, check_axes
from bendscape.sweep.campaign.kernel import BOOKKEEPING, Kernel, Reference, check_declaration
from bendscape.sweep.campaign.outcomes import NOT_OURS, computed, estimated, origin_of
from bendscape.sweep.plugins import entry_points

if TYPE_CHECKING:
    from bendscape.sweep.campaign.grid import Grid

DEFAULT = "hessian"
"""The kernel of a campaign that names none."""
_DEFAULT_DECLARATIONS = "bendscape.sweep.kernels.quadratic"

MAX_PICKLE = 10_000_000
"""Largest size in bytes of a kernel that is sent with every task."""

_BY_NAME = "rename it; a campaign asks for an installed kernel by its name alone"
_WHERE = "a Python file or an importable module that defines KERNEL"


def load_kernel(
    name: str = DEFAULT, modules: Iterable[str] = (), options: Mapping[str, Any] | None = None
) -> Kernel:
    """Find a kernel by name: an installed entry point of `bendscape.kernels`, or one in the given modules.

    A module is given on the command line, never in a campaign file: a path to a Python file or a dotted
    name. It defines `KERNEL`. Of the installed kernels only the requested one is imported.

    Returns
    -------
    Kernel
        With axes, and with its functions checked at every call: an estimate that is not a number in its range
        raises ParameterError; `compute` raises BadOutcome if its outcome does not match the declared
        variables.

    Raises
    ------
    ParameterError
        No kernel has this name (the message lists those that exist), a module cannot be imported, two kernels
        have the same name, or a declaration is not accepted.
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
    """The kernel with the options of a campaign; options that are not given take their defaults.

    Raises
    ------
    ParameterError
        The kernel has no such option, or does not accept the value.
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
        raise ParameterError("KERNEL.configure", made.name, f"a function that keeps the name {kernel.name!r}")
    check_declaration(made, source)
    return _held(replace(made, digest=kernel.digest, settings=settings), source)


def hold(kernel: object, source: str) -> Kernel:
    """Check a kernel made in Python, as `load_kernel` does; `source` says in errors where it was made.

    Raises
    ------
    ParameterError
        The declaration is not accepted, or an installed kernel has the same name.
    """
    if not isinstance(kernel, Kernel):
        remedy = "decorate a function with bendscape.sweep.kernel"
        raise ParameterError("kernel", kernel, "a bendscape Kernel", remedy)
    check_declaration(kernel, source)
    if kernel.name in _installed():
        raise ParameterError("KERNEL.name", kernel.name, "a name that no installed kernel has", _BY_NAME)
    return _held(replace(kernel, digest=kernel.digest or source_digest(kernel.compute)), source)


def source_digest(function: Callable[..., Any]) -> str:
    """Digest of the source text of a function; empty if Python cannot read it."""
    try:
        return _digest(textwrap.dedent(inspect.getsource(function)).encode())
    except (OSError, TypeError):
        return ""


def load_kernels(modules: Iterable[str] = ()) -> dict[str, Kernel | ParameterError]:
    """Every available kernel by name: those of the given modules and the installed ones.

    An installed kernel that cannot be loaded is replaced by its error. Errors in the caller's own modules are
    raised, as by `load_kernel`.
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
    # The kernels of the given modules, each with its origin.
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
    except NOT_OURS as error:
        accepted = "a kernel whose module can be imported"
        raise ParameterError("kernel", point.name, accepted, origin_of(error)) from None
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
        # Compiled here, so that the digest is that of the code that runs and stale bytecode is never used.
        source = path.read_bytes()
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded  # dataclasses and pickle look modules up here
        exec(compile(source, str(path), "exec", dont_inherit=True), loaded.__dict__)
        return loaded, _digest(source)
    except ParameterError:
        raise
    except NOT_OURS as error:  # whatever the module does when it is imported
        raise ParameterError("--kernel-module", module, _WHERE, origin_of(error)) from None


def _digest(source: bytes) -> str:
    return hashlib.blake2b(source, digest_size=16).hexdigest()


def _kernel_of(module: ModuleType, attribute: str, parameter: str, source: str) -> Kernel:
    kernel = getattr(module, attribute, None)
    if not isinstance(kernel, Kernel):
        raise ParameterError(parameter, source, f"a module whose {attribute} is a bendscape Kernel")
    check_declaration(kernel, source)
    return kernel


class Declarations(NamedTuple):
    """Axes of a kernel, the references on them, and what refuses a grid."""

    axes: Axes
    references: tuple[Reference, ...]
    check: Callable[[Grid], None]


@lru_cache(maxsize=1)
def default_declarations() -> Declarations:
    """Those of the default kernel, without its code. A kernel that declares no axes gets those of these axes
    that have no default."""
    return Declarations(**importlib.import_module(_DEFAULT_DECLARATIONS).NETWORK)


def _held(kernel: Kernel, source: str) -> Kernel:
    if not kernel.axes.declared:
        default = default_declarations()
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
            accepted = f"a name other than {', '.join(sorted(taken))}"
            raise ParameterError("KERNEL.variables", name, accepted, f"it is declared in {source}")
    return replace(
        kernel,
        compute=partial(computed, kernel),
        seconds=partial(estimated, kernel.seconds, "seconds", "> 0"),
        peak_bytes=partial(estimated, kernel.peak_bytes, "peak_bytes", ">= 0"),
    )


def pickled(kernel: Kernel) -> bytes:
    """A kernel as bytes, for workers: functions of a script or notebook by value, others by name.

    Raises
    ------
    ParameterError
        It holds something that cannot be pickled (an open file, a lock, ...), or is larger than `MAX_PICKLE`.
    """
    import cloudpickle  # type: ignore[import-untyped]

    accepted = "a kernel that can be pickled"
    try:
        found: bytes = cloudpickle.dumps(kernel)
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ParameterError("kernel", kernel.name, accepted, why) from None
    if len(found) > MAX_PICKLE:
        accepted = f"at most {MAX_PICKLE} bytes with the data that the function reads"
        remedy = f"it has {len(found)}: let the function load the data itself"
        raise ParameterError("kernel", kernel.name, accepted, remedy)
    return found


def unpickled(found: bytes, name: str) -> Kernel:
    """Inverse of `pickled`. Only for bytes from this run's own driver: unpickling runs code.

    Raises
    ------
    ParameterError
        Something that the kernel uses cannot be imported here, such as a module beside the driver's script.
    """
    import pickle

    try:
        kernel = pickle.loads(found)
    except Exception as error:
        accepted = "a kernel whose modules workers can import"
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ParameterError("kernel", name, accepted, why) from None
    assert isinstance(kernel, Kernel)
    return kernel
