"""Maps of thresholds over the models of a sweep: measured values beside theory, each with its method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import planted_collapse
import pytest
import xarray as xr

from bendscape.analysis import accessor  # noqa: F401, registers ds.bend
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.findings.shift_map import METHODS, shift_map
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition

SIZES = {160: 100, 320: 100, 640: 100}
WIDTHS = (1, 2)


@pytest.fixture(scope="module")
def swept() -> xr.Dataset:
    """Two widths below the tricritical point and above it, a quarter of it without data."""
    models = [[planted_collapse.sweep(Model(p, 1, a), SIZES) for a in (0.7, 1.5)] for p in WIDTHS]
    ds = xr.concat([xr.concat(row, "a", data_vars="all") for row in models], "p", data_vars="all")
    status = ds["status"].copy()
    status.loc[{"p": 2, "a": 1.5}] = 0
    return ds.assign(status=status)


@pytest.fixture(scope="module")
def result(swept: xr.Dataset) -> xr.Dataset:
    return collapse(swept, n_boot=200)


@pytest.fixture(scope="module")
def found(swept: xr.Dataset, result: xr.Dataset) -> xr.Dataset:
    return shift_map(swept, result)


def test_theory_beside_the_map_is_that_of_each_model(found: xr.Dataset) -> None:
    for p in WIDTHS:
        for a in (0.7, 1.5):
            at, known = found.sel(p=p, p_star=1, a=a), transition(Model(p, 1, a))
            zero = alpha_0(Model(p, 1, a))
            assert at.alpha_bbp_theory.item() == pytest.approx(known.alpha_bbp, rel=1e-10)
            assert at.alpha_0_theory.item() == pytest.approx(zero.principal_value, rel=1e-9)
            assert at.window_theory.item() == pytest.approx(known.alpha_bbp - zero.principal_value, abs=1e-9)
            assert at.overlap_sq_jump.item() == pytest.approx(known.overlap_sq_jump, abs=1e-10)
            assert at.width_ratio.item() == p
    shift = transition(Model(2, 1, 0.7)).alpha_bbp - transition(Model(1, 1, 0.7)).alpha_bbp
    assert found.shift_theory.sel(p=2, p_star=1, a=0.7).item() == pytest.approx(shift, rel=1e-9)
    assert not found.shift_theory.sel(p=1).any()


def test_planted_loads_are_found_and_their_differences_carry_both_errors(
    found: xr.Dataset, result: xr.Dataset
) -> None:
    at = found.sel(p_star=1, a=0.7)
    error = result["alpha_c_total_error"].sel(estimator="theory_curve", p_star=1, a=0.7)
    assert at.shift_error.sel(p=2).item() == pytest.approx(float(np.hypot(*error.values)), rel=1e-12)
    assert at.shift_error.sel(p=1).item() == 0
    for name in ("alpha_c", "shift"):
        distance = abs(at[name] - at[f"{name}_theory"]).values
        assert (distance <= 4 * at[f"{name}_error"].values).all(), name
        inside = (at[f"{name}_low"] <= at[name]) & (at[name] <= at[f"{name}_high"])
        assert bool(inside.all())


def test_purely_theoretical_values_have_their_own_names_and_are_never_copied_into_measured_ones(
    found: xr.Dataset, result: xr.Dataset
) -> None:
    at = found.sel(p=1, p_star=1, a=1.5)
    assert tuple(METHODS)[at.alpha_c_method.item()] == "theory_curve"
    assert at.alpha_c.item() == result["alpha_c"].sel(estimator="theory_curve", p=1, p_star=1, a=1.5).item()
    assert at.alpha_c_theory.item() == at.alpha_0_theory.item()
    assert abs(at.window - at.window_theory).item() <= 4 * at.window_error.item()
    assert at.window.item() > 2 * at.window_error.item()
    continuous = found.sel(p=1, p_star=1, a=0.7)
    assert np.isnan(continuous.window.item()), "there is none at a continuous transition"
    assert continuous.alpha_c_theory.item() == continuous.alpha_bbp_theory.item()
    assert not {"alpha_bbp", "alpha_0"} & set(found.variables), "theory's names without theory's mark"
    for name in ("alpha_c", "window", "shift"):
        measured = found[name].notnull()
        assert (measured == (found[f"{name}_method"] > 0)).all()
        assert (found[f"{name}_error"].where(measured, 1.0) >= 0).all()


def test_if_theorys_curve_does_not_fit_the_map_uses_the_collapse_and_says_so(
    swept: xr.Dataset, result: xr.Dataset
) -> None:
    poor = result.copy(deep=True)
    code = result["flag"].attrs["flag_meanings"].split().index("poor_fit")
    poor["flag"].loc[{"estimator": "theory_curve"}] = code
    at = shift_map(swept, poor).sel(p=1, p_star=1, a=1.5)
    assert tuple(METHODS)[at.alpha_c_method.item()] == "collapse"
    assert at.alpha_c.item() == result["alpha_c"].sel(estimator="collapse", p=1, p_star=1, a=1.5).item()


def test_the_complex_alpha_0_stands_where_the_branch_has_no_zero(
    swept: xr.Dataset, result: xr.Dataset
) -> None:
    wide = shift_map(swept, result.assign_coords(p=[1, 4])).sel(p=4, p_star=1, a=1.5)
    assert np.isnan(wide.alpha_0_principal_value.item())
    assert wide.alpha_0_theory.item() == pytest.approx(alpha_0(Model(4, 1, 1.5)).complex_re, rel=1e-9)
    assert wide.window_theory.item() == pytest.approx(
        wide.alpha_bbp_theory.item() - wide.alpha_0_theory.item()
    )


def test_a_model_without_data_is_not_covered_and_has_theory_alone(found: xr.Dataset) -> None:
    at = found.sel(p=2, p_star=1, a=1.5)
    assert not at.covered.item()
    assert at.coverage.item() == 0
    assert np.isnan(at.alpha_c.item())
    assert tuple(METHODS)[at.alpha_c_method.item()] == "none"
    assert at.alpha_0_theory.item() > 0


def test_a_map_survives_a_round_trip_through_zarr(found: xr.Dataset, tmp_path: Path) -> None:
    found.to_zarr(tmp_path / "map.zarr", zarr_format=3, consolidated=False)
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "map.zarr", consolidated=False).load(), found)


def test_the_accessor_gives_what_the_functions_give(swept: xr.Dataset, result: xr.Dataset) -> None:
    xr.testing.assert_identical(swept.bend.shift_map(result), shift_map(swept, result))
    one = swept.isel(a=[0], p=[0])
    xr.testing.assert_identical(one.bend.collapse(n_boot=100), collapse(one, n_boot=100))
    assert "alpha_overlap" in one.bend.thresholds()
    assert "law" in one.bend.edge_scaling(prediction=False)
    assert one.bend.plot.overlap().axes
    assert one.bend.plot.eigenvalue().axes
