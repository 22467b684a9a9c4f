"""How far sampled overlaps lie from theory's curve near the critical load: the prior of the corrections to
scaling in analysis/estimate/collapse_fits.py is taken from this.

    OPENBLAS_NUM_THREADS=1 python benchmarks/corrections.py --processes 2

For each model Hessians are drawn at u = w/0.5 = -1, 0 and 1 around theory's critical load, w = (alpha -
alpha_c) N^(1/3)/width. Prints the deviation of Y = N^(1/3) <overlap_sq_space> from A phi_r(w), in units of
A phi_r(0), with its standard error; then, over the models with p >= p_star, the mean and the spread of d_0
and d_1 in

    deviation = (256/N)^(1/3) (d_0 + d_1 u),

and chi^2 of this and of a deviation that does not fall with N. The critical load of none of these models
enters a claim on the paper: the corrections are not taken from data that they are for.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import numpy.typing as npt

from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.observe import observe

FloatArray = npt.NDArray[np.float64]

MODELS = (
    (1, 1, 0.1),
    (1, 1, 0.2),
    (1, 1, 0.5),
    (1, 1, 1.0),
    (2, 1, 0.1),
    (2, 1, 0.5),
    (2, 1, 1.0),
    (3, 1, 0.1),
    (3, 1, 0.5),
    (2, 2, 0.5),
    (1, 2, 1.0),
)
U = (-1.0, 0.0, 1.0)
REACH = 0.5
SIZES = (256, 1024)
SIZES_OF_WIDE = (256, 512)  # for p > 1: a cell of N = 1024 takes up to a second there


def deviation(model: Model, N: int, u: float, cells: int, seed: int) -> tuple[float, float]:
    """The deviation at one point, in units of Y at the critical load, and its standard error."""
    critical = critical_point(model)
    alpha = critical.alpha + REACH * u * critical.width / N ** (1 / 3)
    rngs = [np.random.default_rng((seed, N, U.index(u), cell)) for cell in range(cells)]
    Y = N ** (1 / 3) * np.array([observe(model, alpha, N, rng).overlap_sq_space for rng in rngs])
    Y = Y[np.isfinite(Y)] / critical.overlap_level
    curve = universal_overlap(np.array([REACH * u, 0.0]), int(model.p) * model.p_star)
    return float(Y.mean() - curve[0] / curve[1]), float(Y.std(ddof=1) / len(Y) ** 0.5)


def line(
    u: FloatArray, value: FloatArray, error: FloatArray, fall: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """d_0 and d_1 of value = fall (d_0 + d_1 u), their errors, and chi^2."""
    design = np.column_stack([fall, fall * u]) / error[:, None]
    inverse = np.linalg.pinv(design)
    best = inverse @ (value / error)
    return best, np.sqrt((inverse**2).sum(axis=1)), float(((value / error - design @ best) ** 2).sum())


def main() -> None:
    """Print the deviations, and the mean and the spread over models of their coefficients."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=400)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    print("| p | p* | a | N | u = −1 | 0 | 1 |\n|" + " --- |" * 7, flush=True)
    found, falling, constant, dof = [], 0.0, 0.0, 0
    with ProcessPoolExecutor(chosen.processes) as pool:
        asked = {
            model: {
                N: [pool.submit(deviation, Model(*model), N, u, chosen.cells, chosen.seed) for u in U]
                for N in (SIZES if model[0] == 1 else SIZES_OF_WIDE)
            }
            for model in MODELS
        }
        for (p, p_star, a), of_model in asked.items():
            rows = []
            for N, futures in of_model.items():
                rows.append([future.result() for future in futures])
                cells = " | ".join(f"{value:+.3f}({error:.3f})" for value, error in rows[-1])
                print(f"| {p} | {p_star} | {a:g} | {N} | {cells} |", flush=True)
            if p < p_star:
                continue
            value, error = np.concatenate(rows).T
            u, N = np.tile(U, len(of_model)), np.repeat(np.array(list(of_model), float), len(U))
            *coefficients, chi2 = line(u, value, error, (256 / N) ** (1 / 3))
            found.append(coefficients)
            falling += chi2
            constant += line(u, value, error, np.ones_like(u))[2]
            dof += len(value) - 2
    best, error = np.swapaxes(np.array(found), 0, 1)
    print("\n| coefficient | mean | its error | spread between models |\n|" + " --- |" * 4)
    for name, value, own in zip(("d_0", "d_1"), best.T, error.T, strict=True):
        variance = float(value.var(ddof=1))
        spread = max(0.0, variance - float((own**2).mean())) ** 0.5
        print(f"| {name} | {value.mean():+.3f} | {(variance / len(value)) ** 0.5:.3f} | {spread:.3f} |")
    print(f"\nchi2 {falling:.1f} if they fall like N^(-1/3), {constant:.1f} if not, {dof} degrees of freedom")


if __name__ == "__main__":
    main()
