"""Refinement: the design of every estimator, states and their reasons, rounds on planted curves and on
stores."""

from __future__ import annotations

import json
import math
import tomllib
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from command_line import bendscape
from planted_refine import PILOT, Planted, core_hours, refined

from bendscape.analysis.estimate.collapse_fits import scale_width
from bendscape.analysis.estimate.collapse_points import scaled_points
from bendscape.analysis.refine.command import MARK
from bendscape.analysis.refine.critical_load import TRUSTED, critical_load_design, fit_critical_load
from bendscape.analysis.refine.design_model import DesignModel, Fitted, Shift
from bendscape.analysis.refine.level_crossing import fit_level_crossing, level_crossing
from bendscape.analysis.refine.refiner import refiner
from bendscape.analysis.refine.rounds import FLAT, GROWTH, MARGIN, MOST_CELLS, candidates, next_round
from bendscape.analysis.refine.states import MOST_SEEDS, Held, Row, row_of, within
from bendscape.analysis.refine.trust import halved
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.target import Precision, Target, load_refiner
from bendscape.sweep.store.root import open_store
from campaigns import run

MODEL = Model(1, 1, 0.7)


def logistic(asked: dict[tuple[float, int], int], entropy: int = 0, limit: float = 1.0) -> xr.Dataset:
    """Cells that are 1 with a probability that rises through 1/2 at limit + 0.3 (N/16)^(-1/2)."""
    xs, sizes = sorted({x for x, _ in asked}), sorted({N for _, N in asked})
    ok = np.full((len(xs), len(sizes), max(asked.values())), np.nan)
    status = np.full(ok.shape, -1, np.int8)
    for (x, N), n in asked.items():
        rng = np.random.default_rng([entropy, round(x * 1e6), N])
        steep, at = 4 * (N / 16) ** 0.5, limit + 0.3 * (N / 16) ** -0.5
        ok[xs.index(x), sizes.index(N), :n] = rng.random(n) < 1 / (1 + np.exp(-steep * (x - at)))
        status[xs.index(x), sizes.index(N), :n] = 1
    dims = ("x", "N", "seed")
    axes = {"x": xs, "N": sizes, "seed": np.arange(ok.shape[2])}
    roles = {"x": "curve", "N": "size", "seed": "seed"}
    coords = {name: (name, values, {"role": roles[name]}) for name, values in axes.items()}
    return xr.Dataset({"status": (dims, status), "ok": (dims, ok)}, coords)


def unasked() -> tuple[Fitted, Fitted]:
    raise AssertionError("no model is to be given up for a failed test")


COARSE = {(round(float(x), 6), N): 16 for x in np.linspace(0, 2.4, 13) for N in (16, 64, 256)}


def held_of(asked: dict[tuple[float, int], int]) -> Held:
    return Held({}, 1.0, asked, {}, lambda x, N: N / 1000, lambda x: True)


def design_of(name: str) -> DesignModel:
    if name == "level_crossing":
        found = fit_level_crossing(logistic(COARSE), "ok", 0.5, 0.5).design
        assert found is not None
        return found
    planted = Planted(MODEL)
    block = planted.block(PILOT).transpose("alpha_factor", "N", "seed")
    points = scaled_points(block, block["alpha"].values, scale_width(MODEL))
    return critical_load_design(points, MODEL, name, planted.truth, 0.05, (256, 1024, 4096))


@pytest.mark.parametrize("name", ["theory_curve", "collapse", "level_crossing"])
def test_the_gradient_is_that_of_the_mean(name: str) -> None:
    design = design_of(name)
    rng = np.random.default_rng(4)
    theta = design.theta + 0.03 * rng.normal(size=len(design.theta))
    size = np.repeat(np.array(design.sizes, dtype=np.float64), 5)
    ends = np.array([design.region(N) for N in size])
    curve = ends[:, 0] + np.tile(np.linspace(0, 1, 5), len(design.sizes)) * (ends[:, 1] - ends[:, 0])
    gradient = design.gradient(theta, curve, size)
    for k, step in enumerate(1e-5 * np.maximum(1, np.abs(theta))):
        up, down = theta.copy(), theta.copy()
        up[k] += step
        down[k] -= step
        slope = (design.mean(up, curve, size) - design.mean(down, curve, size)) / (2 * step)
        assert gradient[:, k] == pytest.approx(slope, rel=2e-3, abs=1e-4 * np.abs(gradient[:, k]).max())
    assert (design.sigma(curve, size) > 0).all()


