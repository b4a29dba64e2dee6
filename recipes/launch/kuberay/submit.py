#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Submit a recipe to KubeRay: fill in rayjob.yaml and pass it to kubectl.

    python3 recipes/launch/kuberay/submit.py --nodes 4 --image IMAGE [--dry-run] RECIPE [verl's key=value ...]

The variables that the recipe reads and that are set here (ESTIMATOR, MODE, ...) are added to those in the manifest.
`--dry-run` prints the manifest, ready for `kubectl create -f -`, with the head's command in comments.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
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


def manifest(options: argparse.Namespace) -> dict[str, Any]:
    """Return rayjob.yaml with the recipe and the given options; everything else stays as it is there."""
    job = yaml.safe_load((HERE / "rayjob.yaml").read_text(encoding="utf-8"))
    job["metadata"]["generateName"] = (
        f"{recipes.slug(options.recipe)[:40]}-"  # KubeRay appends to it, up to 63 characters
    )
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    if options.nodes is not None:
        workers.update(replicas=options.nodes, minReplicas=options.nodes, maxReplicas=options.nodes)
    variables = recipes.remote_environment(options.recipe, options.arguments)
    variables.pop("NNODES", None)  # the pods are counted instead
    variables.pop("RAY_PORT", None)  # KubeRay sets its own
    ours = {name: {"name": name, "value": value} for name, value in variables.items()}
    for template in (cluster["headGroupSpec"]["template"], workers["template"]):
        container = template["spec"]["containers"][0]  # Ray's, as KubeRay has it; sidecars follow
        container["env"] = list(({entry["name"]: entry for entry in container.get("env") or []} | ours).values())
        if options.image is not None:
            container["image"] = options.image
        for volume in template["spec"]["volumes"]:
            if options.claim is not None and volume["name"] == "storage":
                volume["persistentVolumeClaim"]["claimName"] = options.claim
    worker = workers["template"]["spec"]["containers"][0]
    if options.gpus_per_node is not None:
        worker["resources"]["limits"]["nvidia.com/gpu"] = options.gpus_per_node
    if options.memory is not None:
        for amounts in ("requests", "limits"):
            worker["resources"][amounts]["memory"] = options.memory
    if options.rdma is not None:
        resource, count = options.rdma
        worker["resources"]["limits"][resource] = count
        # RDMA pins memory. setdefault: the manifest may already have a security context.
        capabilities = worker.setdefault("securityContext", {}).setdefault("capabilities", {})
        capabilities["add"] = [*capabilities.get("add", []), "IPC_LOCK"]
    return job


def head_command(options: argparse.Namespace, job: dict[str, Any]) -> str:
    """Return what `run_on_cluster.py --dry-run` would print on the head."""
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    gpus = int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    variables = {entry["name"]: entry["value"] for entry in head["env"] if "value" in entry}
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        run_on_cluster.dry_run(
            options.recipe, options.arguments, workers["replicas"], gpus, Path("/storage"), {**os.environ, **variables}
        )
    return text.getvalue()


def device(text: str) -> tuple[str, int]:
    """RESOURCE=COUNT."""
    name, _, count = text.partition("=")
    if not name:
        raise ValueError
    return name, recipes.positive(count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=recipes.positive, help="worker pods, one a node (default: as in rayjob.yaml)")
    parser.add_argument(
        "--gpus-per-node", type=recipes.positive, help="GPUs per worker pod (default: as in rayjob.yaml)"
    )
    parser.add_argument("--memory", help="memory of a worker pod, such as 1200Gi (default: as in rayjob.yaml)")
    parser.add_argument(
        "--rdma", type=device, help="network devices of a worker pod, RESOURCE=COUNT, such as rdma/ib=8"
    )
    parser.add_argument("--image", help="built from recipes/launch/Dockerfile")
    parser.add_argument("--claim", help="a PersistentVolumeClaim that many pods can write (default: verl-pgrpo)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted")
    parser.add_argument("recipe", help="such as personas/run_qwen3_1_7b_fsdp")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="verl's, key=value")
    options = parser.parse_args()
    try:
        job = manifest(options)
        text = yaml.safe_dump(job, sort_keys=False, width=1000)
        if options.dry_run:
            lines = head_command(options, job).splitlines()
            print("# The head runs, with as many nodes and GPUs as came:\n" + "\n".join(f"# {line}" for line in lines))
            print(text, end="")
            return 0
    except (recipes.RecipeError, ClusterError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return subprocess.run(["kubectl", "create", "-f", "-"], input=text, text=True, check=False).returncode
    except FileNotFoundError:
        print("kubectl is not installed: https://kubernetes.io/docs/tasks/tools", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
