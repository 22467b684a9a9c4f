"""Methods for the lowest eigenpairs of one Hessian: time, passes over the data and peak memory, as ratios.

    python benchmarks/samplers.py                     # N = 512 .. 8192, p = 1, 2, 4 (over an hour)
    python benchmarks/samplers.py --quick             # pN <= 2048, near the threshold (two minutes)
    python benchmarks/samplers.py --sizes 512 1024    # fewer sizes (minutes)
    python benchmarks/samplers.py --wide              # p = 4 and 8: explicit, dice, dice_wide (ten minutes)
    python benchmarks/samplers.py --rounding          # how far 16 bits move a cell (three minutes)
    python benchmarks/samplers.py --large             # dice, dice_compact, at N = 1e5 and 1e6, up to 10 GiB

All contenders except dice get the same random state; dice draws its own cell, of the same law. All compute
the lowest max(2, p p_star) eigenpairs, at a load near the threshold and at one above it, each in its own
process with one BLAS thread: once untimed at a small size; then as often as time allows, of which the fastest
run counts (wall and CPU; ratios are of CPU); then once more under tracemalloc for the peak of its
allocations, data included (for runs of over a minute, computed from the shapes). "residual" is that of the
lowest two pairs in double precision; for dice, its own.

All reach the same accuracy: dice stops where (residual/gap)^2, the squared sine between Ritz vector and
eigenvector, is below 1e-6, explicit at its own, stricter tolerances. "eigsh", scipy's restarted Lanczos on an
operator that reads the data twice per product, and "PRIMME" (if it can be imported) stop at a residual. With
"same" they stop at 1e-3 times the smallest gap beside the pairs, which is the same accuracy; they could not
know this gap in advance, and it is taken from a solution that is not timed. "strict" is a tolerance of 1e-10,
for users who do not know the gap. A new contender is one function in ``CONTENDERS``.

With --large: wall and CPU seconds, peak resident memory, and CPU nanoseconds for a number of U that a step
multiplies, of which k steps have M k^2/2: a measure that does not depend on how many steps a cell takes. Also
the rates of a copy and of a triad of long arrays, timed just before.

One JSON document is written to standard output, the tables to standard error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg
from threadpoolctl import threadpool_limits

import bendscape.core.quadratic.sampling.dice as dice_module
import bendscape.core.quadratic.sampling.reveal as reveal_module
from bendscape.core import Model, cost_seconds, lowest_eigenpairs, sample_dice, sample_instance
from bendscape.core.quadratic.sampling.cost import block_width
from bendscape.core.quadratic.sampling.dice import FORMS, TOLERANCE
from bendscape.core.quadratic.sampling.hessian import Instance, lower_hessian
from bendscape.core.quadratic.sampling.inputs import Precision
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.sampling.products import hessian_product

try:
    import primme
except ImportError:  # not a dependency of this project: compared only if installed
    primme = None

MODELS = (Model(1, 1, 1.5), Model(2, 1, 1.5), Model(4, 2, 1.5))
LOADS = {1: (1.4, 2.5), 2: (1.3, 2.5), 4: (2.0, 4.0)}  # near the threshold (1.37, 1.32, 2.1) and above it
SIZES = (512, 1024, 2048, 4096, 8192)
LARGE = (100_000, 1_000_000)
ROUNDED = (
    (Model(1, 1, 1.5), 1.4, 400, 300),
    (Model(1, 1, 1.5), 1.4, 1000, 300),
    (Model(1, 1, 1.5), 1.4, 8000, 80),
    (Model(2, 1, 1.5), 1.3, 1500, 100),
)
WIDE = (
    (Model(4, 1, 1.5), 1.4, 8192),
    (Model(4, 2, 1.5), 2.6, 1024),
    (Model(4, 2, 1.5), 2.6, 8192),
    (Model(8, 1, 0.3), 0.8, 1024),
    (Model(8, 1, 0.3), 0.8, 2048),
    (Model(8, 1, 0.3), 0.8, 8192),
    (Model(16, 1, 0.01), 0.7, 512),
)
WIDE_LARGEST = {"explicit": 8192, "dice": 16384, "dice_wide": 65536}  # of pN
SECONDS = 6.0
QUICK = ("eigsh, strict", "LAPACK", "explicit", "dice")
QUICK_SIZES = (512, 1024)
QUICK_LARGEST = 2048  # of pN
BUSY = 1.5  # wall over CPU seconds beyond which a run is not quiet
BASELINE = "eigsh, strict"


class Run(NamedTuple):
    """One solution: what judges it, and how much it read."""

    values: Any
    vectors: Any
    instance: Instance | None
    passes: float
    """Number of times that all of X was read; for dice, number of products."""
    residual: float | None = None
    overlap: float | None = None


class Asked(NamedTuple):
    """Tolerances at which the others have the accuracy of dice."""

    residual: float
    lowest: float
    """Lowest eigenvalue; the tolerance of eigsh is relative to it."""
    norm: float
    """Norm of H; the tolerance of PRIMME is relative to it."""


Contender = Callable[[Model, float, int, np.random.Generator, Asked], Run]
"""solve(model, alpha, N, rng, same): ``same`` gives the accuracy that dice has."""


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
    """Number of pairs."""
    return max(2, int(model.p) * model.p_star)


def with_eigsh(strict: bool) -> Contender:
    """scipy's eigsh, with 40 Krylov vectors or three for each pair."""

    def run(model: Model, alpha: float, N: int, rng: np.random.Generator, same: Asked) -> Run:
        instance = sample_instance(model, alpha, N, rng)
        operator, products = counting(instance)
        count, start = wanted(model), rng.standard_normal(instance.size)
        tolerance = 1e-10 if strict else same.residual / abs(same.lowest)
        values, vectors = eigsh(
            operator, k=count, which="SA", v0=start, ncv=max(40, 3 * count), tol=tolerance
        )
        order = np.argsort(values)
        return Run(values[order], vectors[:, order], instance, 2.0 * products[0])

    return run


