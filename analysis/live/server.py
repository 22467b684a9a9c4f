"""The server of the live page: loopback only, read-only, frames as server-sent events.

Every connection first gets the latest frame, and another whenever something has changed. Events are numbered;
a page that comes back says which it had last (`Last-Event-ID`) and gets one frame only if there is a newer
one, so a laptop that slept catches up at once. The store is looked at only while somebody watches.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
import traceback
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import cache, partial
from importlib.resources import files
from secrets import token_hex
from typing import Any

import plotly
import plotly.offline
import uvicorn
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bendscape.analysis.live.frame import Watch
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.console import results_only
from bendscape.sweep.location import folder_of

HOST = "127.0.0.1"
PORT = 8642
HOSTS = ("127.0.0.1", "localhost")
"""Names under which the page may be asked for; a page of another name that points here is refused."""
LOOK_SECONDS = (1.0, 5.0)
"""Between two looks, at a store on files and in an object store."""
IDLE = 3.0  # times as long, if no run is at work
PAGES = 32  # that watch at the same time
CONNECTIONS = 4 * PAGES
ALIVE_SECONDS = 5.0  # between two signs of life to a page
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""`style-src` has 'unsafe-inline' because plotly sets its styles so."""
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
ROOMS = ("live", "report")  # the page has the style of the report
_SCRIPTS = {
    "parts.js": "bendscape.analysis.live",
    "page.js": "bendscape.analysis.live",
    "figures.js": "bendscape.analysis.report",
}


class Guard:
    """Refuses what a page of another origin asks for; puts the security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        app = PlainTextResponse("another origin", 403) if foreign(request) else self._app
        await app(scope, receive, with_headers)


def foreign(request: Request) -> bool:
    """Whether another origin asks. A link elsewhere may lead to the page itself, and to nothing else."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        return True
    site = request.headers.get("sec-fetch-site", "none")
    followed = request.headers.get("sec-fetch-mode") == "navigate" and request.url.path == "/"
    return site not in ("none", "same-origin") and not followed


class _Stream(StreamingResponse):
    """Events to a page; calls `gone` when it has gone, also if nothing was sent."""

    def __init__(
        self, events: AsyncIterator[str], gone: Callable[[], None], headers: Mapping[str, str]
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._gone = gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._gone()


class Page:
    """The application: the page, its scripts, single frames and the stream of frames."""

    def __init__(self, watch: Watch, *, look_seconds: float | None = None) -> None:
        self.watch = watch
        files_here = folder_of(watch.following.url) is not None
        self._pause = look_seconds or LOOK_SECONDS[not files_here]
        self._boot, self._number = token_hex(4), 0
        self._latest: dict[tuple[int, ...], tuple[str, str]] = {}  # by row: number of the event, document
        self._watching: dict[tuple[int, ...], int] = {}
        # Set at the next change, then replaced. Not a condition: a stream that is cancelled while it waits
        # may leave its lock locked.
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()  # for a row that has no frame yet
        self._tracebacks: dict[str, str] = {}  # by the key of a failed cell, of the frame sent last
        self._fault = ""
        self._one_at_a_time = asyncio.Lock()
        self._looker: asyncio.Task[None] | None = None
        self.closing = False
        environment = Environment(
            loader=ChoiceLoader([PackageLoader(f"bendscape.analysis.{of}", package_path="") for of in ROOMS]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("page.html.jinja")
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/frame.json", self._frame),
                Route("/events", self._events),
                Route("/traceback", self._traceback),
                Route("/plotly.js", self._plotly),
                *(Route(f"/{name}", self._script) for name in _SCRIPTS),
            ],
            middleware=[
                Middleware(Guard),
                Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
            ],
        )

    async def _page(self, request: Request) -> Response:
        text = self._template.render(store=self.watch.following.url, version=plotly.__version__)
        return Response(text, media_type="text/html", headers={"Cache-Control": "no-store"})

    async def _script(self, request: Request) -> Response:
        name = request.url.path[1:]
        text = files(_SCRIPTS[name]).joinpath(name).read_text(encoding="utf-8")
        return Response(text, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    async def _plotly(self, request: Request) -> Response:
        kept = {"Cache-Control": "max-age=604800, immutable"}  # its address has the version
        return Response(_library(), media_type="text/javascript", headers=kept)

    async def _frame(self, request: Request) -> Response:
        row = _row(request)
        async with self._one_at_a_time:
            await run_in_threadpool(self.watch.look)
            document = await run_in_threadpool(self.watch.frame, row)
        return JSONResponse(document, headers={"Cache-Control": "no-store"})

    async def _traceback(self, request: Request) -> Response:
        text = self._tracebacks.get(request.query_params.get("key", ""))
        status = 404 if text is None else 200
        return PlainTextResponse(
            text or "no such failed cell in the frame", status, headers={"Cache-Control": "no-store"}
        )

    async def _events(self, request: Request) -> Response:
        if sum(self._watching.values()) >= PAGES:
            return PlainTextResponse(f"{PAGES} pages watch already", 503, headers={"Retry-After": "3"})
        # A page that woke up opens a new stream, and says in the address which event it had last.
        row, last = (
            _row(request),
            request.headers.get("last-event-id") or request.query_params.get("last", ""),
        )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self._watching[row] = self._watching.get(row, 0) + 1
        return _Stream(self._stream(request, row, last), partial(self._leave, row), headers)

    def _leave(self, row: tuple[int, ...]) -> None:
        self._watching[row] -= 1
        if not self._watching[row]:
            del self._watching[row]

    async def _stream(self, request: Request, row: tuple[int, ...], last: str) -> AsyncIterator[str]:
        if row not in self._latest:
            self._asked.set()
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._keep_looking())
        yield "retry: 2000\n\n"
        while not self.closing and not await request.is_disconnected():
            changed = self._changed
            number, document = self._latest.get(row, (last, ""))
            if number != last:
                yield f"id: {number}\nevent: frame\ndata: {document}\n\n"
                last = number
            # Also while the first frame takes long, so that the page waits for it.
            yield f"event: alive\ndata: {time.time():.0f}\n\n"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), ALIVE_SECONDS)

    async def _keep_looking(self) -> None:
        while self._watching and not self.closing:
            self._asked.clear()
            await self._look(list(self._watching))
            idle = 1.0 if self.watch.following.at_work or self._pause < 1 else IDLE
            pause = 0.0 if self.watch.behind else self._pause * idle
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), pause)

    async def _look(self, rows: list[tuple[int, ...]]) -> None:
        before = self._number
        async with self._one_at_a_time:
            await run_in_threadpool(self._read)
            for row in rows:
                text = await run_in_threadpool(self._document, row)
                if row not in self._latest or self._latest[row][1] != text:
                    self._number += 1
                    self._latest[row] = f"{self._boot}-{self._number}", text
        for row in set(self._latest) - set(rows) - set(self._watching):
            del self._latest[row]
        if self._number != before:
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # A fault of ours must not end a stream: the pages say what it was, and the next look may succeed.

    def _read(self) -> None:
        try:
            self.watch.look()
        except Exception as error:
            self.watch.silent = self._said(error)

    def _document(self, row: tuple[int, ...]) -> str:
        try:
            document = self.watch.frame(row)
        except Exception as error:
            known = json.loads(self._latest[row][1]) if row in self._latest else self.watch.absent()
            document = {**known, "silent": self._said(error)}
        return json.dumps(self._without_tracebacks(document), separators=(",", ":"))

    def _without_tracebacks(self, document: dict[str, Any]) -> dict[str, Any]:
        """What a stream carries at every change: a page asks for a traceback when it is opened."""
        failures = document.get("failures")
        if failures is None:
            return document
        kept = {of["key"]: of["traceback"] for of in failures["listed"] if "traceback" in of}
        if kept or not failures["listed"]:
            self._tracebacks = kept
        listed = [{name: of[name] for name in of if name != "traceback"} for of in failures["listed"]]
        return {**document, "failures": {**failures, "listed": listed}}

    def _said(self, error: Exception) -> str:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        if words != self._fault:
            self._fault = words
            with contextlib.suppress(OSError):  # the terminal may be closed
                traceback.print_exception(error)
        return words

    def close(self) -> None:
        """End all streams."""
        self.closing = True
        self._notify()


