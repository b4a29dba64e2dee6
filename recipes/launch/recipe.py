#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes by name: which there are, the variables that they read, and the command that they end in.

    python3 recipes/launch/recipe.py slug personas/run_tiny_cpu                  # a name for a job
    python3 recipes/launch/recipe.py environment personas/run_tiny_cpu a.b=c     # what a remote run must be told

Only the standard library: it also runs where one submits, beside no verl.
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
_SENT_TOO = {"DIRECTORY", "JOIN_LIMIT", "NGPUS_PER_NODE", "NNODES"}  # what run_on_cluster.py reads
_NOT_SENT = {"PYTHON"}  # the interpreter of the machine that one submits from


class RecipeError(ValueError):
    """Something about a recipe that its user can put right; the message says how."""


def known() -> list[str]:
    """Every recipe's name: `personas/run_qwen3_1_7b_fsdp` for `recipes/personas/run_qwen3_1_7b_fsdp.sh`."""
    return sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.glob("*/run_*.sh"))


def script(name: str) -> Path:
    """The script of a recipe, by its name or its path."""
    short = name.removesuffix(".sh").removeprefix("./").removeprefix("recipes/")
    if short not in known():
        near = difflib.get_close_matches(short, known(), n=1)
        raise RecipeError(
            f"There is no recipe {name!r}." + (f" Did you mean {near[0]}?" if near else "") + " The recipes are:\n  "
            "" + "\n  ".join(known())
        )
    return RECIPES / f"{short}.sh"


def is_cpu(name: str) -> bool:
    """Does it train on the CPU, for trying a cluster out without GPUs?"""
    return script(name).stem.endswith("_cpu")


def slug(name: str) -> str:
    """A recipe's name as schedulers allow it for a job's: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", str(script(name).relative_to(RECIPES).with_suffix("")).lower())


def variables(name: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that are set here and that a recipe would read: what a remote machine has to be told."""
    path = script(name)
    files = [path, *RECIPES.glob("_*.sh"), *path.parent.glob("task.sh")]
    names = {match for file in files for match in _VARIABLE.findall(file.read_text(encoding="utf-8"))}
    names = (names | _SENT_TOO) - _NOT_SENT
    return {key: environment[key] for key in sorted(names) if key in environment}


def environment_of(name: str, arguments: Sequence[str]) -> dict[str, str]:
    """What `run_on_cluster.py` must find in its environment on another machine, to run there what it would here."""
    _refuse_dry_run(arguments)
    return {**variables(name), "RECIPE": name, "ARGUMENTS": json.dumps(list(arguments))}


def _refuse_dry_run(arguments: Sequence[str]) -> None:
    """Behind the recipe's name it would be verl's, and the run would be a real one."""
    if "--dry-run" in arguments:
        raise RecipeError("--dry-run goes before the recipe's name; nothing was started")


def recorded(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command that a recipe ends in. The recipe runs, with a `python3` and a `mkdir` that do nothing."""
    _refuse_dry_run(arguments)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "argv"
        for stub, text in (("python3", f"printf '%s\\0' \"$@\" >> '{record}'"), ("mkdir", ":")):
            (Path(folder) / stub).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
            (Path(folder) / stub).chmod(0o755)
        run = subprocess.run(
            ["bash", str(script(name)), *arguments],
            env={**environment, "PATH": f"{folder}:{environment.get('PATH', os.defpath)}", "PYTHON": "python3"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if run.returncode or not record.exists():
            raise RecipeError(f"{script(name)} ended with status {run.returncode}: {run.stderr.strip()[-1000:]}")
        return ["python3", *record.read_text(encoding="utf-8").split("\0")[:-1]]


def main(arguments: Sequence[str]) -> int:
    try:
        if list(arguments[:1]) == ["slug"] and len(arguments) == 2:
            print(slug(arguments[1]))
        elif list(arguments[:1]) == ["environment"] and len(arguments) > 1:
            print(json.dumps({"env_vars": environment_of(arguments[1], arguments[2:])}))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
