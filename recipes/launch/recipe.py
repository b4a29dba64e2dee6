#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes by name: list them, collect the variables they read, and record the command they run.

    python3 recipes/launch/recipe.py slug personas/run_tiny_cpu                  # a job name
    python3 recipes/launch/recipe.py environment personas/run_tiny_cpu a.b=c     # JSON for a remote run

Standard library only: this also runs on submit hosts without verl.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[1]
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*):?-")
# Of run_on_cluster.py and node.sh.
_LAUNCH_VARIABLES = {"DIRECTORY", "JOIN_LIMIT", "NGPUS_PER_NODE", "NNODES", "RAY_PORT", "STALL_LIMIT"}
_LOCAL_VARIABLES = {"LAUNCH", "PYTHON"}  # programs of the submit host


class RecipeError(ValueError):
    """The user named or configured a recipe wrongly. The message says how to correct it."""


def names() -> list[str]:
    """Return all recipes, such as `personas/run_qwen3_1_7b_fsdp` for recipes/personas/run_qwen3_1_7b_fsdp.sh."""
    return sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.glob("*/run_*.sh"))


def script(name: str) -> Path:
    """Return a recipe's script, given its name or path.

    Raises:
        RecipeError: no such recipe.
    """
    short = name.removesuffix(".sh").removeprefix("./").removeprefix("recipes/")
    if short not in names():
        near = difflib.get_close_matches(short, names(), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise RecipeError("\n  ".join([f"There is no recipe {name!r}.{hint} The recipes are:", *names()]))
    return RECIPES / f"{short}.sh"


def is_cpu(name: str) -> bool:
    """Return whether the recipe trains on the CPU (to try a cluster without GPUs)."""
    return script(name).stem.endswith("_cpu")


def slug(name: str) -> str:
    """Return a recipe's name as schedulers accept it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", str(script(name).relative_to(RECIPES).with_suffix("")).lower())


def variables(name: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of `environment` that the recipe reads."""
    path = script(name)
    # Scripts of the same name: one task's may be sourced by another's.
    files = [*RECIPES.glob(f"*/{path.name}"), *RECIPES.glob("_*.sh"), *path.parent.glob("task.sh")]
    read = {match for file in files for match in _VARIABLE.findall(file.read_text(encoding="utf-8"))}
    read = (read | _LAUNCH_VARIABLES) - _LOCAL_VARIABLES
    return {key: environment[key] for key in sorted(read) if key in environment}


def positive(text: str) -> int:
    """Parse an option that is an integer >= 1."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def remote_environment(name: str, arguments: Sequence[str]) -> dict[str, str]:
    """Return the environment in which `run_on_cluster.py` on another machine runs what would run here."""
    _reject_late_dry_run(arguments)
    return {**variables(name), "RECIPE": name, "ARGUMENTS": json.dumps(list(arguments))}


def _reject_late_dry_run(arguments: Sequence[str]) -> None:
    if "--dry-run" in arguments:  # after the recipe's name it would be an argument of verl's, and the run a real one
        raise RecipeError("--dry-run goes before the recipe's name; nothing was started")


def record(name: str | Path, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the command that a recipe runs, without running it.

    Runs the script with stubs for `python3` and `mkdir` first on PATH. It sees `environment` and nothing else.

    Raises:
        RecipeError: no such recipe, or the script failed.
    """
    _reject_late_dry_run(arguments)
    path = name if isinstance(name, Path) else script(name)
    environment = environment or {}
    with tempfile.TemporaryDirectory() as folder:
        argv = Path(folder) / "argv"
        for stub, line in (("python3", f"printf '%s\\0' \"$@\" > '{argv}'"), ("mkdir", ":")):
            (Path(folder) / stub).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
            (Path(folder) / stub).chmod(0o755)
        search = f"{folder}:{environment.get('PATH', os.defpath)}"
        run = subprocess.run(
            ["bash", str(path), *arguments],
            env={**environment, "PATH": search, "PYTHON": "python3", "LAUNCH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if run.returncode or not argv.exists():
            raise RecipeError(f"{path} ended with status {run.returncode}: {run.stderr.strip()[-1000:]}")
        return ["python3", *argv.read_text(encoding="utf-8").split("\0")[:-1]]


def main(arguments: Sequence[str]) -> int:
    try:
        if list(arguments[:1]) == ["slug"] and len(arguments) == 2:
            print(slug(arguments[1]))
        elif list(arguments[:1]) == ["environment"] and len(arguments) > 1:
            print(json.dumps({"env_vars": remote_environment(arguments[1], arguments[2:])}))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
