"""Thresholds and alpha_0 per second on one core: as a map of models, one model at a time, and the direct way.

    python benchmarks/theory.py

The direct way is the obvious implementation: the averages over y and y^ as nested `scipy.integrate.quad` over
the densities of two chi variables (the square roots of the chi2 ones, which have no singularity at 0), and
`scipy.optimize.brentq` on them. Its tolerance is 1e-9, the two others give 1e-11, and all three must agree to
1e-9. alpha_0, by its three definitions, has no direct way; map and one at a time, for discontinuous models,
must agree to 1e-9. The rates are per CPU second of the process: medians over ROUNDS, but each direct
threshold and each single alpha_0 only once.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
from rich.console import Console
from rich.table import Table
from scipy.integrate import quad
from scipy.optimize import brentq
from threadpoolctl import threadpool_limits

from bendscape.core.errors import unwarned
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.density import bulk_density, density_rule
from bendscape.core.quadratic.theory.maps import transition_map
from bendscape.core.quadratic.theory.outlier import alpha_0, transition

HERE = Path(__file__).parent
ROUNDS = 7
ACCURACY = 1e-9
FLOOR = 1e-11  # absolute error of the averages, which are of order one
REACH = 12.0  # in sqrt(y); less than exp(-72) lies beyond
P, P_STAR = (1, 2, 4, 8), (1, 2)
MIXED = np.geomspace(0.05, 20, 500)
"""Models of both kinds, about equally many: 4000 on (P, P_STAR, MIXED)."""

DIRECT = [Model(1, 1, 0.7), Model(1, 1, 1.5), Model(2, 2, 0.5), Model(8, 2, 4.0)]
"""Two continuous and two discontinuous models for the direct way."""


SPECTRA = [
    (Model(2, 1, 0.7), 2.0),
    (Model(22, 16, 0.7), 688.6),
    (Model(2, 1, 1e-6), 1.0),
    (Model(4, 366, 130.0), 0.047),
    (Model(512, 512, 10.0), 600.0),
]
"""Models whose densities are timed: two ordinary and three difficult ones."""


def direct_alpha_bbp(model: Model) -> float:
    """alpha_bbp by nested quadrature and brentq, independent of the rest of the project."""
    p, p_star, a = int(model.p), model.p_star, model.a

    def density(x: float, dof: int) -> float:
        return 2 * (dof / 2) ** (dof / 2) / math.gamma(dof / 2) * x ** (dof - 1) * math.exp(-dof * x * x / 2)

    def mean(of: Callable[[float, float, float], float]) -> float:
        def over_yhat(x: float) -> float:
            def both_directions(x_hat: float) -> float:
                y, yhat = x * x, x_hat * x_hat
                return density(x_hat, p) * ((p - 1) * of(1.0, y, yhat) + of(3.0, y, yhat)) / p

            return density(x, p_star) * float(
                quad(both_directions, 0, REACH, epsrel=ACCURACY, epsabs=FLOOR)[0]
            )

        return float(quad(over_yhat, 0, REACH, epsrel=ACCURACY, epsabs=FLOOR)[0])

    def F_term(gamma: float, c: float, y: float, yhat: float) -> float:
        return (y - 1) * (c * yhat - y) / (a + (1 - gamma) * y + gamma * c * yhat)

    def psi(gamma: float) -> float:
        def term(c: float, y: float, yhat: float) -> float:
            D = a + (1 - gamma) * y + gamma * c * yhat
            return F_term(gamma, c, y, yhat) + gamma * ((c * yhat - y) / D) ** 2

        return mean(term)

    gamma = 1.0 if psi(1.0) < 0 else float(brentq(psi, 1e-3, 1.0, xtol=ACCURACY, rtol=ACCURACY))
    return -1 / (gamma * mean(lambda c, y, yhat: F_term(gamma, c, y, yhat)))


def rate(count: int, call: Callable[[], object], rounds: int) -> float:
    """Number of calls, times `count`, per CPU second; median of `rounds` after a warm-up call."""
    call()
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return count / statistics.median(seconds)


def main() -> None:
    """Measure, check that all agree, print the table, write theory.json beside this file."""
    found = transition_map(p=P, p_star=P_STAR, a=MIXED).data_vars
    kinds = found["transition"][1]
    continuous = MIXED[(kinds == 0).all(axis=(0, 1))]
    discontinuous = MIXED[(kinds == 1).all(axis=(0, 1))]
    models = [Model(p, p_star, a) for p in P for p_star in P_STAR for a in MIXED[::10]]

    rows: dict[str, float] = {}
    for name, a in (("map", MIXED), ("map, continuous", continuous), ("map, discontinuous", discontinuous)):
        a = np.geomspace(a[0], a[-1], 500)
        count = len(P) * len(P_STAR) * len(a)
        rows[name] = rate(count, lambda a=a: transition_map(p=P, p_star=P_STAR, a=a), ROUNDS)
    rows["one at a time"] = rate(len(models), lambda: [transition(model) for model in models], ROUNDS)

    wide = np.geomspace(discontinuous[0], discontinuous[-1], 500)
    few = wide[::100]
    rows["alpha_0, map"] = rate(
        len(P) * len(P_STAR) * len(wide),
        lambda: transition_map(p=P, p_star=P_STAR, a=wide, alpha_0=True),
        ROUNDS,
    )
    of_few = [Model(p, p_star, a) for p in P for p_star in P_STAR for a in few]
    with unwarned():
        rows["alpha_0, one at a time"] = rate(len(of_few), lambda: [alpha_0(model) for model in of_few], 1)
        one_by_one = np.array([alpha_0(model)[:4] for model in of_few]).T
    at_once = transition_map(p=P, p_star=P_STAR, a=few, alpha_0=True).data_vars
    for name, values in zip(("principal_value", "tangent", "complex_re"), one_by_one, strict=False):
        apart = abs(at_once[f"alpha_0_{name}"][1].ravel() - values) / abs(values)
        if not (apart[~np.isnan(values)] <= ACCURACY).all():
            raise SystemExit(f"map and scalar {name} of alpha_0 differ by {np.nanmax(apart):.1e}")

    seconds, worst = [], 0.0
    for model in DIRECT:
        started = time.process_time()
        slow = direct_alpha_bbp(model)
        seconds.append(time.process_time() - started)
        fast = transition_map(p=model.p, p_star=model.p_star, a=model.a).data_vars["alpha_bbp"][1].item()
        one = transition(model).alpha_bbp
        worst = max(worst, abs(fast / slow - 1), abs(one / slow - 1))
    rows["direct"] = len(DIRECT) / sum(seconds)
    if worst > ACCURACY:
        raise SystemExit(f"the ways differ by {worst:.1e}, more than {ACCURACY:g}")

    spectra: dict[str, dict[str, float]] = {}
    for model, alpha in SPECTRA:
        with unwarned():
            started = time.process_time()
            rule = density_rule(model, alpha)
            of_rule = time.process_time() - started
            grid = np.linspace(rule.grid[0], rule.grid[-1], 401)
            started = time.process_time()
            bulk_density(model, alpha, grid[grid != 0])
            of_grid = time.process_time() - started
        missed = abs(float(rule.weights @ rule.density.rho) + rule.density.atom - 1)
        spectra[f"{model}, alpha = {alpha:g}"] = {
            "seconds_400_points": of_grid,
            "seconds_rule": of_rule,
            "mass_error": missed,
        }
        Console().print(
            f"density of {model}, alpha = {alpha:g}: {of_grid:.2f} s for 400 points, "
            f"{of_rule:.2f} s for a rule of unit mass, which misses {missed:.0e}"
        )

    table = Table("way", "a CPU second", "times the direct way")
    for name, value in rows.items():
        times = "" if name.startswith("alpha_0") else f"{value / rows['direct']:,.0f}"
        table.add_row(name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}", times)
    Console().print(table)
    Console().print(
        f"{len(found['alpha_bbp'][1].ravel())} models, {(kinds == 0).mean():.0%} continuous; "
        f"largest relative difference from the direct way {worst:.1e}; "
        f"alpha_0 by map {rows['alpha_0, map'] / rows['alpha_0, one at a time']:.0f} times one at a time"
    )
    document = {
        "machine": {
            "cpu": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "thresholds_per_cpu_second": rows,
        "ratio": rows["map"] / rows["direct"],
        "ratio_alpha_0": rows["alpha_0, map"] / rows["alpha_0, one at a time"],
        "largest_relative_difference": worst,
        "spectra": spectra,
    }
    (HERE / "theory.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
