# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`make matrix`: which stacks count as passed, and which environments are used again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import matrix


@pytest.mark.parametrize(
    ("cells", "status"),
    [
        ("9 passed, 1 skipped | 1 passed", 0), ("1 failed, 8 passed | 1 passed", 1), ("9 passed | 1 skipped", 1),
        ("9 passed | failed to start", 1), ("no tests | 1 passed", 1), ("cannot be installed | ", 1),
    ],
)  # fmt: skip
def test_both_cells_must_have_passed(tmp_path, monkeypatch, cells, status):
    monkeypatch.setattr(matrix, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(matrix, "runs", lambda python: python != "python3.13")
    monkeypatch.setattr(matrix, "try_stack", lambda name, stack, expression: f"| {name} | 3.11 | {cells} |")
    old = "| make setup, Python 3.13 | 3.13 | 1 passed | 1 passed |"
    matrix.PAGE.write_text("\n".join([matrix.MARKERS[0], matrix.HEAD, old, matrix.MARKERS[1]]))
    assert matrix.main("", ["make setup"]) == status
    assert matrix.main("", ["make setup", "make setup, Python 3.13"]) == 1  # skipped
    assert old in matrix.PAGE.read_text()
    assert cells in matrix.PAGE.read_text()


def test_an_interpreter_that_does_not_start(tmp_path):
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert matrix.runs(sys.executable)
    assert not matrix.runs(str(shim))
    assert not matrix.runs(str(tmp_path / "python3.10"))


@pytest.mark.parametrize("name", ["make setup", "newest", "make setup, Python 3.10"])
def test_an_environment_is_used_again_only_for_the_same_stack(tmp_path, monkeypatch, name):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append([*map(str, command)]))
    monkeypatch.setattr(subprocess, "check_output", lambda command, **options: "numpy\n")
    for stack in (matrix.STACKS["older verl"], matrix.STACKS[name], matrix.STACKS[name]):
        matrix.install(stack, tmp_path, tmp_path / "log")
    assert sum("venv" in command for command in commands) == 2
    assert any("cpu.txt" in word for command in commands for word in command) == (name == "make setup")
