"""What the README's first command must leave behind: a complete store, the table it printed, the report."""

import re
import sys
from pathlib import Path

import xarray as xr

output, page = Path(sys.argv[1]).read_text(), Path("figure-1.html").read_text()
with xr.open_dataset("runs/figure-1.zarr", engine="bendscape", chunks={}) as ds:
    wanted = ds.sizes["a"] * ds.sizes["alpha_factor"] * 40  # 24 seeds at N = 128, 16 at 256
    done = int((ds.status == 1).sum())
    models = [f"{a:g}" for a in ds["a"].values]
    thresholds = [float(alpha) for alpha in ds["alpha_bbp"].values.ravel()]
assert done == wanted == 1680, f"{done} cells are done, of {wanted}"
assert "Thresholds figure-1" in output, f"the output has no table:\n{output}"
for a, alpha_bbp in zip(models, thresholds, strict=True):
    assert re.search(rf"1\s+1\s+{re.escape(a)}\s.*{alpha_bbp:.6f}", output), f"no row for a = {a}:\n{output}"
    assert f"{alpha_bbp:.4f}" in page, f"the report does not name alpha_bbp = {alpha_bbp} of a = {a}"
for wanted_text in ("<title>", "figure-1", "Plotly.react("):
    assert wanted_text in page, f"the report lacks {wanted_text}"
print(f"the first command: {done} cells, a table of {len(models)} models, a report of {len(page) >> 20} MB")
