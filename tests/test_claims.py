"""Verdicts on the claims follow from measured critical loads and laws of the edge: supported by correct data,
contradicted by data that were altered."""

from __future__ import annotations

import numpy as np
import planted_collapse
import pytest
import xarray as xr

from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.edge_fits import OUTCOMES
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.findings.claims import Claim, claims, render_claims
from bendscape.analysis.findings.panels import means
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition

LOADS = np.round(np.arange(0.2, 2.45, 0.05), 12)  # down to where a smooth edge has no continuation
SEEDS = {320: 200, 640: 160, 1280: 120}


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    """Collapses planted at theory's critical loads: at a = 0.3 all continuous, at 0.7 two of each kind."""
    families = []
    for a in (0.3, 0.7):
        family = []
        for p in (1, 2, 4, 8):
            model = Model(p, 1, a)
            at = transition(model)
            place = at.alpha_bbp if at.kind == "continuous" else alpha_0(model).principal_value
            family.append(planted_collapse.sweep(model, SEEDS, alpha_c=place, loads=LOADS, entropy=p))
        families.append(xr.concat(family, "p", data_vars="all", coords="minimal", join="exact"))
    return xr.concat(families, "a", data_vars="all", coords="minimal", join="exact")


@pytest.fixture(scope="module")
def loads(sweep: xr.Dataset) -> xr.Dataset:
    return collapse(sweep, n_boot=100).compute()


@pytest.fixture(scope="module")
def edge(sweep: xr.Dataset) -> xr.Dataset:
    return edge_scaling(sweep, prediction=False).compute()


@pytest.fixture(scope="module")
def above(sweep: xr.Dataset) -> xr.Dataset:
    return means(sweep).compute()


def by_name(found: list[Claim]) -> dict[str, Claim]:
    return {claim.name: claim for claim in found}


def with_laws(edge: xr.Dataset, sharp: str, smooth: str) -> xr.Dataset:
    """Laws of the edge, with the given ones chosen at every load."""
    code = np.where(edge["edge"] == 0, *(tuple(OUTCOMES).index(law) for law in (sharp, smooth)))
    return edge.assign(law=edge["law"].copy(data=code.astype(np.int8)))


def test_loads_planted_at_theorys_values_support_or_agree_with_every_claim(
    loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset
) -> None:
    found = by_name(claims(loads, with_laws(edge, "n_two_thirds", "one_over_log"), above))
    assert list(found) == ["width", "limit", "kind", "edge", "window", "overlap"]
    for name in ("width", "window"):
        assert found[name].verdict == "supported", found[name]
    # one model near its limit, theory's alpha_bbp and "slower than N^(-2/3)" support nothing by themselves
    for name in ("limit", "edge"):
        assert found[name].verdict == "consistent", found[name]
    assert found["kind"].verdict in ("consistent", "not enough data")
    assert "theory's alpha_bbp" in found["kind"].finding
    assert "slower than N^(-2/3)" in found["edge"].finding
    assert "errors away" in found["limit"].finding
    assert "a = 0.7" in found["width"].finding
    assert len(found["width"].rows) == 8
    assert len(found["window"].rows) == 2  # p = 4 and 8


def test_a_load_that_rises_with_the_width_contradicts_the_first_claim_and_the_last(
    loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset
) -> None:
    upside_down = loads.copy(deep=True)
    upside_down["alpha_c"].values[3] += 1.0  # p = 8
    found = by_name(claims(upside_down, edge, above))
    assert found["width"].verdict == "contradicted"
    assert found["window"].verdict == "contradicted"
    assert found["limit"].verdict == "contradicted"
    assert "up by" in found["window"].finding


def test_the_limit_of_wide_students_is_supported_by_two_models_that_reach_it(
    loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset
) -> None:
    one = loads.sel(a=[0.3])
    both = xr.concat([one, one.assign_coords(a=[0.2])], "a", data_vars="all").copy(deep=True)
    for place, a in enumerate(both["a"].values.tolist()):
        for name in ("alpha_c", "alpha_bbp"):
            both[name].values[3, 0, place] = (a + 1) / 2  # p = 8
    assert by_name(claims(both, edge, above))["limit"].verdict == "supported"
    assert by_name(claims(both.isel(a=[0]), edge, above))["limit"].verdict == "consistent"


def test_an_overlap_above_threshold_that_is_not_theorys_contradicts_its_claim(
    loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset
) -> None:
    right = by_name(claims(loads, edge, above))["overlap"]
    assert right.verdict in ("supported", "consistent")
    assert len(right.rows) == above["p"].size * above["a"].size
    twice = above.assign(overlap_sq_space=2 * above["overlap_sq_space"])
    assert by_name(claims(loads, edge, twice))["overlap"].verdict == "contradicted"


def test_a_wide_student_with_a_large_error_does_not_support_the_limit(
    loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset
) -> None:
    vague = loads.copy(deep=True)
    vague["alpha_c_systematic"].values[3] += 0.5  # p = 8
    assert by_name(claims(vague, edge, above))["limit"].verdict == "not enough data"


def test_loads_far_above_alpha_bbp_or_of_the_other_kind_contradict_the_claim_on_kinds(
    loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset
) -> None:
    for kind in ("neither", "continuous"):
        other = loads.copy(deep=True)
        code = loads["kind_from_data"].attrs["flag_meanings"].split().index(kind)
        other["kind_from_data"].values[3, 0, 1] = code  # p = 8, a = 0.7: discontinuous
        other["alpha_c"].values[3, 0, 1] = 0.8375  # alpha_bbp
        assert by_name(claims(other, edge, above))["kind"].verdict == "contradicted"


def test_the_other_law_at_every_edge_contradicts_the_claim_on_edges(
    loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset
) -> None:
    assert by_name(claims(loads, with_laws(edge, "one_over_log", "n_two_thirds"), above))["edge"].verdict == (
        "contradicted"
    )
    mute = by_name(claims(loads, with_laws(edge, "cannot_tell", "cannot_tell"), above))["edge"]
    assert mute.verdict == "not enough data"
    refused = with_laws(edge, "neither", "neither")
    refused["law"].values[..., :3] = with_laws(edge, "n_two_thirds", "one_over_log")["law"].values[..., :3]
    assert by_name(claims(loads, refused, above))["edge"].verdict == "not enough data"
    total = sum(int(number) for row in mute.rows for number in row[1:])
    assert total == edge["law"].size


def test_without_estimates_every_claim_on_loads_lacks_data(sweep: xr.Dataset) -> None:
    empty = sweep.assign(status=sweep["status"] * 0)
    found = claims(
        collapse(empty, n_boot=100).compute(),
        edge_scaling(empty, prediction=False).compute(),
        means(empty).compute(),
    )
    assert {claim.verdict for claim in found} == {"not enough data"}
    assert render_claims(found).count("**Not enough data.**") == 6


def test_the_rendered_tables_have_as_many_fields_as_columns(
    loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset
) -> None:
    text = render_claims(claims(loads, edge, above))
    assert text.count("### ") == 6
    for claim in claims(loads, edge, above):
        assert all(len(row) == len(claim.columns) for row in claim.rows)
        assert f"| {' | '.join(claim.columns)} |" in text
