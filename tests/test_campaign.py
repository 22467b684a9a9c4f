"""A campaign file says what to compute; whatever is wrong with it gets one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition
from bendscape.sweep.campaign.file import load_campaign, parse_campaign
from bendscape.sweep.campaign.kernel import Kernel, Outcome
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.kernels.quadratic import AXES, NETWORK, check_samples
from campaigns import campaign_text, make_campaign

BAD = [
    # (what is replaced, by what, and the pieces that the line must name)
    ("p = [1, 2]", "p = [0, 2]", ["grid.p", "0", ">= 1", "line 9"]),
    ("p = [1, 2]", "p = [1.5]", ["grid.p", "1.5", "integers"]),
    ("p = [1, 2]", "p = [2, 2]", ["grid.p", "distinct"]),
    ("p = [1, 2]", "p = []", ["grid.p", "1 to 4096"]),
    ("p = [1, 2]", "p = [true]", ["grid.p", "True"]),
    ("p = [1, 2]", "q = [1]", ["grid.q", "p, p_star, a, noise, alpha, N, seeds, where"]),
    ("p_star = [1]", "pstar = [1]", ["grid.pstar", "did you mean 'p_star'"]),
    ("a = [0.7, 1.5]", "a = -1", ["grid.a", "-1", "> 0"]),
    ("a = [0.7, 1.5]", "a = nan", ["grid.a", "nan", "finite"]),
    ("a = [0.7, 1.5]", "", ["grid.a", "missing"]),
    ("[0.8, 1.0, 1.2]", "{ start = 1, stop = 2 }", ["grid.alpha", "missing ['num']"]),
    ("[0.8, 1.0, 1.2]", "{ start = 1, stop = 2, nun = 3 }", ["grid.alpha", "unknown ['nun']"]),
    ("[0.8, 1.0, 1.2]", "{ start = 1, stop = 2, num = 0 }", ["grid.alpha", "num is an integer from 1"]),
    ("[0.8, 1.0, 1.2]", '{ around = "alpha", values = [1] }', ["grid.alpha", "alpha_bbp, alpha_0"]),
    ("N = [64, 128]", "N = [1]", ["grid.N", ">= 2"]),
    ("N = [64, 128]", 'N = "64"', ["grid.N", "'64'"]),
    ("seeds = 6", "seeds = 0", ["grid.seeds", "integer >= 1"]),
    ("seeds = 6", "seeds = { 64 = 3 }", ["grid.seeds", "one count for each size"]),
    ('where = "p >= p_star"', 'where = "q > 1"', ["grid.where", "'q'"]),
    ('where = "p >= p_star"', "where = \"__import__('os')\"", ["grid.where", "Call"]),
    ('where = "p >= p_star"', 'where = "p >"', ["grid.where", "invalid syntax"]),
    ("entropy = 7", "entropy = -1", ["campaign.entropy", "-1", "greater than or equal to 0", "line 5"]),
    ("entropy = 7", 'entropy = "7"', ["campaign.entropy", "'7'", "integer"]),
    ("[grid]", "[gird]", ["gird", "did you mean 'grid'", "line 8"]),
    ("p = [1, 2]", f"p = [{10**400}]", ["grid.p", "integers >= 1"]),
    ("p = [1, 2]", "p = [9223372036854775808]", ["grid.p", "integers >= 1"]),
    (
        "[0.8, 1.0, 1.2]",
        f"{{ start = 1, stop = {10**400}, num = 2 }}",
        ["grid.alpha", "start and stop are finite"],
    ),
    ("seeds = 6", "seeds = 3000000000", ["grid.seeds", "integer >= 1"]),
    ("seeds = 6", 'seeds = { "²" = 4 }', ["grid.seeds", "from size to count"]),
    ('where = "p >= p_star"', f'where = "{"-" * 5000}p > 1"', ["grid.where", "1000 characters"]),
    ('where = "p >= p_star"', f'where = "{"(" * 300}p > 1"', ["grid.where", "too many nested"]),
    ("\n[campaign]", "text = 5\n[campaign]", ["'text'", "one of campaign, grid"]),
    ("entropy = 7", "entropy 7", ["valid TOML", "line 5"]),
]


@pytest.mark.parametrize(
    ("old", "new", "named"), BAD, ids=[f"{new[:60] or 'no ' + old}" for old, new, _ in BAD]
)
def test_bad_input_is_one_line_that_names_the_key_the_value_and_what_is_accepted(
    old: str, new: str, named: list[str]
) -> None:
    text = campaign_text()
    assert old in text
    with pytest.raises(ParameterError) as caught:
        parse_campaign(text.replace(old, new)).to_grid(AXES)
    line = str(caught.value)
    assert "\n" not in line
    for piece in named:
        assert piece in line, line


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"nothing\.toml"):
        load_campaign(tmp_path / "nothing.toml")


def test_an_alpha_with_less_than_one_sample_is_refused() -> None:
    with pytest.raises(ParameterError, match="alpha N >= 1"):
        check_samples(make_campaign(alpha=[0.001], N=[64]).to_grid(AXES))


@pytest.mark.parametrize("where", ["alpha > 99", "1 / (p - 1) > 0", "alpha * 1e308 * 1e308 < 1"])
def test_a_where_that_keeps_nothing_or_is_undefined_is_refused(where: str) -> None:
    costs = Kernel(
        "probe", 1, (), lambda cell, rng: Outcome({}), lambda cell: 1.0, lambda cell: 1.0, **NETWORK
    )
    with pytest.raises(ParameterError, match=r"grid\.where"):
        plan_campaign(make_campaign(where=where), costs)


def test_a_campaign_of_too_many_tiles_is_refused_without_enumerating_them() -> None:
    costs = Kernel(
        "probe", 1, (), lambda cell, rng: Outcome({}), lambda cell: 1.0, lambda cell: 1.0, **NETWORK
    )
    with pytest.raises(ParameterError, match="at most 10000000 tiles"):
        plan_campaign(make_campaign(seeds=2_000_000_000), costs)


def test_equal_campaigns_have_equal_hashes_however_they_are_written() -> None:
    ranged = make_campaign(alpha="{ start = 0.8, stop = 1.2, num = 3 }", p=[2, 1])
    assert ranged.spec_hash(AXES) == make_campaign().spec_hash(AXES)
    assert make_campaign(seeds=7).spec_hash(AXES) != make_campaign().spec_hash(AXES)


def test_alpha_around_a_threshold_is_that_multiple_of_it() -> None:
    for around in ("alpha_bbp", "alpha_0"):
        grid = make_campaign(alpha=f'{{ around = "{around}", start = 0.5, stop = 1.5, num = 3 }}').to_grid(
            AXES
        )
        assert grid.curve == "alpha_factor"
        for index in np.ndindex(grid.shape[:-1]):
            model = Model(*(grid.models[name][index].item() for name in ("p", "p_star", "a")))
            at = transition(model).alpha_bbp if around == "alpha_bbp" else alpha_0(model).complex_re
            assert grid.curve_values[index] == pytest.approx([0.5 * at, at, 1.5 * at], rel=1e-13)


def test_where_keeps_the_points_at_which_it_is_true() -> None:
    grid = make_campaign(p=[1, 2, 4], p_star=[1, 2], where="p >= p_star and (N < 100 or alpha > 1)").to_grid(
        AXES
    )
    small, large = grid.wanted(64), grid.wanted(128)
    assert not small[0, 1].any()
    assert small[1, 1].all()
    assert large[2, 0].tolist() == [[False, False, True]] * 2
    assert grid.cell_count() == 6 * (int(small.sum()) + int(large.sum()))


def test_seed_counts_can_differ_between_sizes() -> None:
    grid = make_campaign(seeds="{ 64 = 8, 128 = 2 }").to_grid(AXES)
    assert grid.seeds == {64: 8, 128: 2}
    assert grid.cell_count() == 12 * 8 + 12 * 2


def test_a_model_of_the_grid_is_a_model_of_the_theory() -> None:
    columns = (array.ravel().tolist() for array in make_campaign().to_grid(AXES).models.values())
    assert [Model(*at) for at in zip(*columns, strict=True)] == [
        Model(p, 1, a) for p in (1, 2) for a in (0.7, 1.5)
    ]
