"""Sweeps of activations: means beside theory, measured loads, claims with planted loads, the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from command_line import bendscape

from bendscape.analysis.figures.activation_map import activation_map, threshold_figure
from bendscape.analysis.findings.activation_claims import claims_of_models
from bendscape.analysis.findings.activations import (
    ActivationModel,
    OverlapRatio,
    activation_means,
    activation_models,
    activation_rows,
    render_activations,
)
from bendscape.analysis.findings.results import Results
from bendscape.analysis.findings.size_pairs import PairLoad
from bendscape.analysis.report.page import write_report
from bendscape.core import ParameterError
from bendscape.core.activations.activation import Network
from bendscape.core.activations.published import TRANSITION_KINDS, thresholds_of
from bendscape.sweep.campaign.file import parse_campaign
from campaigns import run

CAMPAIGN = """
[campaign]
name = "bent"
store = "s.zarr"
entropy = 1
kernel = "activations"

[grid]
p = [1, 2]
p_star = [1]
a = [0.5]
activation = ["log_cosh", "softplus"]
alpha = { around = "alpha_bbp", values = [0.6, 1.5, 2.2] }
N = [12, 24]
seeds = 4
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bent") / "s.zarr"
    assert run(path, "", parse_campaign(CAMPAIGN)).outcome == "complete"
    return path


@pytest.fixture
def ds(store: Path) -> xr.Dataset:
    with xr.open_dataset(store, engine="bendscape") as found:
        return found.load()


def test_means_are_those_over_seeds_and_theory_is_the_stores(ds: xr.Dataset) -> None:
    found = activation_means(ds)
    at = {"activation": "softplus", "teacher_activation": "quadratic", "p": 2, "p_star": 1, "a": 0.5}
    cells = {name: value for name, value in at.items() if name != "teacher_activation"}
    for name in ("eigval_min", "overlap_sq_space_relative"):
        xr.testing.assert_allclose(
            found[name].sel(at).transpose("N", "alpha_factor").drop_attrs().reset_coords(drop=True),
            ds[name].sel(cells).mean("seed").transpose("N", ...).drop_attrs().reset_coords(drop=True),
        )
    assert found["alpha_bbp"].sel(at).item() == ds["alpha_bbp"].sel(cells).item()
    assert found["lambda_star"].sel(at).dims == ("alpha_factor",)


def test_masked_and_selected_datasets_give_the_same(ds: xr.Dataset) -> None:
    whole = activation_models(activation_means(ds))
    assert [of.pair[0] for of in whole] == ["log_cosh", "log_cosh", "softplus", "softplus"]
    masked = activation_models(activation_means(ds.where(ds["status"] == 1)))
    assert str(activation_rows(masked)) == str(activation_rows(whole))
    one = activation_models(activation_means(ds.sel(activation="softplus", p=2)))
    assert str(activation_rows(one)) == str(activation_rows(whole)[3:])


def test_a_sweep_without_activations_is_refused(ds: xr.Dataset) -> None:
    with pytest.raises(ParameterError, match="activation among its dimensions"):
        activation_means(ds.isel(activation=0, drop=True))
    assert Results(ds).is_of_activations
    assert not Results(ds.drop_vars("teacher_activation")).is_of_activations


def planted(loads: list[float], error: float, kind: str = "continuous") -> list[ActivationModel]:
    """Widths 1, 2, 4 with theory's loads 2, 1.5, 1 (alpha_0 0.4 below where discontinuous) and the given
    measured ones."""
    return [
        ActivationModel(
            Network(p, 1, 0.2, "log_cosh"),
            kind,
            theory,
            0.0,
            theory,
            theory,
            theory - (0.4 if kind == "discontinuous" else 0.0),
            PairLoad(128, 256, load, error),
            OverlapRatio(256, 3, load / theory, 0.1, 0.4, 0.4),
        )
        for p, theory, load in zip((1, 2, 4), (2.0, 1.5, 1.0), loads, strict=True)
    ]


@pytest.mark.parametrize(
    ("loads", "error", "kind", "verdict"),
    [
        ([2.0, 1.5, 1.0], 0.05, "continuous", "supported"),
        ([1.5, 1.5, 1.5], 0.05, "continuous", "contradicted"),
        ([2.0, 1.5, 1.0], 2.0, "continuous", "no power"),
        ([1.6, 1.1, 0.6], 0.05, "discontinuous", "supported"),
        ([1.6, 1.6, 1.6], 0.05, "discontinuous", "contradicted"),
    ],
)
def test_the_claim_on_widths_follows_planted_loads(
    loads: list[float], error: float, kind: str, verdict: str
) -> None:
    width, overlap = claims_of_models(planted(loads, error, kind))
    assert width.verdict == verdict
    assert "log_cosh student, quadratic teacher" in width.words
    assert (width.power > 0.9) == (error < 1)
    assert len(width.rows) == 3
    assert overlap.power > 0.9
    assert overlap.verdict == {2.0: "supported", 1.5: "contradicted"}.get(loads[0], overlap.verdict)