def test_a_round_stays_in_the_trusted_region_and_within_three_times_the_time() -> None:
    planted = Planted(MODEL)
    fitted = fit_critical_load(planted.block(PILOT))
    row = row_of(fitted, planted.held(PILOT), 0.002, unasked)
    assert row.state.state == "open"
    assert 0 < row.seconds <= (GROWTH - 1) * 3600 * core_hours(planted, PILOT) * (1 + 1e-9)
    assert row.gap <= 0.01
    for one in row.additions:
        w = (one.curve * planted.unit - fitted.value) * one.size ** (1 / 3) / scale_width(MODEL)
        assert abs(w) <= TRUSTED + 1e-9
        assert one.seeds >= 4
        assert len(f"{one.curve:g}") <= 6
    assert 0 < row.state.expected < row.state.error


def test_a_round_that_can_reach_the_target_takes_no_more_than_it_needs_and_spreads_a_share() -> None:
    design = design_of("theory_curve")
    held = Planted(MODEL).held(PILOT)
    at = candidates(design, held.unit, held.accepts, held.cells, held.present, held.cost)
    zeros, wanted = np.zeros((len(design.theta),) * 2), design.standard_error() / 1.5
    found = next_round(design, at, zeros, wanted, 1.0, 1e3)
    assert found.seconds < 500
    assert found.expected == pytest.approx(wanted * MARGIN, rel=0.02)
    used = at.size[found.cells > 0]
    spread = sum((at.size == N).sum() for N in np.unique(used))
    assert (found.cells > 0).sum() > spread * FLAT


def test_no_point_gets_more_cells_than_an_analysis_holds() -> None:
    design, held = design_of("collapse"), Planted(MODEL).held(PILOT)
    at = candidates(design, held.unit, held.accepts, held.cells, held.present, held.cost)
    zeros, seconds = np.zeros((len(design.theta),) * 2), 1e5
    found = next_round(design, at, zeros, 1e-6, 1.0, seconds)
    total = at.cells + found.cells
    assert total.max() == MOST_CELLS, "the optimum would put more there"
    assert (total == MOST_CELLS).sum() < len(total)
    assert 0.9 * seconds < found.seconds <= seconds * (1 + 1e-9), "other points get the time"
    assert found.expected < design.standard_error()
    full = dict.fromkeys(zip(at.coordinate.tolist(), at.size.astype(int).tolist(), strict=True), MOST_CELLS)
    fitted = replace(fit_critical_load(Planted(MODEL).block(PILOT)), design=design, trust="sound")
    state = row_of(fitted, Planted(MODEL).held(full), 1e-6, unasked).state
    assert (state.state, state.reason.endswith("add larger sizes")) == ("unreachable", True)
    assert f"{MOST_CELLS:,}" in state.reason


def test_halves_alternate_along_the_cells_that_are_done_and_take_a_byte_a_cell() -> None:
    status = np.tile(np.array([1, 2, 1, 1, 0, -1, 1], np.int8), (40, 10_000))
    block = xr.Dataset({"status": (("x", "seed"), status)})
    tracemalloc.start()
    one, other = halved(block, "seed")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    done = np.flatnonzero(status[0] == 1)
    assert np.flatnonzero(one["status"][0] == 1).tolist() == done[::2].tolist()
    assert np.flatnonzero(other["status"][0] == 1).tolist() == done[1::2].tolist()
    assert one["status"].dtype == status.dtype
    assert peak < 8 * status.size  # an integer for each cell would be eight bytes


