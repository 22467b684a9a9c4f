"""A process that forks workers. It imports what they need once, so that a new worker takes milliseconds.

This module imports only the standard library, so that a command can start the server first and do its own
imports meanwhile. The server has a single thread and never uses the object-store client, which would hang in
a fork. The server and each worker have sessions of their own, so a signal to the driver's process group
(Ctrl-C) does not reach them. Workers end with the server, and the server with the driver, however it ends:
the server notices that its socket was closed, and Linux kills the children of a process that dies. What cells
print reaches the driver through a pipe, because writing to a closed terminal would make them fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
import weakref
from multiprocessing.connection import Connection, Pipe
from types import FrameType
from typing import Any

# On other systems some libraries do not survive a fork; there each worker does its own imports.
PRELOADED = ("scipy.linalg", "bendscape.sweep.engine.worker") if sys.platform == "linux" else ()
READY, FAILED = -1, -2  # reported in place of a worker's number
CLOSE_SECONDS = 5.0  # wait for workers to die of SIGKILL; a hanging file system may keep one longer
LOOK_SECONDS = 1.0  # between two checks that the driver is alive
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_FORK, _KILL = 0, 1
_REQUEST = struct.Struct("=BI")
_ASKS_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


class ForkServer:
    """The driver's end: it starts the server at once, and does not wait for it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self.reports, reporting = Pipe(duplex=False)
        self.output, printing = os.pipe()
        os.set_blocking(self.output, False)
        self._forked: list[int] = []
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from bendscape.sweep.engine.fork_server import serve; "
            f"serve({theirs.fileno()}, {reporting.fileno()})"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=(theirs.fileno(), reporting.fileno()),
            env={**THREADS, **os.environ}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=printing, stderr=printing,
        )  # fmt: skip
        self.pid = process.pid
        theirs.close()
        reporting.close()
        os.close(printing)
        self.close = weakref.finalize(
            self, _end, process, self._control, self.reports, self.output, self._forked
        )
        """End the server and its workers within `CLOSE_SECONDS`. A second call does nothing."""

    def fork(self, number: int) -> Connection[Any, Any]:
        """Fork a worker with this number; returns the connection to it."""
        ours, theirs = Pipe()
        self._forked.append(number)
        with theirs, contextlib.suppress(OSError):  # a lost server is noticed when its reports are read
            socket.send_fds(self._control, [_REQUEST.pack(_FORK, number)], [theirs.fileno()])
        return ours

    def pass_on(self) -> bool:
        """Pass what workers have printed on to standard error; returns whether more may come."""
        return _pass_on(self.output)

    def kill(self, number: int) -> None:
        """Kill a worker and the processes it started; the server reports its end as usual."""
        with contextlib.suppress(OSError):
            self._control.sendall(_REQUEST.pack(_KILL, number))


def _end(
    process: subprocess.Popen[bytes],
    control: socket.socket,
    reports: Connection[Any, Any],
    output: int,
    forked: list[int],
) -> None:
    control.close()
    reports.close()
    if not forked:  # it may still be importing
        process.kill()
    try:
        process.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _pass_on(output)
    os.close(output)


def _pass_on(output: int) -> bool:
    try:
        for _ in range(16):  # at most, so that a chatty worker does not hold up everything else
            if not (text := os.read(output, 65536)):
                return False
            with contextlib.suppress(OSError, ValueError):  # the terminal may be closed
                sys.stderr.write(text.decode(errors="replace"))
    except BlockingIOError:
        pass
    return True


def serve(control: int, reports: int) -> None:
    """The server: until the driver is gone, fork workers and report how they end.

    A report is a pair: the number of a worker and its exit code (negative for a signal, as in `subprocess`)
    or the reason why it could not be forked; `READY` and 0; or `FAILED` and the reason.
    """
    _Server(socket.socket(fileno=control), Connection(reports)).run()


class _Server:
    def __init__(self, control: socket.socket, reports: Connection[Any, Any]) -> None:
        self._control, self._reports = control, reports
        self._driver, self._pid = os.getppid(), os.getpid()
        self._workers: dict[int, int] = {}  # process id: number
        for number in _ASKS_TO_STOP:  # the driver decides; not SIG_IGN, which child processes would inherit
            signal.signal(number, _nothing)
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)

    def run(self) -> None:
        try:
            for name in PRELOADED:
                importlib.import_module(name)
        except BaseException:
            self._report(FAILED, traceback.format_exc())
            return
        gc.freeze()  # imported objects stay shared with the workers while nobody writes to them
        self._report(READY, 0)
        while os.getppid() == self._driver:
            control = self._control.fileno()
            ready, _, _ = select.select([control, self._woken], [], [], LOOK_SECONDS)
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    while os.read(self._woken, 512):
                        pass
            self._reap()
            if control in ready and not self._serve_one():
                break
        for pid in self._workers:
            _kill(pid)
        for pid in self._workers:
            os.waitpid(pid, 0)

    def _serve_one(self) -> bool:
        # Serve one request; False if the driver has closed its end.
        try:
            message, handles, _, _ = socket.recv_fds(self._control, _REQUEST.size, 1)
            while message and len(message) < _REQUEST.size:
                message += self._control.recv(_REQUEST.size - len(message))
        except OSError:
            return False
        if not message:
            return False
        request, number = _REQUEST.unpack(message)
        if request == _KILL:
            for pid in [pid for pid, known in self._workers.items() if known == number]:
                _kill(pid)
            return True
        try:
            pid = os.fork()
        except OSError as error:  # no process or no memory left
            self._report(number, f"a worker could not be forked: {error.strerror}")
            pid = -1
        if pid == 0:
            self._become_worker(handles[0])
        if pid > 0:
            self._workers[pid] = number
        os.close(handles[0])
        return True

    def _become_worker(self, handle: int) -> None:
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control.fileno(), self._reports.fileno(), self._woken, self._waker):
                os.close(end)
            _die_with(self._pid)
            _become_first_to_go()
            with Connection(handle) as orders:
                _work(orders)
            code = 0
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):  # processes that its cell started
                os.killpg(pid, signal.SIGKILL)
            self._report(self._workers.pop(pid), os.waitstatus_to_exitcode(status))

    def _report(self, number: int, what: int | str) -> None:
        with contextlib.suppress(OSError):
            self._reports.send((number, what))


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing."""


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # a process just forked may not lead its group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _die_with(server: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:  # the server died before the call above took effect
            os._exit(1)


def _become_first_to_go() -> None:
    # When memory runs out, the system should kill the worker that took it, not the driver.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def _work(orders: Connection[Any, Any]) -> None:
    # On Linux the server has imported these already.
    import numpy as np

    from bendscape.sweep.engine.worker import run_tiles

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    np.random.seed()  # noqa: NPY002, forks would all draw the same where a cell uses this generator
    while True:
        try:
            order = orders.recv()
        except EOFError:
            return
        try:
            answer: Any = (run_tiles(order, hard=True), None)
        except Exception as error:
            answer = ([], _portable(error))
        orders.send(answer)


def _portable(error: Exception) -> Exception:
    # An error that cannot be pickled would look like a lost worker.
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error.with_traceback(None)