def with_primme(strict: bool) -> Contender:
    """PRIMME's own choice of method and sizes, on the same operator."""

    def run(model: Model, alpha: float, N: int, rng: np.random.Generator, same: Asked) -> Run:
        instance = sample_instance(model, alpha, N, rng)
        operator, products = counting(instance)
        start = rng.standard_normal((instance.size, 1))
        tolerance = 1e-10 if strict else same.residual / same.norm
        values, vectors = primme.eigsh(operator, wanted(model), which="SA", v0=start, tol=tolerance)
        order = np.argsort(values)
        return Run(values[order], vectors[:, order], instance, 2.0 * products[0])

    return run


def counting(instance: Instance) -> tuple[LinearOperator, list[int]]:
    """The two-pass operator, and its counter of products."""
    inner, products = two_pass_operator(instance), [0]

    def counted(vector: Any) -> Any:
        products[0] += 1
        return inner.matvec(vector)

    return LinearOperator(inner.shape, matvec=counted, dtype=np.float64), products


def with_dense(model: Model, alpha: float, N: int, rng: np.random.Generator, same: Asked) -> Run:
    """LAPACK, as used by the method dense."""
    instance = sample_instance(model, alpha, N, rng)
    last = wanted(model) - 1
    values, vectors = eigh(
        lower_hessian(instance), lower=True, subset_by_index=(0, last), driver="evr",
        overwrite_a=True, check_finite=False,
    )  # fmt: skip
    return Run(values, vectors, instance, 1.0)


def with_dice(precision: Any = None) -> Contender:
    """Dice, by default in the precision it chooses."""

    def run(model: Model, alpha: float, N: int, rng: np.random.Generator, same: Asked) -> Run:
        dice = sample_dice(model, alpha, N, rng, dtype=precision)
        if not dice.converged:
            raise RuntimeError(f"dice did not converge at N = {N}")
        overlap = float(dice.overlaps_sq[0])
        return Run(dice.eigvals, None, None, float(dice.steps), float(dice.residuals[:2].max()), overlap)

    return run


def with_lobpcg(model: Model, alpha: float, N: int, rng: np.random.Generator, same: Asked) -> Run:
    """scipy's lobpcg without a preconditioner, on the streamed products."""
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
    """The explicit method, as :func:`bendscape.core.quadratic.sampling.observe.observe` runs it."""

    def run(model: Model, alpha: float, N: int, rng: np.random.Generator, same: Asked) -> Run:
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
    BASELINE: with_eigsh(True),
    "eigsh, same": with_eigsh(False),
    **({"PRIMME, strict": with_primme(True), "PRIMME, same": with_primme(False)} if primme else {}),
    "LAPACK": with_dense,
    "lobpcg": with_lobpcg,
    "explicit": with_lanczos(),
    "explicit, float32": with_lanczos("float32"),
    "explicit, drawn": with_lanczos(stored=False),
    "dice": with_dice(),
    "dice, float64": with_dice(np.float64),
}
LARGEST = {"lobpcg": 1024, "explicit, drawn": 2048, "LAPACK": 8192}  # of pN


