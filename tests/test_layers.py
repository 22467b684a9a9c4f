"""The structure of the project: allowed imports, contents of folders, and every way to install it."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("core", "sweep", "analysis", "cluster")
DOORS = {
    "sweep.commands.console",
    "sweep.commands.options",
    "sweep.commands.output",
}  # of the command line, for those who add to it
ALLOWED = {  # by folder: what else it may import
    "core": {"core.numerics", "core.quadratic"},
    "core.activations": {
        *("core.errors", "core.numerics"),
        *("core.quadratic.model", "core.quadratic.sampling"),  # data, reveal and costs are the same
    },
    "core.inverse_ising": {"core.errors", "core.numerics"},
    "core.memory": {"core.errors", "core.numerics"},
    "core.numerics": {"core.errors"},
    "core.perceptron": {"core.errors", "core.numerics"},
    "core.quadratic": {"core.errors"},
    "core.quadratic.theory": {"core.errors", "core.numerics", "core.quadratic.model"},
    "core.quadratic.sampling": {
        *("core.errors", "core.numerics", "core.quadratic.model"),
        "core.quadratic.theory.label_weights",  # which defines what is sampled
    },
    "core.quadratic.descent": {
        *("core.errors", "core.numerics", "core.quadratic.model", "core.quadratic.sampling"),
    },
    "core.quadratic.finite_size": {"core.errors", "core.quadratic.model", "core.quadratic.theory"},
    "sweep": {"core.errors", "sweep.campaign", "sweep.commands", "sweep.engine"},  # its doors
    "sweep.campaign": {"core.errors", "core.quadratic", "sweep.texts", "sweep.location", "sweep.plugins"},
    "sweep.store": {"core.errors", "core.quadratic", "sweep.texts", "sweep.location", "sweep.campaign"},
    "sweep.engine": {
        *("core.errors", "core.quadratic", "sweep.texts", "sweep.location", "sweep.plugins"),
        *("sweep.campaign", "sweep.store"),
    },
    "sweep.kernels": {"core", "sweep.campaign"},
    "sweep.commands": {"core", "sweep"},
    "analysis": {"core", "sweep.campaign", "sweep.store", "sweep.kernels", "analysis", *DOORS},
    "analysis.dataset": {"core", "sweep.location", "sweep.plugins", "sweep.campaign", "sweep.store", *DOORS},
    "analysis.estimate": {"core", "sweep.campaign.kernel", "analysis.dataset"},
    "analysis.findings": {"core", "sweep.kernels", "analysis.dataset", "analysis.estimate"},
    "analysis.figures": {
        *("core", "sweep.campaign", "sweep.store", "sweep.kernels", *DOORS),
        *("analysis.dataset", "analysis.estimate", "analysis.findings"),
    },
    "analysis.refine": {
        *("core", "sweep.campaign", "sweep.store", "sweep.engine.plan", *DOORS),
        *("analysis.dataset", "analysis.estimate"),
    },
    "analysis.report": {
        *("core", "sweep.campaign.kernel", *DOORS),
        *("analysis.dataset", "analysis.estimate", "analysis.findings", "analysis.figures"),
    },
    "analysis.live": {
        *("core", "sweep.campaign", "sweep.location", "sweep.store", *DOORS),
        *("sweep.engine.following", "sweep.engine.pace"),  # the state of a run, for those who only read
        *("analysis.dataset", "analysis.estimate", "analysis.findings", "analysis.report"),
    },
    "cluster": {"core", "sweep", "analysis"},
}
QUARANTINE = {
    "ray": {"sweep"},
    "obstore": {"sweep"},
    "zarr": {"sweep", "analysis"},
    "xarray": {"analysis"},
    "dask": {"analysis"},
    "jsonschema": {"cluster"},
    "yaml": {"cluster"},
    "matplotlib": {"analysis"},
    "plotly": {"analysis"},
    "starlette": {"analysis"},
    "uvicorn": {"analysis"},
    "subprocess": {"sweep", "cluster"},
}
IGNORED = shutil.ignore_patterns(
    ".git", ".venv", ".home", ".hypothesis", "build", "dist", "runs", "*.egg-info", ".*_cache", "__pycache__"
)


def sources() -> Iterator[tuple[str, Path]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield folder, path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def test_folders_import_only_what_they_may() -> None:
    for _, path in sources():
        room = ".".join(path.relative_to(ROOT).parts[:-1])
        for name in imports(path):
            if name.startswith("bendscape."):
                module = name.removeprefix("bendscape.")
                own = module == room or module.rpartition(".")[0] == room
                assert own or any(inside(module, other) for other in ALLOWED[room]), (
                    f"{path.relative_to(ROOT)} imports {name}"
                )


def test_every_code_folder_has_a_docstring_and_is_in_the_wheel() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {".".join(path.relative_to(ROOT).parts[:-1]) for _, path in sources()}
    assert rooms == set(ALLOWED) == {package.removeprefix("bendscape.") for package in packages}
    for room in rooms:
        purpose = ast.get_docstring(ast.parse((ROOT / room.replace(".", "/") / "__init__.py").read_text()))
        assert purpose, f"{room}/__init__.py does not say what the folder is for"


def test_the_engine_names_no_parameter_of_a_model() -> None:
    named = {
        "p",
        "p_star",
        "a",
        "noise",
        "alpha",
        "eigval_min",
        "alpha_bbp",
        "alpha_0",
        "lambda_minus",
        "overlap_sq",
    }
    for folder, path in sources():
        if folder != "sweep" or path.parent.name == "kernels" or path.name == "console.py":  # spells Greek
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            found = {
                ast.Name: lambda n: n.id, ast.Attribute: lambda n: n.attr, ast.arg: lambda n: n.arg,
                ast.keyword: lambda n: n.arg, ast.Constant: lambda n: n.value,
            }.get(type(node), lambda n: None)(node)  # fmt: skip
            assert found not in named, f"{path.relative_to(ROOT)}, line {node.lineno}: {found}"


def test_analysis_depends_on_variables_and_never_on_the_name_of_a_kernel() -> None:
    kernels = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    names = set(kernels["bendscape.kernels"]) - {"theory", "descent"}  # commands too
    for folder, path in sources():
        if folder == "analysis":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                asked = isinstance(node, ast.Constant) and node.value in names
                assert not asked, f"{path.relative_to(ROOT)}, line {node.lineno}: {node.value}"  # type: ignore[attr-defined]


def test_no_module_uses_a_private_name_of_another() -> None:
    for _, path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        ours: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bendscape"):
                names = [name.name for name in node.names]
                assert not any(map(private, names)), f"{path.relative_to(ROOT)} imports {names}"
                ours |= {name.asname or name.name for name in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
                assert not private(node.attr), f"{path.relative_to(ROOT)} uses {ast.unparse(node)}"


def private(name: str) -> bool:
    of_tuples = name in ("_asdict", "_fields", "_make", "_replace")
    return name.startswith("_") and not name.startswith("__") and not of_tuples


def test_third_parties_stay_in_their_folder() -> None:
    for folder, path in sources():
        for name in imports(path):
            package = name.partition(".")[0]
            assert folder in QUARANTINE.get(package, set(FOLDERS)), f"{package} in {folder}/{path.name}"


def test_nothing_imports_a_folder_by_its_bare_name() -> None:
    everywhere = [*(path for _, path in sources()), *ROOT.glob("tests/*.py"), *ROOT.glob("benchmarks/*.py")]
    for path in everywhere:
        for name in imports(path):
            assert name.partition(".")[0] not in FOLDERS, f"{path}: import bendscape.{name} instead"


def test_no_module_sits_at_the_root_or_makes_tests_a_package() -> None:
    assert not (ROOT / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


def modules() -> set[str]:
    return {f"bendscape/{folder}/{path.relative_to(ROOT / folder).as_posix()}" for folder, path in sources()}


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("x") / "a checkout, named at will"
    shutil.copytree(ROOT, folder, ignore=IGNORED)
    return folder


@pytest.mark.packaging
def test_the_wheel_holds_every_module_and_its_data(checkout: Path, tmp_path: Path) -> None:
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, checkout)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert modules() <= names
    assert {f"bendscape/{folder}/py.typed" for folder in FOLDERS} <= names
    for name in (
        "report/report.html.jinja",
        "report/style.css.jinja",
        "report/report.js",
        "report/figures.js",
    ):
        assert f"bendscape/analysis/{name}" in names
    assert {f"bendscape/analysis/live/{name}" for name in ("page.html.jinja", "page.js", "parts.js")} <= names
    assert "bendscape/cluster/rayjob.json.gz" in names
    assert not {name for name in names if name.startswith(("tests/", "core/", "sweep/"))}


@pytest.mark.packaging
def test_an_editable_install_works_from_a_folder_of_any_name(checkout: Path, tmp_path: Path) -> None:
    target = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", target], check=True, timeout=120)
    python = target / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.check_output([python, "-c", purelib], text=True, timeout=60).strip()
    # The packages of this environment serve the new one too; only bendscape is installed afresh.
    here = [entry for entry in sys.path if entry.endswith("site-packages")]
    Path(site, "parent.pth").write_text("\n".join(here) + "\n")
    pip("--python", python, "install", "--no-deps", "--no-build-isolation", "--editable", checkout)
    script = (
        "import bendscape.core.quadratic.model as m, bendscape.sweep.commands.cli as c; "
        "print(m.__file__); print(c.__file__)"
    )
    shown = subprocess.run(
        [python, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )
    assert [Path(line).parents[2] for line in shown.stdout.splitlines()] == [checkout, checkout]


def test_every_dependency_is_pinned_and_has_its_reason_written_down() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["docs"]]
    names = {line.partition(">")[0] for line in asked}
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert names <= pinned
    reasons = "\n".join(path.read_text() for path in (ROOT / "docs" / "decisions").glob("*.md"))
    for name in names:
        assert f"`{name}`" in reasons, f"docs/decisions says nothing of {name}"
