"""Whatever a cell raises fails only that cell, and its message is kept, cleaned and shortened."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bendscape.sweep.engine.limits import Limits
from bendscape.sweep.location import store_url
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import CellError, Receipt
from bendscape.sweep.texts import MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS, clean
from campaigns import RANDOM, data_files, make_campaign, run

KernelFile = Callable[..., str]
ONE = {"p": [1], "a": [0.7], "alpha": [1.0], "N": [64], "seeds": 4}

# What the cell of seed 1 does, the recorded name of its error, and a part of the message.
DEEDS: dict[str, tuple[str, str, str]] = {
    "str raises": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "E",
        "<its message cannot be read: ValueError>",
    ),
    "str is no text": ("class E(Exception):\n    def __str__(self): return 3\nraise E", "E", "TypeError"),
    "str exits": ("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E", "E", "SystemExit"),
    "repr and notes raise": (
        "class E(Exception):\n    def __repr__(self): raise KeyError\n    @property\n"
        "    def __notes__(self): raise KeyError\nraise E('well')",
        "E",
        "well",
    ),
    "its type has no name": (
        "class M(type):\n    @property\n    def __name__(cls): raise KeyError\n"
        "class E(Exception, metaclass=M): pass\nraise E('well')",
        "E",
        "well",
    ),
    "cancelled": ("import asyncio\nraise asyncio.CancelledError", "CancelledError", ""),
    "generator": ("raise GeneratorExit", "GeneratorExit", ""),
    "stop iteration": ("raise StopIteration(3)", "StopIteration", "3"),
    "exit": ("import sys\nsys.exit('over')", "SystemExit", "over"),
    "interrupt of its own": ("raise KeyboardInterrupt('mine')", "KeyboardInterrupt", "mine"),
    "base": ("class E(BaseException): pass\nraise E('deep')", "E", "deep"),
    "group": ("raise BaseExceptionGroup('two', [KeyError('a'), SystemExit(2)])", "BaseExceptionGroup", "two"),
    "recursion": ("f = lambda: f()\nf()", "RecursionError", "recursion"),
    "no pickle": (
        "class E(Exception):\n    def __reduce__(self): raise ValueError\nraise E(lambda: 0)", "E", "lambda"
    ),
    "surrogate": ("raise ValueError('b\\udcff')", "ValueError", "b\\udcff"),
    "control": ("raise ValueError('\\x1b[31mred\\x00')", "ValueError", "\\x1b[31mred\\x00"),
    "long": ("raise ValueError('x' * 10**6)", "ValueError", "[cut: it had 1000000 characters]"),
    "engine's own": (
        "from bendscape.sweep.engine.limits import Abandoned\nraise Abandoned('mine')", "Abandoned", "mine"
    ),
    "hostile outcome": (
        "class V(dict):\n    def __contains__(self, name): raise SystemExit(4)\nreturn Outcome(V())",
        "SystemExit",
        "4",
    ),
}  # fmt: skip


def indented(deed: str) -> str:
    return deed.replace("\n", "\n    ")


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_cell_raises_fails_that_cell_and_no_other(
    tmp_path: Path, kernel_file: KernelFile, deed: str
) -> None:
    code, name, said = DEEDS[deed]
    module, store = kernel_file(f"if cell.seed == 1:\n    {indented(code)}\n{RANDOM}"), tmp_path / "s.zarr"
    summary = run(store, module, make_campaign(**ONE))
    assert (summary.outcome, summary.done, summary.failed) == ("failed cells", 3, 1)
    with xr.open_dataset(store, engine="bendscape", group="errors") as errors:
        (row,) = (errors[["error", "message", "traceback", "seed"]].isel(failure=i) for i in (0,))
        assert (row.error.item(), row.seed.item()) == (name, 1)
        assert said in row.message.item()
        assert len(row.message.item()) <= MESSAGE_CHARACTERS
        assert len(row.traceback.item()) <= TRACEBACK_CHARACTERS
        for text in (row.message.item(), row.traceback.item()):
            text.encode("utf-8")
            assert text.replace("\n", "").replace("\t", "").isprintable()


def test_an_error_whose_message_never_returns_is_cut_off(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bendscape.sweep.engine.worker.DESCRIBE_SECONDS", 0.2)
    monkeypatch.setattr("bendscape.sweep.engine.limits.AGAIN_SECONDS", 0.2)
    code = "class E(Exception):\n    def __str__(self):\n        while True: time.sleep(0.01)\nraise E"
    module = kernel_file(f"if cell.seed == 1:\n    {indented(code)}\n{RANDOM}")
    summary = run(tmp_path / "s.zarr", module, make_campaign(**ONE))
    assert (summary.done, summary.failed) == (3, 1)


@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_that_ends_the_run_is_not_a_failure_of_the_cell_even_if_caught(
    tmp_path: Path, kernel_file: KernelFile, swallowed: bool
) -> None:
    # Twice, so that it does not wait: the second raises where the cell is.
    send = "signal.raise_signal(signal.SIGINT); signal.raise_signal(signal.SIGINT)"
    cell = f"try:\n    {send}\nexcept BaseException:\n    pass" if swallowed else send
    module, store = (
        kernel_file(f"if cell.seed == 1 and attempt == 1:\n    {indented(cell)}\n{RANDOM}"),
        tmp_path / "s",
    )
    with pytest.raises(KeyboardInterrupt):
        run(store, module, make_campaign(**ONE))
    summary = run(store, module, make_campaign(**ONE))
    assert (summary.outcome, summary.done, summary.failed) == ("complete", 4, 0)
    run(tmp_path / "undisturbed", kernel_file(RANDOM), make_campaign(**ONE))
    assert data_files(store) == data_files(tmp_path / "undisturbed")


def test_limits_distinguish_a_handlers_exception_from_the_same_one_of_the_cell() -> None:
    with Limits() as limits:
        with pytest.raises(KeyboardInterrupt) as own, limits.cell(60.0):
            raise KeyboardInterrupt
        assert not limits.sent(own.value)
        with pytest.raises(KeyboardInterrupt) as sent, limits.cell(60.0):
            signal.raise_signal(signal.SIGINT)
        assert limits.sent(sent.value)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_failures_with_long_messages_do_not_make_a_store_large(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file("raise ValueError(str(cell.seed) + 'x' * 270_000)")
    store = tmp_path / "s.zarr"
    assert run(store, module, make_campaign(**(ONE | {"seeds": 200}))).failed == 200
    # At most a message and a traceback that repeats it for each, and no more.
    ledger = sum(path.stat().st_size for path in (store / "ledger").rglob("*") if path.is_file())
    assert ledger < 200 * (3 * MESSAGE_CHARACTERS + 1000) + 50_000


def test_a_store_that_holds_unclean_text_already_is_read_and_exported(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module, store = (
        kernel_file(f"if cell.seed == 1:\n    raise ValueError('plain')\n{RANDOM}"),
        tmp_path / "s.zarr",
    )
    run(store, module, make_campaign(**ONE))
    (segment,) = (store / "ledger" / "segments").iterdir()
    receipt = json.loads(segment.read_text())
    receipt["errors"][0]["message"] = "b\udcff\x1b[2J" + "x" * 10**6
    receipt["tracebacks"] = ["t\udcff" + "x" * 10**6]
    segment.write_text(json.dumps(receipt) + "\n")
    ledger = Ledger(connect(store_url(store)))
    ledger.replay()
    (error,) = ledger.records.errors()
    assert error.message.startswith("b\\udcff\\x1b[2Jxxx")
    assert (len(error.message), len(error.traceback)) == (MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS)
    with xr.open_dataset(store, engine="bendscape", group="errors") as errors:
        errors.to_netcdf(tmp_path / "errors.nc")
        errors.to_zarr(tmp_path / "errors.zarr")
    with xr.open_dataset(tmp_path / "errors.nc") as back:
        assert back.message.values.tolist() == [error.message]


def test_cleaning_twice_is_cleaning_once_and_a_receipt_survives_its_journey() -> None:
    generator = np.random.default_rng(5)
    alphabet = ["x", "\n", "\t", "é", "α", "\ud800", "\udcff", "\x00", "\x1b", "\r\n", "\u202e", "\U0001f600"]
    for _ in range(300):
        text = "".join(generator.choice(alphabet, size=int(generator.integers(0, 120))))
        for end in (False, True):
            once = clean(text, 60, end=end)
            assert len(once) <= 60
            assert clean(once, 60, end=end) == once
            once.encode("utf-8")
    dirty = CellError({"seed": 1}, 0, "E\udcff", "m\x00", "t\udcff" * 9000, "host\udcff")
    receipt = Receipt("N=64/0.0.0.0.0", done=0, failed=1, errors=(dirty,))
    assert Receipt.from_json(receipt.to_json()) == receipt
