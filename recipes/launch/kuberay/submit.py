#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Any recipe on KubeRay: fill in rayjob.yaml and give it to kubectl.

    python3 recipes/launch/kuberay/submit.py --nodes 4 --image IMAGE [--dry-run] RECIPE [verl's key=value ...]

The variables that the recipe reads and that are set here (ESTIMATOR, MODE, ...) go with it. `--dry-run` prints the
manifest, ready for `kubectl create -f -`, and as its comments the command that the head would run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import recipe as recipes  # noqa: E402
import run_on_cluster  # noqa: E402
from nodes import ClusterError  # noqa: E402


def manifest(
    name: str, arguments: list[str], nodes: int | None, gpus: int | None, image: str | None, claim: str | None
) -> dict[str, Any]:
    """rayjob.yaml for this recipe; what is None stays as it is there."""
    job = yaml.safe_load((HERE / "rayjob.yaml").read_text(encoding="utf-8"))
    job["metadata"]["generateName"] = f"{recipes.slug(name)[:40]}-"  # KubeRay adds to it, up to 63 characters
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    if nodes is not None:
        workers.update(replicas=nodes, minReplicas=nodes, maxReplicas=nodes)
    environment = recipes.environment_of(name, arguments)
    environment.pop("NNODES", None)  # the pods are counted, not what was meant for another launcher
    for template in (cluster["headGroupSpec"]["template"], workers["template"]):
        (container,) = template["spec"]["containers"]
        container["env"] = [{"name": key, "value": value} for key, value in environment.items()]
        if image is not None:
            container["image"] = image
        if claim is not None:
            template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = claim
    if gpus is not None:
        workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = gpus
    return job


def command(name: str, arguments: list[str], job: dict[str, Any]) -> str:
    """What the head would run, as `run_on_cluster.py --dry-run` prints it."""
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    per_node = int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        run_on_cluster.dry_run(name, arguments, workers["replicas"], per_node, Path("/storage"))
    return text.getvalue()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--nodes", type=positive, help="worker pods, each on a node of its own; default: as in rayjob.yaml"
    )
    parser.add_argument("--gpus-per-node", type=positive, help="GPUs of a worker pod; default: as in rayjob.yaml")
    parser.add_argument("--image", help="with verl, vLLM, this package, and this repository in /opt/verl-pgrpo")
    parser.add_argument("--claim", help="a PersistentVolumeClaim that many pods can write; default: verl-pgrpo")
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted")
    parser.add_argument("recipe", help="such as personas/run_qwen3_1_7b_fsdp")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="verl's, key=value")
    options = parser.parse_args()
    try:
        job = manifest(
            options.recipe, options.arguments, options.nodes, options.gpus_per_node, options.image, options.claim
        )
        text = yaml.safe_dump(job, sort_keys=False, width=1000)
        if options.dry_run:
            lines = command(options.recipe, options.arguments, job).splitlines()
            print("# The head runs, with as many nodes and GPUs as came:\n" + "\n".join(f"# {line}" for line in lines))
            print(text, end="")
            return 0
    except (recipes.RecipeError, ClusterError) as error:
        print(error, file=sys.stderr)
        return 2
    return subprocess.run(["kubectl", "create", "-f", "-"], input=text, text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
