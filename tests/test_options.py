"""Options of a kernel are validated, fixed for a store, and give the bits of version 2 at their defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.cost import cost_seconds
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.kernels import describe
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.store.root import open_store
from campaigns import campaign_text, run

SMALL: dict[str, Any] = {"p": [1], "a": [0.7], "alpha": [1.2], "N": [16], "seeds": 2}
CELL = AXES.cell(p=1, p_star=1, a=0.7, alpha=1.2, N=16, seed=0)


def campaign(table: str = "") -> Campaign:
    text = campaign_text(**SMALL).replace('kernel = "probe"', "")
    return parse_campaign(f"{text}\n[kernel]\n{table}" if table else text)


def test_an_option_reaches_the_cells_and_their_estimates() -> None:
    kernel = load_kernel("hessian", (), {"method": "dense", "inputs": "rademacher"})
    found = kernel.compute(CELL, cell_rng(7, CELL)).values
    model = Model(1, 1, 0.7)
    asked = observe(model, 1.2, 16, cell_rng(7, CELL), "dense", inputs="rademacher")
    assert found["eigval_min"] == asked.eigval_min
    plain = load_kernel("hessian").compute(CELL, cell_rng(7, CELL)).values
    assert found["eigval_min"] != plain["eigval_min"]
    assert kernel.seconds(CELL) == cost_seconds(model, 1.2, 16, "dense")


@pytest.mark.parametrize("method", ["explicit", "dice"])
def test_a_looser_tolerance_takes_fewer_products_and_is_that_close_to_the_exact_eigenpairs(
    method: str,
) -> None:
    """Dice draws its own instances, so it is compared with its own result at the tightest tolerance."""
    cell = AXES.cell(p=2, p_star=1, a=1.5, alpha=1.3, N=48, seed=0)

    def found(method: str, tolerance: float | None, seed: int) -> Mapping[str, Any]:
        kernel = load_kernel("hessian", (), {"method": method, "tolerance": tolerance})
        return kernel.compute(cell, np.random.default_rng(seed)).values

    products = dict.fromkeys((1e-3, 1e-6, 1e-9), 0)
    for seed in range(8):
        exact = found(
            "dense" if method == "explicit" else "dice", None if method == "explicit" else 1e-10, seed
        )
        for tolerance in products:
            values = found(method, tolerance, seed)
            products[tolerance] += values["n_matvecs"]
            for name in ("overlap_sq", "overlap_sq_space"):
                assert abs(values[name] - exact[name]) <= tolerance
            for name in ("eigval_min", "eigval_second"):
                assert abs(values[name] - exact[name]) <= max(1e-3 * tolerance, 1e-12)
    assert products[1e-3] < 0.9 * products[1e-6] < 0.81 * products[1e-9]


def test_estimates_depend_on_the_tolerance_and_are_unchanged_at_the_default() -> None:
    cell = AXES.cell(p=2, p_star=1, a=1.5, alpha=1.3, N=256, seed=0)
    for method, default in (("explicit", 1e-6), ("dice", 1e-3)):
        plain, spelt, tight = (
            load_kernel("hessian", (), {"method": method} | of)
            for of in ({}, {"tolerance": default}, {"tolerance": 1e-10})
        )
        assert plain.seconds(cell) == spelt.seconds(cell) < tight.seconds(cell) < 4 * plain.seconds(cell)
        assert plain.peak_bytes(cell) == spelt.peak_bytes(cell) <= tight.peak_bytes(cell)
    steps = {
        tolerance: sum(
            observe(
                Model(2, 1, 1.5), 1.3, 256, np.random.default_rng(seed), "dice", tolerance=tolerance
            ).n_matvecs
            for seed in range(3)
        )
        for tolerance in (1e-3, 1e-10)
    }
    grown = tight.peak_bytes(cell) / plain.peak_bytes(cell)
    assert steps[1e-10] / steps[1e-3] < 1.1 * grown, "memory grows like the steps of dice"


def test_the_default_tolerance_of_a_method_is_exactly_that_of_its_docstring() -> None:
    for method, tolerance in (("explicit", 1e-6), ("dice", 1e-3)):
        plain, spelt = (
            load_kernel("hessian", (), {"method": method} | of).compute(CELL, cell_rng(7, CELL))
            for of in ({}, {"tolerance": tolerance})
        )
        assert plain == spelt
    with pytest.raises(ParameterError, match=r"tolerance must be from 1e-10 to 0\.001"):
        observe(Model(1, 1, 0.7), 1.2, 16, cell_rng(7, CELL), tolerance=0.1)


def test_options_at_their_defaults_are_the_kernel_without_options(tmp_path: Path) -> None:
    spelt = load_kernel("hessian", (), {"method": "auto", "inputs": "gaussian"})
    plain = load_kernel("hessian")
    assert spelt.settings == plain.settings
    assert spelt.compute(CELL, cell_rng(7, CELL)) == plain.compute(CELL, cell_rng(7, CELL))
    assert run(tmp_path / "s.zarr", "", campaign()).outcome == "complete"
    again = run(tmp_path / "s.zarr", "", campaign('method = "auto"'))
    assert (again.outcome, again.computed) == ("complete", 0)


def test_options_can_never_change_within_a_store(tmp_path: Path) -> None:
    run(tmp_path / "s.zarr", "", campaign('method = "dense"'))
    assert open_store(tmp_path / "s.zarr").options["method"] == "dense"
    with pytest.raises(ParameterError, match=r"; options: method 'dense' there, 'auto' here\. "):
        run(tmp_path / "s.zarr", "", campaign())


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (
            'method = "magic"',
            "kernel.method = 'magic' is not accepted: kernel.method must be 'auto', ",
        ),
        ('methd = "dense"', "options of 'hessian' are method, inputs, precision, tolerance, max_bytes"),
        ("max_bytes = 0", "greater than 0"),
        ("tolerance = 0.01", "kernel.tolerance must be less than or equal to 0.001"),
        ("tolerance = 1e-11", "kernel.tolerance must be greater than or equal to 0.0000000001"),
        ('name = "labels"\nmethod = "dense"', "kernel 'labels' has no options"),
    ],
)
def test_a_bad_option_is_one_line(tmp_path: Path, table: str, line: str) -> None:
    with pytest.raises(ParameterError) as caught:
        run(tmp_path / "s.zarr", "", campaign(table))
    assert line in str(caught.value)
    assert not (tmp_path / "s.zarr").exists()


def test_the_table_may_name_the_kernel_and_hashes_without_options_are_unchanged() -> None:
    named = campaign('name = "labels"')
    assert named.kernel_name == "labels"
    assert named.spec_hash(AXES) == parse_campaign(
        campaign_text(**SMALL).replace('kernel = "probe"', 'kernel = "labels"')
    ).spec_hash(AXES)
    assert campaign('method = "dense"').spec_hash(AXES) != campaign().spec_hash(AXES)
    with pytest.raises(ParameterError, match=r"kernel\.name = 'labels' .*'probe' as campaign\.kernel has it"):
        parse_campaign(campaign_text(**SMALL) + '\n[kernel]\nname = "labels"')


def test_the_options_of_a_kernel_are_listed_with_defaults_and_meanings() -> None:
    options = {of["name"]: of for of in describe(load_kernel("hessian"))["options"]}
    assert set(options) == {"method", "inputs", "precision", "tolerance", "max_bytes"}
    assert [of["minimum"] for of in options["tolerance"]["accepted"]["anyOf"] if "minimum" in of] == [1e-10]
    assert options["method"]["default"] == "auto"
    assert options["method"]["accepted"]["enum"] == [
        "auto",
        "dense",
        "explicit",
        "dice",
        "dice_wide",
        "dice_compact",
        "conditional",
    ]
    assert all(of["long_name"] for of in options.values())


def test_a_users_own_kernel_can_have_options(tmp_path: Path) -> None:
    module = tmp_path / "own.py"
    module.write_text(
        """
from dataclasses import replace
from functools import partial
from pydantic import BaseModel
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable

class Options(BaseModel, extra="forbid"):
    factor: float = 1.0

def compute(cell, rng, factor=1.0):
    return Outcome({"x": factor * rng.random()})

def configure(options):
    return replace(KERNEL, compute=partial(compute, factor=options.factor))

KERNEL = Kernel("probe", 1, (Variable("x", "a number"),), compute, lambda cell: 0.1, lambda cell: 1e5,
                options=Options, configure=configure)
"""
    )
    one, two = (load_kernel("probe", [str(module)], options) for options in ({}, {"factor": 2.0}))
    draws = [kernel.compute(CELL, np.random.default_rng(1)).values["x"] for kernel in (one, two)]
    assert draws[1] == 2 * draws[0]
    assert (one.settings, two.settings) == ({"factor": 1.0}, {"factor": 2.0})
    assert dataclasses.replace(two, settings={}).digest == one.digest != ""
