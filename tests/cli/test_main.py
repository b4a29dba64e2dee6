# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command `verl-pgrpo`: help, exit statuses, and errors in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.cli import COMMANDS, main
from verl_pgrpo.cli.output import emit, format_table


def test_help_imports_no_heavy_package():
    code = (
        "import sys; from verl_pgrpo.cli import main; main(['--help']);"
        "print({'numpy', 'pandas', 'pyarrow', 'torch', 'sklearn', 'verl', 'matplotlib'} & set(sys.modules))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert output.endswith("set()\n")
    assert all(name in output for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_rejects_unknown_options(command, capsys):
    assert main([command, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out
    assert main([command, "--no-such-option"]) == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_exit_statuses_and_one_line_errors(capsys):
    assert main(["--version"]) == 0
    assert main([]) == 2
    capsys.readouterr()
    for arguments, message in (
        (["histori"], "did you mean history"),
        (["history", "show", "/none"], "no reward history"),
    ):
        assert main(arguments) == 2
        [error] = capsys.readouterr().err.splitlines()
        assert error.startswith("verl-pgrpo: error: ")
        assert message in error


def test_a_closed_pipe_is_not_an_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    GroupHistoryManager().save(tmp_path / "h.parquet")
    command = [sys.executable, "-m", "verl_pgrpo.cli", "history", "show", tmp_path / "h.parquet"]
    run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(write)
    assert (run.returncode, run.stderr) == (1, "")


def test_json_is_strict_and_tables_are_aligned(capsys):
    emit("", {"a": float("nan"), "b": [1, float("inf")]}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1, None]}
    table = format_table([{"group": "jazz", "n": 30000, "mean": 1 / 3}, {"group": "a\nb", "n": 2, "mean": None}])
    assert table.splitlines() == ["group       n   mean", "jazz   30,000  0.333", "a b         2      -"]
