"""The script of the paper's figures writes them with the numbers behind them."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bendscape.core import Model, transition
from bendscape.core.activations.activation import Network
from bendscape.core.activations.sampling import observe
from bendscape.core.activations.theory import even_transition

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "paper_figures.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("paper_figures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["paper_figures"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, str]]]:
    """What `--only 2 7` writes: the rows of each table."""
    place = tmp_path_factory.mktemp("figures")
    names = [path.name for path in script.write_paper_figures(place, (2, 7))]
    assert names == ["paper-2.svg", "paper-2.csv", "paper-7.svg", "paper-7.csv"]
    assert (place / "paper-2.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    found = {}
    for number in (2, 7):
        with (place / f"paper-{number}.csv").open(encoding="utf-8") as file:
            found[number] = list(csv.DictReader(file))
    return found


@pytest.mark.parametrize("p", [1, 4])
def test_the_threshold_of_figure_2_is_least_where_the_kind_changes(
    tables: dict[int, list[dict[str, str]]], p: int
) -> None:
    rows = sorted(
        (float(row["a"]), float(row["alpha_bbp"]), row["transition"] == "continuous", row["a_tricritical"])
        for row in tables[2]
        if float(row["p"]) == p and not row["alpha_0_principal_value"]
    )
    a, load, continuous = (np.array(column) for column in list(zip(*rows, strict=True))[:3])
    turn = float(rows[0][3])
    assert abs(a[load.argmin()] - turn) <= np.diff(a).max()
    assert continuous.tolist() == (a < turn).tolist()
    for place in (0, 150, -1):
        assert load[place] == pytest.approx(transition(Model(p, 1, a[place])).alpha_bbp, rel=1e-9)


def test_wide_students_of_figure_2_approach_the_dashed_line(tables: dict[int, list[dict[str, str]]]) -> None:
    rows = [row for row in tables[2] if float(row["p"]) == 64]
    assert len(rows) == 3
    for row in rows:
        assert float(row["alpha_bbp"]) == pytest.approx((float(row["a"]) + 1) / 2, rel=0.02)
        assert row["transition"] == "discontinuous"


def test_the_threshold_of_figure_7_rises_with_the_teacher(tables: dict[int, list[dict[str, str]]]) -> None:
    of_a = [row for row in tables[7] if float(row["a"]) == 0.5 and float(row["p_star"]) <= 16]
    loads = {int(row["p_star"]): float(row["alpha_bbp"]) for row in of_a}
    assert sorted(loads) == list(range(1, 17))
    assert all(loads[k + 1] > loads[k] for k in range(1, 16))


@pytest.mark.parametrize("name", ["log_cosh", "gauss"])
def test_the_branch_of_figure_8_begins_at_the_threshold_of_even_networks(
    script: ModuleType, name: str
) -> None:
    network = Network(1, 1, 1.0, name)
    branch = script.lowest_outlier(network)
    assert branch.alpha[-1] == pytest.approx(even_transition(network).alpha_bbp, rel=1e-7)
    assert np.abs(branch.student).max() < 1e-12


def test_the_branch_of_figure_8_is_what_samples_show(script: ModuleType) -> None:
    """12 cells of N = 300, alpha = 10: 5 standard errors plus 0.02 for finite N; false alarms below 1e-3."""
    network = Network(1, 1, 1.0, "sigmoid", "sigmoid")
    branch = script.lowest_outlier(network)
    cells = [observe(network, 10.0, 300, np.random.default_rng(seed), "dice") for seed in range(12)]
    overlaps = np.array([cell.overlap_sq for cell in cells])
    expected = np.interp(-10.0, -branch.alpha, branch.teacher)
    assert abs(overlaps.mean() - expected) < 5 * overlaps.std(ddof=1) / 12**0.5 + 0.02


def test_the_sizes_of_figure_3_cross_where_they_were_made_to(script: ModuleType) -> None:
    """Four of its errors; the seed is fixed."""
    rng, rows = np.random.default_rng(0), []
    for N, steepness in ((64, 1.0), (128, 1.3), (256, 1.6), (512, 1.9)):
        for alpha in np.linspace(1, 3, 9):
            phi = 1 / (1 + np.exp(-steepness * (alpha - 1.9)))
            rows.append({"alpha": alpha, "N": N, "cells": 600, "phi": rng.binomial(600, phi) / 600})
    load, low, high, p_value = script.crossing(rows)
    assert low < load < high
    assert abs(load - 1.9) < 4 * (high - low) / 2
    assert high - low < 0.2
    assert p_value > 1e-3
