# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""From archive to metrics per preference group: the commands of each recipe's README, on the CPU."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.e2e
STEPS = 3


def documented(task: str) -> list[list[str]]:
    """Return the commands at the head of `run_tiny_cpu.sh`, which the README repeats (`tests/data/test_pages.py`)."""
    head = (ROOT / "recipes" / task / "run_tiny_cpu.sh").read_text()
    lines = re.findall(r"^#   (.*)$", head, re.MULTILINE)
    return [shlex.split(line) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def in_place(words: list[str], folder: Path) -> list[str]:
    """Replace the programs by this interpreter's, and `data/<task>_tiny` by a folder of the test."""
    programs = {"python": [sys.executable], "verl-pgrpo": [sys.executable, "-m", "verl_pgrpo.cli"]}
    return [*programs.get(words[0], words[:1]), *(re.sub(r"^data/\w+_tiny", str(folder), word) for word in words[1:])]


@pytest.mark.parametrize(
    ("task", "control", "groups"),
    [
        ("movielens", {}, {"g0", "g1", "g2", "g3"}),
        pytest.param(  # the same code path again
            "goodreads", {"RANDOM_GROUPS": "1"}, {f"rating_{n}" for n in range(1, 6)}, marks=pytest.mark.stress
        ),
    ],
)
def test_from_archive_to_metrics_per_group(
    tmp_path: Path, task: str, control: dict[str, str], groups: set[str]
) -> None:
    environment = {
        **os.environ, **control, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "STEPS": str(STEPS),
        "DATA_DIR": str(tmp_path), "RUN_DIR": str(tmp_path / "run"), "TIMEOUT": "600",
    }  # fmt: skip
    for words in documented(task):
        command = in_place(words, tmp_path)
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert run.returncode == 0, (words, run.stdout[-3000:], run.stderr[-3000:])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    metrics = {line["step"]: line["data"] for line in map(json.loads, lines)}
    last = metrics[STEPS]
    assert last["pgrpo/observed_total"] == 32 * STEPS
    assert {name.split("/")[2] for name in last if re.fullmatch(r"pgrpo/group/[^/]+/count", name)} <= groups
    validated = {name.split("/")[2] for name in last if re.fullmatch(rf"val-core/{task}/[^/]+/reward/mean@1", name)}
    assert validated == groups, "verl reports validation for each preference group"
