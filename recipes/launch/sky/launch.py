#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Launch a recipe with SkyPilot: pgrpo.yaml with the recipe's name, its variables that are set here, and arguments.

    python3 recipes/launch/sky/launch.py --nodes 4 --gpus H100:8 [--dry-run] RECIPE [verl's key=value ...]

`--dry-run` prints SkyPilot's command and what each machine would run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import recipe as recipes  # noqa: E402

ROOT = recipes.RECIPES.parent
TASK = HERE / "pgrpo.yaml"


def command(name: str, arguments: list[str], nodes: int | None, gpus: str | None) -> list[str]:
    """Return SkyPilot's command line, to run from the repository's root, which is the task's `workdir`."""
    words = ["sky", "jobs", "launch", "--name", recipes.slug(name)]
    words += ["--num-nodes", str(nodes)] * (nodes is not None) + ["--gpus", gpus or ""] * (gpus is not None)
    for key, value in recipes.remote_environment(name, arguments).items():
        words += ["--env", f"{key}={value}"]
    if os.environ.get("HF_TOKEN"):
        words += ["--secret", "HF_TOKEN"]  # SkyPilot takes the value from the environment
    return [*words, str(TASK.relative_to(ROOT))]


def run_block(
    name: str, arguments: list[str], addresses: list[str], gpus: int, rank: int, **variables: str
) -> tuple[list[str], dict[str, str]]:
    """Return the command and environment with which SkyPilot starts the task's `run` on one machine."""
    script = yaml.safe_load(TASK.read_text(encoding="utf-8"))["run"]
    environment = {
        **os.environ,
        **recipes.remote_environment(name, arguments),
        "SKYPILOT_NODE_IPS": "\n".join(addresses),
        "SKYPILOT_NODE_RANK": str(rank),
        "SKYPILOT_NUM_GPUS_PER_NODE": str(gpus),
        **variables,
    }
    return ["bash", "-c", script], environment


def accelerators(text: str) -> str:
    """NAME or NAME:COUNT."""
    _, colon, count = text.partition(":")
    if colon:
        recipes.positive(count)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=recipes.positive, help="machines (default: as in pgrpo.yaml)")
    parser.add_argument("--gpus", type=accelerators, help="per machine, such as H100:8 (default: as in pgrpo.yaml)")
    parser.add_argument("--dry-run", action="store_true", help="print what would run")
    parser.add_argument("recipe", help="such as personas/run_qwen3_1_7b_fsdp")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="verl's, key=value")
    options = parser.parse_args()
    try:
        words = command(options.recipe, options.arguments, options.nodes, options.gpus)
    except recipes.RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    if not options.dry_run:
        try:
            return subprocess.run(words, cwd=ROOT, check=False).returncode
        except FileNotFoundError:
            print("sky is not installed: pip install skypilot", file=sys.stderr)
            return 2
    print(shlex.join(words), flush=True)
    task = yaml.safe_load(TASK.read_text(encoding="utf-8"))
    count = options.nodes or task["num_nodes"]
    gpus = int((options.gpus or task["resources"]["accelerators"]).partition(":")[2] or 1)
    addresses = [f"machine{rank}" for rank in range(count)]
    for rank in reversed(range(count)):  # the head last, with the recipe's command
        block, environment = run_block(options.recipe, options.arguments, addresses, gpus, rank, DRY_RUN="1")
        status = subprocess.run(block, env=environment, cwd=ROOT, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
