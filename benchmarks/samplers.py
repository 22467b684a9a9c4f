"""Ways to the lowest eigenpairs of one Hessian: time, passes over the data and peak memory, as ratios.

    python benchmarks/samplers.py                     # N = 512 .. 4096, p = 1, 2, 4 (about 10 minutes)
    python benchmarks/samplers.py --sizes 512 1024    # fewer sizes

Every contender is given the same random state and asked for the lowest max(2, p p_star) eigenpairs; how well
it did is measured afterwards, outside its time, as the residual of the lowest two in double precision. Each
runs in a process of its own, with one BLAS thread: once untimed at a small size, then as often as time allows
for the time of the fastest run, then once more under tracemalloc for the peak of what it allocates (data
included). "eigsh" is what this project used before: scipy's restarted Lanczos on an operator that reads the
data twice a product. A new contender is one function in ``CONTENDERS``.

One JSON document goes to standard output; the table of ratios to standard error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg
from threadpoolctl import threadpool_limits

from bendscape.core import Model, lowest_eigenpairs, sample_instance
from bendscape.core.cost import block_width
from bendscape.core.hessian import Instance
from bendscape.core.inputs import Precision
from bendscape.core.products import hessian_product

MODELS = (Model(1, 1, 0.7), Model(2, 1, 1.5), Model(4, 2, 1.5))
LOADS = {1: 1.9, 2: 1.3, 4: 2.5}
SIZES = (512, 1024, 2048, 4096)
SECONDS = 6.0
BASELINE = "eigsh"


class Run(NamedTuple):
    """One solve: what judges it, and what it read."""

    values: Any
    vectors: Any
    instance: Instance
    passes: float
    """Times the whole of X was read."""


Contender = Callable[[Model, float, int, np.random.Generator], Run]


def two_pass_operator(instance: Instance) -> LinearOperator:
    """The products of the former explicit method: X v, weights, then X^T."""
    X, fields = np.asarray(instance.inputs), instance.fields
    p, N = instance.students.shape
    across = (instance.d_perp / N)[:, np.newaxis]
    along = fields * (instance.rank_one_weight / N)[:, np.newaxis]
    alone = instance.d_par / N

    def matvec(vector: Any) -> Any:
        if p == 1:
            return (alone * (X @ vector.reshape(N))) @ X
        P = X @ vector.reshape(p, N).T
        R = across * P + along * np.einsum("mk,mk->m", fields, P)[:, np.newaxis]
        return (R.T @ X).reshape(p * N)

    return LinearOperator((p * N, p * N), matvec=matvec, dtype=np.float64)


def wanted(model: Model) -> int:
    """Pairs asked for."""
    return max(2, int(model.p) * model.p_star)


def with_eigsh(tolerance: float) -> Contender:
    """scipy's eigsh, 40 Krylov vectors or three for each pair, to a residual relative to the eigenvalue."""

    def run(model: Model, alpha: float, N: int, rng: np.random.Generator) -> Run:
        instance = sample_instance(model, alpha, N, rng)
        inner, count, products = two_pass_operator(instance), wanted(model), 0

        def counted(vector: Any) -> Any:
            nonlocal products
            products += 1
            return inner.matvec(vector)

        operator = LinearOperator(inner.shape, matvec=counted, dtype=np.float64)
        start = rng.standard_normal(instance.size)
        values, vectors = eigsh(
            operator, k=count, which="SA", v0=start, ncv=max(40, 3 * count), tol=tolerance
        )
        order = np.argsort(values)
        return Run(values[order], vectors[:, order], instance, 2.0 * products)

    return run


def with_lobpcg(model: Model, alpha: float, N: int, rng: np.random.Generator) -> Run:
    """scipy's lobpcg without preconditioner, on the streamed products."""
    instance = sample_instance(model, alpha, N, rng)
    inner, passes = hessian_product(instance), 0

    def counted(V: Any) -> Any:
        nonlocal passes
        passes += 1
        return inner(V)

    start = rng.standard_normal((instance.size, 2 * wanted(model)))
    operator = LinearOperator((instance.size, instance.size), matvec=counted, matmat=counted, dtype=float)
    values, vectors = lobpcg(operator, start, largest=False, tol=1e-6, maxiter=1000)
    return Run(values, vectors, instance, float(passes))