def same_accuracy(model: Model, values: Any) -> float:
    """Residual at which (residual/gap)^2 of the lowest pairs equals dice's tolerance; needs one pair more."""
    gaps = np.diff(values)
    space = int(model.p) * model.p_star
    least = min(gaps[0], gaps[1], values[space] - values[space - 1])
    return float(np.sqrt(TOLERANCE) * least)


def asked(model: Model, alpha: float, N: int) -> Asked:
    """The same for a cell, from its solution by the explicit method with one pair more; not timed."""
    with threadpool_limits(1):
        rng = np.random.default_rng((2026, N))
        instance = sample_instance(model, alpha, N, rng)
        count = min(wanted(model) + 1, instance.size - 1)
        start = rng.standard_normal((instance.size, block_width(int(model.p), True)))
        found = lowest_eigenpairs(hessian_product(instance, "float32"), start, count, space=count - 1)
        norm = eigsh(two_pass_operator(instance), k=1, which="LM", tol=0.01, return_eigenvectors=False)
    return Asked(same_accuracy(model, found.values), float(found.values[0]), float(abs(norm[0])))


def measure(name: str, p: int, alpha: float, N: int, same: Asked, limit: float = SECONDS) -> dict[str, Any]:
    """One contender on one cell; called in a process of its own."""
    model = next(model for model in MODELS if model.p == p)
    solve = CONTENDERS[name]
    with threadpool_limits(1):
        solve(model, alpha, 100, np.random.default_rng(0), Asked(1e-4, -1.0, 10.0))
        seconds: list[float] = []
        cpu: list[float] = []
        while not seconds or (sum(seconds) + min(seconds) < limit and len(seconds) < 5):
            started, busy = time.perf_counter(), time.process_time()
            run = solve(model, alpha, N, np.random.default_rng((2026, N)), same)
            cpu.append(time.process_time() - busy)
            seconds.append(time.perf_counter() - started)
        residual, overlap = run.residual, run.overlap
        if run.instance is not None:
            lowest = run.vectors[:, :2]
            rest = hessian_product(run.instance)(lowest) - lowest * run.values[:2]
            residual = float(np.linalg.norm(rest, axis=0).max())
            overlap = float(run.instance.teacher_overlap_sq(run.vectors)[0])
        found = {
            "contender": name, "p": p, "p_star": model.p_star, "a": model.a, "alpha": alpha, "N": N,
            "seconds": min(seconds), "cpu_seconds": min(cpu), "runs": len(seconds), "passes": run.passes,
            "asked": same.residual, "residual": residual,
            "eigval_min": float(run.values[0]), "overlap_sq": overlap,
        }  # fmt: skip
        del run
        if max(seconds) > 60:  # allocations do not depend on the number of iterations
            found["peak_estimated"] = True
            found["peak_bytes"] = 8.0 * round(alpha * N) * N + 8.0 * p * N * (41 + wanted(model))
            return found
        tracemalloc.start()
        solve(model, alpha, N, np.random.default_rng((2026, N)), same)
        found["peak_bytes"] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


def streams(numbers: int = 2**26) -> dict[str, float]:
    """GB/s of a copy and of a triad a = b + s c, the best of five; float32, larger than any cache."""
    b, c = np.ones(numbers, np.float32), np.ones(numbers, np.float32)
    a = np.empty_like(b)

    def triad() -> None:  # numpy needs two steps, with 2 and with 3 arrays
        np.multiply(c, np.float32(3), out=a)
        np.add(a, b, out=a)

    best = {}
    for name, run, arrays in (("copy", lambda: np.copyto(a, b), 2), ("triad", triad, 5)):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        best[name] = arrays * b.nbytes / min(times) / 1e9
    return best