def test_cells_that_the_campaign_already_asks_for_count_as_coming() -> None:
    planted, asked = Planted(MODEL), dict(PILOT)
    fitted = fit_critical_load(planted.block(PILOT))
    missing = dict.fromkeys(asked, 20)
    held = planted.held({at: n + 20 for at, n in asked.items()})
    alone = row_of(fitted, planted.held(asked), 0.7 * fitted.error, unasked)
    with_coming = row_of(fitted, replace(held, missing=missing), 0.7 * fitted.error, unasked)
    assert with_coming.seconds < 0.7 * alone.seconds


def test_proposals_are_the_same_however_often_they_are_made() -> None:
    planted = Planted(MODEL, entropy=3)
    rows = [
        row_of(fit_critical_load(planted.block(PILOT)), planted.held(PILOT), 0.01, unasked) for _ in range(2)
    ]
    assert rows[0].additions == rows[1].additions
    assert rows[0].state == rows[1].state


def test_a_planted_critical_load_is_brought_to_two_per_cent() -> None:
    planted = Planted(MODEL, (0.3, -0.2, 0.1, 0.3, -0.2, 0.1), entropy=5)
    last, asked, rows = refined(planted, 0.02)
    assert last.state.state == "met"
    assert last.fitted.estimator == "theory_curve"
    assert last.state.error <= 0.02 * last.state.value
    assert abs(last.state.value - planted.truth) < 4 * last.state.error  # false alarm below 1e-4
    assert len(rows) <= 6
    for before, row in pairwise(rows):
        assert row.state.error < 1.5 * before.state.expected
    with_theory = core_hours(planted, asked)
    assert with_theory < 0.1


def test_a_curve_that_is_not_theorys_is_left_to_the_collapse() -> None:
    """With half as many cells p is 1e-3, and the estimate is suspect."""
    asked = dict.fromkeys(PILOT, 800)
    fitted = fit_critical_load(Planted(MODEL, amplitude=2.0).block(asked))
    assert fitted.estimator == "collapse"
    assert fitted.trust == "sound"
    assert fitted.design is not None
    assert fitted.design.parameters[1] == "f_0"


def test_what_bars_a_claim_is_said_in_words() -> None:
    planted = Planted(MODEL)
    held = planted.held(PILOT)
    fitted = fit_critical_load(planted.block(PILOT))
    good = replace(fitted, error=0.008, trust="sound", shifts=())

    def state(**changes: Any) -> Row:
        bad = replace(good, **changes)
        return row_of(bad, held, 0.01, lambda: (bad, bad))

    assert state().state.state == "met"
    suspect = state(trust="suspect", reason="the fit is poor").state
    assert (suspect.state, suspect.reason) == ("open", "the fit is poor")
    settled = state(trust="suspect", reason="the fit is poor", error=0.004).state
    assert settled.state == "unreachable"
    assert "did not settle it" in settled.reason
    refuted = state(trust="refuted", reason="odd and even seeds disagree").state
    assert refuted.state == "unreachable"
    assert refuted.reason == "odd and even seeds disagree; each half of the cells alone says so too"
    moved = state(shifts=(Shift("without the smallest size", 0.05, 0.004),))
    assert moved.state.state == "unreachable"
    assert "without the smallest size moves the estimate by +0.05" in moved.state.reason
    assert "add larger sizes" in moved.state.reason
    assert state(shifts=(Shift("wide window", 0.05, 0.014),)).state.state == "open"
    assert state(shifts=(Shift("wide window", 0.005, 0.001),)).state.state == "met"
    beyond = row_of(Fitted(reason="no crossing within the alphas", bounded=True), held, math.nan, unasked)
    assert (beyond.state.state, beyond.additions) == ("unreachable", ())
    noisy = row_of(Fitted(reason="too noisy"), held, math.nan, unasked)
    assert noisy.state.reason == "no estimate yet: too noisy"
    assert {one.seeds for one in noisy.additions} == {24}


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"trust": "suspect", "reason": "the fit is poor", "error": 0.004}, "met"),
        ({"trust": "refuted", "reason": "the fit is poor", "error": 0.004}, "met"),
        ({"shifts": (Shift("without the smallest size", 0.05, 0.004),), "error": 0.004}, "met"),
        ({"trust": "refuted", "reason": "the fit is poor"}, "open"),
        ({"shifts": (Shift("without the smallest size", 0.05, 0.004),)}, "open"),
    ],
)
def test_a_failed_test_gives_a_model_up_only_if_both_halves_of_the_cells_fail_one(
    changes: dict[str, Any], end: str
) -> None:
    planted = Planted(MODEL)
    held, fitted = planted.held(PILOT), fit_critical_load(planted.block(PILOT))
    good = replace(fitted, error=0.008, trust="sound", reason="", shifts=())
    bad = replace(good, **changes)
    assert row_of(bad, held, 0.01, lambda: (bad, bad)).state.state == "unreachable"
    for halves in ((bad, good), (good, bad), (good, good), (bad, replace(bad, estimator="another"))):
        found = row_of(bad, held, 0.01, lambda halves=halves: halves).state
        assert found.state == end
        assert end == "open" or found.reason.startswith("taken for chance")


