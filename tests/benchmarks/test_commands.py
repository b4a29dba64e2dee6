# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Every benchmark starts from a clone, as its docstring shows."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("sklearn")
SCRIPTS = [f"benchmarks/{path.name}" for path in sorted((ROOT / "benchmarks").glob("*.py")) if path.stem != "speed"]
SLOW = "benchmarks/letters.py", "benchmarks/personas_torch.py"  # import models of transformers


@pytest.mark.parametrize(
    "command",
    ["-m benchmarks.bandit", *(pytest.param(s, marks=[pytest.mark.slow] if s in SLOW else []) for s in SCRIPTS)],
)
def test_a_benchmark_starts_without_pythonpath(command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    help_of = [sys.executable, *command.split(), "--help"]
    subprocess.run(help_of, cwd=ROOT, env=environment, capture_output=True, timeout=300, check=True)