def measure_large(alpha: float, N: int, method: str) -> dict[str, Any]:
    """One form of dice, p = 1; called in a process of its own."""
    model = MODELS[0]
    with threadpool_limits(1):
        sample_dice(model, alpha, 1000, np.random.default_rng(0), **FORMS[method])
        started, busy = time.perf_counter(), time.process_time()
        dice = sample_dice(model, alpha, N, np.random.default_rng((2026, N)), **FORMS[method])
        seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    return {
        "a": model.a, "alpha": alpha, "N": N, "method": method, "seconds": seconds, "cpu_seconds": cpu,
        "nanoseconds_per_number": 2e9 * cpu / (len(dice.y) * dice.steps**2),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "steps": dice.steps, "converged": dice.converged, "eigval_min": float(dice.eigvals[0]),
        "overlap_sq": float(dice.overlaps_sq[0]), "orthogonality": dice.orthogonality,
    }  # fmt: skip


def rounding() -> list[dict[str, Any]]:
    """How far 16 bits move a cell, in standard deviations between cells: the same instances both ways."""
    dice_module.COMPACT_ROWS = reveal_module.BLOCK_ROWS  # the same numbers are then drawn in the same order
    reveal_module.COMPACT_BATCH = reveal_module.BATCH
    dice_module._CHECKS = dice_module._CHECKS[0], dice_module._CHECKS[0]
    rows = []
    sys.stderr.write(
        " p alpha     N cells  eigenvalue: rms  mean     error    overlap: rms  mean     error   |UU - 1|\n"
    )
    for model, alpha, N, cells in ROUNDED:
        found = np.array(
            [
                [
                    (dice.eigvals[0], dice.overlaps_sq[0], dice.orthogonality)
                    for dice in (
                        sample_dice(model, alpha, N, np.random.default_rng(seed), wide=True, compact=compact)
                        for compact in (False, True)
                    )
                ]
                for seed in range(cells)
            ]
        )
        moved = (found[:, 1] - found[:, 0])[:, :2] / found[:, 0, :2].std(axis=0)
        rms, mean, error = (
            np.sqrt((moved**2).mean(axis=0)),
            moved.mean(axis=0),
            moved.std(axis=0) / cells**0.5,
        )
        apart = np.median(found[:, :, 2], axis=0)
        rows.append(
            {
                "p": model.p, "alpha": alpha, "N": N, "cells": cells, "rms": rms.tolist(),
                "mean": mean.tolist(), "error": error.tolist(), "orthogonality": apart.tolist(),
            }
        )  # fmt: skip
        parts = "  ".join(f"{a:14.4f} {b:9.5f} {c:8.5f}" for a, b, c in zip(rms, mean, error, strict=True))
        sys.stderr.write(
            f"{model.p:2} {alpha:5.2f} {N:5d} {cells:5d} {parts}  {apart[0]:.0e} {apart[1]:.0e}\n"
        )
    return rows


def measure_wide(model: Model, alpha: float, N: int, method: str) -> dict[str, Any]:
    """One method on one cell of a wide student; called in a process of its own."""
    with threadpool_limits(1):
        observe(model, alpha, 64, np.random.default_rng(0), method)
        started, busy = time.perf_counter(), time.process_time()
        seen = observe(model, alpha, N, np.random.default_rng((2026, N)), method)
        seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    return {
        "p": model.p, "p_star": model.p_star, "a": model.a, "alpha": alpha, "N": N, "method": method,
        "seconds": seconds, "cpu_seconds": cpu, "planned": cost_seconds(model, alpha, N, method),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "steps": seen.n_matvecs, "converged": seen.converged,
    }  # fmt: skip


def wide() -> list[dict[str, Any]]:
    """Methods for wide students, with the time by the cost model; table on standard error."""
    rows = []
    sys.stderr.write(
        "p, p*, a        alpha     N  method     seconds     CPU  planned  MiB of the process  steps\n"
    )
    for model, alpha, N in WIDE:
        for method, largest in WIDE_LARGEST.items():
            if model.p * N > largest:
                continue
            row = alone(measure_wide, model, alpha, N, method)
            rows.append(row)
            sys.stderr.write(
                f"{model.p:2}, {model.p_star}, {model.a:<8} {alpha:5.2f} {N:5d}  {method:10} "
                f"{row['seconds']:7.2f} {row['cpu_seconds']:7.2f} {row['planned']:8.2f} "
                f"{row['peak_bytes'] / 2**20:19.0f} {row['steps']:6d}"
                + ("\n" if row["converged"] else "  not converged\n")
            )
    return rows


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function called in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def large(sizes: list[int], loads: list[float], methods: list[str]) -> list[dict[str, Any]]:
    """Forms of dice at sizes that no other method reaches; table on standard error."""
    rows = []
    sys.stderr.write(
        "      N alpha  method       seconds    CPU   GiB steps converged ns/number   copy  triad\n"
    )
    for N, alpha, method in itertools.product(sizes, loads, methods):
        row = alone(streams) | alone(measure_large, alpha, N, method)
        rows.append(row)
        sys.stderr.write(
            f"{N:7d} {alpha:5.2f}  {method:12} {row['seconds']:7.1f} {row['cpu_seconds']:6.1f} "
            f"{row['peak_bytes'] / 2**30:5.2f} {row['steps']:5d} {row['converged']!s:>9} "
            f"{row['nanoseconds_per_number']:9.3f} {row['copy']:6.1f} {row['triad']:6.1f}\n"
        )
    return rows


