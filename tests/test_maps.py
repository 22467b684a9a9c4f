"""Maps of the transition agree with the scalar functions, for any model on any grid."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import TRANSITION_KINDS, Model
from bendscape.core.quadratic.theory import many, maps
from bendscape.core.quadratic.theory.branch import a_tricritical
from bendscape.core.quadratic.theory.integrals import averages
from bendscape.core.quadratic.theory.maps import transition_map
from bendscape.core.quadratic.theory.outlier import alpha_0, transition

# The whole claimed domain, evenly in the logarithm of every parameter, p < p_star included.
models = st.builds(
    lambda p, p_star, log_a: Model(p if p == math.inf else round(2**p), round(2**p_star), 10**log_a),
    p=st.floats(0, 9) | st.just(math.inf),
    p_star=st.floats(0, 9),
    log_a=st.floats(-6, 3),
)


noisy_models = st.builds(
    lambda model, noise: Model(model.p, model.p_star, model.a, noise), models, st.just(0.0) | st.floats(0, 2)
)


def values(**axes: Any) -> dict[str, Any]:
    return {name: array for name, (_, array, _) in transition_map(**axes).data_vars.items()}


def flat(model: Model) -> Any:
    return many.Models(*np.array([[model.p], [model.p_star], [model.a], [model.noise]], dtype=np.float64))


def agree(found: dict[str, Any], name: str, value: complex, error: float, error_name: str = "") -> None:
    """Equal within both error estimates, and the error of the map small."""
    own = found[f"{error_name or name}_error"].item()
    assert math.isnan(own) == math.isnan(error)
    if name == "alpha_0_complex_re":
        mine = complex(found[name].item(), found["alpha_0_complex_im"].item())
    else:
        mine = found[name].item()
    if not math.isnan(own):
        assert abs(mine - value) <= own + error, name


@pytest.mark.filterwarnings("ignore::bendscape.core.errors.PrecisionWarning")  # small jumps say so
@settings(max_examples=100, deadline=None)
@given(noisy_models)
def test_each_element_of_a_map_agrees_with_the_scalar_functions(model: Model) -> None:
    found = values(p=model.p, p_star=model.p_star, a=model.a, noise=model.noise)
    assert {array.shape for name, array in found.items() if name != "a_tricritical"} == {(1, 1, 1)}
    known = transition(model)
    assert TRANSITION_KINDS[found["transition"].item()] == known.kind
    assert found["gamma"].item() == pytest.approx(known.gamma, rel=1e-11, abs=0)
    for name in ("alpha_bbp", "alpha_sharp", "lambda_minus", "overlap_sq_jump"):
        agree(found, name, getattr(known, name), getattr(known, f"{name}_error"))
    for name in ("alpha_bbp", "alpha_sharp"):
        assert found[f"{name}_error"].item() <= 1e-11 * found[name].item()
    # lambda_minus is a difference and may vanish: relative to its two terms. The jump is one of order one.
    terms = 2 / model.p * (1 / known.gamma + known.alpha_bbp)
    assert found["lambda_minus_error"].item() <= 1e-11 * terms
    assert found["overlap_sq_jump_error"].item() <= 1e-12


def scan(count: int, seed: int) -> list[Model]:
    """Models of the whole domain, half of them noisy; the seed makes them the same in every run."""
    rng = np.random.default_rng(seed)
    drawn = [(rng.random(), *rng.uniform((0, 0, -6, 0), (9, 9, 3, 1))) for _ in range(count)]
    return [
        Model(math.inf if wide < 0.15 else round(2**p), round(2**p_star), 10**log_a, max(0.0, noise - 0.5))
        for wide, p, p_star, log_a, noise in drawn
    ]


@pytest.mark.filterwarnings("ignore::bendscape.core.errors.PrecisionWarning")
def test_alpha_0_of_a_map_is_that_of_the_scalar_function_by_every_definition() -> None:
    discontinuous, without_zero = 0, 0
    for model in scan(80, seed=7):
        found = values(p=model.p, p_star=model.p_star, a=model.a, noise=model.noise, alpha_0=True)
        known = alpha_0(model)
        agree(found, "alpha_0_tangent", known.tangent, known.tangent_error)
        agree(found, "alpha_0_principal_value", known.principal_value, known.principal_value_error)
        both = complex(known.complex_re, known.complex_im)
        agree(found, "alpha_0_complex_re", both, known.complex_error, "alpha_0_complex")
        assert found["alpha_0_complex_error"].item() <= 1e-10 * abs(both)
        assert not found["alpha_0_principal_value_error"].item() > 1e-10 * known.principal_value
        discontinuous += found["transition"].item() == 1
        without_zero += math.isnan(known.principal_value)
    assert discontinuous > 20
    assert without_zero > 2


@pytest.mark.parametrize(
    "model", [Model(1, 1, 1e-6), Model(1, 1, 1.5), Model(512, 512, 1e3), Model(512, 7, 1e-2)], ids=str
)
def test_errors_of_a_map_bound_the_difference_from_high_precision(model: Model) -> None:
    found = values(p=model.p, p_star=model.p_star, a=model.a)
    exact = oracle.transition(model, found["gamma"].item())
    for name in ("alpha_bbp", "alpha_sharp", "lambda_minus", "overlap_sq_jump"):
        assert float(abs(exact[name] - found[name].item())) <= found[f"{name}_error"].item()


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_complex_zero_is_found_on_a_grid_from_one_end_of_the_domain_to_the_other(noise: float) -> None:
    found = values(p=[1, 7, 512, math.inf], p_star=[1, 40, 512], a=np.geomspace(1e-6, 1e3, 25), noise=noise,
        alpha_0=True)  # fmt: skip
    for name in ("complex_re", "complex_im", "tangent", "complex_error", "tangent_error"):
        assert np.isfinite(found[f"alpha_0_{name}"]).all()
    continuous = found["transition"] == 0
    assert continuous.any()
    for name in ("principal_value", "complex_re", "tangent"):
        assert (found[f"alpha_0_{name}"][continuous] == found["alpha_bbp"][continuous]).all()
    # Where both exist and the imaginary part is small, the two continuations are one.
    sharp_end = ~continuous & (found["alpha_0_complex_im"] < 1e-6 * found["alpha_bbp"])
    assert sharp_end.sum() > 20
    assert found["alpha_0_principal_value"][sharp_end] == pytest.approx(
        found["alpha_0_complex_re"][sharp_end], rel=1e-5
    )


def test_noise_is_one_number_for_the_whole_map() -> None:
    found = transition_map(p=2, p_star=1, a=[0.5, 3.0], noise=0.25)
    assert found.coords["noise"][:2] == ((), np.array(0.25))
    assert found.data_vars["a_tricritical"][1].item() == pytest.approx(a_tricritical(2, 1, 0.25), rel=1e-12)
    with pytest.raises(ParameterError, match="noise = -1"):
        transition_map(p=2, p_star=1, a=1.0, noise=-1)


@settings(max_examples=100, deadline=None)
@given(noisy_models, st.floats(0, 1))
def test_the_short_rule_gives_the_averages_of_the_long_one(model: Model, gamma: float) -> None:
    found = many.averages(flat(model), np.array([gamma]), many.REAL.fine)
    known = averages(model, gamma)
    for name in ("F", "B", "B_y"):
        assert getattr(found, name).item() == pytest.approx(getattr(known, name), rel=3e-14, abs=0)
    # A changes sign in gamma: its scale is E|u/D| <= sqrt(B).
    assert found.A.item() == pytest.approx(known.A, rel=0, abs=3e-14 * math.sqrt(known.B))


@settings(max_examples=50, deadline=None)
@given(noisy_models, st.floats(0.01, 1))
def test_derivatives_in_gamma_are_the_stated_averages(model: Model, gamma: float) -> None:
    found = many.averages(flat(model), np.array([gamma]), many.REAL.fine)
    along = [each.imag / 1e-30 for each in averages(model, complex(gamma, 1e-30))[:3]]
    scale = abs(along[2]) + found.B.item() / gamma
    assert -found.B.item() == pytest.approx(along[0], rel=1e-12)
    assert (found.B - found.B_y).item() == pytest.approx(along[1], rel=1e-12, abs=1e-13 * found.B.item())
    assert -2 * found.C.item() == pytest.approx(along[2], rel=0, abs=1e-12 * scale)


def test_a_map_is_the_outer_product_of_its_axes_in_the_order_given() -> None:
    axes: dict[str, list[Any]] = {"p": [4, 1, math.inf], "p_star": [3, 1], "a": [1.5, 0.2, 30.0, 0.9]}
    found = transition_map(**axes)
    for name, (dims, array, attrs) in found.data_vars.items():
        assert dims == (("p", "p_star") if name == "a_tricritical" else ("p", "p_star", "a"))
        assert array.shape == (3, 2, 4)[: len(dims)]
        assert attrs["long_name"]
    assert [list(found.coords[name][1]) for name in axes] == list(axes.values())
    for i, p in enumerate(axes["p"]):
        for j, p_star in enumerate(axes["p_star"]):
            assert found.data_vars["a_tricritical"][1][i, j] == pytest.approx(
                a_tricritical(p, p_star), rel=1e-12
            )
            for k, a in enumerate(axes["a"]):
                known = transition(Model(p, p_star, a))
                assert found.data_vars["alpha_bbp"][1][i, j, k] == pytest.approx(known.alpha_bbp, rel=1e-12)


def test_kinds_are_stored_as_flags_and_change_at_the_tricritical_offset() -> None:
    edge = a_tricritical(3, 2)
    found = transition_map(p=3, p_star=2, a=[edge * (1 - 1e-9), edge * (1 + 1e-9)])
    _, kinds, attrs = found.data_vars["transition"]
    assert kinds.dtype == np.int8
    assert kinds.ravel().tolist() == attrs["flag_values"] == [0, 1]
    assert attrs["flag_meanings"].split() == list(TRANSITION_KINDS)
    assert found.data_vars["gamma"][1].ravel() == pytest.approx([1, 1], abs=1e-8)


def test_a_map_does_not_depend_on_how_it_is_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    axes: dict[str, Any] = {"p": [1, 2, 5], "p_star": [1, 4], "a": np.geomspace(1e-6, 1e3, 23)}
    whole = values(**axes)
    monkeypatch.setattr(maps, "BLOCK", 7)
    cut = {name: array for name, array in values(**axes).items() if not name.endswith("_error")}
    for name, array in cut.items():
        # Another chunk may take a longer rule; lambda_minus is a difference of terms of order 2/p.
        assert array == pytest.approx(whole[name], rel=1e-12, abs=1e-12)


def test_memory_does_not_grow_with_the_map() -> None:
    tracemalloc.start()
    found = values(p=[1, 2, 3, 4], p_star=[1, 2], a=np.geomspace(0.01, 100, 500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    result = sum(array.nbytes for array in found.values())
    assert result < 400_000
    # At most forty arrays of CHUNK x 130 doubles at a time; all 4000 models at once would take 90 MB.
    assert peak < 2 * result + 40 * many.CHUNK * 130 * 8


def test_alpha_0_is_added_on_request_by_its_three_definitions() -> None:
    names = ("principal_value", "tangent", "complex_re", "complex_im", "principal_value_error",
        "tangent_error", "complex_error")  # fmt: skip
    with_it, without = (set(values(p=1, p_star=1, a=1, alpha_0=wanted)) for wanted in (True, False))
    assert with_it - without == {f"alpha_0_{name}" for name in names}


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ({"p": [1, 0]}, "p = 0"),
        ({"p": []}, r"p = \[\]"),
        ({"p": "12"}, "p = '12'"),
        ({"p_star": math.inf}, "p_star = inf"),
        ({"a": [1.0, -2.0]}, "a = -2.0"),
        ({"a": [math.nan]}, "a = nan"),
    ],
    ids=str,
)
def test_a_bad_axis_is_refused_by_name(axes: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        transition_map(**{"p": 1, "p_star": 1, "a": 1.0, **axes})


@pytest.mark.parametrize("p_star", [1, 5])
def test_alpha_0_falls_with_the_width_as_long_as_it_is_positive(p_star: int) -> None:
    widths = [1, 2, 3, 4, 8, 32, 512, math.inf]
    found = transition_map(p=widths, p_star=p_star, a=np.geomspace(1e-2, 1e3, 30), alpha_0=True).data_vars
    compared = 0
    for definition in ("principal_value", "tangent", "complex_re"):
        for column in found[f"alpha_0_{definition}"][1][:, 0].T:
            positive = column[column > 0]
            compared += positive.size
            assert (np.diff(positive) <= 1e-9 * positive[1:]).all()
    assert compared > 300
    # Far from tricriticality it is negative, means nothing, and need not fall.
    if p_star == 1:
        last = found["alpha_0_complex_re"][1][:, 0, -1]
        assert last.max() < 0
        assert (np.diff(last) > 0).any()
