"""The code and the environment that computed something."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("bendscape", "numpy", "scipy", "ray", "zarr", "obstore")


def provenance(kernel_modules: tuple[str, ...] = ()) -> dict[str, Any]:
    """The code and the environment that computed something; a user's module by the BLAKE2b of its file."""
    modules = {
        module: hashlib.blake2b(Path(module).read_bytes(), digest_size=16).hexdigest()
        if module.endswith(".py")
        else _version_of(module)
        for module in kernel_modules
    }
    return {
        **({"kernel_modules": modules} if modules else {}),
        "code_version": code_version(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _version_of(module: str) -> str:
    try:
        return version(module.partition(".")[0])
    except PackageNotFoundError:
        return "not installed as a package"


def code_version() -> str:
    """Version of the package, with the commit and a `dirty` flag where it runs from a checkout."""
    folder, text = Path(__file__).parent, version("bendscape")
    if not (folder.parent / ".git").exists():
        return text
    try:
        git = [
            "git",
            "-C",
            str(folder.parent),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude=*",
        ]
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return f"{text}+{commit}" if commit else text
