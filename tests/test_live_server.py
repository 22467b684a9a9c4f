"""The server of the live page: whom it refuses, what it promises the browser, and streams that resume."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from command_line import BENDSCAPE, bendscape
from live_page import ask, events, frames, served, served_page
from starlette.requests import Request
from test_any_axes import CASES, Place, module_of

from bendscape.analysis.live.frame import Watch
from bendscape.analysis.live.server import Page, listen
from bendscape.core.errors import ParameterError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder, case = tmp_path_factory.mktemp("live"), CASES["no sizes"]
    place = Place(case, module_of(case, folder / "any.py"), folder)
    place.run("s.zarr", case.grid)
    return place


@pytest.fixture(scope="module")
def port(store: Place) -> Iterator[int]:
    with served(str(store.folder / "s.zarr"), [store.module]) as port:
        yield port


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "0.0.0.0", "[::1]", "169.254.0.1"]
)
def test_a_foreign_host_is_refused(port: int, host: str) -> None:
    for path in ("/", "/frame.json", "/events", "/page.js", "/plotly.js"):
        status, _, body = ask(port, path, Host=host)
        assert status == 400
        assert b"zarr" not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:9999"])
def test_the_page_answers_to_names_of_this_machine_also_behind_a_tunnel(port: int, host: str) -> None:
    assert ask(port, "/", Host=host)[0] == 200
    assert ask(port, "/frame.json", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
    ],
)
def test_another_origin_is_refused(port: int, headers: dict[str, str]) -> None:
    for path in ("/", "/frame.json", "/events", "/page.js"):
        status, _, body = ask(port, path, **headers)
        assert (status, body) == (403, b"another origin")
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(port, "/", **followed)[0] == 200  # a link to the page
    assert ask(port, "/frame.json", **followed)[0] == 403


def test_nothing_can_be_written(port: int) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in ("/", "/frame.json", "/events"):
            assert ask(port, path, method)[0] == 405
    assert ask(port, "/../../etc/passwd")[0] == 404


def test_every_answer_has_the_strict_policy(port: int) -> None:
    for path in ("/", "/frame.json", "/page.js", "/figures.js", "/plotly.js", "/nothing"):
        _, headers, _ = ask(port, path)
        policy = dict(
            part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";")
        )
        assert policy["script-src"] == "'self'"
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    _, headers, _ = ask(port, "/", Host="evil.example")
    assert "default-src 'none'" in headers["content-security-policy"]
    page = ask(port, "/")[2].decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)  # no script but from files
    assert not re.search(r"\son\w+=", page)
    assert not re.search(r"(src|href)=.?https?:", page)


def test_a_stream_resumes_after_the_event_that_was_seen_last(port: int) -> None:
    (first,) = frames(port, "/events", 1)
    assert [of["event"] for of in events(port, "/events", 2)] == ["frame", "alive"]
    assert json.loads(first["data"])["done"] == 6
    for resumed in (
        events(port, "/events", 1, Last_Event_ID=first["id"]),
        events(port, f"/events?last={first['id']}", 1),
    ):
        assert resumed[0]["event"] == "alive"
    anew = frames(port, "/events", 1, Last_Event_ID="of-another-watcher")
    assert anew[0]["id"] == first["id"]


def test_a_page_is_told_that_the_server_lives_while_its_first_frame_takes_long(store: Place) -> None:
    page = Page(Watch(str(store.folder / "s.zarr"), [store.module]), look_seconds=0.2)
    done = threading.Event()
    look = page.watch.look
    page.watch.look = lambda: (done.wait(60), look())  # type: ignore
    with served_page(page) as port:
        try:
            assert events(port, "/events", 1)[0]["event"] == "alive"
        finally:
            done.set()
        assert json.loads(frames(port, "/events", 1)[0]["data"])["done"] == 6


def test_a_stream_carries_no_tracebacks_and_each_is_there_when_it_is_asked_for(tmp_path: Path) -> None:
    case = CASES["no sizes"]
    guard = f"if {case.bad}: raise ValueError('no luck')"
    place = Place(case, module_of(case, tmp_path / "any.py", guard), tmp_path)
    assert place.run("s.zarr", case.wider) == "failed cells"
    with served(str(tmp_path / "s.zarr"), [place.module]) as port:
        listed = json.loads(frames(port, "/events", 1)[0]["data"])["failures"]["listed"]
        whole = json.loads(ask(port, "/frame.json")[2])["failures"]["listed"]
        assert len(listed) == len(whole) > 0
        for brief, full in zip(listed, whole, strict=True):
            text = full.pop("traceback")
            assert brief == full
            status, headers, body = ask(port, f"/traceback?key={quote(brief['key'])}")
            assert (status, body.decode()) == (200, text)
            assert "ValueError" in text
            assert headers["content-type"].startswith("text/plain")
            assert headers["x-content-type-options"] == "nosniff"
        assert ask(port, "/traceback?key=nothing")[0] == ask(port, "/traceback")[0] == 404
        assert ask(port, "/traceback", Host="evil.example")[0] == 400
        assert ask(port, "/traceback", Origin="https://evil.example")[0] == 403


def test_a_fault_of_the_server_is_said_on_the_page_and_ends_no_stream(
    store: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    page = Page(Watch(str(store.folder / "s.zarr"), [store.module]), look_seconds=0.05)
    frame, faults = page.watch.frame, [ZeroDivisionError("by us"), ZeroDivisionError("by us")]

    def fail(row: tuple[int, ...]) -> dict[str, Any]:
        if faults:
            raise faults.pop()
        return frame(row)

    page.watch.frame = fail  # type: ignore
    with served_page(page) as port:
        seen = [json.loads(of["data"]) for of in frames(port, "/events", 2)]
    assert [(of["silent"], of["state"]) for of in seen] == [
        ("ZeroDivisionError: by us", "absent"),
        ("", "complete"),
    ]
    assert capfd.readouterr().err.count("ZeroDivisionError: by us") == 1  # not at every look


def test_pages_beyond_a_number_are_refused_until_another_has_gone(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bendscape.analysis.live.server.PAGES", 1)
    first = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(100):  # streams of other tests may be about to end
        first.request("GET", "/events")
        answer = first.getresponse()
        if answer.status == 200:
            break
        answer.read()
        time.sleep(0.1)
    answer.readline()
    assert ask(port, "/events")[:1] == (503,)
    assert ask(port, "/")[0] == 200
    answer.close()
    first.close()
    for _ in range(100):
        with contextlib.suppress(AssertionError):
            assert frames(port, "/events", 1)
            return
        time.sleep(0.1)
    raise AssertionError("no page is let in again")


def test_streams_that_are_cancelled_while_they_wait_leave_the_others_and_the_end_alone(store: Place) -> None:
    async def scenario() -> None:
        page = Page(Watch(str(store.folder / "s.zarr"), [store.module]), look_seconds=0.01)
        request, told = Request({"type": "http"}, asyncio.Future), list[str]()  # one that never goes away
        page._watching[()] = 9

        async def listen_to() -> None:
            async for text in page._stream(request, (), ""):
                told.append(text)

        gone = [asyncio.create_task(listen_to()) for _ in range(8)]
        while len(told) < 8 * 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        while not all(one.done() for one in gone):  # the server cancels at every turn of its loop
            for one in gone:
                one.cancel()
            await asyncio.sleep(0)
        told.clear()
        stays = asyncio.create_task(listen_to())
        while not told:
            await asyncio.sleep(0.01)
        page.watch.frame = lambda row: {"news": True}  # type: ignore
        while not any("news" in text for text in told):
            await asyncio.sleep(0.01)
        page.close()
        await stays

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_events_are_numbered_and_follow_the_store(store: Place) -> None:
    with served(str(store.folder / "grows.zarr"), [store.module]) as port:
        (waiting,) = frames(port, "/events", 1)
        assert json.loads(waiting["data"])["state"] == "absent"
        store.run("grows.zarr", store.case.grid)
        seen = []
        last = waiting["id"]
        for _ in range(20):
            (event,) = events(port, "/events", 1, Last_Event_ID=last)
            if event["event"] == "frame":
                seen.append(event)
                last = event["id"]
                if json.loads(event["data"])["state"] == "complete":
                    break
            time.sleep(0.2)
        numbers = [int(event["id"].partition("-")[2]) for event in [waiting, *seen]]
        assert numbers == sorted(set(numbers))
        assert json.loads(seen[-1]["data"])["state"] == "complete"
        one = frames(port, "/events?row=0", 1)[0]
        assert json.loads(one["data"])["row"]["index"] == [0]


def test_a_port_that_is_taken_is_refused_by_number_and_evaded_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listen(0) as taken:
        number = taken.getsockname()[1]
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ParameterError, match=f"--port = {number}.*0 picks one"):
            listen(number)
        monkeypatch.setattr("bendscape.analysis.live.server.PORT", number)
        with listen(None) as other:
            assert other.getsockname()[1] != number
    refused = bendscape("watch", "s.zarr", "--port", 99999)
    assert refused.returncode == 2
    assert "--port" in refused.stderr


def test_the_command_prints_its_address_and_ctrl_c_ends_it_cleanly(store: Place, tmp_path: Path) -> None:
    module = tmp_path / "loud.py"
    module.write_text(f"print('loud')\n{Path(store.module).read_text()}")
    command = [BENDSCAPE, "watch", store.folder / "s.zarr", "--port", "0", "--kernel-module", module]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    url = watcher.stdout.readline().strip()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)
    assert found
    assert json.loads(ask(int(found[1]), "/frame.json")[2])["done"] == 6
    assert len(frames(int(found[1]), "/events", 1)) == 1
    watcher.send_signal(signal.SIGINT)
    out, err = watcher.communicate(timeout=60)
    assert (watcher.returncode, out) == (0, "")
    assert err == "loud\nCtrl-C ends it; the campaign does not notice\n"