def with_lanczos(precision: Precision = "float64", stored: bool = True) -> Contender:
    """The explicit method, as :func:`bendscape.core.observe.observe` runs it."""

    def run(model: Model, alpha: float, N: int, rng: np.random.Generator) -> Run:
        instance = sample_instance(model, alpha, N, rng, precision=precision, stored=stored)
        width = block_width(int(model.p), stored)
        found = lowest_eigenpairs(
            hessian_product(instance, precision),
            rng.standard_normal((instance.size, width)),
            wanted(model),
            space=int(model.p) * model.p_star,
        )
        return Run(found.values, found.vectors, instance, float(found.n_steps))

    return run


CONTENDERS: dict[str, Contender] = {
    BASELINE: with_eigsh(1e-10),
    "eigsh, loose": with_eigsh(1e-6),
    "lobpcg": with_lobpcg,
    "explicit": with_lanczos(),
    "explicit, float32": with_lanczos("float32"),
    "explicit, drawn": with_lanczos(stored=False),
}
LARGEST = {"lobpcg": 1024, "explicit, drawn": 2048}


def measure(name: str, p: int, N: int) -> dict[str, Any]:
    """One contender on one cell; runs in a process of its own."""
    model = next(model for model in MODELS if model.p == p)
    solve, alpha = CONTENDERS[name], LOADS[p]
    with threadpool_limits(1):
        solve(model, alpha, 100, np.random.default_rng(0))
        seconds: list[float] = []
        while not seconds or (sum(seconds) + min(seconds) < SECONDS and len(seconds) < 5):
            started = time.perf_counter()
            run = solve(model, alpha, N, np.random.default_rng((2026, N)))
            seconds.append(time.perf_counter() - started)
        lowest = run.vectors[:, :2]
        residuals = hessian_product(run.instance)(lowest) - lowest * run.values[:2]
        overlaps = run.instance.teacher_overlap_sq(run.vectors)
        found = {
            "contender": name, "p": p, "p_star": model.p_star, "a": model.a, "alpha": alpha, "N": N,
            "seconds": min(seconds), "runs": len(seconds), "passes": run.passes,
            "residual": float(np.linalg.norm(residuals, axis=0).max()),
            "eigval_min": float(run.values[0]), "overlap_sq": float(overlaps[0]),
        }  # fmt: skip
        del run
        tracemalloc.start()
        solve(model, alpha, N, np.random.default_rng((2026, N)))
        found["peak_bytes"] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


def main() -> None:
    """Measure, print the ratios, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--widths", type=int, nargs="+", default=[int(model.p) for model in MODELS])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    chosen = parser.parse_args()
    names = [BASELINE, *(name for name in chosen.contenders if name != BASELINE)]
    fresh = multiprocessing.get_context("spawn")
    rows: list[dict[str, Any]] = []
    head = f"{'p':>2} {'N':>5}  {'contender':18} {'seconds':>8} {'faster':>7} {'passes':>7} {'fewer':>6} "
    sys.stderr.write(head + f"{'MiB':>7} {'less':>6} {'residual':>9} {'off in m^2':>10}\n")
    for p in chosen.widths:
        for N in chosen.sizes:
            base: dict[str, Any] = {}
            for name in names:
                if LARGEST.get(name, N) < N:
                    continue
                with fresh.Pool(1) as pool:
                    row = pool.apply(measure, (name, p, N))
                base = base or row
                row["faster"] = base["seconds"] / row["seconds"]
                row["fewer_passes"] = base["passes"] / row["passes"]
                row["less_memory"] = base["peak_bytes"] / row["peak_bytes"]
                row["overlap_error"] = abs(row["overlap_sq"] - base["overlap_sq"])
                row["eigval_error"] = abs(row["eigval_min"] - base["eigval_min"])
                rows.append(row)
                sys.stderr.write(
                    f"{p:2d} {N:5d}  {name:18} {row['seconds']:8.3f} {row['faster']:7.2f} "
                    f"{row['passes']:7.0f} {row['fewer_passes']:6.1f} {row['peak_bytes'] / 2**20:7.1f} "
                    f"{row['less_memory']:6.2f} {row['residual']:9.1e} {row['overlap_error']:10.1e}\n"
                )
    json.dump({"cores": os.cpu_count(), "load": os.getloadavg(), "rows": rows}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
