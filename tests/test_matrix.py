# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`make matrix`: what it makes of versions that fail, and the table that it left in the README."""

from __future__ import annotations

import re

import pytest

from tests import matrix
from verl_pgrpo.integration.compat import TESTED_VERSIONS


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{matrix.MARKERS[0]}\n{matrix.HEAD}\n{matrix.MARKERS[1]}\n\nafter\n")
    return path


def run(monkeypatch, readme, outcome, versions=()):
    """`main` with `outcome(version)` in the place of minutes of tests."""
    monkeypatch.setattr(matrix, "try_version", lambda version, *_: outcome(version))
    return matrix.main("fast", list(versions), readme, readme.parent, readme.parent)


def passing(version):
    return matrix.Row(version, "9 passed", "3 steps", True)


@pytest.mark.slow  # not slow, but the fast tests are what the table is of: it could never again say that they pass
def test_the_readmes_table_has_every_version_and_supported_ones_pass():
    text = (matrix.ROOT / "README.md").read_text(encoding="utf-8")
    table = text.split(matrix.MARKERS[0])[1].split(matrix.MARKERS[1])[0]
    rows = {line.split("|")[1].strip(): line for line in table.strip().splitlines()[2:]}
    assert set(rows) == {*TESTED_VERSIONS, *matrix.TRIED}
    for version in TESTED_VERSIONS:
        assert re.fullmatch(
            rf"\| {version} \| \d+ passed(, \d+ skipped)? \| {matrix.STEPS} steps \| supported \|", rows[version]
        )
    for version, needs in matrix.TRIED.items():
        assert rows[version].endswith(f"| not supported: {needs} |")


def test_all_versions_are_tried_and_their_rows_replaced(monkeypatch, readme):
    assert run(monkeypatch, readme, passing) == 0
    assert run(monkeypatch, readme, lambda version: matrix.Row(version, "10 passed", "3 steps", True), ["0.9.1"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n\n")
    assert text.endswith("\n\nafter\n")
    lines = [line for line in text.splitlines() if line.startswith("| 0")]
    assert [line.split(" ")[1] for line in lines] == ["0.9.1", "0.9.0", "0.8.0", "0.7.1"]
    assert "10 passed" in lines[0]
    assert "| 9 passed" in lines[1]


@pytest.mark.parametrize(("failing", "status"), [("0.9.0", 1), ("0.8.0", 0)])
def test_only_a_supported_version_that_fails_is_a_failure(monkeypatch, readme, failing, status):
    def outcome(version):
        return matrix.Row(version, "2 failed", "3 steps", False) if version == failing else passing(version)

    assert run(monkeypatch, readme, outcome) == status


def test_one_versions_trouble_does_not_stop_the_others(monkeypatch, readme, capsys):
    def outcome(version):
        if version == "0.9.0":
            raise OSError("the disk is full")
        return passing(version)

    assert run(monkeypatch, readme, outcome, ["0.9.0", "0.9.1"]) == 1
    assert "| 0.9.0 | not run | `OSError: the disk is full` | supported |" in readme.read_text()
    assert "| 0.9.1 | 9 passed" in readme.read_text()
    assert "supported versions that fail: 0.9.0" in capsys.readouterr().out


def test_a_version_that_cannot_be_installed_is_said(tmp_path, readme, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    row = matrix.try_version("0.0.99", "fast", tmp_path / "runs", tmp_path / "homes")
    assert (row.fast, row.run, row.passed) == ("not installed", "not installed", False)


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("x\nValueError: one\n(TaskRunner pid=3) KeyError: 'two'\nend\n", "KeyError: 'two'"),
        ("E       AssertionError: a | b\n", "AssertionError: a \\| b"),
        ("ray.exceptions.RayTaskError: no\n", "ray.exceptions.RayTaskError: no"),
        ("\x1b[36m(TaskRunner pid=3)\x1b[0m OSError: full\n", "OSError: full"),
        ("Could not override 'a.b'.\nTo append use +a.b\n", "Could not override 'a.b'."),
        (
            "ImportError: cannot import name 'a' from 'b' (/some/where/b.py)\n",
            "ImportError: cannot import name 'a' from 'b'",
        ),
        ("nothing to see\n", "no error message"),
    ],
)
def test_the_last_error_of_a_log(log, error):
    assert matrix.last_error(log) == error
