"""Verdicts on the claims follow from measured critical loads, gaps and overlaps: supported by correct data of
sufficient precision, contradicted by data that were altered."""

from __future__ import annotations

import math

import numpy as np
import planted_collapse
import pytest
import xarray as xr

from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.collapse_fits import Settings
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.findings.claims import Readings, claims, claims_of, render_claims
from bendscape.analysis.findings.claims_on_eigenvectors import Gaps
from bendscape.analysis.findings.evidence import VERDICTS, Claim
from bendscape.analysis.findings.measured_loads import Load, measured_loads
from bendscape.analysis.findings.overlap_above import overlaps_above
from bendscape.analysis.findings.panels import means
from bendscape.analysis.findings.size_pairs import Climb, climbs, pair_load
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
def above(sweep: xr.Dataset) -> xr.Dataset:
    return means(sweep).compute()


def by_name(found: list[Claim]) -> dict[str, Claim]:
    return {claim.name: claim for claim in found}


NAMES = (
    *("width", "headline", "limit", "kind", "kind_alone", "edge", "window", "definitions", "overlap"),
    "eigenvalue",
)


@pytest.fixture(scope="module")
def found(loads: xr.Dataset, above: xr.Dataset) -> Readings:
    """The loads and overlaps of the sweep; gaps, outliers and climbs are planted one by one."""
    return Readings(measured_loads(loads), [], overlaps_above(above), [], [])


def moved(found: Readings, **values: float) -> Readings:
    """The same with the load of p = 8, a = 0.7, a discontinuous transition, replaced in part."""
    assert (found.loads[-1].p, found.loads[-1].a) == (8, 0.7)
    return found._replace(loads=[*found.loads[:-1], found.loads[-1]._replace(**values)])


def with_error(found: Readings, error: float) -> Readings:
    """The same with every load at theory's place, with this error."""
    return found._replace(loads=[load._replace(value=load.theory, error=error) for load in found.loads])


def test_every_claim_has_a_verdict_an_alternative_and_a_power(found: Readings) -> None:
    at = by_name(claims_of(found))
    assert tuple(at) == NAMES
    for claim in at.values():
        assert claim.verdict in VERDICTS
        assert claim.alternative
        assert math.isnan(claim.power) or 0 <= claim.power <= 1
    for name in ("headline", "kind_alone", "edge", "eigenvalue"):  # nothing to test them with
        assert (at[name].verdict, at[name].strength) == ("no power", "no data to test it with")


def test_loads_planted_at_theorys_values_support_the_fall_and_contradict_nothing(found: Readings) -> None:
    at = by_name(claims_of(found))
    assert at["width"].verdict == "supported", at["width"]
    assert at["width"].power > 0.99
    assert at["kind"].verdict == "consistent"  # leans on theory's alpha_bbp, whatever the power
    assert "contradicted" not in {claim.verdict for claim in at.values()}
    assert "a = 0.7" in at["width"].finding
    assert len(at["width"].rows) == 8
    assert len(at["window"].rows) == 2  # p = 4 and 8
    assert at["definitions"].power < 0.01  # all three lie within one error


def test_a_load_that_rises_with_the_width_contradicts_the_fall_and_the_window(found: Readings) -> None:
    at = by_name(claims_of(moved(found, value=found.loads[-1].value + 1.0)))
    assert at["width"].verdict == at["window"].verdict == at["kind"].verdict == "contradicted"
    assert "up by" in at["window"].finding


def test_the_window_is_supported_by_small_errors_and_has_no_power_with_large_ones(found: Readings) -> None:
    sharp, vague = (by_name(claims_of(with_error(found, error)))["window"] for error in (0.01, 0.1))
    assert (sharp.verdict, vague.verdict) == ("supported", "no power")
    assert vague.power < 0.01
    at_bbp = [load._replace(value=load.alpha_bbp, error=0.01) for load in found.loads]
    assert by_name(claims_of(found._replace(loads=at_bbp)))["window"].verdict == "contradicted"


def wide(a: float, error: float, limit: float = 0.5) -> Readings:
    """Wide students at a small a, on a straight line in 1/p to this limit."""
    rows = []
    for p in (4, 8, 16, 32):
        alpha_bbp = transition(Model(p, 1, a)).alpha_bbp
        value = limit + (alpha_bbp - 0.5)
        rows.append(Load(p, 1, a, "normal", value, error, alpha_bbp, alpha_bbp, "continuous", "", 0.0, {}))
    return Readings(rows, [], [], [], [])


