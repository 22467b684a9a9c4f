"""The numbers behind the figures agree with independent computations of their columns."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import synthetic
import xarray as xr

from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.figures import alpha as alpha_figures
from bendscape.analysis.figures.draw import FIGURES, numbers_of
from bendscape.analysis.figures.tables import COLUMNS, rows_where
from bendscape.analysis.findings.results import Results
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.finite_size.spiked_edge import critical_overlap
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.hessian import dense_hessian, sample_instance
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.theory.bulk import left_edge
from bendscape.core.quadratic.theory.density import bulk_density
from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, transition
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.kernels.quadratic import AXES


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    seeds = {128: 24, 256: 16, 512: 12, 1024: 8}
    return synthetic.planted(p=(1, 2), a=(0.7, 1.5), seeds=seeds, alpha_factor=np.linspace(0.55, 1.6, 15))


@pytest.fixture(scope="module")
def results(sweep: xr.Dataset) -> Results:
    return Results(sweep)


@pytest.fixture(scope="module")
def of(results: Results) -> Mapping[str, Mapping[str, xr.Dataset]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alpha_figures, "_FINE", 17)  # half of the usual, each a mean over drawn labels
        return {name: numbers_of(results, name) for name in FIGURES}


def test_every_column_has_a_meaning(of: Mapping[str, Mapping[str, xr.Dataset]]) -> None:
    for name, tables in of.items():
        assert next(iter(tables)) == name
        for table_name, table in tables.items():
            assert table_name.partition("-")[0] == name
            assert tuple(table.dims) == ("row",)
            for column, values in table.items():
                assert values.attrs["long_name"] == COLUMNS[str(column)]
    shown = {str(name) for tables in of.values() for table in tables.values() for name in table}
    assert shown == set(COLUMNS)


def test_the_page_on_figures_names_every_table_and_column(of: Mapping[str, Mapping[str, xr.Dataset]]) -> None:
    page = (Path(__file__).parent.parent / "docs" / "figures.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w-]+)`", page))
    assert {table for tables in of.values() for table in tables} | set(COLUMNS) <= named


def test_the_finite_size_curves_are_the_law_of_the_variable_that_is_shown(
    of: Mapping[str, Mapping[str, xr.Dataset]],
) -> None:
    measured, curves = of["overlap"].values()
    assert "overlap_sq_space" in measured
    for p, a in ((1, 0.7), (2, 1.5)):
        for N in (128, 1024):
            rows = rows_where(curves, p=p, a=a, N=N)
            assert len(rows["alpha"]) > 15
            for k in (0, 8, -1):
                law = mean_overlap_sq(Model(p, 1, a), float(rows["alpha"][k]), N)
                assert rows["overlap_sq_theory"][k] == pytest.approx(law, rel=1e-9)
    limit = rows_where(curves, p=1, a=1.5, N=math.inf)
    assert (
        limit["overlap_sq_theory"][-1] == asymptotics(Model(1, 1, 1.5), float(limit["alpha"][-1])).overlap_sq
    )
    assert limit["overlap_sq_theory"][0] == 0


def test_finite_size_curves_span_all_alphas_and_are_the_law_where_labels_are_drawn_for_it() -> None:
    """Every fourth alpha is evaluated there; between them a cubic, within 2 per cent."""
    deep = synthetic.planted(p=(4,), a=(1.5,), seeds={64: 2}, alpha_factor=(0.3, 0.5, 0.7, 1.0, 1.3))
    curves = numbers_of(deep, "overlap")["overlap-curves"]
    rows = rows_where(curves, N=64.0)
    bbp = float(deep["alpha_bbp"].squeeze())
    assert rows["alpha"][[0, -1]] / bbp == pytest.approx([0.3, 1.3], rel=0.01)
    law = [mean_overlap_sq(Model(4, 1, 1.5), load, 64) for load in rows["alpha"][:15:2].tolist()]
    assert rows["overlap_sq_theory"][:15:4] == pytest.approx(law[::2], rel=1e-9)
    assert rows["overlap_sq_theory"][2:15:4] == pytest.approx(law[1::2], rel=0.02)


def test_points_are_means_with_their_standard_errors(
    sweep: xr.Dataset, of: Mapping[str, Mapping[str, xr.Dataset]]
) -> None:
    for figure, variable in (("overlap", "overlap_sq_space"), ("eigenvalue", "eigval_min")):
        rows = rows_where(of[figure][figure], p=2, a=1.5, N=512)
        cells = sweep[variable].sel(p=2, p_star=1, a=1.5, N=512).values[:, :12]
        np.testing.assert_allclose(rows[variable], cells.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(rows[f"{variable}_error"], cells.std(axis=1, ddof=1) / math.sqrt(12))
        assert set(rows["n_seeds"].tolist()) == {12}
    edges = [left_edge(Model(2, 1, 1.5), load).lambda_minus for load in rows["alpha_realised"].tolist()]
    np.testing.assert_allclose(rows["lambda_minus"], edges, rtol=1e-12)


def test_spectra_are_those_of_the_campaigns_own_cells(
    sweep: xr.Dataset, of: Mapping[str, Mapping[str, xr.Dataset]]
) -> None:
    spectrum, density, marks = of["spectrum"].values()
    for p, a, side, place in ((1, 0.7, "above", -1), (2, 1.5, "below", 2)):
        here = rows_where(spectrum, p=p, a=a, side=side)
        assert set(here["N"].tolist()) == {1024}  # the largest with p N <= 2048
        assert set(here["seed"].tolist()) == set(range(2 // p))
        alpha = sweep["alpha"].sel(p=p, p_star=1, a=a).values[place]
        assert set(here["alpha"].tolist()) == {alpha}
        model, axis = Model(p, 1, a), float(sweep["alpha_factor"][place])
        cell = AXES.cell(axis, p=p, p_star=1, a=a, alpha=float(alpha), N=1024, seed=0)
        seen = observe(model, float(alpha), 1024, cell_rng(int(sweep.attrs["entropy"]), cell), "explicit")
        first = rows_where(spectrum, p=p, a=a, side=side, seed=0)
        assert first["eigval"][:2] == pytest.approx([seen.eigval_min, seen.eigval_second], abs=1e-9)
        assert np.all(np.diff(first["eigval"]) >= 0)
        assert first["rank"].tolist() == list(range(1024 * p))
        assert set(first["alpha_realised"].tolist()) == {seen.alpha_realised}
        # The share of eigenvalues below a point is the integrated density there, to the spread of samples.
        grid = np.quantile(first["eigval"], (0.25, 0.5, 0.75))
        share = bulk_density(model, float(alpha), grid).integrated
        assert share == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
        line = rows_where(density, p=p, a=a, side=side)
        assert np.all(np.diff(line["eigenvalue"]) > 0)
        at = bulk_density(model, float(alpha), line["eigenvalue"][100:103])
        np.testing.assert_allclose(line["density"][100:103], at.rho)
        mark = rows_where(marks, p=p, a=a, side=side)
        limit = asymptotics(model, float(alpha))
        assert mark["lambda_minus"] == limit.lambda_minus
        np.testing.assert_equal(mark["lambda_star"][0], limit.lambda_star)
        assert mark["atom"] == max(0.0, 1 - alpha)


def test_a_spectrum_is_that_of_the_dense_hessian(
    sweep: xr.Dataset, of: Mapping[str, Mapping[str, xr.Dataset]]
) -> None:
    rows = rows_where(of["spectrum"]["spectrum"], p=1, a=1.5, side="below", seed=1)
    at = float(sweep["alpha_factor"][2])
    cell = AXES.cell(at, p=1, p_star=1, a=1.5, alpha=float(rows["alpha"][0]), N=1024, seed=1)
    instance = sample_instance(Model(1, 1, 1.5), cell.alpha, 1024, cell_rng(20261122, cell))
    np.testing.assert_allclose(rows["eigval"], np.linalg.eigvalsh(dense_hessian(instance)), atol=1e-12)


def test_the_edge_figure_shows_the_distance_with_both_laws_and_the_prediction(
    sweep: xr.Dataset, of: Mapping[str, Mapping[str, xr.Dataset]]
) -> None:
    (edge,) = of["edge"].values()
    full = edge_scaling(sweep.sel(a=[0.7], p=[1]), prediction=False).compute().squeeze()
    model, rows = Model(1, 1, 0.7), rows_where(edge, p=1, a=0.7)
    loads = np.unique(rows["alpha"])
    assert len(loads) == 2
    assert loads.max() < transition(model).alpha_bbp
    for load in loads.tolist():
        here = rows_where(edge, p=1, a=0.7, alpha=load)
        assert here["N"].tolist() == [128, 256, 512, 1024]
        assert here["fitted"].tolist() == [False, True, True, True]
        at = full.isel(alpha_factor=int(abs(full["alpha"].values - load).argmin()))
        cells = sweep["eigval_min"].sel(p=1, p_star=1, a=0.7, N=512).values
        mean = cells[int(abs(full["alpha"].values - load).argmin()), :12].mean()
        lambda_minus = left_edge(model, round(load * 512) / 512).lambda_minus
        assert here["gap"][2] == pytest.approx(mean - lambda_minus, rel=1e-9)
        predicted = lowest_eigenvalue_law(model, round(load * 512) / 512, 512).mean
        assert here["gap_prediction"][2] == pytest.approx(predicted - lambda_minus, rel=1e-9)
        assert math.isnan(here["gap_prediction"][0])
        for law in ("n_two_thirds", "one_over_log"):
            assert here[f"{law}_c"][0] == pytest.approx(float(at[f"{law}_c"]), rel=1e-9)
        assert here["law"][0] == str(at["law"].attrs["flag_meanings"]).split()[int(at["law"])]
        assert here["edge"][0] == asymptotics(model, load).edge


def test_thresholds_are_those_of_theory_at_every_width_and_of_the_collapse(
    sweep: xr.Dataset, of: Mapping[str, Mapping[str, xr.Dataset]]
) -> None:
    measured, theory = of["thresholds"].values()
    for a in (0.7, 1.5):
        rows = rows_where(theory, p_star=1, a=a)
        assert rows["p"].tolist() == [*range(1, 17), math.inf]
        assert rows["alpha_bbp"][-1] == pytest.approx((a + 1) / 2, rel=1e-9)  # p_star (a + 1)/2
        for p in (1, 5, 16):
            at = transition(Model(p, 1, a))
            assert rows["alpha_bbp"][p - 1] == pytest.approx(at.alpha_bbp, rel=1e-9)
            assert rows["transition"][p - 1] == at.kind
            bound = alpha_0(Model(p, 1, a))
            found = rows["alpha_0_principal_value"][p - 1]
            np.testing.assert_allclose(found, bound.principal_value, rtol=1e-8)
            assert rows["alpha_0_complex_re"][p - 1] == pytest.approx(bound.complex_re, rel=1e-8)
    loads = collapse(sweep.sel(p=[2], a=[1.5]), least_size=256).squeeze()
    for name in ("collapse", "theory_curve"):
        row, at = rows_where(measured, p=2, a=1.5, estimator=name), loads.sel(estimator=name)
        for column in ("alpha_c", "alpha_c_error", "alpha_c_total_error", "probability_discontinuous"):
            assert row[column] == pytest.approx(float(at[column]), rel=1e-9, nan_ok=True), column
        assert row["flag"][0] == loads["flag"].attrs["flag_meanings"].split()[int(at["flag"])]


def test_kinds_are_those_of_the_data_and_the_background_that_of_theory(
    results: Results, of: Mapping[str, Mapping[str, xr.Dataset]]
) -> None:
    measured, theory = of["kinds"].values()
    names = results["collapse"]["kind_from_data"].attrs["flag_meanings"].split()
    for p in (1, 2):
        for a in (0.7, 1.5):
            row = rows_where(measured, p=p, a=a)
            at = results["collapse"].sel(p=p, p_star=1, a=a)
            holds = at["flag"].sel(estimator="theory_curve").item() == 0  # "estimated"
            name = "theory_curve" if holds else "collapse"
            assert row["estimator"].tolist() == [name]
            at = at.sel(estimator=name)
            assert row["kind_from_data"] == names[int(at["kind_from_data"])]
    below = theory["a"].values < theory["a_tricritical"].values
    assert np.array_equal(theory["transition"].values == "continuous", below)
    assert theory["a"].values.min() < 0.7 / 2
    assert theory["a"].values.max() > 1.5 * 2


def test_of_a_model_with_one_size_the_curve_of_theory_gives_the_kind(sweep: xr.Dataset) -> None:
    one_size = sweep.sel(N=[1024], p=[1])
    measured = numbers_of(one_size, "kinds")["kinds"]
    assert set(measured["estimator"].values.tolist()) == {"theory_curve"}


def test_a_collapse_is_scaled_around_the_measured_load_and_around_alpha_bbp(
    sweep: xr.Dataset, results: Results, of: Mapping[str, Mapping[str, xr.Dataset]]
) -> None:
    points, curves = of["collapse"].values()
    assert set(points["N"].values.tolist()) == {256, 512, 1024}  # what the collapse uses
    for p, a in ((1, 0.7), (2, 1.5)):
        at = results["collapse"].sel(p=p, p_star=1, a=a, estimator="collapse")
        rows = rows_where(points, p=p, a=a, N=512)
        cells = sweep["overlap_sq_space"].sel(p=p, p_star=1, a=a, N=512).values[:, :12]
        load = np.round(sweep["alpha"].sel(p=p, p_star=1, a=a).values * 512) / 512
        np.testing.assert_allclose(rows["scaled_overlap"], 8 * cells.mean(axis=1))
        np.testing.assert_allclose(
            rows["scaled_overlap_error"], 8 * cells.std(axis=1, ddof=1) / math.sqrt(12)
        )
        width = rows["width"][0]
        np.testing.assert_allclose(rows["w"], (load - float(at["alpha_c"])) * 8 / width, atol=1e-9)
        bbp = transition(Model(p, 1, a)).alpha_bbp
        np.testing.assert_allclose(rows["w_bbp"], (load - bbp) * 8 / width, atol=1e-9)
        off = (float(at["alpha_c"]) - bbp) / float(at["alpha_c_total_error"])
        assert rows["distance_from_bbp"][0] == pytest.approx(off)
        assert (rows["chi2"][0], rows["dof"][0]) == (float(at["chi2"]), float(at["dof"]))
        curve = rows_where(curves, p=p, a=a)
        for k in (0, 40, -1):
            universal = critical_point(Model(p, 1, a)).amplitude * critical_overlap(float(curve["w"][k]), p)
            assert curve["scaled_overlap"][k] == pytest.approx(universal, rel=1e-3)
