"""The universal law of the edge of a spiked Gaussian orthogonal matrix, sampled for
core/quadratic/finite_size/spiked_edge.py.

    python benchmarks/spiked_edge.py --r 4

G is real symmetric, n x n, with entries of variance 1/n off the diagonal and 2/n on it (edge at 2), and
theta = 1 + w n^(-1/3) is added along r directions. Reduced to a band matrix from those directions, its
entries are independent: N(0, 2)/sqrt(n) on the diagonal, N(0, 1)/sqrt(n) at distances 1 to r - 1 from it,
chi_(n - j - r)/sqrt(n) at distance r. Extreme vectors decay within n^(1/3) r rows, so a corner of the matrix
is enough (Bloemendal and Virag, arXiv:1011.1877 and 1109.3704). Measured, with the same random numbers at
every w:

    phi_r(w) = n^(1/3) <squared overlap with the r directions>, averaged over the r extreme vectors,
    U_r(w) = the same for the first vector alone, relative to its value for r -> inf,
    T_r(w) = (edge for r -> inf - largest eigenvalue)/(its Tracy-Widom scale): mean and standard deviation.

The limit r -> inf at this n is known: z(x) = x + (1 - r/n)/x + (r/n)/(x - theta) has its minimum over x >
theta at the edge, where the scale is (z''/(2 n^2))^(1/3) and the overlap (r/n)/(x - theta)^2. Relative to
this limit little depends on n. For w > 0, theta is chosen such that the overlap 1 - 1/theta^2 of one outlier
is 2 w n^(-1/3). Prints the rows of the tables with their standard errors.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq
from scipy.sparse import diags_array
from scipy.sparse.linalg import eigsh

W = (-8, -6, -5, -4, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
AT = (-6, -3, -1.5, -0.5, 0, 0.5, 1.5, 3, 6)  # w / r^(1/3), for r > 1
DEPTH = 11  # rows of the corner in units of n^(1/3) r^(2/3): Airy functions have decayed to 1e-11 there

FloatArray = npt.NDArray[np.float64]


def spike(w: float, n: int) -> float:
    """Strength of the spike at scaled distance w from criticality."""
    return 1 + w * n ** (-1 / 3) if w <= 0 else (1 - 2 * w * n ** (-1 / 3)) ** -0.5


def corner(n: int, r: int, rng: np.random.Generator) -> list[FloatArray]:
    """Bands of the corner without a spike: the diagonal, then distances 1 to r."""
    rows = int(DEPTH * r ** (5 / 3) * n ** (1 / 3))
    bands = [rng.standard_normal(rows) * np.sqrt(2)]
    bands += [rng.standard_normal(rows - j) for j in range(1, r)]
    bands.append(np.sqrt(rng.chisquare(n - np.arange(rows - r) - r)))
    return [band / np.sqrt(n) for band in bands]


def many_spikes(theta: float, n: int, r: int) -> tuple[float, float, float]:
    """Edge, Tracy-Widom scale and n^(1/3) times the overlap of the first vector, in the limit of large r."""
    share = r / n
    x = brentq(lambda x: 1 - (1 - share) / x**2 - share / (x - theta) ** 2, theta + 1e-9, theta + 9)
    edge = x + (1 - share) / x + share / (x - theta)
    curvature = 2 * (1 - share) / x**3 + 2 * share / (x - theta) ** 3
    return edge, (curvature / (2 * n * n)) ** (1 / 3), n ** (1 / 3) * share / (x - theta) ** 2


def extreme(bands: list[FloatArray], theta: float, n: int) -> tuple[float, float, float]:
    """Largest eigenvalue, and squared overlap with the spiked directions: mean over r vectors, first
    vector."""
    r = len(bands) - 1
    diagonal = bands[0].copy()
    diagonal[:r] += theta
    rows = len(diagonal)
    if r == 1:
        values, vectors = eigh_tridiagonal(diagonal, bands[1], select="i", select_range=(rows - 1, rows - 1))
    else:
        off = [band for band in bands[1:] for _ in range(2)]
        offsets = [sign * j for j in range(1, r + 1) for sign in (1, -1)]
        matrix = diags_array([diagonal, *off], offsets=[0, *offsets], format="csc")
        top = many_spikes(theta, n, r)[0] + 4 * many_spikes(theta, n, r)[1]
        values, vectors = eigsh(matrix, k=r, sigma=top, which="LM", v0=np.ones(rows), tol=1e-8)
    overlaps = (vectors[:r] ** 2).sum(axis=0)
    return float(values.max()), float(overlaps.mean()), float(overlaps[values.argmax()])


def law(r: int, n: int, draws: int, grid: tuple[float, ...], seed: int) -> FloatArray:
    """Rows w, phi, its standard error, U, its standard error, mean of T, sd of T."""
    found = np.empty((draws, len(grid), 3))
    for draw in range(draws):
        bands = corner(n, r, np.random.default_rng((seed, r, draw)))
        for i, w in enumerate(grid):
            theta = spike(w, n)
            edge, scale, overlap = many_spikes(theta, n, r)
            largest, of_all, of_first = extreme(bands, theta, n)
            found[draw, i] = (
                n ** (1 / 3) * of_all,
                n ** (1 / 3) * of_first / overlap,
                (edge - largest) / scale,
            )
    mean, sd = found.mean(axis=0), found.std(axis=0, ddof=1)
    error = sd / np.sqrt(draws)
    return np.column_stack([grid, mean[:, 0], error[:, 0], mean[:, 1], error[:, 1], mean[:, 2], sd[:, 2]])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--r", type=int, default=1)
    parser.add_argument("--n", type=float, default=1e5)
    parser.add_argument("--draws", type=int, default=6000)
    chosen = parser.parse_args()
    scale = chosen.r ** (1 / 3)
    grid = W if chosen.r == 1 else tuple(scale * w for w in AT)
    for row in law(chosen.r, int(chosen.n), chosen.draws, grid, 2026):
        print(
            "    (" + ", ".join(f"{value:.5g}" for value in row) + "),",
            f"# w/r^(1/3) = {row[0] / scale:g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
