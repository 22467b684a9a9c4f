"""The server of the live page in a thread, for tests, and plain requests to it."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterable, Iterator

import uvicorn

from bendscape.analysis.live.frame import Watch
from bendscape.analysis.live.server import Page, listen


@contextlib.contextmanager
def served(location: str, modules: Iterable[str] = (), look_seconds: float = 0.2) -> Iterator[int]:
    """Serve the page of a store on a free port, which it yields."""
    with served_page(Page(Watch(location, modules), look_seconds=look_seconds)) as port:
        yield port


@contextlib.contextmanager
def served_page(page: Page) -> Iterator[int]:
    """Serve a page on a free port, which it yields."""
    config = uvicorn.Config(page.app, log_config=None, lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    with contextlib.closing(listen(0)) as there:
        thread = threading.Thread(target=server.run, args=([there],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield there.getsockname()[1]
        page.closing = True
        server.should_exit = True
        thread.join(30)


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (in lower case) and body of one request; `Sec_Fetch_Site` stands for Sec-Fetch-Site."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def frames(port: int, path: str, count: int, **headers: str) -> list[dict[str, str]]:
    """The first frames of a stream, each event as its fields."""
    return events(port, path, count, "frame", **headers)


def events(port: int, path: str, count: int, kind: str = "", **headers: str) -> list[dict[str, str]]:
    """The first events of a stream, of one kind or any, each as its fields."""
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=named)
        with contextlib.closing(connection.getresponse()) as answer:
            assert answer.getheader("content-type", "").startswith("text/event-stream")
            while len(found) < count:
                line = answer.readline().decode().rstrip("\n")
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "event" in fields and kind in ("", fields["event"]):
                    found.append(fields)
                    fields = {}
                else:
                    fields = {}
    return found