@pytest.mark.parametrize(
    ("error", "limit", "verdict"),
    [
        (0.005, 0.5, "supported"),
        (0.05, 0.5, "no power"),
        (0.005, 0.55, "contradicted"),
        (0.005, 0.45, "contradicted"),
    ],
)
def test_the_headline_is_judged_by_what_wide_students_extrapolate_to(
    error: float, limit: float, verdict: str
) -> None:
    assert by_name(claims_of(wide(0.001, error, limit)))["headline"].verdict == verdict


def test_of_two_sweeps_a_model_has_the_load_with_the_smaller_error() -> None:
    vague, sharp = wide(0.01, 0.1), wide(0.01, 0.01)
    sharp = sharp._replace(loads=sharp.loads[:-1])
    for both in (vague + sharp, sharp + vague):
        assert [(load.p, load.error) for load in both.loads] == [(4, 0.01), (8, 0.01), (16, 0.01), (32, 0.1)]


def test_two_widths_are_too_few_for_the_headline() -> None:
    at = wide(0.001, 0.005)
    headline = by_name(claims_of(at._replace(loads=at.loads[:2])))["headline"]
    assert headline.verdict == "no power"
    assert "no 3 widths" in headline.finding


def test_the_limit_is_tested_where_samples_show_it_and_said_to_be_invisible_elsewhere(
    found: Readings,
) -> None:
    sharp = by_name(claims_of(with_error(found, 0.001)))["limit"]
    assert [row[-1] for row in sharp.rows] == ["5.2", "not visible"]  # a = 0.3, and 0.7: discontinuous
    assert "show alpha_0, which lies below the limit" in sharp.finding
    close = wide(0.1, 0.001)
    near = close._replace(loads=close.loads[:1] + close.loads[3:])  # p = 4 and 32
    assert by_name(claims_of(near))["limit"].verdict == "supported"


def test_an_overlap_above_threshold_that_is_not_theorys_contradicts_its_claim(
    found: Readings, above: xr.Dataset
) -> None:
    right = by_name(claims_of(found))["overlap"]
    assert right.verdict != "contradicted"
    assert len(right.rows) == above["p"].size * above["a"].size
    twice = overlaps_above(above.assign(overlap_sq_space=2 * above["overlap_sq_space"]))
    assert by_name(claims_of(found._replace(overlaps=twice)))["overlap"].verdict == "contradicted"


def gaps(kind: str, error: float, exponent: float | None = None) -> Readings:
    """Gaps to an edge that fall as N^(-2/3), a little faster than 1/log N, or as a bare power."""
    N = np.array([256.0, 512.0, 1024.0, 2048.0])
    law = 2.5 * N ** (-2 / 3) if kind == "sharp" else 0.35 * N**-0.03 / np.log(N)
    measured = law if exponent is None else law[-1] * (N / N[-1]) ** exponent
    at = Gaps(Model(1, 1, 0.7), 3, N, measured, law, np.full(4, error), 1e-4 * np.ones(4))
    return Readings([], [(kind, at)], [], [], [])


def test_the_law_of_the_edge_needs_both_kinds_and_errors_that_tell_the_other_law() -> None:
    sharp, smooth = gaps("sharp", 1e-4), gaps("smooth", 1e-4)
    assert by_name(claims_of(sharp + smooth))["edge"].verdict == "supported"
    assert by_name(claims_of(sharp))["edge"].verdict == "consistent"
    assert by_name(claims_of(sharp + gaps("smooth", 0.05)))["edge"].verdict == "no power"
    wrong = gaps("sharp", 1e-4, exponent=-0.15)
    assert by_name(claims_of(wrong + smooth))["edge"].verdict == "contradicted"


def climb(a: float, value: float, error: float = 0.05) -> Climb:
    return Climb(Model(1, 1, a), (256, 1024, 4096, 16384), 2.0, 2.0 * math.exp(value), error)


