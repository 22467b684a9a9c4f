"""The report's section on what overparametrization buys: its numbers, its sentences and its figure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import synthetic
import xarray as xr

from bendscape.analysis.figures.gain import LOADS, gain_figure, gain_pages, gains
from bendscape.analysis.figures.style import PANELS
from bendscape.analysis.report.page import gain_in_words
from bendscape.core.errors import unwarned
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.label_only import SpectralWeights, spectral_asymptotics
from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, transition


def frame(p: tuple[int, ...], p_star: tuple[int, ...], a: tuple[float, ...], **axis: object) -> xr.Dataset:
    """A sweep without finished cells."""
    return synthetic.frame(p, p_star, a, {64: 2}, **(axis or {"alpha": np.linspace(0.4, 2.0, 9)}))


def test_every_teacher_and_constant_has_all_its_widths_beside_both_methods() -> None:
    found = gains(frame((1, 3), (1, 2), (0.7, 1.5)))
    assert [(gain.p_star, gain.a) for gain in found] == [(1, 0.7), (1, 1.5), (2, 0.7), (2, 1.5)]
    for gain in found:
        expected = gain.p_star * (gain.a + 1) / 2, gain.p_star / 2
        assert (gain.hessian_limit, gain.optimal) == pytest.approx(expected, rel=1e-13)
        assert [row.p for row in gain.widths] == [1, 3]
        for row in gain.widths:
            model = Model(row.p, gain.p_star, gain.a)
            at = transition(model)
            assert (row.alpha_bbp, row.transition) == (at.alpha_bbp, at.kind)
            assert row.alpha_0 == alpha_0(model).complex_re
            assert row.over_hessian_limit == pytest.approx(row.alpha_bbp / gain.hessian_limit, rel=1e-14)
            assert row.over_optimal == pytest.approx(row.alpha_bbp / gain.optimal, rel=1e-14)
            limits = [asymptotics(model, load).overlap_sq for load in gain.loads]
            assert row.overlap_sq == [0 if math.isnan(limit) else limit for limit in limits]
        weights = {
            "optimal": SpectralWeights.optimal(),
            "hessian_limit": SpectralWeights.hessian_limit(gain.a),
        }
        for name, values in gain.overlap_sq.items():
            with unwarned():  # a load at the very threshold: an overlap of 0 to rounding
                limits = [spectral_asymptotics(gain.p_star, weights[name], x).overlap_sq for x in gain.loads]
            assert values == [0 if math.isnan(limit) else limit for limit in limits]
        assert gain.least.alpha_bbp == min(row.alpha_bbp for row in gain.widths)


def test_the_loads_are_a_few_of_the_campaigns_from_first_to_last() -> None:
    alpha = np.linspace(0.4, 2.0, 9)
    (gain,) = gains(frame((1,), (1,), (0.7,), alpha=alpha))
    assert len(gain.loads) == LOADS
    assert set(gain.loads) <= set(alpha.tolist())
    assert (gain.loads[0], gain.loads[-1]) == (0.4, 2.0)
    (short,) = gains(frame((1,), (1,), (0.7,), alpha=[0.9, 1.4]))
    assert short.loads == [0.9, 1.4]
    (relative,) = gains(frame((1, 4), (1,), (0.7,), alpha_factor=[0.5, 1.5]))
    expected = np.sort([f * transition(Model(p, 1, 0.7)).alpha_bbp for f in (0.5, 1.5) for p in (1, 4)])
    assert relative.loads == pytest.approx(expected, rel=1e-14)


def test_only_the_widths_that_the_campaign_wants_are_shown() -> None:
    ds = frame((1, 2), (1, 2), (0.7,), alpha_factor=[0.5, 1.5])
    ds["coverage"] = ds["coverage"].where(ds["p"] >= ds["p_star"])
    one, two = gains(ds)
    assert [row.p for row in one.widths] == [1, 2]
    assert [row.p for row in two.widths] == [2]
    assert two.loads[-1] == pytest.approx(1.5 * transition(Model(2, 2, 0.7)).alpha_bbp, rel=1e-14)
    assert gains(ds.assign(coverage=ds["coverage"] * np.nan)) == []


def test_a_very_wide_student_is_the_limit_and_an_undefined_alpha_0_is_left_out() -> None:
    (gain,) = gains(frame((1, 10**6), (1,), (5.0,)))
    wide = gain.widths[1]
    assert wide.over_hessian_limit == pytest.approx(1, abs=1e-6)
    assert wide.overlap_sq == pytest.approx(gain.overlap_sq["hessian_limit"], abs=1e-5)
    assert not math.isnan(gain.widths[0].alpha_0)
    assert math.isnan(wide.alpha_0)  # 0.66 +- 0.94
    assert gain_figure([gain]).axes


def test_the_sentences_say_who_needs_fewer_samples_and_who_needs_more() -> None:
    better, worse = gains(frame((1, 3), (1,), (0.7, 1.5)))
    assert gain_in_words(better) == (
        "Labels alone show the teacher above alpha = 0.5 with the optimal weights, and above 0.85 with those "
        "of an infinitely wide student. From p = 1 to p = 3 the student's threshold falls from 1.2434 to "
        "0.8271; its lowest at these widths is 0.8271, at p = 3. This takes 2.7 % fewer samples than an "
        "infinitely wide student, and 1.65 times as many as the optimal method. At alpha = 2 the squared "
        "overlap is 0.130 at p = 1 and 0.342 at p = 3, against 0.516 for infinite width and 0.639 for the "
        "optimal method."
    )
    assert " % more samples than an infinitely wide student" in gain_in_words(worse)
    (single,) = gains(frame((10**4,), (1,), (0.7,)))
    assert "The student of width 10000 shows it above 0.8500." in gain_in_words(single)
    assert "This takes as many samples as an infinitely wide student" in gain_in_words(single)
    (rising,) = gains(frame((3, 4), (1,), (0.7,)))
    assert "threshold rises from 0.8271 to 0.8302; its lowest at these widths is 0.8271, at p = 3" in (
        gain_in_words(rising)
    )


def test_curves_leave_zero_at_their_thresholds_and_none_crosses_the_optimal() -> None:
    (gain,) = gains(frame((1, 3), (1,), (0.7,)))
    figure = gain_figure([gain])
    curves = {str(line.get_label()): line.get_xydata() for line in figure.axes[0].lines}
    assert list(curves) == ["$p = 1$", "$p = 3$", r"labels only, as $p \to \infty$", "labels only, optimal"]
    thresholds = [row.alpha_bbp for row in gain.widths] + [gain.hessian_limit, gain.optimal]
    best = curves["labels only, optimal"]
    for curve, threshold in zip(curves.values(), thresholds, strict=True):
        x, y = curve.T
        assert x[y > 0].min() == pytest.approx(threshold, rel=1e-6)
        assert (y[x <= threshold] == 0).all()
        # 1e-3: the optimal curve is drawn with straight lines between its points
        assert (y <= np.interp(x, *best.T) + 1e-3).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves)


def test_many_constants_come_in_pages_and_many_widths_are_thinned_out() -> None:
    found = gains(frame((1, 2, 3, 4, 5, 6, 7, 8), (1,), (0.5,), alpha=[1.0]))
    pages = list(gain_pages([found[0]] * (PANELS + 1)))
    assert [(name, len(figure.axes)) for name, figure in pages] == [("gain-1", PANELS), ("gain-2", 1)]
    labels = [str(line.get_label()) for line in pages[1][1].axes[0].lines]
    assert labels[:6] == [f"$p = {p}$" for p in (1, 2, 4, 5, 7, 8)]