def test_a_model_without_an_estimate_is_given_up_at_a_stated_number_of_cells() -> None:
    held, asked, spent = Planted(MODEL).held(PILOT), dict(PILOT), []
    at = next(iter(asked))
    asked[at] = 1000  # a point that has more already gets none
    for _ in range(9):
        row = row_of(Fitted(reason="too noisy"), replace(held, cells=asked), math.nan, unasked)
        if not row.additions:
            break
        assert row.cells == sum(one.seeds - asked[one.curve, one.size] for one in row.additions)
        spent.append(row.cells)
        asked |= {(one.curve, one.size): one.seeds for one in row.additions}
    assert len(spent) == 4
    assert asked == {**dict.fromkeys(PILOT, MOST_SEEDS), at: 1000}
    assert row.state.state == "unreachable"
    assert row.state.reason.startswith("no estimate with 256 cells or more at every point (too noisy)")


def test_missing_cells_of_a_size_without_a_fit_tell_nothing() -> None:
    design = design_of("level_crossing")
    missing = {(1.0, 512): 8}  # a size whose cells are still to come
    held = Held({}, 1.0, missing, missing, lambda x, N: 1.0, lambda x: True)
    assert not held.coming(design).any()


def test_no_crossing_within_the_values_measured_is_not_refined() -> None:
    below = {at: 60 for at in PILOT if at[0] <= 0.5}
    below |= {(x, N): 60 for x in (0.42, 0.45, 0.48) for N in (256, 512)}
    fitted = fit_critical_load(Planted(MODEL).block(below))
    assert math.isnan(fitted.value)
    assert fitted.reason
    above = {at: 200 for at in COARSE if at[0] >= 1.4}
    fitted = fit_level_crossing(logistic(above), "ok", 0.5, 0.5)
    assert fitted.bounded
    assert fitted.reason == "no crossing: the mean passes the level below the values measured"


def test_a_budget_serves_the_shortest_rounds_first_and_says_whom_it_does_not_serve() -> None:
    planted = Planted(MODEL)
    fitted = fit_critical_load(planted.block(PILOT))
    rows = [row_of(fitted, planted.held(PILOT), wanted, unasked) for wanted in (0.002, fitted.error / 1.2)]
    assert rows[1].seconds < rows[0].seconds
    cut = within(rows, rows[1].seconds * 1.5)
    assert cut[1] is rows[1]
    assert 0 < cut[0].seconds <= rows[1].seconds * 0.5
    assert "the budget leaves" in cut[0].state.reason
    nothing = within(rows, 0.0)
    assert [row.state.state for row in nothing] == ["unreachable"] * 2
    assert not any(row.additions for row in nothing)


def test_a_level_crossing_of_any_kernel_is_brought_to_a_precision() -> None:
    asked, row = dict(COARSE), None
    quantity = level_crossing("half", "ok", 0.5)
    for _ in range(8):
        row = row_of(quantity.fit(logistic(asked, 3)), held_of(asked), 0.015, unasked)
        if not row.additions:
            break
        for one in row.additions:
            asked[one.curve, one.size] = one.seeds
    assert row is not None
    assert row.state.state == "met"
    assert abs(row.state.value - 1.0) < 4 * 0.015
    with pytest.raises(ParameterError, match="level"):
        level_crossing("half", "ok", math.nan)


