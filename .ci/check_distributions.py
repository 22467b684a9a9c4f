"""Contents and metadata of the distributions; with --lowest, the lowest versions of the dependencies."""

import email
import re
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
FOLDERS = ("core", "sweep", "analysis", "cluster")
SOURCES = {str(path) for folder in FOLDERS for path in Path(folder).rglob("*.py")}


def lowest() -> None:
    """Print name==version for every ``name>=version`` of the dependencies."""
    for line in sorted([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]):
        if line.startswith(PROJECT["name"]):  # an extra of its own
            continue
        name, _, version = re.fullmatch(r"([\w.-]+)(\[[\w,]+\])?>=([\d.]+)", line).groups()
        print(f"{name}=={version}")


def check(path: Path) -> None:
    """Refuse a distribution that lacks a module or a page of its own, or holds what it must not."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist())
            (metadata,) = (name for name in names if name.endswith("METADATA"))
            fields = email.message_from_bytes(file.read(metadata))
        wanted = {f"bendscape/{name}" for name in SOURCES}
        unwanted = {name for name in names if not name.startswith("bendscape")}
    else:
        with tarfile.open(path) as file:
            names = {name.partition("/")[2] for name in file.getnames()}
            metadata = f"{path.name.removesuffix('.tar.gz')}/PKG-INFO"
            fields = email.message_from_binary_file(file.extractfile(metadata))
        wanted = SOURCES | {"README.md", "LICENSE", "pyproject.toml"}
        unwanted = {
            name for name in names if name.startswith(("runs/", "build/", ".venv")) or "__pycache__" in name
        }
    assert wanted <= names, f"{path.name} lacks {sorted(wanted - names)[:5]}"
    assert not unwanted, f"{path.name} holds {sorted(unwanted)[:5]}"
    for field, value in (
        ("Name", "bendscape"),
        ("Version", PROJECT["version"]),
        ("License-Expression", "Apache-2.0"),
    ):
        assert fields[field] == value, f"{path.name}: {field} is {fields[field]}"
    assert fields["Requires-Python"] == PROJECT["requires-python"]
    print(f"{path.name}: {len(names)} names, {path.stat().st_size / 1e6:.1f} MB")


if sys.argv[1:] == ["--lowest"]:
    lowest()
else:
    for argument in sys.argv[1:]:
        check(Path(argument))
