"""Exponents along the curve axis, on planted data: values, coverage, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from bendscape.analysis.dataset.analyses import load_analysis
from bendscape.analysis.estimate.power_law import power_law
from bendscape.core.errors import ParameterError

X = np.array([100, 300, 1000, 3000])


def planted(rules: int = 2, seeds: int = 8, noise: float = 0.2) -> xr.Dataset:
    """y = 3 x^(-1/2) with normal noise of its log, one number for each cell."""
    rng = np.random.default_rng(0)
    shape = (rules, len(X), 1, seeds)
    y = 3 * X[:, None, None] ** -0.5 * np.exp(noise * rng.standard_normal(shape))
    dims = ("rule", "x", "size", "seed")
    coords = {
        name: (name, values, {"role": role})
        for name, values, role in (
            ("rule", np.arange(rules), "model"),
            ("x", X, "curve"),
            ("size", [16], "size"),
            ("seed", np.arange(seeds), "seed"),
        )
    }
    return xr.Dataset({"status": (dims, np.ones(shape, np.int8)), "y": (dims, y)}, coords)


def test_a_planted_exponent_is_covered_as_often_as_stated() -> None:
    """400 fits of 95 per cent intervals: 380 expected, standard deviation 4.4; within five of them."""
    found = load_analysis("power_law")(planted(rules=400), variable="y")
    assert found["exponent"].dims == ("rule", "size")
    hit = (found["exponent_low"] < -0.5) & (found["exponent_high"] > -0.5)
    assert 358 <= int(hit.sum()) <= 400
    assert float(found["exponent"].mean()) == pytest.approx(-0.5, abs=0.01)  # 0.03/sqrt(400), five of them
    assert (found["exponent_p_value"] < 0.01).sum() < 20
    assert not found["not_enough_data"].any()


def test_a_point_with_a_cell_without_a_value_is_left_out() -> None:
    ds = planted()
    ds["y"][0, 1, 0, 3] = np.nan
    found = power_law(ds, variable="y")
    assert found["n_points"].values.tolist() == [[3], [4]]
    np.testing.assert_array_equal(
        found["exponent"][0], power_law(ds.isel(rule=[0], x=[0, 2, 3]), variable="y")["exponent"][0]
    )
    ds["status"][0, 1, 0, 3] = 0  # not computed: the others are no selection
    assert power_law(ds, variable="y")["n_points"].values.tolist() == [[4], [4]]
    few = power_law(ds.isel(x=[0, 2]), variable="y")
    assert few["not_enough_data"].all()
    assert few["exponent"].isnull().all()
    assert (power_law(ds.isel(seed=slice(5)), variable="y")["n_points"] == 0).all()


def test_a_curve_that_is_no_power_is_told() -> None:
    ds = planted(noise=0.05)
    assert (power_law(ds.assign(y=ds["y"] + 0.5), variable="y")["exponent_p_value"] < 1e-6).all()


def test_what_has_no_exponent_is_refused() -> None:
    ds = planted()
    with pytest.raises(ParameterError, match="variable = 'z'"):
        power_law(ds, variable="z")
    with pytest.raises(ParameterError, match="one number a cell"):
        power_law(ds.assign(y=ds["y"].expand_dims(time=2)), variable="y")
    with pytest.raises(ParameterError, match="values > 0"):
        power_law(ds.assign_coords(x=("x", X - 100, {"role": "curve"})), variable="y")
    with pytest.raises(ParameterError, match="level"):
        power_law(ds, variable="y", level=1.5)
    with pytest.raises(ParameterError, match="role among size"):
        power_law(ds.isel(size=0), variable="y")