SIGMOID = """
import math
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable

AXES = Axes((
    Axis("rule", "str", choices=("hebb", "inverse")),
    Axis("load", "float64", role="curve", least=0.0, above=True),
    Axis("size", "int64", role="size", least=1),
    Axis("seed", "int64", role="seed", least=0),
))

def compute(cell, rng):
    at = (1.0 if cell.rule == "hebb" else 9.0) + 0.3 * (cell.size / 16) ** -0.5
    p = 1 / (1 + math.exp(-4 * (cell.size / 16) ** 0.5 * (cell.load - at)))
    return Outcome({"recalled": float(rng.random() < p)})

KERNEL = Kernel("recall", 1, (Variable("recalled", "whether it is recalled"),), compute,
                lambda cell: cell.size / 1e4, lambda cell: 1e6, axes=AXES)
"""

RECALL = """
[campaign]
name = "recall"
store = "unused"
entropy = 3
kernel = "recall"

[grid]
rule = ["hebb", "inverse"]
load = { start = 0.2, stop = 2.4, num = 12 }
size = [16, 64]
seeds = 16
"""


@pytest.fixture(scope="module")
def recall(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store of a kernel that is no network, and the module of its kernel."""
    folder = tmp_path_factory.mktemp("recall")
    module = folder / "recall.py"
    module.write_text(SIGMOID)
    run(folder / "recall.zarr", str(module), parse_campaign(RECALL))
    return folder / "recall.zarr", str(module)


def test_a_store_of_a_kernel_that_is_no_network_is_refined(recall: tuple[Path, str], tmp_path: Path) -> None:
    store, module = recall
    output = tmp_path / "next.toml"
    options = ("--of", "recalled=0.5", "--target", 0.05, "--absolute", "-o", output, "--json")
    done = bendscape("refine", store, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    hebb, inverse = found["models"]
    assert (hebb["model"], hebb["state"], hebb["wanted"]) == ({"rule": "hebb"}, "open", 0.05)
    assert inverse["state"] == "unreachable"
    assert "above the values measured" in inverse["reason"]
    assert {one["model"]["rule"] for one in found["additions"]} == {"hebb"}
    text = output.read_text()
    assert text.startswith(MARK)
    assert len(tomllib.loads(text)["more"]) >= 1
    before = len(open_store(store).ledger.records)
    run(store, module, parse_campaign(text))
    assert len(open_store(store).ledger.records) > before
    error = hebb["error"]
    again = refiner(level_crossing("recalled=0.5", "recalled", 0.5)).refine(
        open_store(store), Target(quantity="recalled=0.5", precision=Precision(absolute=0.05))
    )
    assert again.models[0].error < error
    assert again.models[0].state in ("met", "open")
    assert bendscape("refine", store, *options).returncode == 0  # an earlier one is replaced


def test_a_campaign_of_any_kernel_goes_in_rounds_until_a_level_crossing_is_known(
    recall: tuple[Path, str], tmp_path: Path
) -> None:
    target = """
[target]
core_hours = 1

[[target.models]]
rule = "hebb"
"recalled = 0.50" = { absolute = 0.08 }
"""
    campaign = parse_campaign(RECALL + target)
    summary = run(tmp_path / "recall.zarr", recall[1], campaign)
    assert (summary.outcome, summary.rounds > 0) == ("complete", True)
    (state,) = summary.models  # nothing is asked of the other rule
    assert (state["model"], state["state"]) == ({"rule": "hebb"}, "met")
    assert state["error"] <= 0.08
    assert state["value"] == pytest.approx(1.0, abs=4 * 0.08)
    for wrong, words in (
        ("missing=0.5", "lacks missing"),
        ("recalled", '"VARIABLE=LEVEL"'),
        ("recalled=", '"VARIABLE=LEVEL"'),
        ("size=16", "size as one real number a cell"),
    ):
        asked = parse_campaign(RECALL + f'[target]\n"{wrong}" = 0.1\n')
        with pytest.raises(ParameterError, match=words):
            run(tmp_path / "none.zarr", recall[1], asked)
    assert not (tmp_path / "none.zarr").exists()


def test_a_model_whose_cells_fail_gets_no_more_of_them(tmp_path: Path) -> None:
    module = tmp_path / "failing.py"
    module.write_text(SIGMOID.replace("    at = (", "    if cell.rule == 'inverse': 1 / 0\n    at = ("))
    target = '[target]\n"recalled=0.5" = { absolute = 0.3 }\n'
    summary = run(tmp_path / "s.zarr", str(module), parse_campaign(RECALL + target))
    hebb, inverse = summary.models
    assert (hebb["state"], inverse["state"], summary.failed) == ("met", "unreachable", 12 * 2 * 16)
    assert inverse["reason"].startswith("384 of its 384 computed cells failed")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target", "0"), "--target"),
        (("--target", "0.1", "--core-hours", "-1"), "--core-hours"),
        (("--target", "0.1", "--of", "alpha_c"), "overlap_sq_space"),
        (("--target", "0.1", "--of", "nobody"), "nobody"),
        (("--target", "0.1", "--of", "recalled=half"), "VARIABLE=LEVEL"),
        (("--target", "0.1", "--of", "missing=0.5"), "missing"),
        (("--target", "0.1", "--of", "status=0.5"), "status as one real number a cell"),
        (("--target", "0.1", "--of", "load=0.5"), "load as one real number a cell"),
        (("--target", "0.1", "--of", "recalled=1e999"), "VARIABLE=LEVEL"),
        (("--target", "0.1", "--of", "recalled=0.5", "-o", "next.txt"), ".toml"),
    ],
)
def test_bad_input_gives_one_line(recall: tuple[Path, str], options: tuple[str, ...], words: str) -> None:
    done = bendscape("refine", recall[0], *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_of_somebody_else_is_not_replaced(recall: tuple[Path, str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(RECALL)
    done = bendscape("refine", recall[0], "--target", 0.1, "--of", "recalled=0.5", "-o", mine)
    assert done.returncode == 2
    assert mine.read_text() == RECALL


NETWORK = """
from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.core.quadratic.model import Model
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable
import numpy as np

def compute(cell, rng):
    model = Model(cell.p, cell.p_star, cell.a)
    at = critical_point(model)
    w = (cell.alpha - at.alpha) * cell.N ** (1 / 3) / at.width
    mean = at.amplitude * universal_overlap(np.array([w]), 1)[0] * cell.N ** (-1 / 3)
    overlap = min(1.0, mean * rng.exponential())
    return Outcome({"overlap_sq_space": overlap, "eigval_min": 0.0, "edge_sample": 0.0})

NAMES = ("overlap_sq_space", "eigval_min", "edge_sample")
KERNEL = Kernel("planted", 1, tuple(Variable(n, n) for n in NAMES), compute,
                lambda cell: 1e-3 * (cell.N / 256) ** 1.3, lambda cell: 1e6)
"""

PLANTED = """
[campaign]
name = "planted"
store = "unused"
entropy = 5
kernel = "planted"

[grid]
p = 1
p_star = 1
a = [0.7, 1.5]
alpha = { around = "alpha_bbp", start = 0.5, stop = 1.5, num = 11 }
N = [256, 1024]
seeds = { 256 = 12, 1024 = 8 }

[target]
core_hours = 0.05

[[target.models]]
a = 0.7
alpha_c = 0.04
"""


def test_a_campaign_with_a_target_goes_in_rounds_until_alpha_c_is_known(tmp_path: Path) -> None:
    module = tmp_path / "planted.py"
    module.write_text(NETWORK)
    campaign = parse_campaign(PLANTED)
    summary = run(tmp_path / "planted.zarr", str(module), campaign)
    store = open_store(tmp_path / "planted.zarr")
    target = campaign.to_target(load_kernel("planted", [str(module)], {}).axes)
    assert target is not None
    proposal = load_refiner("alpha_c").refine(store, target)
    (state,) = proposal.models  # nothing is asked of a = 1.5
    assert summary.exit_code == 0
    assert (state.model["a"], state.state) == (0.7, "met")
    assert state.error <= 0.04 * state.value
    assert state.value == pytest.approx(1.2434, abs=4 * state.error)
