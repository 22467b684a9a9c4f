"""Results of ``analysis/estimate/collapse.py`` on sampled Hessians; for coverage see ``coverage.py``.

    python benchmarks/collapse.py              # diagonalised and dice cells (an hour; stored in .npz files)

Seeds are fixed, with one stream for each cell. Printed for each estimator and smallest size: the estimate,
its interval and systematic error, chi^2, flag, answer, kind, and the distances from theory's loads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import synthetic
import xarray as xr

from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.collapse_fits import ESTIMATORS, FLAGS
from bendscape.analysis.estimate.verdicts import ANSWERS, KINDS, landmarks
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.observe import observe

CONTINUOUS, DISCONTINUOUS = Model(1, 1, 0.7), Model(1, 1, 1.5)
SAMPLED: dict[Model, tuple[float, float, int, dict[int, int]]] = {  # loads, then seeds by size
    CONTINUOUS: (0.6, 1.8, 25, {128: 400, 256: 400, 512: 240, 1024: 160}),
    DISCONTINUOUS: (0.6, 1.8, 25, {128: 400, 256: 400, 512: 240, 1024: 160, 2048: 100}),
    Model(2, 1, 1.5): (0.55, 1.45, 19, {128: 200, 256: 240, 512: 160}),
}


def sampled(model: Model, folder: Path) -> xr.Dataset:
    """A sweep of sampled Hessians, with the cells of each size cached in a file."""
    first, last, count, sizes = SAMPLED[model]
    loads = np.round(np.linspace(first, last, count), 12)
    ds = synthetic.frame((int(model.p),), (model.p_star,), (model.a,), sizes, alpha=loads)
    for k, (N, seeds) in enumerate(sizes.items()):
        path = folder / f"collapse-{model.p}-{model.p_star}-{model.a}-{N}.npz"
        if not path.exists():
            cells = np.full((3, count, seeds), np.nan)
            for i, seed in np.ndindex(count, seeds):
                point = (int(model.p), model.p_star, round(100 * model.a), N, i, seed, 7)
                at = observe(model, float(loads[i]), N, np.random.default_rng(point))
                cells[:, i, seed] = at.overlap_sq_space, at.alpha_realised, at.converged
            np.savez(path, cells=cells)
        overlap, realised, converged = np.load(path)["cells"]
        for name, values in (("overlap_sq_space", overlap), ("alpha_realised", realised)):
            ds[name].values[0, 0, 0, :, k, :seeds] = values
        for name in ("eigval_min", "edge_sample"):
            ds[name].values[0, 0, 0, :, k, :seeds] = 0.0
        ds["status"].values[0, 0, 0, :, k, :seeds] = np.where(converged == 1, 1, 3)
    return ds


def report(model: Model, ds: xr.Dataset, least_size: int) -> None:
    """Print every estimate of one sampled sweep."""
    at = collapse(ds, least_size=least_size).isel(p=0, p_star=0, a=0)
    print(
        f"({model.p}, {model.p_star}, {model.a}) N {at.smallest_size.item():g} to {at.largest_size.item():g}"
    )
    print(
        "  theory " + " ".join(f"{name} {value:.4f}" for name, value in landmarks(model).definitions.items())
    )
    slope, error = at["overlap_exponent_at_bbp"].item(), at["overlap_exponent_at_bbp_error"].item()
    print(f"  overlap at alpha_bbp falls like N^{slope:.3f}({1000 * error:.0f})")
    for name in ESTIMATORS:
        of = at.sel(estimator=name)
        value, low, high, systematic, chi2, dof, probability = (
            of[key].item()
            for key in (
                "alpha_c",
                "alpha_c_low",
                "alpha_c_high",
                "alpha_c_systematic",
                "chi2",
                "dof",
                "probability_discontinuous",
            )
        )
        words = [
            tuple(meanings)[of[key].item()]
            for key, meanings in (("flag", FLAGS), ("answer", ANSWERS), ("kind_from_data", KINDS))
        ]
        print(
            f"  {name:13s} {value:.4f} [{low:.3f}, {high:.3f}] systematic {systematic:.3f} chi2 {chi2:.1f}/"
            f"{dof:.0f} {'; '.join(words)} {probability:.3f}; distances {of.distance.values.round(1)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build"))
    options = parser.parse_args()
    with threadpool_limits(1):
        for model in SAMPLED:
            ds = sampled(model, options.folder)
            for least_size in (0, 256):
                report(model, ds, least_size)


if __name__ == "__main__":
    main()
