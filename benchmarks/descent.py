"""Descent: evaluations at equal error, time of an evaluation, and whole runs without the data.

    python benchmarks/descent.py                  # N = 512 to 2048, and N = 1e4 without the data (minutes)
    python benchmarks/descent.py --sizes 512      # less; without a size, only data revealed along the path
    python benchmarks/descent.py --large          # N = 1e5 too (minutes, 1.5 GiB)
    python benchmarks/descent.py --huge           # N = 1e6 alone, as far as 15 minutes and 12 GiB go
    python benchmarks/descent.py --tolerances     # the error against the flow alone (two minutes)

p = p* = 1, a = 0.01, and alpha = 4 where nothing else is said. Times are CPU seconds of one process with one
BLAS thread, because the machine may be shared; ratios come from this run alone.

Equal error: the path to t = 100 on explicit data, by the stabilised method at its default tolerance and by
scipy's RK45 and BDF on the same force. These get the loosest of a series of tolerances, two a decade from
1e-2, at which their error against a path at 1e-7 (largest |dw|/sqrt(N) over the recorded times) is not
larger. BDF finds its Jacobian by differences, N evaluations each, and runs at the smallest size alone.
Fixed steps (Euler, and the classical Runge-Kutta method of fourth order) are the longest that are stable at
the start, 1.9 and 2.7 over the largest eigenvalue; they are followed to t = 1 at the smallest size, and
``evaluations`` is what t = 100 would take. PyTorch, where it is installed, evaluates the same force by
automatic differentiation, and is compared an evaluation.

Revealed: to recovery (squared overlap 0.9) or t = 50, each in its own process; peak resident memory includes
the 100 MiB of Python. "explicit" is the time of the same number of evaluations with explicit data in single
precision, measured on a few. N = 1e6 is at alpha = 4.6, where recovery is quick, with limits of time and of
address space; ``stopped`` says what ended the path, and the rest how far it came.

Tolerances: paths of ten cells at N = 400 to t = 100 against those at a tolerance of 1e-7; the error is again
the largest over the recorded times.

One JSON document is written to standard output, the tables to standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from threadpoolctl import threadpool_limits

from bendscape.core import Model, sample_instance
from bendscape.core.quadratic.descent.explicit import ExplicitData
from bendscape.core.quadratic.descent.flow import TOLERANCE, Moment, gradient_flow
from bendscape.core.quadratic.descent.landscape import RECOVERED, retracted
from bendscape.core.quadratic.descent.own_labels import right_edge
from bendscape.core.quadratic.descent.revealed import RevealedData, revealed_bytes

MODEL, ALPHA, ALPHA_HUGE = Model(1, 1, 0.01), 4.0, 4.6
GIB = 12.0
TIMES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SHORT = TIMES[:3]
EXPLICIT_EVALUATIONS = 10


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return call(), time.process_time() - start


def equal_error(N: int, smallest: bool) -> list[dict[str, Any]]:
    """Every method at the error of the stabilised one."""
    instance = sample_instance(MODEL, ALPHA, N, np.random.default_rng(N))
    in_single = sample_instance(MODEL, ALPHA, N, np.random.default_rng(N), precision="float32")
    data, single = ExplicitData(instance), ExplicitData(in_single, "float32")
    exact = np.array(gradient_flow(data, TIMES, lambda m: m.w[0], tolerance=1e-7).seen)

    def error(path: Iterable[Any]) -> float:
        return max(float(np.linalg.norm(w - x)) / math.sqrt(N) for w, x in zip(path, exact, strict=False))

    rows = []
    for name, which in (("stabilised", data), ("stabilised, float32", single)):
        path, seconds = timed(lambda which=which: gradient_flow(which, TIMES, lambda m: m.w[0]))  # type: ignore[misc]
        rows.append(row(N, name, TOLERANCE, path.evaluations, seconds, error(path.seen)))
    allowed = rows[0]["error"]
    for method in ("RK45", "BDF") if smallest else ("RK45",):
        rows.append(of_scipy(data, N, method, error, allowed))
    if smallest:
        rows += [fixed_steps(data, N, name, error) for name in ("Euler", "RK4")]
    rows += of_torch(instance, N)
    for found in rows:
        found["evaluations_ratio"] = found["evaluations"] / rows[0]["evaluations"]
        found["cpu_ratio"] = found["cpu_s"] / rows[0]["cpu_s"]
        found["evaluation_ratio"] = found["ms_an_evaluation"] / rows[0]["ms_an_evaluation"]
    return rows


def of_scipy(
    data: ExplicitData, N: int, method: str, error: Callable[[Any], float], allowed: float
) -> dict[str, Any]:
    """A method of scipy at the loosest tolerance that is as accurate, or the best of the series."""
    count = 0

    def force(_: float, w: Any) -> Any:
        nonlocal count
        count += 1
        return data.evaluate(w[np.newaxis]).force[0]

    for tolerance in 10.0 ** np.arange(-2.0, -6.0, -0.5):
        count = 0
        # an absolute tolerance for components of order 1
        solved, seconds = timed(
            lambda tolerance=tolerance: solve_ivp(  # type: ignore[misc]
                force, (0, TIMES[-1]), data.students[0], method, TIMES, rtol=1e-12, atol=tolerance
            )
        )
        if (off := error(solved.y.T)) <= allowed:
            break
    return row(N, method, tolerance, count, seconds, off)


def fixed_steps(data: ExplicitData, N: int, name: str, error: Callable[[Any], float]) -> dict[str, Any]:
    """Steps of one length, the longest that is stable at the start, to t = 1."""
    start = data.evaluate(data.students)
    radius = right_edge(MODEL, N, data.y, start.yhat) - float(start.multiplier.min())
    stages, reach = (1, 1.9) if name == "Euler" else (4, 2.7)

    def force(w: Any) -> Any:
        return data.evaluate(w).force

    def follow() -> list[Any]:
        w, seen, t = data.students, [], 0.0
        for until in SHORT:
            n = math.ceil((until - t) * radius / reach)
            h = (until - t) / n
            for _ in range(n):
                k = force(w)
                if stages == 4:
                    k2 = force(w + h / 2 * k)
                    k3 = force(w + h / 2 * k2)
                    k = (k + 2 * k2 + 2 * k3 + force(w + h * k3)) / 6
                w = retracted(w + h * k, N)
            t = until
            seen.append(w[0])
        return seen

    path, seconds = timed(follow)
    longer = TIMES[-1] / SHORT[-1]
    evaluations = round(stages * SHORT[-1] * radius / reach * longer)
    return row(N, f"{name}, to t = 1", reach / radius, evaluations, seconds * longer, error(path))


def of_torch(instance: Any, N: int) -> list[dict[str, Any]]:
    """An evaluation by automatic differentiation."""
    try:
        import torch
    except ImportError:
        return []
    torch.set_num_threads(1)
    X = torch.from_numpy(np.ascontiguousarray(instance.inputs))
    y = torch.from_numpy(np.ascontiguousarray(instance.y))
    w = torch.from_numpy(np.array(instance.students[0], dtype=np.float64)).requires_grad_()

    def evaluate() -> None:
        w.grad = None
        output = (X @ w / math.sqrt(N)) ** 2
        (0.5 * ((y - output) ** 2 / (MODEL.a + y)).sum()).backward()

    evaluate()
    _, seconds = timed(lambda: [evaluate() for _ in range(EXPLICIT_EVALUATIONS)])
    return [row(N, "PyTorch, evaluations alone", 0.0, EXPLICIT_EVALUATIONS, seconds, math.nan)]


def row(N: int, name: str, setting: float, evaluations: int, seconds: float, error: float) -> dict[str, Any]:
    return {
        "N": N,
        "method": name,
        "setting": setting,
        "evaluations": evaluations,
        "cpu_s": seconds,
        "ms_an_evaluation": 1e3 * seconds / evaluations,
        "error": error,
    }


def tolerances(N: int = 400, cells: int = 10) -> list[dict[str, Any]]:
    """Error against the flow, and evaluations."""
    rows = []
    for alpha in (ALPHA, 2.5):
        found: dict[float, list[tuple[int, float]]] = {
            10**-2.0: [],
            TOLERANCE: [],
            10**-3.0: [],
            10**-4.0: [],
        }
        for seed in range(cells):
            data = ExplicitData(sample_instance(MODEL, alpha, N, np.random.default_rng(seed)))
            exact = gradient_flow(data, TIMES, lambda m: m.w[0], tolerance=1e-7).seen
            for tolerance, of_cells in found.items():
                path = gradient_flow(data, TIMES, lambda m: m.w[0], tolerance=tolerance)
                errors = np.linalg.norm(np.array(path.seen) - np.array(exact), axis=1) / math.sqrt(N)
                of_cells.append((path.evaluations, float(errors.max())))
        for tolerance, of_cells in found.items():
            evaluations, errors = np.array(of_cells).T
            rows.append(
                {
                    "alpha": alpha,
                    "tolerance": tolerance,
                    "evaluations, median": int(np.median(evaluations)),
                    "error, median": float(np.median(errors)),
                    "error, largest": float(errors.max()),
                }
            )
    return rows


def revealed(
    N: int, rel: float, seed: int, explicit: bool, alpha: float = ALPHA, limit: float = math.inf
) -> dict[str, Any]:
    """One run to recovery without the data, or to its limits."""
    if math.isfinite(limit):
        resource.setrlimit(resource.RLIMIT_AS, (int(GIB * 2**30),) * 2)
    start, began, last = time.process_time(), time.monotonic(), None

    def ended(moment: Moment) -> bool:
        nonlocal last
        last = moment
        return time.monotonic() - began > limit or moment.overlaps.alignment > RECOVERED

    with threadpool_limits(1):
        data = RevealedData(MODEL, alpha, N, np.random.default_rng(seed), rel=rel)
        try:
            path = gradient_flow(data, [50.0], lambda m: None, until=ended)
            end, stopped = path.end, path.stopped
        except MemoryError:
            assert last is not None
            end, stopped = last, "memory"
        seconds = time.process_time() - start
        if stopped == "asked" and end.overlaps.alignment <= RECOVERED:
            stopped = "seconds"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {
            "N": N,
            "alpha": alpha,
            "rel": rel,
            "stopped": stopped,
            "time": end.time,
            "overlap_sq": end.overlaps.alignment,
            "loss": end.here.loss,
            "evaluations": data.directions + data.data.dropped - 2,  # each reveals one direction or drops it
            "directions": data.directions,
            "dropped": data.data.dropped,
            "cpu_s": seconds,
            "elapsed_s": time.monotonic() - began,
            "peak_gib": peak / 2**30,
            "estimate_gib": revealed_bytes(MODEL, alpha, N, data.directions) / 2**30,
        }
        if N <= 100_000:
            found["orthogonality"] = data.orthogonality()
        if explicit:
            del data, path, last, end
            instance = sample_instance(MODEL, alpha, N, np.random.default_rng(0), precision="float32")
            there = ExplicitData(instance, "float32")
            there.evaluate(there.students)
            _, some = timed(lambda: [there.evaluate(there.students) for _ in range(EXPLICIT_EVALUATIONS)])
            found["explicit_cpu_s"] = some / EXPLICIT_EVALUATIONS * found["evaluations"]
            found["faster"] = found["explicit_cpu_s"] / found["cpu_s"]
    return found


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table with a row for each of the runs; of runs with many numbers, a column for each."""
    names = list(dict.fromkeys(name for found in rows for name in found))
    values = [[found.get(name, "") for name in names] for found in rows]
    table = [names, *([f"{x:.3g}" if isinstance(x, float) else str(x) for x in row] for row in values)]
    if len(names) > 8:
        table = list(map(list, zip(*table, strict=True)))
    table.insert(1, ["---"] * len(table[0]))
    for cells in table:
        print("| " + " | ".join(cells) + " |", file=sys.stderr)
    print(file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--huge", action="store_true")
    parser.add_argument("--rel", type=float, default=0.0, help="of --huge")
    parser.add_argument("--seconds", type=float, default=900.0, help="of --huge")
    parser.add_argument("--tolerances", action="store_true")
    chosen = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    if chosen.tolerances:
        with threadpool_limits(1):
            found["tolerances"] = tolerances()
    elif chosen.huge:
        found["revealed"] = [alone(1_000_000, chosen.rel, 1, False, ALPHA_HUGE, chosen.seconds)]
    else:
        with threadpool_limits(1):
            found["equal_error"] = []
            for N in chosen.sizes:
                found["equal_error"] += equal_error(N, min(chosen.sizes) == N)
        found["revealed"] = [alone(10_000, 0.0, 1, True), alone(10_000, 1e-3, 1, False)]
        if chosen.large:
            found["revealed"] += [alone(100_000, rel, 1, False) for rel in (0.0, 1e-3)]
    for rows in found.values():
        show(rows)
    json.dump(found, sys.stdout, indent=1)


def alone(*run: Any) -> dict[str, Any]:
    """A run in a process of its own, for its peak of memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(revealed, run)


if __name__ == "__main__":
    main()
