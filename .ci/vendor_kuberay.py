"""Make the schema that manifests are checked against from the CRD of a KubeRay release.

    python .ci/vendor_kuberay.py ray.io_rayjobs.yaml v1.7.0

The file is `helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml` of https://github.com/ray-project/kuberay
(Apache-2.0) at that tag. Descriptions are left out: a hundredth of the size.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

DROPPED = {"description", "x-kubernetes-map-type", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"}


def bare(node: Any, names: bool = False) -> Any:
    """A schema without what says nothing about validity; `names` where the keys are those of an object."""
    if isinstance(node, list):
        return [bare(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: bare(value, key == "properties" and not names)
        for key, value in node.items()
        if names or key not in DROPPED
    }


source, release = sys.argv[1:]
crd = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
schema = bare(next(v for v in crd["spec"]["versions"] if v["name"] == "v1")["schema"]["openAPIV3Schema"])
schema["$comment"] = (
    f"RayJob ray.io/v1 of KubeRay {release}: helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml of "
    "https://github.com/ray-project/kuberay, Apache-2.0, with its descriptions left out"
)
text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
made = Path(__file__).parents[1] / "cluster" / "rayjob.json.gz"
made.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
print(f"{made}: {len(text)} bytes, {made.stat().st_size} compressed")
