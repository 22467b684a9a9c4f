"""A small version of the campaign behind the figures, from the file to claims and report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import campaigns
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.findings.claims import claims, render_claims
from bendscape.analysis.findings.evidence import VERDICTS
from bendscape.analysis.findings.panels import means
from bendscape.analysis.report.page import write_report
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.sweep.campaign.file import Campaign, load_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.engine.plan import plan_campaign

ROOT = Path(__file__).parent.parent
HOURS = 3.0
CORES = 2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small campaign with half of its seeds, in this process."""
    path = tmp_path_factory.mktemp("paper") / "paper-small.zarr"
    whole = load_campaign(ROOT / "campaigns/paper-small.toml").model_dump()
    whole["grid"]["seeds"] = {size: number // 2 for size, number in whole["grid"]["seeds"].items()}
    summary = campaigns.run(path, "", Campaign.from_dict(whole))
    assert summary.outcome == "complete"
    return str(path)


def test_the_campaigns_of_the_paper_fit_into_three_hours_on_two_cores() -> None:
    paper, wide, edges = (
        load_campaign(ROOT / f"campaigns/{name}.toml") for name in ("paper", "paper-wide", "paper-edges")
    )
    parts = (paper.grid, *paper.more)
    assert np.unique(np.concatenate([np.atleast_1d(part["p"]) for part in parts])).tolist() == [
        1,
        2,
        4,
        8,
        16,
    ]
    assert max(edges.grid["N"]) == 4096
    assert len({one.campaign.entropy for one in (paper, wide, edges)}) == 3
    assert paper.target is not None
    assert wide.target is not None
    rounds = [campaign.target["core_hours"] for campaign in (paper, wide)]
    kernel = load_kernel("hessian")
    hours = [plan_campaign(campaign, kernel).seconds_left / 3600 for campaign in (paper, wide, edges)]
    assert sum(rounds) + 2 * hours[2] < HOURS * CORES  # on busy cores its cells took twice what is planned
    assert hours[0] < rounds[0] / 4
    assert hours[1] < rounds[1] / 4


def test_the_models_of_the_small_campaign_are_in_the_full_one() -> None:
    whole, small = (load_campaign(ROOT / f"campaigns/{name}.toml").grid for name in ("paper", "paper-small"))
    for name in ("p", "p_star", "a"):
        assert set(small[name]) <= set(whole[name])
    assert small["alpha"]["around"] == whole["alpha"]["around"]


def test_its_overlaps_above_threshold_are_those_of_the_law_without_a_free_parameter(store: str) -> None:
    ds = xr.open_dataset(store, engine="bendscape", chunks={})
    high = ds.sel(N=256).isel(alpha_factor=[-2, -1])
    mean = high["overlap_sq_space"].where(high["status"] == 1).mean("seed").compute()
    for p in (1, 2):
        for a in (0.7, 1.5):
            at = mean.sel(p=p, a=a, p_star=1)
            law = [mean_overlap_sq(Model(p, 1, a), float(load), 256.0) for load in at["alpha"]]
            # At these sizes the law is accurate to 25 per cent, and the mean over 48 seeds to 15 per cent.
            np.testing.assert_allclose(at.values, law, rtol=0.6)


def test_the_wider_student_of_the_small_campaign_has_the_lower_threshold_and_no_claim_is_contradicted(
    store: str,
) -> None:
    ds = xr.open_dataset(store, engine="bendscape", chunks={})
    loads, edge = collapse(ds, least_size=64).compute(), edge_scaling(ds, prediction=False).compute()
    found = {claim.name: claim for claim in claims(loads, edge, means(ds).compute())}
    assert len(found) == 10
    assert found["width"].verdict in ("consistent", "supported")
    assert found["width"].power > 0.5
    assert "contradicted" not in {claim.verdict for claim in found.values()}
    for claim in found.values():
        assert claim.verdict in VERDICTS
        assert claim.alternative
        assert f"**{claim.verdict.capitalize()}** ({claim.strength})" in render_claims([claim])
    # what two widths up to N = 256 cannot tell is said
    for name in ("headline", "kind_alone"):
        assert (found[name].verdict, found[name].strength) == ("no power", "no data to test it with")


@pytest.mark.slow
def test_the_small_campaign_produces_its_report(store: str, tmp_path: Path) -> None:
    ds = xr.open_dataset(store, engine="bendscape", chunks={})
    page = write_report(ds, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "paper-small" in page