def test_a_power_is_how_often_such_data_contradict_the_claim() -> None:
    """300 planted sweeps under the alternative: binomial error 0.03, five of them allowed."""
    rng, error = np.random.default_rng(0), 0.25
    base = claims_of_models(planted([2.0, 1.5, 1.0], error))[0]
    drawn = (1.5 + error * rng.standard_normal((300, 3))).tolist()
    flat = [claims_of_models(planted(loads, error))[0] for loads in drawn]
    share = np.mean([claim.verdict == "contradicted" for claim in flat])
    assert 0.05 < base.power < 0.95
    assert abs(share - base.power) < 0.15


def test_a_map_has_the_thresholds_of_every_model() -> None:
    axes = {"p": [1.0, math.inf], "p_star": [1.0], "a": [0.5, 1.0]}
    found = activation_map(**axes, activation="log_cosh", teacher_activation="quadratic")
    for p, a in ((1, 0.5), (math.inf, 1.0)):
        at, exact = found.sel(p=p, p_star=1, a=a), thresholds_of(Network(p, 1, a, "log_cosh"))
        assert at["alpha_bbp"].item() == exact.alpha_bbp
        assert TRANSITION_KINDS[at["transition"].item()] == exact.transition
        assert at["alpha_bbp_typical"].item() == pytest.approx(
            exact.alpha_bbp if math.isinf(p) else math.nan, nan_ok=True
        )
    (axes_of_figure,) = threshold_figure(found).axes
    lines = {line.get_label(): line for line in axes_of_figure.lines}
    assert {"$p = 1$", r"$p = \infty$"} <= set(lines)
    assert "typical" not in lines, "both orders of limits agree"
    np.testing.assert_array_equal(lines["$p = 1$"].get_ydata(), found["alpha_bbp"].sel(p=1, p_star=1))
    with pytest.raises(ParameterError, match="bounded below"):
        activation_map(**axes, activation="quartic", teacher_activation="quadratic")


def test_a_map_without_any_theory_is_refused_and_models_without_are_counted(tmp_path: Path) -> None:
    asked = ("theory", "map", "--activation", "softplus", "--a", "1", "-o", tmp_path / "map.zarr")
    refused = bendscape(*asked, "--p", "8,16")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "p = 8 is not accepted: p must be from 2 to 4 for the two sectors" in refused.stderr
    assert not (tmp_path / "map.zarr").exists()
    figure = tmp_path / "map.svg"
    refused = bendscape(*asked, "--p", "1,8", "--figure", figure)
    assert refused.returncode == 2
    assert "--a = [1.0] is not accepted: --a must be at least two finite values" in refused.stderr
    asked = (*asked[:-3], "0.5,1", *asked[-2:])
    written = bendscape(*asked, "--p", "1,8", "--figure", figure)
    assert written.returncode == 0
    assert figure.stat().st_size > 10_000
    assert "no theory for 2 of 4 models" in written.stderr
    found = xr.open_zarr(tmp_path / "map.zarr")
    assert found["activation"].item() == "softplus"
    assert np.isfinite(found["alpha_bbp"].values).ravel().tolist() == [True, True, False, False]


def test_commands_and_the_page_show_networks_and_claims(store: Path, ds: xr.Dataset, tmp_path: Path) -> None:
    table = render_activations(Results(ds).activations)
    assert table.count("\n") == 6
    assert "| softplus | quadratic | 1 | 0.5 | 2 |" in table
    write_report(ds, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<h3>") == 5  # four claims, the campaign
    assert "softplus student, quadratic teacher" in page
    found = bendscape("claims", store, "--json")
    assert found.returncode == 0
    claims = json.loads(found.stdout)["claims"]
    assert [claim["name"].partition("_")[0] for claim in claims] == ["width", "overlap"] * 2
    one = ("--sel", "activation=softplus", "--sel", "p=2")
    claims = json.loads(bendscape("claims", store, "--json", *one).stdout)["claims"]
    assert [claim["name"] for claim in claims] == ["width_softplus_quadratic", "overlap_softplus_quadratic"]
    selected = json.loads(bendscape("thresholds", store, "--json", *one).stdout)["rows"]
    assert [(row["activation"], row["p"]) for row in selected] == [("softplus", 2)]
    refused = bendscape("thresholds", store, "--sel", "activation=gauss")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.endswith("activation= with values that the axis has: log_cosh, softplus\n")
    rows = activation_rows(Results(ds).activations)
    assert rows[3]["alpha_bbp"] == rows[3]["alpha_bbp_relative"] < rows[3]["alpha_bbp_symmetric"]
