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
from bendscape.analysis.figures.draw import DESCENTS, numbers_of
from bendscape.analysis.findings.descent import (
    confined_rows,
    confined_threshold,
    is_confined,
    loss_rows,
    model_points,
    recovery_rows,
    render_descent,
)
from bendscape.analysis.findings.descent_claims import descent_claims
from bendscape.analysis.findings.evidence import Claim
from bendscape.analysis.findings.results import Results
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.commands.console import plain
from campaigns import run

ALPHA = np.array([1.8, 2.2, 2.5, 2.8, 3.2, 3.6, 3.9, 4.2, 4.5, 4.8])
SEEDS = {256: 60, 512: 60, 1000: 60, 2000: 60}


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
    assert (descent(fewer.sel(N=[256]))["n_seen"] <= 10).all()


def test_the_median_time_of_loss_lies_between_the_recorded_times_that_are_given() -> None:
    # 32 intervals of 95 per cent or more: fewer than 26 hold in one run of 1000
    medians, sizes = np.array([0.2, 0.7, 2.0, 20.0]), dict.fromkeys(range(512, 520), 15)
    world = descents(
        sizes, np.linspace(3.4, 3.5, 4), np.random.default_rng(0), recovery=lambda N: 9.0, median_loss=medians
    )
    at = confined(descent(world.sel(dynamics=["confined"])))
    assert np.isin(at.time_lost_low, (0.0, *TIMES)).all()
    assert np.isin(at.time_lost_high, (math.inf, *TIMES)).all()
    # a loss before the first recorded time is never seen
    truth = xr.DataArray(np.maximum(medians, 0.3), dims="alpha")
    held = (at.time_lost_low <= truth) & (truth <= at.time_lost_high)
    assert held.size == 32
    assert held.sum() >= 26


def test_a_direction_that_ends_in_recovery_is_not_lost(planted: xr.Dataset) -> None:
    only = planted.sel(N=[256, 2000])
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


def test_cells_that_ended_by_recovery_count_in_the_amplification(
    planted: xr.Dataset, found: xr.Dataset
) -> None:
    planted = planted.sel(dynamics=["free"], N=[256, 512])
    late = planted["time"] > planted["time_recovered"]
    late = late & (late.cumsum("time") > 1)  # the moment of recovery itself is recorded
    ended = planted.assign({name: planted[name].where(~late) for name in ("alignment", "loss")})
    assert bool(late.any())
    cut, whole = descent(ended), found.sel(dynamics=["free"], N=[256, 512])
    np.testing.assert_allclose(cut["amplification"], whole["amplification"], rtol=0.02)  # C is 0.99, then 1


def test_medians_of_edge_and_outlier_are_over_cells_not_recovered_whether_or_not_recovery_ended_them(
    planted: xr.Dataset, found: xr.Dataset
) -> None:
    planted = planted.sel(dynamics=["free"], N=[256])
    late = planted["time"] > planted["time_recovered"]
    shifted = planted.assign(edge_sample=planted["edge_sample"].where(~late, 5.0))  # where it has recovered
    ended = planted.assign(
        {name: planted[name].where(~late) for name in ("alignment", "loss", "edge_sample")}
    )
    whole, cut = descent(shifted), descent(ended)
    for name in ("edge", "edge_low", "outlier"):
        np.testing.assert_array_equal(whole[name], cut[name])
    assert whole["edge"].max() == -1.0
    # nor are those that are left the ones whose overlap saturates
    at = {"alpha": 2.2, "N": 256}
    sudden = ended.assign(alignment=ended["alignment"].where(ended["alignment"] < ALIGNED))
    assert np.isnan(descent(sudden)["time_saturated"].sel(at)).all()


def test_cells_that_ended_before_the_first_recorded_time_say_nothing_of_the_direction(
    planted: xr.Dataset,
) -> None:
    planted = planted.sel(dynamics=["free"], N=[256]).isel(time=[4, 5])
    along = ["alignment", "loss", "edge_sample", "outlier_sample", "overlap_sq_sample"]
    early = planted["time_recovered"] < planted["time"][0]
    found = descent(planted.assign({name: planted[name].where(~early) for name in along}))
    assert (found["kept_n_cells"] == (~early).sum("seed")).all()
    assert (found["recovered_n_cells"] == 60).all()


def test_a_slope_needs_two_sizes_at_which_the_crossing_is_located(planted: xr.Dataset) -> None:
    one = planted.sel(dynamics=["free"], N=[256, 512, 1000])
    times = one["time_recovered"].where(one["N"] == 256, 1.0)  # all recover at the others: a bound
    found = descent(one.assign(time_recovered=times).isel(time=[0, -1]))
    assert np.isfinite(found["recovered_half"].isel(time=-1)).sum() == 1
    assert np.isnan(found["recovered_slope"]).all()
    assert "| not enough data |" in render_descent(found)


