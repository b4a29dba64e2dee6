# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The commands and options in the documentation on data exist, and the recipes' smoke test runs them."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
import typer

from tests.conftest import ROOT
from verl_pgrpo.cli import COMMANDS


def commands_of(text: str) -> list[list[str]]:
    lines = "\n".join(re.findall(r"^(?:    |#   )(.*)$", text, re.MULTILINE)).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


@pytest.mark.parametrize("page", ["movielens", "goodreads", "own_users"])
def test_the_documented_commands_exist(page: str) -> None:
    folder = ROOT / "recipes" / page
    found = commands_of((folder / "README.md").read_text())
    ours = [words[1:] for words in found if words[0] == "verl-pgrpo"]
    assert len(ours) >= 2
    for name, sub, *arguments in ours:
        app = importlib.import_module(f"verl_pgrpo.cli.{COMMANDS[name].module}").app
        typer.main.get_command(app).commands[sub].make_context(sub, arguments)
    for words in found:
        assert words[:2] != ["python", "-m"] or importlib.util.find_spec(words[2]), words
    if page != "own_users":  # `tests/e2e/test_data_recipes.py` runs the commands at the head of this script
        head = commands_of((folder / "run_tiny_cpu.sh").read_text())
        assert all(words in found for words in head)