class _Server(uvicorn.Server):
    """Ends the streams first, for which uvicorn would wait."""

    def __init__(self, config: uvicorn.Config, page: Page) -> None:
        super().__init__(config)
        self._page = page

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the streams, then the rest."""
        self._page.close()
        await super().shutdown(sockets)


@cache
def _library() -> str:
    return str(plotly.offline.get_plotlyjs())


def _row(request: Request) -> tuple[int, ...]:
    text = request.query_params.get("row", "")[:200]
    return tuple(int(part) for part in text.split(".") if part.isdecimal() and len(part) < 8)


def listen(port: int | None) -> socket.socket:
    """A socket on loopback: at `port` (0: any that is free); by default at ``PORT``, or any if that is taken.

    Raises
    ------
    ParameterError
        The port cannot be had.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, PORT if port is None else port))
    except (OSError, OverflowError) as error:
        if port is None:
            made.bind((HOST, 0))
        else:
            made.close()
            why = getattr(error, "strerror", None) or str(error)
            raise ParameterError(
                "--port", port, "a free port from 1024 to 65535", f"{why}; 0 picks one"
            ) from None
    made.listen(64)
    return made


def serve(location: str, port: int | None = None, modules: Iterable[str] = (), show: bool = False) -> None:
    """Serve the page of a store until it is interrupted; says the address on standard output.

    Raises
    ------
    ParameterError
        The port cannot be had, or something other than a bendscape store is there.
    """
    watch = Watch(location, modules)
    with results_only():  # the module of a kernel may print
        watch.look(strict=True)  # so that a wrong place is refused at once
    with contextlib.closing(listen(port)) as there:
        url = f"http://{HOST}:{there.getsockname()[1]}/"
        print(url, flush=True)
        if watch.following.store is None:
            sys.stderr.write(
                f"{watch.silent or f'there is no store at {watch.following.url} yet'}; waiting\n"
            )
        sys.stderr.write("Ctrl-C ends it; the campaign does not notice\n")
        if show:
            webbrowser.open(url)
        page = Page(watch)
        config = uvicorn.Config(
            page.app, log_config=None, log_level="error", access_log=False, lifespan="off",
            server_header=False, timeout_graceful_shutdown=2, timeout_keep_alive=30, ws="none",
            limit_concurrency=CONNECTIONS,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt), results_only():
            _Server(config, page).run(sockets=[there])


def one_frame(location: str, modules: Iterable[str] = (), row: tuple[int, ...] = ()) -> dict[str, Any]:
    """One frame in which everything of the row has been read and analysed."""
    watch = Watch(location, modules)
    watch.read_all(row)
    return watch.frame(row)
