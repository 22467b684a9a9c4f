"""The code and the environment that computed a store."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.plugins import entry_points

PACKAGES = ("numpy", "scipy", "ray", "zarr", "obstore")


def provenance(kernel: Kernel | None = None, kernel_modules: tuple[str, ...] = ()) -> dict[str, Any]:
    """The code and the environment of a computation. For a kernel, its version and origin: the BLAKE2b digest
    of its source if it is from a module named on the command line, otherwise its package.
    """
    about: dict[str, Any] = {}
    if kernel is not None:
        own = {"digest": kernel.digest, "modules": list(kernel_modules)}
        origin = own if kernel.digest else {"package": package_of(kernel.name)}
        about = {"kernel": {"name": kernel.name, "version": kernel.version, **origin}}
    return {
        **about,
        "bendscape_version": bendscape_version(),
        "python": platform.python_version(),
        "packages": dict(_packages()),
    }


@cache
def _packages() -> tuple[tuple[str, str], ...]:
    return tuple((name, version(name)) for name in PACKAGES)


def package_of(name: str) -> str:
    """The installed package that provides a kernel, with its version."""
    for point in entry_points(group="bendscape.kernels", name=name):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return "not installed as a package"


@cache
def bendscape_version() -> str:
    """Version of the package; in a checkout also the commit, with a `dirty` flag."""
    root, text = Path(__file__).parents[2], version("bendscape")
    if not (root / ".git").exists():
        return text
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return f"{text}+{commit}" if commit else text


def version_in(attributes: Mapping[str, Any]) -> str:
    """Version of bendscape in the attributes of a store; older stores have it under another name."""
    return str(attributes.get("bendscape_version") or attributes["code_version"])