def compare(
    sizes: list[int], widths: list[int], loads: list[float] | None, names: list[str], quick: bool
) -> list[dict[str, Any]]:
    """All contenders, with ``quick`` only near the threshold and for a second; table on standard error."""
    rows: list[dict[str, Any]] = []
    head = f"{'p':>2} {'alpha':>5} {'N':>5}  {'contender':18} {'seconds':>8} {'CPU':>8} {'faster':>7} "
    sys.stderr.write(head + f"{'passes':>7} {'MiB':>7} {'less':>6} {'asked':>9} {'residual':>9}\n")
    for p, N in ((p, N) for p in widths for N in sizes if not quick or p * N <= QUICK_LARGEST):
        for alpha in loads or LOADS[p][: 1 if quick else None]:
            model = next(model for model in MODELS if model.p == p)
            same, base = Asked(*alone(asked, model, alpha, N)), {}
            for name in names:
                if LARGEST.get(name, p * N) < p * N:
                    continue
                row = alone(measure, name, p, alpha, N, same, 1.0 if quick else SECONDS)
                base = base or row
                row["faster"] = base["cpu_seconds"] / row["cpu_seconds"]
                row["less_memory"] = base["peak_bytes"] / row["peak_bytes"]
                rows.append(row)
                sys.stderr.write(
                    f"{p:2d} {alpha:5.2f} {N:5d}  {name:18} {row['seconds']:8.3f} {row['cpu_seconds']:8.3f} "
                    f"{row['faster']:7.2f} {row['passes']:7.0f} {row['peak_bytes'] / 2**20:7.1f} "
                    f"{row['less_memory']:6.1f} {same.residual:9.1e} {row['residual']:9.1e}\n"
                )
    return rows


def main() -> None:
    """Measure, print the ratios, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--large", action="store_true", help="forms of dice, at 1e5 and 1e6")
    parser.add_argument("--forms", nargs="+", default=["dice", "dice_compact"], choices=list(FORMS))
    parser.add_argument(
        "--wide", action="store_true", help="methods for wide students, and their planned time"
    )
    parser.add_argument("--rounding", action="store_true", help="how far 16 bits move a cell")
    parser.add_argument("--quick", action="store_true", help="two minutes: " + ", ".join(QUICK))
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--widths", type=int, nargs="+", default=[int(model.p) for model in MODELS])
    parser.add_argument("--loads", type=float, nargs="+", help="alpha")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    chosen = parser.parse_args()
    if chosen.large:
        rows = large(chosen.sizes or list(LARGE), chosen.loads or list(LOADS[1]), chosen.forms)
    elif chosen.wide:
        rows = wide()
    elif chosen.rounding:
        rows = rounding()
    else:
        if primme is None:
            sys.stderr.write("PRIMME is not there: compared without it\n")
        named = list(QUICK) if chosen.quick and chosen.contenders == list(CONTENDERS) else chosen.contenders
        names = [BASELINE, *(name for name in named if name != BASELINE)]
        sizes = chosen.sizes or list(QUICK_SIZES if chosen.quick else SIZES)
        rows = compare(sizes, chosen.widths, chosen.loads, names, chosen.quick)
    if not chosen.rounding:
        slowest = max(row["seconds"] / row["cpu_seconds"] for row in rows)
        sys.stderr.write(f"wall over CPU seconds: at most {slowest:.2f}")
        sys.stderr.write(": not a quiet run, trust the ratios of CPU\n" if slowest > BUSY else "\n")
    json.dump({"cores": os.cpu_count(), "load": os.getloadavg(), "rows": rows}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
