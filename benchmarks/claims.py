"""Verdicts and powers of a campaign on planted cells, and how often they are right.

    nice python benchmarks/claims.py                            # both files of the paper, before refinement
    python benchmarks/claims.py --met                           # with the errors that they ask for
    python benchmarks/claims.py --replicates 20 --plant width   # how often a false claim is contradicted

Every model of the campaign gets its cells at its own loads, sizes and seeds. N^(1/3) <overlap_sq_space>
follows theory's curve at the critical load that theory expects at these sizes, and theory's overlap at the
same N above the threshold; the lowest eigenvalue has the mean and the spread of theory's law. Cells of
overlap_sq_space have a gamma law. The public analyses read them. ``--plant`` makes one claim false:
``width``, loads that do not depend on the width; ``limit``, loads lowered by a tenth of p_star/2; ``window``,
discontinuous transitions at alpha_bbp; ``edge``, 1/log N at sharp edges; ``overlap``, a fifth more;
``eigenvalue``, no outlier. ``--error`` leaves out the fits and draws each load from a normal law, and
``--met`` does so with the errors that the campaign's [target] asks for.

Printed: for every claim its median power, and the share of replicates with each verdict. The numbers are
written to claims.json beside this file, or to ``--json``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import synthetic

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.laws import lowest_eigenvalue_law, mean_overlap_sq
from bendscape.analysis.estimate.verdicts import landmarks
from bendscape.analysis.findings.claims import Readings, claims_of, readings
from bendscape.analysis.findings.measured_loads import Load
from bendscape.analysis.findings.panels import means
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales
from bendscape.core.quadratic.finite_size.spiked_edge import TRACY_WIDOM_MEAN
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.bulk import left_edge
from bendscape.core.quadratic.theory.outlier import transition
from bendscape.sweep.campaign.file import load_campaign
from bendscape.sweep.campaign.loading import load_kernel

PLANTS = ("none", "width", "limit", "window", "edge", "overlap", "eigenvalue")
KNOTS = 5  # loads of a size at which the laws are evaluated; between them they are interpolated


def wanted(path: Path) -> dict[Model, dict[int, dict[float, int]]]:
    """Seeds of every model, size and load of a campaign."""
    grid = load_campaign(path).to_grid(load_kernel("hessian").axes)
    found: dict[Model, dict[int, dict[float, int]]] = {}
    for N in grid.sizes:
        points, counts = grid.points(N), grid.counts(N).reshape(-1)
        for k in np.flatnonzero(counts).tolist():
            model = Model(int(points["p"][k]), int(points["p_star"][k]), float(points["a"][k]))
            load = round(float(points["alpha"][k]), 12)
            found.setdefault(model, {}).setdefault(N, {})[load] = int(counts[k])
    return found


def seen(model: Model, plant: str) -> float:
    """The critical load planted: alpha_bbp, or alpha_0 of a discontinuous transition."""
    known = landmarks(model).definitions
    kind = transition(model).kind
    place = known["alpha_bbp"]
    if kind == "discontinuous" and plant != "window":
        names = ("alpha_0_principal_value", "alpha_0_complex_re")
        place = next(known[name] for name in names if math.isfinite(known[name]))
    if plant == "width":
        return seen(Model(model.p_star, model.p_star, model.a), "none")
    return place - 0.05 * model.p_star if plant == "limit" else place


def law_at(loads: Floats, of: object) -> Floats:
    """A function of the load at a few of them, interpolated."""
    knots = np.unique(loads[np.linspace(0, len(loads) - 1, KNOTS).round().astype(int)])
    return np.interp(loads, knots, [of(float(x)) for x in knots])  # type: ignore[operator]


def curves(model: Model, N: int, loads: Floats, plant: str) -> tuple[Floats, Floats, Floats]:
    """Mean overlap, and mean and standard deviation of the lowest eigenvalue."""
    critical, at = critical_point(model), transition(model)
    law = law_at(loads, lambda x: mean_overlap_sq(model, x, N)) * (1.2 if plant == "overlap" else 1.0)
    if math.isfinite(critical.amplitude):
        w = (loads - seen(model, plant)) * N ** (1 / 3) / critical.width
        near = critical.amplitude * N ** (-1 / 3) * universal_overlap(w, int(model.p) * model.p_star)
        blend = np.clip((loads / at.alpha_bbp - 1.05) / 0.1, 0.0, 1.0)
        law = (1 - blend) * near + blend * law
    edges = np.array([left_edge(model, load).lambda_minus for load in loads.tolist()])
    gaps = law_at(loads, lambda x: lowest_eigenvalue_law(model, x, N).mean - left_edge(model, x).lambda_minus)
    laws = [edges + gaps, law_at(loads, lambda x: lowest_eigenvalue_law(model, x, N).sd)]
    if plant == "edge":
        for k, load in enumerate(loads.tolist()):
            edge = left_edge(model, load)
            if edge.kind == "sharp" and load < at.alpha_bbp:
                least = lowest_eigenvalue_law(model, load, 256).mean - edge.lambda_minus
                laws[0][k] = edge.lambda_minus + least * math.log(256) / math.log(N)
    if plant == "eigenvalue":
        for k, load in enumerate(loads.tolist()):
            if load > at.alpha_bbp:
                scales = edge_scales(model, load)
                laws[0][k] = scales.lambda_edge
                laws[0][k] += TRACY_WIDOM_MEAN * (scales.softness * float(model.p) * N) ** (-2 / 3)
    return law, laws[0], laws[1]


class Planted:
    """One model of a campaign with its mean curves, from which cells are drawn; and the relative error of its
    load, if that is not to be fitted."""

    def __init__(
        self, model: Model, points: dict[int, dict[float, int]], plant: str, error: float | None
    ) -> None:
        self.model, self.points, self.plant, self.error = model, points, plant, error
        self.alpha_bbp = transition(model).alpha_bbp
        self.loads = np.array(sorted({load for at in points.values() for load in at}))
        most = {N: max(at.values()) for N, at in points.items()}
        self.frame = synthetic.frame((int(model.p),), (model.p_star,), (model.a,), most, alpha=self.loads)
        self.curves = {N: curves(model, N, np.array(sorted(at)), plant) for N, at in points.items()}

    def draw(self, rng: np.random.Generator) -> xr.Dataset:
        """A complete sweep."""
        ds = self.frame.copy(deep=True)
        spread = math.sqrt(1 / (int(self.model.p) * self.model.p_star) + 0.25)  # as sampled, p = 1 to 16
        for k, N in enumerate(sorted(self.points)):
            for j, load in enumerate(sorted(self.points[N])):
                n, i = self.points[N][load], int(np.flatnonzero(self.loads == load)[0])
                overlap, mean, sd = (float(curve[j]) for curve in self.curves[N])
                own = min(spread, 4 * N ** (-1 / 3)) if load > 1.15 * self.alpha_bbp else spread
                cells = overlap * own**2 * rng.gamma(own**-2, 1.0, n)
                values: dict[str, npt.NDArray[np.float64] | float] = {
                    "overlap_sq_space": np.minimum(cells, 1.0),
                    "overlap_sq": np.minimum(cells, 1.0),
                    "eigval_min": mean + sd * rng.standard_normal(n),
                    "edge_sample": rng.standard_normal(n),
                    "alpha_realised": load,
                    "status": 1.0,
                }
                for name, value in values.items():
                    ds[name].values[0, 0, 0, i, k, :n] = value
        return synthetic.with_coverage(ds)


def asked_for(path: Path, model: Model) -> float | None:
    """Relative error of alpha_c that a campaign asks for at a model."""
    target = load_campaign(path).to_target(load_kernel("hessian").axes)
    if target is None:
        return None
    point = {"p": int(model.p), "p_star": model.p_star, "a": model.a}
    precision = target.of(point)
    return None if precision is None else precision.relative


def read(ds: xr.Dataset, error: float | None, plant: str, rng: np.random.Generator) -> Readings:
    """What the claims are judged by, for one model."""
    edge = edge_scaling(ds, prediction=False).compute()
    loads = collapse(ds, least_size=256, n_boot=100).compute()
    found = readings(loads, edge, means(ds).compute())
    if error is None:
        return found
    model = Model(*(ds[name].item() for name in ("p", "p_star", "a")))
    definitions, kind = landmarks(model).definitions, transition(model).kind
    theory, place = seen(model, "none"), seen(model, plant)
    drawn = place * (1 + error * rng.standard_normal())
    head = (int(model.p), model.p_star, model.a, "normal", drawn, error * place, theory)
    load = Load(*head, definitions["alpha_bbp"], kind, kind, math.nan, definitions)
    return found._replace(loads=[load])


def main() -> None:
    """Print the table of powers and verdicts, and write the numbers."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    whole = [here.parent / f"campaigns/{name}.toml" for name in ("paper", "paper-wide", "paper-edges")]
    parser.add_argument("campaigns", nargs="*", type=Path, default=whole)
    parser.add_argument("--replicates", type=int, default=1)
    parser.add_argument("--plant", choices=PLANTS, default="none")
    parser.add_argument("--error", type=float, help="relative error of every critical load")
    parser.add_argument("--met", action="store_true", help="the errors that the campaign's [target] asks for")
    parser.add_argument("--json", type=Path, default=here / "claims.json")
    asked = parser.parse_args()
    planted = []
    for campaign in asked.campaigns:
        for model, points in wanted(campaign).items():
            error = asked_for(campaign, model) if asked.met else asked.error
            planted.append(Planted(model, points, asked.plant, error))
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    powers: dict[str, list[float]] = defaultdict(list)
    for replicate in range(asked.replicates):
        found = Readings([], [], [], [], [])
        for number, each in enumerate(planted):
            rng = np.random.default_rng([20261122, replicate, number])
            found = found + read(each.draw(rng), each.error, asked.plant, rng)
        for claim in claims_of(found):
            verdicts[claim.name][claim.verdict] += 1
            powers[claim.name].append(claim.power)
    print("| claim | median power | verdicts |\n| --- | --- | --- |")
    for name, counted in verdicts.items():
        shares = ", ".join(f"{word} {count}/{asked.replicates}" for word, count in counted.most_common())
        print(f"| {name} | {np.nanmedian([-1.0, *powers[name]][1:] or [math.nan]):.2f} | {shares} |")
    numbers = {
        "plant": asked.plant,
        "error": asked.error,
        "met": asked.met,
        "campaigns": [at.name for at in asked.campaigns],
    }
    asked.json.write_text(json.dumps(numbers | {"powers": powers, "verdicts": verdicts}, indent=1))


if __name__ == "__main__":
    main()
