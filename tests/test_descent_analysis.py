"""Descents with planted answers: loss between recorded times, thresholds, claims and their false alarms.

Statistical tests have fixed seeds; each states how often it would fail by chance.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from command_line import bendscape
from planted_descent import TIMES, descents
from scipy.stats import binom

from bendscape.analysis.estimate.descent import ALIGNED, _amplified, descent, median_interval
from bendscape.analysis.estimate.success import success_curves
from bendscape.analysis.findings.descent import confined_threshold, is_confined, model_points
from bendscape.analysis.findings.descent_claims import descent_claims
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import parse_campaign
from campaigns import run

ALPHA = np.array([1.8, 2.2, 2.5, 2.8, 3.2, 3.6, 3.9, 4.2, 4.5, 4.8])
SEEDS = {256: 100, 512: 100, 1000: 100, 2000: 100}


def rising(N: float) -> float:
    """Half recovery that rises with ln N and lies below the confined threshold."""
    return 2.5 + 0.25 * math.log(N / 500)


@pytest.fixture(scope="module")
def planted() -> xr.Dataset:
    return descents(SEEDS, ALPHA, np.random.default_rng(11), recovery=rising)


@pytest.fixture(scope="module")
def found(planted: xr.Dataset) -> xr.Dataset:
    return descent(planted)


def confined(found: xr.Dataset) -> xr.Dataset:
    (at,) = (at for point, at in model_points(found) if is_confined(point))
    return at.assign_attrs(found.attrs)


def test_half_loads_at_every_time_hold_the_planted_ones(found: xr.Dataset) -> None:
    # eight intervals of 95 per cent: at least six hold but for one run in 170
    free = found.sel(dynamics="free").isel(time=-1).squeeze()
    kept = confined(found).isel(time=-1)
    held = [free.recovered_half_low.sel(N=N) <= rising(N) <= free.recovered_half_high.sel(N=N) for N in SEEDS]
    held += [kept.kept_half_low.sel(N=N) <= 4.1 <= kept.kept_half_high.sel(N=N) for N in SEEDS]
    assert sum(map(bool, held)) >= 6
    early = found.sel(dynamics="free").isel(time=0).squeeze()
    assert np.isnan(early.recovered_half.values).all()


def test_the_same_rates_come_from_any_zero_or_one_variable_and_from_times(planted: xr.Dataset) -> None:
    by_variable = success_curves(planted)
    by_time = success_curves(planted, variable="time_recovered", by=30.0)
    assert np.array_equal(by_variable["n_success"], by_time["n_success"])
    assert (success_curves(planted, variable="time_recovered", by=3.0)["rate"] <= by_time["rate"]).all()
    with pytest.raises(ParameterError, match="0 or 1 in every cell"):
        success_curves(planted, variable="time_recovered")
    with pytest.raises(ParameterError, match="one number a cell"):
        success_curves(planted, variable="alignment")


def test_a_rate_that_falls_passes_one_half_where_its_complement_rises(planted: xr.Dataset) -> None:
    rises = success_curves(planted)
    falls = success_curves(planted.assign(recovered=1 - planted["recovered"]), falling=True)
    np.testing.assert_array_equal(falls["half"], rises["half"])
    np.testing.assert_array_equal(falls["slope"], rises["slope"])
    np.testing.assert_allclose(falls["rate"], 1 - rises["rate"])


def test_loads_that_a_size_rounds_to_one_value_are_taken_together(planted: xr.Dataset) -> None:
    one = planted.sel(N=[256])
    near = one.assign_coords(alpha=one["alpha"] + 1e-4)  # the same M = round(alpha N)
    both = success_curves(xr.concat([one, near], "alpha").sortby("alpha"))
    twice = success_curves(xr.concat([one, one.assign_coords(seed=one["seed"] + 1000)], "seed"))
    np.testing.assert_array_equal(both["half"], twice["half"])
    assert both["half"].notnull().any()


def test_cells_that_are_not_done_do_not_count(planted: xr.Dataset) -> None:
    fewer = planted.assign(status=planted["status"].where(planted["seed"] < 10, 2))
    assert (success_curves(fewer)["n_cells"] == 10).all()
    assert (descent(fewer)["n_seen"] <= 10).all()


def test_the_median_time_of_loss_lies_between_the_recorded_times_that_are_given() -> None:
    # 32 intervals of 95 per cent or more: fewer than 26 hold in one run of 1000
    held = []
    for entropy in range(8):
        rng = np.random.default_rng(entropy)
        for median in (0.2, 0.7, 2.0, 20.0):
            one = descents({512: 15}, np.array([3.4, 3.5]), rng, recovery=lambda N: 9.0, median_loss=median)
            at = confined(descent(one)).isel(N=0, alpha=0)
            assert at.time_lost_low in (0.0, *TIMES)
            assert at.time_lost_high in (math.inf, *TIMES)
            # a loss before the first recorded time is never seen
            truth = 0.3 if median == 0.2 else median
            held.append(at.time_lost_low <= truth <= at.time_lost_high)
    assert sum(map(bool, held)) >= 26


def test_a_direction_that_ends_in_recovery_is_not_lost(planted: xr.Dataset) -> None:
    only = planted.copy()
    turned = only["alignment"].where(only["time"] < 1.0, 2 * ALIGNED)
    at = descent(
        only.assign(alignment=turned, outlier_sample=only["outlier_sample"].where(only["time"] < 1.0))
    )
    lost_before = descent(only.isel(time=slice(0, 2)))
    assert (at["n_lost"] == lost_before["n_lost"]).all()
    assert at["n_seen"].sum() > 0


@pytest.mark.parametrize("n", [5, 6, 9, 30, 101])
def test_order_statistics_hold_the_median_of_any_law(n: int) -> None:
    _, low, high = median_interval(np.arange(n, dtype=float), 0.95)
    if n < 6:
        assert (low, high) == (-math.inf, math.inf)
        return
    outside = 2 * binom.cdf(int(low), n, 0.5)  # fewer than low + 1 values on one side
    assert outside <= 0.05
    assert high == n - 1 - low


def test_the_overlap_saturates_when_the_planted_growth_ends(found: xr.Dataset) -> None:
    at = found.sel(dynamics="free", alpha=1.8, N=2000).squeeze()
    assert at.time_saturated == 3.0
    assert at.time_saturated_low <= 3.0 <= at.time_saturated_high
    assert (at.amplification_median < at.amplification).all()
    recovering = found.sel(dynamics="free", alpha=3.6, N=2000).squeeze()
    assert math.isnan(recovering.time_saturated)


def test_cells_that_ended_by_recovery_count_in_the_amplification(planted: xr.Dataset) -> None:
    late = planted["time"] > planted["time_recovered"]
    late = late & (late.cumsum("time") > 1)  # the moment of recovery itself is recorded
    ended = planted.assign({name: planted[name].where(~late) for name in ("alignment", "loss")})
    assert bool(late.any())
    whole, cut = (descent(ds)["amplification"] for ds in (planted, ended))
    np.testing.assert_allclose(cut, whole, rtol=0.02)  # C is 0.99 there, and counts as 1


def test_the_mean_of_a_broad_overlap_has_an_interval_that_holds_it() -> None:
    # 200 intervals of 95 per cent, 20 cells of a chi squared law with one degree: the share is 0.95 to 0.97,
    # below 0.89 in one run of 1000
    draws = 25 * np.random.default_rng(4).chisquare(1, (200, 20))
    held = [low <= 25 <= high for _, low, high, *_ in (_amplified(row, 0.95) for row in draws)]
    assert np.mean(held) > 0.89


def test_the_confined_threshold_has_a_value_only_where_it_no_longer_moves(found: xr.Dataset) -> None:
    at = confined_threshold(confined(found))
    assert at.outcome == "settled"
    assert at.low <= 4.1 <= at.high
    assert len(at.sizes) >= 2
    assert at.high - at.low >= 2 * at.drift
    many = {256: 600, 512: 600, 1000: 600, 2000: 600}

    def moving(N: float) -> float:
        return 3.6 + 0.25 * math.log(N / 256)

    drifting = descents(many, ALPHA, np.random.default_rng(2), recovery=rising, algorithmic=moving)
    drifting = drifting.sel(dynamics=["confined"]).isel(time=[0, 5])
    assert confined_threshold(confined(descent(drifting))).outcome == "moves with N"
    few = descents({256: 4, 512: 4}, ALPHA, np.random.default_rng(2), recovery=rising)
    assert confined_threshold(confined(descent(few))).outcome == "not enough data"


def test_claims_hold_in_a_world_where_they_are_true_and_the_labels_alone_do_not_support(
    found: xr.Dataset,
) -> None:
    verdicts = {claim.name: claim.verdict for claim in descent_claims(found)}
    assert verdicts["finite"] == verdicts["trapped"] == verdicts["lost"] == "consistent"
    measured = descent_claims(found.assign_attrs(direction="eigenvector"))
    assert {claim.name: claim.verdict for claim in measured} == {
        "short_times": "supported",
        "lost": "supported",
        "trapped": "supported",
        "finite": "supported",
        "logarithmic": "consistent",
    }
    assert not any("paper" in claim.finding for claim in measured)


def test_claims_are_contradicted_in_a_world_where_they_are_false() -> None:
    world = descents(
        SEEDS, ALPHA, np.random.default_rng(5), recovery=lambda N: 4.6 - 0.3 * math.log(N / 500),
        short=3.0, algorithmic=lambda N: 3.2, kept_when_free=True,
    )  # fmt: skip
    verdicts = {claim.name: claim.verdict for claim in descent_claims(descent(world.isel(time=[0, 5])))}
    assert verdicts["lost"] == verdicts["logarithmic"] == "contradicted"


def test_true_claims_are_seldom_contradicted_and_no_drift_is_seldom_called_one() -> None:
    # the rate of contradictions is below 0.003 a sweep and claim, that of drifts below 0.03
    contradicted, drifts = 0, 0
    for entropy in range(5):
        world = descents(
            {256: 16, 512: 16, 1000: 12}, ALPHA[1:8:2], np.random.default_rng(entropy), recovery=lambda N: 2.9
        )
        verdicts = [claim.verdict for claim in descent_claims(descent(world.isel(time=[0, 2, 5])))]
        contradicted += verdicts.count("contradicted")
        drifts += verdicts[-1] == "consistent"
    assert contradicted == 0
    assert drifts <= 1


def test_without_confined_descents_or_cells_there_is_not_enough_data(planted: xr.Dataset) -> None:
    free = {claim.name: claim.verdict for claim in descent_claims(descent(planted.sel(dynamics=["free"])))}
    assert free["trapped"] == free["finite"] == "not enough data"
    empty = descent(planted.assign(status=planted["status"] * 0))
    assert {claim.verdict for claim in descent_claims(empty)} == {"not enough data"}


def test_measured_eigenvectors_show_the_same_loss_and_pairs_that_did_not_converge_count_as_before(
    planted: xr.Dataset, found: xr.Dataset
) -> None:
    shown = planted["outlier_sample"].notnull()
    pair = (0.99 * shown + 1e-4).expand_dims(pair=[0], axis=-1)
    measured = planted.assign(eigenvector_overlap_sq=pair)
    same = descent(measured, direction="eigenvector")
    assert np.array_equal(same["n_lost"], found["n_lost"])
    assert np.array_equal(same["kept_n_success"], found["kept_n_success"])
    blind = pair.where(pair["time"] != 1.0)  # nothing converged then: what was lost by 1 is lost by 3
    later = descent(measured.assign(eigenvector_overlap_sq=blind), direction="eigenvector")
    later, found = (of.sel(dynamics="confined") for of in (later, found))  # free ones may turn in between
    assert np.array_equal(later["n_lost"], found["n_lost"])
    assert (later["time_lost"] != 1.0).all()


def test_a_direction_that_cannot_be_read_is_refused(planted: xr.Dataset) -> None:
    with pytest.raises(ParameterError, match="eigenvector in a store with pairs"):
        descent(planted, direction="eigenvector")
    with pytest.raises(ParameterError, match="time among its dimensions"):
        descent(planted.isel(time=0))


CAMPAIGN = """
[campaign]
name = "tiny-descents"
store = "s.zarr"
entropy = 7
[kernel]
name = "descent"
times = [0.1, 1, 10]
[grid]
p = [1]
p_star = [1]
a = [0.01]
dynamics = ["free", "confined"]
alpha = [1.5, 2.5, 3.5, 5.0]
N = [24, 32]
seeds = 6
"""


def test_commands_figures_and_report_of_a_store_of_descents(tmp_path: Path) -> None:
    store = str(tmp_path / "s.zarr")
    run(store, "", parse_campaign(CAMPAIGN))
    rows = json.loads(bendscape("descent", store, "--json").stdout)
    assert {row["dynamics"] for row in rows["half"]} == {"free", "confined"}
    assert len(rows["confined"]) == 3
    assert "### Load at half success" in bendscape("descent", store).stdout
    names = [claim["name"] for claim in json.loads(bendscape("claims", store, "--json").stdout)["claims"]]
    assert names == ["short_times", "lost", "trapped", "finite", "logarithmic"]
    written = json.loads(
        bendscape("figures", store, "-o", str(tmp_path / "f"), "--format", "svg", "--json").stdout
    )
    assert {Path(file).name for file in written["files"]} >= {"recovery.svg", "amplification.svg", "path.csv"}
    bendscape("report", store, "-o", str(tmp_path / "r.html"))
    page = (tmp_path / "r.html").read_text()
    assert page.count('class="plot"') >= 4
    assert "Confined dynamics" in page
    assert "arXiv:2403.02418" in page
