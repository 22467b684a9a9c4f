"""The splitting of the outliers of a sample: the parts of the Gaussian matrix, its limits, and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq, mean_overlap_sq_lowest
from bendscape.core.quadratic.finite_size.splitting import outlier_splitting, splitting_parts
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.theory.outlier import transition


def test_drawn_labels_and_weights_split_according_to_the_parts() -> None:
    """K at lambda_star from 100 cells' own labels, with their p x p Stieltjes transform solved for.

    Each mean square has a relative standard error of (2/100)^(1/2) or less: within 50 percent, 3.5 of it, and
    1 in 10^3 fails by chance.
    """
    model, alpha, N, cells = Model(2, 2, 0.5), 10.0, 1200, 100
    p, M = 2, round(alpha * N)
    gamma = edge_scales(model, alpha).gamma_star
    z = edge_scales(model, alpha).lambda_star
    seen = np.zeros((cells, 5))
    for cell in range(cells):
        rng = np.random.default_rng((3, cell))
        weights = rng.standard_normal((4, N))
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        gram = weights @ weights.T
        fields = rng.standard_normal((M, 4)) @ np.linalg.cholesky(gram).T
        y, yhat = (fields[:, 2:] ** 2).mean(axis=1), (fields[:, :2] ** 2).mean(axis=1)
        signal = fields[:, 2:] @ np.linalg.inv(np.linalg.cholesky(gram[2:, 2:])).T
        # Q = D (1 - G D)^(-1) = (D - det(D) adj(G))/det(1 - G D) of 2 x 2 matrices D = s f f^T + d.
        s, d = 1 / (model.a + y), (yhat - y) / (model.a + y)
        D = s[:, None, None] * fields[:, :2, None] * fields[:, None, :2] + d[:, None, None] * np.eye(2)
        det_D = np.linalg.det(D)
        G = -p * gamma / 2 * np.eye(2)
        for _ in range(40):
            det = 1 - np.einsum("ab,mab->m", G, D) + np.linalg.det(G) * det_D
            adjugate = np.trace(G) * np.eye(2) - G
            Q = (D - det_D[:, None, None] * adjugate) / det[:, None, None]
            last, G = G, np.linalg.inv(z * np.eye(2) - Q.sum(axis=0) / N)
        assert pytest.approx(last, rel=1e-3) == G
        K = np.einsum("ml,mn,mab->albn", signal, signal, Q, optimize=True) / math.sqrt(N)
        in_p, in_star = np.einsum("albl->ab", K) / 2, np.einsum("alan->ln", K) / 2
        in_p, in_star = (x - np.trace(x) / 2 * np.eye(2) for x in (in_p, in_star))
        eye = np.eye(2)
        both = (
            K
            - in_p[:, None, :, None] * eye[None, :, None, :]
            - in_star[None, :, None, :] * eye[:, None, :, None]
        )
        both -= np.einsum("alal", K) / 4 * eye[:, None, :, None] * eye[None, :, None, :]
        seen[cell] = in_p[0, 0] ** 2, in_p[0, 1] ** 2, in_star[0, 0] ** 2, in_star[0, 1] ** 2, (both**2).sum()
    parts = splitting_parts(model, alpha, gamma)
    of_p, of_star = parts.labels_p / 2 / 2, parts.labels_p_star / 2 / 2
    expected = [
        of_p,
        of_p + parts.weights_p**2,
        of_star,
        of_star + parts.weights_p_star**2,
        4 * parts.labels_both,
    ]
    assert seen.mean(axis=0) == pytest.approx(expected, rel=0.5)


def test_a_single_outlier_does_not_split() -> None:
    assert outlier_splitting(Model(1, 1, 0.7), 2.5, 0.6)[:3] == (0, 0, 0)


@pytest.mark.parametrize("model", [Model(2, 1, 0.5), Model(1, 2, 0.5), Model(2, 2, 0.5)], ids=str)
def test_where_the_outlier_meets_the_edge_the_matrix_alone_is_left(model: Model) -> None:
    alpha = transition(model).alpha_bbp * (1 + 1e-5)
    scales = edge_scales(model, alpha)
    parts = splitting_parts(model, alpha, scales.gamma_star)
    for variance in (parts.matrix_scalar, parts.matrix_even, parts.matrix_odd):
        assert variance == pytest.approx(parts.spike, rel=0.02)
    assert parts.labels_p + parts.labels_p_star + parts.labels_both < 0.02 * parts.spike
    split = outlier_splitting(model, alpha, scales.gamma_star)
    above = outlier_splitting(model, 2 * alpha, edge_scales(model, 2 * alpha).gamma_star)
    assert abs(split.eigval_mean) < 0.1 * abs(above.eigval_mean)


def test_at_one_student_unit_the_matrix_is_orthogonally_invariant() -> None:
    parts = splitting_parts(Model(1, 3, 0.5), 9.0, 0.3)
    assert parts.matrix_scalar == pytest.approx(parts.spike, rel=1e-12)


@pytest.mark.parametrize(
    ("model", "alpha", "N", "cells"),
    [(Model(2, 2, 0.5), 4.5, 200, 120), (Model(1, 2, 0.5), 5.0, 160, 120), (Model(4, 1, 0.5), 2.5, 100, 80)],
    ids=str,
)
def test_samples_have_the_lowest_eigenvalue_and_its_overlap(
    model: Model, alpha: float, N: int, cells: int
) -> None:
    """Mean within 4 standard errors and 0.2 sd, overlaps within 4 standard errors and 13 percent: 10^-4.

    The splitting itself is half an sd and a quarter of the overlap in the first case.
    """
    seen = [observe(model, alpha, N, np.random.default_rng((41, seed))) for seed in range(cells)]
    law = lowest_eigenvalue_law(model, alpha, N)
    eigvals = [s.eigval_min for s in seen]
    assert np.mean(eigvals) == pytest.approx(law.mean, abs=(4 / math.sqrt(cells) + 0.2) * law.sd)
    assert np.std(eigvals, ddof=1) == pytest.approx(law.sd, rel=0.3)
    for values, expected in (
        ([s.overlap_sq for s in seen], mean_overlap_sq_lowest(model, alpha, N)),
        ([s.overlap_sq_space for s in seen], mean_overlap_sq(model, alpha, N)),
    ):
        band = 4 * float(np.std(values)) / math.sqrt(cells) + 0.13 * expected
        assert np.mean(values) == pytest.approx(expected, abs=band)


def test_the_lowest_eigenvalue_is_continuous_through_the_threshold_itself() -> None:
    # At alpha_bbp of this model rounding once left the outlier's spike negative.
    model = Model(8, 2, 0.3)
    bbp = transition(model).alpha_bbp
    means = [lowest_eigenvalue_law(model, bbp * factor, 256).mean for factor in (1 - 1e-6, 1.0, 1 + 1e-6)]
    assert means[0] == pytest.approx(means[1], abs=1e-5)
    assert means[2] == pytest.approx(means[1], abs=1e-5)
