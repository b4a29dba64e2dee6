# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by the cost benchmarks: batches in verl's form, and the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verl_pgrpo.cli.output import format_table

torch.set_num_threads(1)  # what Ray gives verl's driver, a task with one CPU


def machine() -> str:
    """Describe the machine and the versions that the figures depend on."""
    return (
        f"{torch.get_num_threads()} thread of {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    )


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", metavar="FILE", type=Path, help="also write the table as JSON")
    return made


def show(table: list[dict[str, Any]], file: Path | None) -> None:
    """Print a table, and write it to a file if there is one."""
    print(format_table(table))
    if file is not None:
        file.write_text(json.dumps(table, indent=1), encoding="utf-8")


def batch_keys(batch: int, per_prompt: int, groups: int, seed: int) -> tuple[list[str], list[str]]:
    """Row keys and preference groups of a batch, new strings as they come from a rollout.

    All rows of a prompt have the same preference group, that of its user. Keys are verl's: `{uid}_{session}_{index}`.
    """
    rng, prompts = np.random.default_rng(seed), batch // per_prompt
    numbers, of_prompt = rng.integers(0, 1 << 62, prompts), rng.integers(0, groups, prompts)
    keys = [f"{number:036x}_{session}_0" for number in numbers.tolist() for session in range(per_prompt)]
    return keys, [label(group) for group in of_prompt.tolist() for _ in range(per_prompt)]


def uids(keys: list[str]) -> np.ndarray:
    """The prompt of each row, as verl passes it to an estimator."""
    return np.array([key.rsplit("_", 2)[0] for key in keys], dtype=object)


def label(group: int) -> str:
    return f"preference-group-{group}"
