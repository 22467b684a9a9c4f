"""A store has one source of its kernel: a changed source under the same version is refused unless
accepted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xarray as xr

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.executor import Job, Result, SerialExecutor
from bendscape.sweep.engine.identity import generation, kernel_digests
from bendscape.sweep.engine.run import open_plan
from bendscape.sweep.location import store_url
from bendscape.sweep.store.root import open_store
from campaigns import RANDOM, calls, campaign_text, data_files, make_campaign, run

KernelFile = Callable[..., str]
SMALL = {"p": [1], "a": [0.7], "alpha": [1.0], "N": [64], "seeds": 4}
MORE = SMALL | {"seeds": 8}
OTHER = "return Outcome({'x': 0.15})"


def digest(module: str) -> str:
    return hashlib.blake2b(Path(module).read_bytes(), digest_size=16).hexdigest()


def source(store: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = open_store(store).attributes["kernel_source"]
    return found


def test_an_edited_kernel_is_refused_with_both_digests_and_every_remedy(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    before = digest(module)
    run(store, module, make_campaign(**SMALL))
    files = data_files(store)
    assert digest(kernel_file(OTHER)) != before
    named = [before, digest(module), "same version 1", "raise the version"]
    for attempt in (
        lambda: run(store, module, make_campaign(**MORE)),
        lambda: run(store, module, make_campaign(**SMALL)),
        lambda: open_plan(store_url(store), make_campaign(**MORE), load_kernel("probe", [module])),
    ):
        with pytest.raises(ParameterError) as caught:
            attempt()
        line = str(caught.value)
        for words in (*named, "--store", "--new-generation", "--accept-kernel-change"):
            assert words in line
    assert data_files(store) == files
    assert sum(calls(module).values()) == 4


def test_a_change_that_was_accepted_is_kept_with_the_store_and_asked_for_once(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    run(store, module, make_campaign(**SMALL))
    first = digest(module)
    assert source(store) == {"digests": [first], "accepted": []}
    kernel_file("# the same bits\n" + RANDOM)
    second = digest(module)
    assert run(store, module, make_campaign(**MORE), accept_kernel_change=True).computed == 4
    assert source(store) == {"digests": [first, second], "accepted": [second]}
    newest = max((store / "ledger" / "campaign").iterdir())
    assert json.loads(newest.read_text())["kernel_source"] == source(store)
    assert [one["kernel"]["digest"] for one in store_status(store)["runs"]] == [first, second]
    for text in ("# the same bits\n" + RANDOM, RANDOM):
        assert run(store, kernel_file(text), make_campaign(**MORE)).computed == 0
    with pytest.raises(ParameterError, match=f"{first} and {second} there"):
        run(store, kernel_file(OTHER), make_campaign(**MORE))
    with xr.open_dataset(store, engine="bendscape") as ds:
        assert json.loads(ds.attrs["kernel_source"]) == source(store)


def test_an_edited_kernel_has_a_generation_of_its_own(tmp_path: Path, kernel_file: KernelFile) -> None:
    store, campaign = tmp_path / "s.zarr", make_campaign(**SMALL)
    run(store, kernel_file(RANDOM), campaign)
    module = kernel_file(OTHER)
    beside = generation(store_url(store), campaign, load_kernel("probe", [module]))
    assert beside == store_url(tmp_path / "s.generation-2.zarr")
    assert run(tmp_path / "s.generation-2.zarr", module, campaign).computed == 4
    assert generation(store_url(store), campaign, load_kernel("probe", [module])) == beside


def test_an_older_store_is_checked_against_the_digests_recorded_by_its_runs(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    run(store, module, make_campaign(**SMALL))
    first = digest(module)
    # Such a store has no digest in its root; the lease has it with the path of the module.
    root = json.loads((store / "zarr.json").read_text())
    del root["attributes"]["kernel_source"]
    (store / "zarr.json").write_text(json.dumps(root))
    lease = store / "ledger" / "lease" / "000001.json"
    noted = json.loads(lease.read_text())
    del noted["kernel"]
    lease.write_text(json.dumps(noted | {"kernel_modules": {"/elsewhere/kernel.py": first}}))
    assert kernel_digests(open_store(store)) == [first]
    assert run(store, module, make_campaign(**MORE)).computed == 4
    assert source(store) == {"digests": [first], "accepted": []}
    (store / "zarr.json").write_text((store / "zarr.json").read_text().replace("kernel_source", "unknown"))
    with pytest.raises(ParameterError, match=first):
        run(store, kernel_file(OTHER), make_campaign(**MORE))


def test_an_installed_kernel_is_identified_by_its_version_and_its_package_is_recorded(tmp_path: Path) -> None:
    text = campaign_text(**SMALL).replace('"probe"\n\n', '"theory"\n\n')
    run(tmp_path / "s.zarr", "", parse_campaign(text))
    assert "kernel_source" not in open_store(tmp_path / "s.zarr").attributes
    (one,) = store_status(tmp_path / "s.zarr")["runs"]
    assert one["kernel"]["package"].startswith("bendscape ")
    assert load_kernel("theory").digest == ""


def test_a_kernel_that_is_edited_while_its_run_is_at_work_ends_the_run(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    first = digest(module)

    class Edited(SerialExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            kernel_file(OTHER)
            yield from super().run(next_job)

    with pytest.raises(ParameterError, match=f"digest {first} then") as caught:
        run(store, module, make_campaign(**SMALL), Edited())
    assert digest(module) in str(caught.value)
    assert sum(calls(module).values()) == 0


def test_the_code_that_runs_is_that_of_the_digest_even_within_one_clock_tick(
    tmp_path: Path,
) -> None:
    text = """
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable
KERNEL = Kernel(name="k", version=1, variables=(Variable("x", "a number"),), compute=lambda cell, rng: None,
                seconds=lambda cell: {seconds}, peak_bytes=lambda cell: 1.0)
"""
    path, found = tmp_path / "k.py", []
    for seconds in (1, 2, 3):  # of the same length, hence of the same size, as bytecode is told apart by
        path.write_text(text.format(seconds=seconds))
        kernel = load_kernel("k", [str(path)])
        assert kernel.digest == digest(str(path))
        found.append(kernel.seconds(None))  # type: ignore[arg-type]
    assert found == [1, 2, 3]
    assert not (tmp_path / "__pycache__").exists(), "nothing is left beside the file of a user"


def test_a_dotted_name_has_a_digest_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_file: KernelFile
) -> None:
    (tmp_path / "named_kernel.py").write_text(Path(kernel_file(RANDOM)).read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_kernel("probe", ["named_kernel"]).digest == digest(str(tmp_path / "named_kernel.py"))
