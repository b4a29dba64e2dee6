# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The commands and options in the documentation on data exist."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
import typer

from tests.conftest import ROOT
from verl_pgrpo.cli import COMMANDS

PAGES = ("movielens", "goodreads", "own_users")


def commands_of(text: str) -> list[list[str]]:
    lines = "\n".join(re.findall(r"^(?:    |#   )(.*)$", text, re.MULTILINE)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_a_documented_command_parses(page: str) -> None:
    found = [words for words in commands_of((ROOT / "recipes" / page / "README.md").read_text()) if words]
    ours = [words[1:] for words in found if words[0] == "verl-pgrpo"]
    assert len(ours) >= 2
    for name, sub, *arguments in ours:
        app = importlib.import_module(f"verl_pgrpo.cli.{COMMANDS[name][0]}").app
        typer.main.get_command(app).commands[sub].make_context(sub, arguments)
    for words in found:
        if "-m" in words and words[0] == "python":
            assert importlib.util.find_spec(words[words.index("-m") + 1]), words


@pytest.mark.parametrize("page", ["movielens", "goodreads"])
def test_the_page_has_the_commands_of_the_smoke_test(page: str) -> None:
    """`tests/e2e/test_data_recipes.py` runs the commands at the head of the script."""
    folder = ROOT / "recipes" / page
    head, readme = ((folder / name).read_text() for name in ("run_tiny_cpu.sh", "README.md"))
    documented = commands_of(readme)
    assert all(words in documented for words in commands_of(head) if words)
