"""Descent: evaluations at equal error, time of an evaluation, and whole runs without the data.

    python benchmarks/descent.py                  # N = 512 to 2048, and N = 1e4 without the data (minutes)
    python benchmarks/descent.py --sizes 512      # less; without a size, only data revealed along the path
    python benchmarks/descent.py --large          # N = 1e5 too (minutes, 1.5 GiB)
    python benchmarks/descent.py --huge           # and at N = 1e6, rel = 1e-3 (an hour, 12 GiB)

p = p* = 1, a = 0.01, alpha = 4. Times are CPU seconds of one process with one BLAS thread, because the
machine may be shared; ratios come from this run alone.

Equal error: the path to t = 10 on explicit data, by the stabilised method at its default tolerance and by
scipy's RK45 on the same force. RK45 gets the loosest of a series of tolerances at which its error against a
path at 1e-7 (largest |dw|/sqrt(N) over the recorded times) is not larger.

Revealed: to recovery (squared overlap 0.9) or t = 50, each in its own process; peak resident memory includes
the 100 MiB of Python. "explicit" is the time of the same number of evaluations with explicit data in single
precision, measured on a few.

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
from bendscape.core.quadratic.descent.flow import TOLERANCE, gradient_flow
from bendscape.core.quadratic.descent.landscape import RECOVERED
from bendscape.core.quadratic.descent.revealed import RevealedData, revealed_bytes

MODEL, ALPHA = Model(1, 1, 0.01), 4.0
TIMES = (0.1, 0.3, 1.0, 3.0, 10.0)
EXPLICIT_EVALUATIONS = 10


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return call(), time.process_time() - start


def equal_error(N: int) -> list[dict[str, Any]]:
    """Every method at the error of the stabilised one."""
    instance = sample_instance(MODEL, ALPHA, N, np.random.default_rng(N))
    data, single = ExplicitData(instance), ExplicitData(instance, "float32")
    exact = np.array(gradient_flow(data, TIMES, lambda m: m.w[0], tolerance=1e-7).seen)

    def error(path: Iterable[Any]) -> float:
        return max(float(np.linalg.norm(w - x)) / math.sqrt(N) for w, x in zip(path, exact, strict=True))

    rows = []
    for name, which in (("stabilised", data), ("stabilised, float32", single)):
        path, seconds = timed(lambda which=which: gradient_flow(which, TIMES, lambda m: m.w[0]))  # type: ignore[misc]
        rows.append(row(N, name, TOLERANCE, path.evaluations, seconds, error(path.seen)))
    allowed = rows[0]["error"]

    def force(_: float, w: Any) -> Any:
        return data.evaluate(w[np.newaxis]).force[0]

    for tolerance in (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5):
        # an absolute tolerance for components of order 1
        solved, seconds = timed(
            lambda tolerance=tolerance: solve_ivp(  # type: ignore[misc]
                force, (0, TIMES[-1]), data.students[0], "RK45", TIMES, rtol=1e-12, atol=tolerance
            )
        )
        if error(solved.y.T) <= allowed:
            break
    rows.append(row(N, "RK45", tolerance, solved.nfev, seconds, error(solved.y.T)))
    for found in rows:
        found["evaluations_ratio"] = found["evaluations"] / rows[0]["evaluations"]
        found["cpu_ratio"] = found["cpu_s"] / rows[0]["cpu_s"]
    return rows


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


def revealed(N: int, rel: float, seed: int, explicit: bool) -> dict[str, Any]:
    """One run to recovery without the data."""
    with threadpool_limits(1):
        data, drawn = timed(lambda: RevealedData(MODEL, ALPHA, N, np.random.default_rng(seed), rel=rel))
        path, seconds = timed(
            lambda: gradient_flow(
                data, [50.0], lambda m: None, until=lambda m: m.overlaps.alignment > RECOVERED
            )
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {
            "N": N,
            "rel": rel,
            "stopped": path.stopped,
            "time": path.end.time,
            "overlap_sq": path.end.overlaps.alignment,
            "evaluations": path.evaluations,
            "directions": data.directions,
            "dropped": data.data.dropped,
            "cpu_s": drawn + seconds,
            "peak_gib": peak / 2**30,
            "estimate_gib": revealed_bytes(MODEL, ALPHA, N, data.directions) / 2**30,
        }
        if N <= 100_000:
            found["orthogonality"] = data.orthogonality()
        if explicit:
            del data, path
            instance = sample_instance(MODEL, ALPHA, N, np.random.default_rng(0), precision="float32")
            there = ExplicitData(instance, "float32")
            there.evaluate(there.students)
            _, some = timed(lambda: [there.evaluate(there.students) for _ in range(EXPLICIT_EVALUATIONS)])
            found["explicit_cpu_s"] = some / EXPLICIT_EVALUATIONS * found["evaluations"]
            found["faster"] = found["explicit_cpu_s"] / found["cpu_s"]
    return found


def show(rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for found in rows for name in found))
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names), file=sys.stderr)
    for found in rows:
        cells = [found.get(name, "") for name in names]
        print(
            "| " + " | ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in cells) + " |",
            file=sys.stderr,
        )
    print(file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--huge", action="store_true")
    chosen = parser.parse_args()
    explicit: list[dict[str, Any]] = []
    for N in chosen.sizes:
        with threadpool_limits(1):
            found = equal_error(N)
        show(found)
        explicit += found
    runs = [(10_000, 0.0, 1, True), (10_000, 1e-3, 1, False)]
    runs += [(100_000, 0.0, 1, False), (100_000, 1e-3, 1, False)] if chosen.large or chosen.huge else []
    runs += [(1_000_000, 1e-3, 1, False)] if chosen.huge else []
    without = []
    for run in runs:
        with multiprocessing.get_context("spawn").Pool(
            1
        ) as pool:  # a process of its own, for its peak of memory
            without.append(pool.apply(revealed, run))
    show(without)
    json.dump({"equal_error": explicit, "revealed": without}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
