# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The Python that `make setup` chooses, with scripts in place of interpreters."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


def interpreter(path: Path, version: str, ensurepip: bool = True) -> None:
    """A script that answers as this version of Python would, except that it creates no .venv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fits = version in ("(3, 11)", "(3, 12)", "(3, 13)")
    path.write_text(
        f"""#!/bin/sh
case "$*" in
-V) echo "Python {version}" ;;
*print*version_info*) echo "{version}" ;;
*ensurepip*sys.exit*) exit {int(not (fits and ensurepip))} ;;
*sys.exit*) exit {int(not fits)} ;;
"-m venv"*) echo "venv of $0"; exit 1 ;;
esac
"""
    )
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("venv", "given", "message"),
    [
        ("(3, 11)", None, None), ("(3, 11)", "(3, 11)", None), ("(3, 11)", "(3, 13)", "make clean"),
        (None, "(3, 13)", "venv of"), (None, "(3, 9)", "found no Python"), (None, "without ensurepip", "python3-venv"),
    ],
)  # fmt: skip
def test_the_python_of_make_setup(tmp_path, venv, given, message):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("pyproject.toml", "verl_cpu/pyproject.toml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    if venv:
        interpreter(tmp_path / ".venv/bin/python", venv)
        (tmp_path / ".venv/.setup-done").write_text(f"{tmp_path}\n")
    if given:
        version = "(3, 12)" if given == "without ensurepip" else given
        interpreter(tmp_path / "python", version, ensurepip=given != "without ensurepip")
    command = ["make", "setup", *([f"PYTHON={tmp_path / 'python'}"] if given else [])]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (made.returncode != 0) == (message is not None)
    assert (message or "") in made.stdout + made.stderr
