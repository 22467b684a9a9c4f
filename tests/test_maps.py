"""Maps of the transition: the same thresholds as one at a time, for any model, on any grid."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bendscape.core import maps
from bendscape.core.branch import a_tricritical
from bendscape.core.integrals import averages
from bendscape.core.maps import transition_map
from bendscape.core.model import TRANSITION_KINDS, Model, ParameterError
from bendscape.core.outlier import alpha_0, transition

# The whole claimed domain, evenly in the logarithm of every parameter, p < p_star included.
models = st.builds(
    lambda p, p_star, log_a: Model(p if p == math.inf else round(2**p), round(2**p_star), 10**log_a),
    p=st.floats(0, 9) | st.just(math.inf),
    p_star=st.floats(0, 9),
    log_a=st.floats(-6, 3),
)


def values(**axes: Any) -> dict[str, Any]:
    return {name: array for name, (_, array, _) in transition_map(**axes).data_vars.items()}


def flat(model: Model) -> Any:
    return maps._Models(*np.array([[model.p], [model.p_star], [model.a]], dtype=np.float64))


@pytest.mark.filterwarnings("ignore::bendscape.core.model.PrecisionWarning")  # small jumps say so
@settings(max_examples=200, deadline=None)
@given(models)
def test_one_element_of_a_map_is_what_the_scalar_functions_give(model: Model) -> None:
    found = values(p=model.p, p_star=model.p_star, a=model.a)
    assert {array.shape for name, array in found.items() if name != "a_tricritical"} == {(1, 1, 1)}
    known = transition(model)
    assert TRANSITION_KINDS[found["transition"].item()] == known.kind
    for name in ("alpha_bbp", "alpha_sharp", "gamma"):
        assert found[name].item() == pytest.approx(getattr(known, name), rel=1e-12, abs=0)
    # lambda_minus is a difference and may vanish: relative to its first term. The jump is one of order one.
    first = 2 / (model.p * known.gamma)
    assert found["lambda_minus"].item() == pytest.approx(known.lambda_minus, rel=1e-12, abs=1e-12 * first)
    assert found["overlap_sq"].item() == pytest.approx(known.overlap_sq, rel=1e-12, abs=1e-14)


@settings(max_examples=100, deadline=None)
@given(models, st.floats(0, 1))
def test_the_short_rule_gives_the_averages_of_the_long_one(model: Model, gamma: float) -> None:
    found = maps._averages(flat(model), np.array([gamma]), maps._fine)
    known = averages(model, gamma)
    for name in ("F", "B", "B_y"):
        assert getattr(found, name).item() == pytest.approx(getattr(known, name), rel=3e-14, abs=0)
    # A changes sign in gamma: its scale is E|u/D| <= sqrt(B).
    assert found.A.item() == pytest.approx(known.A, rel=0, abs=3e-14 * math.sqrt(known.B))


@settings(max_examples=50, deadline=None)
@given(models, st.floats(0.01, 1))
def test_derivatives_in_gamma_are_the_averages_they_are_said_to_be(model: Model, gamma: float) -> None:
    found = maps._averages(flat(model), np.array([gamma]), maps._fine)
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
    monkeypatch.setattr(maps, "CHUNK", 7)
    for name, array in values(**axes).items():
        # Another chunk may take a longer rule; lambda_minus is a difference of terms of order 2/p.
        assert array == pytest.approx(whole[name], rel=1e-12, abs=1e-12)


def test_memory_does_not_grow_with_the_map() -> None:
    tracemalloc.start()
    found = values(p=[1, 2, 3, 4], p_star=[1, 2], a=np.geomspace(0.01, 100, 500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    result = sum(array.nbytes for array in found.values())
    assert result < 250_000
    # At most twenty arrays of CHUNK x 130 doubles at a time; all 4000 models at once would take 60 MB.
    assert peak < 2 * result + 20 * maps.CHUNK * 130 * 8


def test_alpha_0_is_added_on_request_by_its_three_definitions() -> None:
    found = values(p=[1, 4], p_star=1, a=[0.5, 1.5], alpha_0=True)
    assert not any(name.startswith("alpha_0") for name in values(p=1, p_star=1, a=1))
    for i, p in enumerate((1, 4)):
        for k, a in enumerate((0.5, 1.5)):
            known = alpha_0(Model(p, 1, a))._asdict()
            for name in ("principal_value", "tangent", "complex_re", "complex_im"):
                assert found[f"alpha_0_{name}"][i, 0, k] == pytest.approx(known[name], rel=1e-9, nan_ok=True)


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
