"""Parameters are normalised or refused, and a refusal is one clear line."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size import crossover as finite_size
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq, mean_overlap_sq_lowest
from bendscape.core.quadratic.model import Model, sample_count
from bendscape.core.quadratic.sampling import cost, hessian, observe
from bendscape.core.quadratic.sampling import drawn_labels as conditional
from bendscape.core.quadratic.theory import branch, bulk, outlier
from bendscape.core.quadratic.theory.label_only import spectral_asymptotics
from bendscape.core.quadratic.theory.label_weights import SpectralWeights

MODEL = Model(2, 1, 0.7)
INFINITE = Model(math.inf, 1, 0.7)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("p", [2, 2.0, np.int64(2), np.int8(2), np.float32(2)])
def test_equal_models_are_equal_whatever_the_type_of_their_numbers(p: float) -> None:
    model = Model(p, np.int16(1), np.float64(0.5))  # type: ignore[arg-type]
    assert model == Model(2, 1, 0.5)
    assert hash(model) == hash(Model(2, 1, 0.5))
    assert (type(model.p), type(model.p_star), type(model.a)) == (int, int, float)


@pytest.mark.parametrize("p", [math.inf, np.inf, np.float64("inf")])
def test_infinite_width_is_a_model(p: float) -> None:
    assert Model(p, 1, 1).p == math.inf


@pytest.mark.parametrize(
    ("alpha", "N", "M"),
    [(1.3, 1024, 1331), (0.5, 3, 2), (0.7, np.int64(10), 7), (1.0, 2e6, 2000000), (0.5, 2, 1)],
)
def test_the_sample_count_is_the_rounded_load_times_the_dimension(alpha: float, N: int, M: int) -> None:
    assert sample_count(alpha, N) == M
    assert type(sample_count(alpha, N)) is int


def model_with(**parameters: object) -> Callable[[], object]:
    return lambda: Model(**{"p": 1, "p_star": 1, "a": 1.0, **parameters})  # type: ignore[arg-type]


def count_with(alpha: object, N: object) -> Callable[[], object]:
    return lambda: sample_count(alpha, N)  # type: ignore[arg-type]


def theory_with(theory: Callable[[Model, float], object], alpha: float) -> Callable[[], object]:
    return lambda: theory(MODEL, alpha)


def law_with(law: Callable[[Model, float, float], object], alpha: float, N: float) -> Callable[[], object]:
    return lambda: law(MODEL, alpha, N)


BAD: list[tuple[str, str, Callable[[], object]]] = [
    *((f"p={p!r}", "p", model_with(p=p)) for p in (0, -1, 1.5, True, math.nan, -math.inf, "2", None)),
    *((f"p_star={k!r}", "p_star", model_with(p_star=k)) for k in (0, 2.5, False, math.inf, np.True_)),
    *((f"a={a!r}", "a", model_with(a=a)) for a in (0, -0.7, math.nan, math.inf, True, "x", 1j, [1.0])),
    *(
        (f"{theory.__name__}({alpha!r})", "alpha", theory_with(theory, alpha))
        for theory in (bulk.left_edge, outlier.outlier, outlier.asymptotics)
        for alpha in (0, -1.0, math.nan, math.inf, True, 1e300)
    ),
    (
        "a label-only load whose gamma underflows",
        "alpha",
        lambda: spectral_asymptotics(1, SpectralWeights.optimal(), 1e300),
    ),
    *(
        (f"{law.__name__} of less than one input", "alpha", law_with(law, 1e-6, 100))
        for law in (lowest_eigenvalue_law, mean_overlap_sq, mean_overlap_sq_lowest)
    ),
    ("too few samples", "alpha", count_with(0.01, 50)),
    ("no load", "alpha", count_with(math.nan, 50)),
    ("too many samples", "alpha", count_with(1e300, 50)),
    *((f"N={N!r}", "N", count_with(1.0, N)) for N in (1, 0, -5, 2.5, True, math.nan, math.inf)),
    ("g past the pole", "g", lambda: bulk.spectral_map(MODEL, 1.0, -1.01)),
    ("g of the wrong sign", "g", lambda: bulk.self_energy(MODEL, 1.0, 0.5)),
    ("g=0", "g", lambda: bulk.spectral_map(MODEL, 1.0, 0.0)),
    ("map of an infinite width", "p", lambda: bulk.spectral_map(INFINITE, 1.0, -0.5)),
    ("size 0", "N", lambda: finite_size.alpha_bbp_at_size(MODEL, 0)),
    ("size beyond doubles", "N", lambda: finite_size.alpha_bbp_at_size(MODEL, 1e300)),
    ("size nan", "N", lambda: finite_size.alpha_bbp_at_size(MODEL, math.nan)),
    ("tricritical teacher", "p_star", lambda: branch.a_tricritical(math.inf, 0)),
    ("instance of an infinite width", "p", lambda: hessian.sample_instance(INFINITE, 1.0, 10, rng())),
    ("cell of an infinite width", "p", lambda: observe.observe(INFINITE, 1.0, 10, rng())),
    ("cost of an infinite width", "p", lambda: cost.cost_seconds(INFINITE, 1.0, 10)),
    ("labels of an infinite width", "p", lambda: conditional.drawn_labels_theory(INFINITE, 4, [1.0], [1.0])),
    ("negative labels", "y", lambda: conditional.drawn_labels_theory(MODEL, 4, [-1.0], [1.0])),
    ("too many outliers to draw", "p", lambda: lowest_eigenvalue_law(Model(512, 512, 2.0), 1e3, 1e4)),
    ("words for labels", "y", lambda: conditional.drawn_labels_theory(MODEL, 4, "many", [1.0])),
    ("no labels", "y", lambda: conditional.drawn_labels_theory(MODEL, 4, [], [])),
    (
        "outputs of another length",
        "yhat",
        lambda: conditional.drawn_labels_theory(MODEL, 4, [1.0], [1.0, 2.0]),
    ),
    ("unknown method", "method", lambda: observe.observe(MODEL, 1.0, 10, rng(), "dnese")),
    ("no memory", "N", lambda: observe.observe(MODEL, 1.0, 100_000, rng(), "dense")),
    ("little memory", "N", lambda: observe.observe(MODEL, 1.0, 64, rng(), max_bytes=1e4)),
    ("nothing to iterate", "N", lambda: observe.observe(Model(1, 4, 1.0), 2.0, 4, rng(), "explicit")),
]


@pytest.mark.parametrize(("parameter", "call"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_parameter_gives_one_line_that_names_it_with_its_value_and_what_is_accepted(
    parameter: str, call: Callable[[], object]
) -> None:
    with pytest.raises(ParameterError) as caught:
        call()
    error, line = caught.value, str(caught.value)
    assert error.parameter == parameter
    assert line.startswith(f"{parameter} = ")
    assert error.accepted in line
    assert error.remedy in line
    assert "\n" not in line
    assert len(line) < 220


def test_an_error_survives_pickling_and_shortens_long_values() -> None:
    error = ParameterError("y", np.arange(1000.0), "short", "shorten it")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ParameterError)
    assert str(again) == str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 140
