# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The Python that `make setup` chooses, with scripts in place of interpreters."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

FITTING = ("(3, 11)", "(3, 12)", "(3, 13)")


def interpreter(path: Path, version: str) -> None:
    """A script that answers as this version of Python would, except that it creates no .venv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""#!/bin/sh
case "$*" in
-V) echo "Python {version}" ;;
*print*version_info*) echo "{version}" ;;
*ensurepip*sys.exit*) exit {int(version not in FITTING)} ;;
*sys.exit*) exit {int(not version.startswith(FITTING))} ;;
"-m venv"*) echo "venv of $0"; exit 1 ;;
esac
"""
    )
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("venv", "given", "message"),
    [
        ("(3, 11)", None, None), ("(3, 11)", "(3, 11)", None), ("(3, 11)", "(3, 13)", "make clean"),
        (None, "(3, 13)", "venv of"), (None, "(3, 9)", "found no Python"),
        (None, "(3, 12) without ensurepip", "python3-venv"),
    ],
)  # fmt: skip
def test_the_python_of_make_setup(tmp_path, venv, given, message):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "verl_cpu").mkdir()
    for file in ("pyproject.toml", "verl_cpu/pyproject.toml"):
        (tmp_path / file).touch()
    if venv:
        interpreter(tmp_path / ".venv/bin/python", venv)
        (tmp_path / ".venv/.setup-done").write_text(f"{tmp_path}\n")
    command = ["make", "setup"]
    if given:
        interpreter(tmp_path / "python", given)
        command.append(f"PYTHON={tmp_path / 'python'}")
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (made.returncode != 0) == (message is not None)
    assert (message or "") in made.stdout + made.stderr
