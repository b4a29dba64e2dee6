# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs to judge, and calls of `verl-pgrpo judge` in this process and in one of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from verl_pgrpo.cli import main

KEY = "sk-a-very-secret-key-0123456789"
GROUPS = {"jazz": 0.8, "rock": 0.2, "folk": 0.5}  # how often a's response is the longer one


def write_pairs(folder: Path, prompts: int = 60, samples: int = 1) -> tuple[Path, Path]:
    """Two files; which response is the longer one is drawn by the preference group."""
    chance = random.Random(7)
    lines: dict[str, list[str]] = {"a": [], "b": []}
    for number in range(prompts):
        group = list(GROUPS)[number % len(GROUPS)]
        for sample in range(samples):
            longer = "a" if chance.random() < GROUPS[group] else "b"
            for name, several in lines.items():
                row = {
                    "prompt_id": f"val/{number}",
                    "preference_group": group,
                    "prompt": f"{group}, please <now>",
                    "response": f"{name} {number} {sample}" + " long" * (name == longer),
                    "sample": sample,
                }
                several.append(json.dumps(row))
    for name, several in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(several) + "\n")
    return folder / "a.jsonl", folder / "b.jsonl"


def arguments(folder: Path, url: str, *more: str) -> list[str]:
    files = ["--a", str(folder / "a.jsonl"), "--b", str(folder / "b.jsonl"), "--json", str(folder / "out.json")]
    return ["judge", *files, "--model", "j", "--base-url", url, *more]


def judge(folder: Path, url: str, *more: str) -> dict[str, Any]:
    assert main(arguments(folder, url, *more)) == 0
    return json.loads((folder / "out.json").read_text())


def start(folder: Path, url: str, *more: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "verl_pgrpo.cli", *arguments(folder, url, *more)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment
    )