def test_the_loss_is_supported_by_several_points_and_only_with_power(planted: xr.Dataset) -> None:
    def of(ds: xr.Dataset, name: str = "lost") -> Claim:
        found = descent(ds.isel(time=[0, -1])).assign_attrs(direction="eigenvector")
        return next(claim for claim in descent_claims(found) if claim.name == name)

    three, two = ([3.2, 3.6, 3.9], [3.2, 3.6])
    both = planted.sel(N=[256])
    assert of(both.sel(alpha=two)).verdict == "consistent"  # lost at two points
    seven = both.sel(alpha=three).isel(seed=slice(7))
    assert of(seven).verdict == "no power"
    assert of(seven).power < 0.1
    without = of(both.sel(alpha=three, dynamics=["confined"]))
    assert (without.verdict, without.power) == ("consistent", 0)
    enough = planted.sel(N=[256, 512], alpha=three)
    assert of(enough).verdict == "supported"
    assert of(enough).power > 0.99
    assert of(planted.sel(N=[256]).isel(time=[5, 5]), "short_times").verdict == "not enough data"


def test_loads_relative_to_a_threshold_and_noise_are_told_apart(planted: xr.Dataset) -> None:
    one = planted.sel(N=[256], alpha=[1.8, 2.5, 3.2, 3.9]).isel(time=[-1])
    noisy = one.assign(time_recovered=one["time_recovered"] * np.nan)
    both = xr.concat([one, noisy], xr.DataArray([0.0, 0.3], dims="noise", name="noise")).assign_coords(
        noise=("noise", [0.0, 0.3], {"role": "model"})
    )
    factors = both.rename(alpha="alpha_factor").assign_coords(
        alpha_factor=("alpha_factor", both["alpha"].values / 2, {"role": "curve"}),
        alpha=(("a", "alpha_factor"), [both["alpha"].values]),
    )
    found, relative = descent(both), descent(factors)
    words = [row["text"] for each in recovery_rows(found) for row in each["sizes"]]
    assert words == [row["text"] for each in recovery_rows(relative) for row in each["sizes"]]
    assert [round(row["alpha"], 2) for row in loss_rows(relative)] == [
        pytest.approx(row["alpha"], abs=0.01) for row in loss_rows(found)
    ]
    assert "| noise = 0.3, p = 1, p* = 1, a = 0.01, free |" in render_descent(relative)
    claims, plain_ones = (descent_claims(of) for of in (relative, descent(one)))
    assert [claim.finding for claim in claims] == [claim.finding for claim in plain_ones]
    results = Results(factors)
    for name in DESCENTS:
        numbers = numbers_of(results, name)[name]
        if name != "half_load":  # which has no load of its own
            assert set(numbers["noise"].values.tolist()) == {0.0, 0.3}
            assert numbers["alpha"].values.max() == pytest.approx(3.9, abs=0.01)


def test_json_has_no_number_that_json_lacks(planted: xr.Dataset) -> None:
    one = planted.sel(N=[256, 512], dynamics=["free"], alpha=[1.8, 2.5, 3.2]).isel(time=[-1])
    for ds in (one, one.sel(N=[256]), one.assign(time_recovered=one["time_recovered"] * np.nan)):
        found = descent(ds.isel(seed=slice(10)))
        rows = [recovery_rows(found), confined_rows(found), loss_rows(found)]
        assert json.loads(json.dumps(plain(rows), allow_nan=False))[0]
        assert render_descent(found)


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
    planted = planted.sel(N=[256])
    free = {claim.name: claim.verdict for claim in descent_claims(descent(planted.sel(dynamics=["free"])))}
    assert free["trapped"] == free["finite"] == "not enough data"
    empty = descent(planted.assign(status=planted["status"] * 0))
    assert {claim.verdict for claim in descent_claims(empty)} == {"not enough data"}


def test_measured_eigenvectors_show_the_same_loss_and_pairs_that_did_not_converge_count_as_before(
    planted: xr.Dataset, found: xr.Dataset
) -> None:
    planted, found = (of.sel(N=[256, 512]) for of in (planted, found))
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
N = [16, 24]
seeds = 4
"""


def test_commands_figures_and_report_of_a_store_of_descents(tmp_path: Path) -> None:
    store = str(tmp_path / "s.zarr")
    run(store, "", parse_campaign(CAMPAIGN))
    rows = json.loads(bendscape("descent", store, "--json").stdout)
    assert {row["dynamics"] for row in rows["half"]} == {"free", "confined"}
    assert len(rows["confined"]) == 3
    assert "### Load at half success" in bendscape("descent", store).stdout
    free = json.loads(bendscape("descent", store, "--json", "--sel", "dynamics=free").stdout)
    assert free["half"] == [row for row in rows["half"] if row["dynamics"] == "free"]
    names = [claim["name"] for claim in json.loads(bendscape("claims", store, "--json").stdout)["claims"]]
    assert names == ["short_times", "lost", "trapped", "finite", "logarithmic"]
    only = [word for name in ("recovery", "amplification", "path") for word in ("--only", name)]
    drawn = bendscape("figures", store, "-o", tmp_path / "f", "--format", "svg", *only, "--json")
    written = json.loads(drawn.stdout)
    assert {Path(file).name for file in written["files"]} >= {"recovery.svg", "amplification.svg", "path.csv"}
    bendscape("report", store, "-o", str(tmp_path / "r.html"))
    page = (tmp_path / "r.html").read_text()
    assert page.count('class="plot"') >= 4
    assert "Confined dynamics" in page
    assert "arXiv:2403.02418" in page