def test_kinds_from_data_alone_are_told_only_beyond_the_crossover_size() -> None:
    def alone(*rows: Climb) -> Claim:
        return by_name(claims_of(Readings([], [], [], [], list(rows))))["kind_alone"]

    # 310 is the crossover size at a = 10; at a = 1.5 it is 2e7, and there both kinds look alike
    assert alone(climb(0.3, 0.0), climb(1.5, 0.0)).verdict == "no power"
    assert alone(climb(0.3, 0.0), climb(1.5, 0.0)).power < 0.01
    both = alone(climb(0.3, 0.0, 0.02), climb(10.0, 0.28, 0.02))
    assert (both.verdict, len(both.rows)) == ("supported", 2)
    assert alone(climb(0.3, 0.0, 0.02), climb(10.0, 0.0, 0.02)).verdict == "contradicted"
    assert alone(climb(0.3, 0.28, 0.02), climb(10.0, 0.28, 0.02)).verdict == "contradicted"


@pytest.mark.parametrize(("climbing", "expected"), [(0.0, 0.0), (0.08, 0.08 * math.log(16))])
def test_the_climb_is_that_planted_in_the_cells_and_its_error_holds(climbing: float, expected: float) -> None:
    sizes, loads, off = (256, 1024, 4096, 16384), np.linspace(0.5, 2.0, 12), []
    for draw in range(40):
        rng = np.random.default_rng([20261129, draw])
        shape = (1, 1, 1, len(sizes), len(loads))
        mean = np.empty(shape)
        for k, N in enumerate(sizes):
            place = 1.2 * math.exp(climbing * math.log(N / 512))
            Y = np.exp(0.9 * (loads - place) * N ** (1 / 3) / 6.9)
            mean[0, 0, 0, k] = N ** (-1 / 3) * Y * (1 + 0.05 * rng.standard_normal(len(loads)))
        dims = ("p", "p_star", "a", "N", "alpha")
        at = {"p": [1], "p_star": [1], "a": [0.7], "N": list(sizes), "alpha": loads}
        ds = xr.Dataset(coords=at)
        ds["overlap_sq_space"], ds["overlap_sq_space_error"] = (dims, mean), (dims, 0.05 * mean)
        ds["overlap_sq_space_n_seeds"] = dims, np.full(shape, 200)
        ds["alpha_realised"] = dims, np.broadcast_to(loads, shape)
        off += [(at_one.value - expected) / at_one.error for at_one in climbs(ds)]
    assert len(off) >= 36
    # no correction to scaling is planted, for which the error allows, so it is somewhat too large; and where
    # the curves of two sizes move apart, they cross a little above the place of the larger one
    assert abs(np.mean(off)) < (0.5 if climbing == 0 else 1.5)
    assert 0.2 < np.std(off) < 1.3


def test_the_load_where_two_sizes_cross_has_the_error_of_a_correction() -> None:
    """log Y is a straight line in alpha at both sizes, so the slope of their ratio is known."""
    sizes, loads, rise = (64, 256), np.linspace(0.5, 2.0, 8), 0.13
    dims, shape = ("N", "alpha"), (2, 8)
    Y = np.exp([rise * (loads - 1.2) * N ** (1 / 3) for N in sizes])
    mean = Y / np.cbrt(sizes)[:, None]
    at = xr.Dataset(coords={"N": list(sizes), "alpha": loads})
    at["overlap_sq_space"], at["overlap_sq_space_error"] = (dims, mean), (dims, 1e-6 * mean)
    at["overlap_sq_space_n_seeds"] = dims, np.full(shape, 20)
    at["alpha_realised"] = "alpha", loads
    found = pair_load(at)
    assert found is not None
    assert (found.small, found.large) == sizes
    assert found.load == pytest.approx(1.2, abs=1e-4)
    first = (64 ** (-1 / 3) - 256 ** (-1 / 3)) / (rise * (256 ** (1 / 3) - 64 ** (1 / 3)))
    assert found.error == pytest.approx(Settings().correction * first, rel=1e-3)


def test_without_estimates_no_claim_has_power(sweep: xr.Dataset) -> None:
    empty = sweep.assign(status=sweep["status"] * 0)
    at = claims(
        collapse(empty, n_boot=100).compute(),
        edge_scaling(empty, prediction=False).compute(),
        means(empty).compute(),
    )
    assert {claim.verdict for claim in at} == {"no power"}
    assert render_claims(at).count("**No power** (no data to test it with).") == len(NAMES)


def test_the_rendered_tables_have_as_many_fields_as_columns(found: Readings) -> None:
    at = claims_of(found)
    text = render_claims(at)
    assert text.count("### ") == len(NAMES)
    for claim in at:
        assert all(len(row) == len(claim.columns) for row in claim.rows)
        assert f"| {claim.words.rstrip('.')} | {claim.verdict} |" in text
