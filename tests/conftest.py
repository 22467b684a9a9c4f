"""Fixtures: every executor, one local Ray for the session, campaigns in a temporary folder, kernels."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from bendscape.sweep.location import store_url
from campaigns import write_kernel

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from s3_server import S3Server

    from bendscape.sweep.engine.executor import Executor

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Property tests use the same examples in every run, so that a failure is due to the change at hand. For fresh
# examples: pytest --hypothesis-profile=default
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")


SHARED = re.compile(r'(?m)scope="module"|^@(functools\.)?(lru_)?cache\b|\bs3_?|\bbrowser\b|\bplanted_')


@cache
def shares(file: Path) -> bool:
    """Whether tests of a file share what is made once a process: a fixture, a cache, a server, a browser."""
    return bool(SHARED.search(file.read_text(encoding="utf-8")))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a Ray are one group, so that one is started. pytest-xdist gives out in this order: groups,
    files with tests on S3 and other files that share something, which take longest, then tests one by one. So
    no core waits at the end for a file on another."""
    on_ray = [item.get_closest_marker("ray") is not None for item in items]
    on_s3 = {item.path for item in items if "s3_session" in getattr(item, "fixturenames", ())}
    for item, ray in zip(items, on_ray, strict=True):
        if ray and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("ray"))
    order = {
        item: (not ray, item.path not in on_s3, not shares(item.path))
        for item, ray in zip(items, on_ray, strict=True)
    }
    items.sort(key=order.__getitem__)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute groups, files whose tests share something, and the remaining tests one by one."""
    from xdist.scheduler import LoadGroupScheduling

    class GroupsAndFiles(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope: str = super()._split_scope(nodeid)
            file, _, test = scope.partition("::")
            return file if test and shares(config.rootpath / file) else scope

    return GroupsAndFiles(config, log)


@pytest.fixture(autouse=True, scope="session")
def one_blas_thread() -> Iterator[None]:
    """One BLAS thread: for small matrices on busy cores a second one only waits."""
    import scipy.linalg  # noqa: F401, so that its BLAS is loaded and limited too

    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A real Ray with two slots, shared by every test that needs one."""
    from bendscape.cluster.local import ray_options
    from bendscape.sweep.engine.ray_executor import RayExecutor

    RayExecutor(ray_options(2))  # the same start-up as `bendscape run --address ray`
    yield
    import ray

    ray.shutdown()


@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.ray)])
def pool(request: pytest.FixtureRequest) -> Iterator[Callable[..., Executor]]:
    """Executors whose workers can be lost: processes on this machine, and Ray."""
    from bendscape.sweep.engine.executor import executor_at

    if request.param == "processes":
        yield lambda workers=2: executor_at("local", workers)()
        return
    request.getfixturevalue("local_ray")
    from bendscape.sweep.engine.ray_executor import RayExecutor

    yield lambda workers=2: RayExecutor({}, workers)


@pytest.fixture
def kernel_file(tmp_path: Path) -> Callable[..., str]:
    """`write_kernel` in the folder of the test."""
    return partial(write_kernel, tmp_path)


@pytest.fixture(scope="session")
def s3_session() -> Iterator[S3Server]:
    """An S3 server on loopback, which this process and its children find in their environment."""
    from s3_server import S3Server

    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture
def s3(s3_session: S3Server) -> Iterator[S3Server]:
    """The S3 server, obeying every condition."""
    s3_session.requests.clear()
    yield s3_session
    s3_session.ignored = ()


@pytest.fixture
def s3_url(s3: S3Server) -> str:
    """The URL of a new store."""
    return s3.new_url()


@pytest.fixture(params=["files", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a store, on both kinds of storage."""
    if request.param == "files":
        return store_url(tmp_path / "s.zarr")
    found: str = request.getfixturevalue("s3_url")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium of this machine; none is ever downloaded."""
    found = os.environ.get("BENDSCAPE_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        words = (
            f"no browser: install Debian's chromium or set BENDSCAPE_BROWSER (tried {', '.join(BROWSERS)})"
        )
        if os.environ.get("BENDSCAPE_REQUIRE_BROWSER") == "1":
            pytest.fail(words)
        pytest.skip(words)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(BROWSER_ARGUMENTS))
        yield browser
        browser.close()
