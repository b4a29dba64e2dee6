# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command, its process and limits, and that the caller's process does not change."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.preflight.case import Case, problems, prompt, rows, run_command
from verl_pgrpo.cli import main
from verl_pgrpo.preflight import Diagnostic, Report, Settings, checks, preflight, runner


def test_a_good_launch_passes(case: Case):
    """Tests that build verl's objects dozens of times, or in a separate process, are slow."""
    report = case.rehearse()
    assert problems(report) == set()
    assert "2 preference groups, the smallest with 32 training rows" in report.facts
    assert "64 training rows, 120 steps of 16 prompts x 2 responses" in report.facts
    assert "the reward function was called on 10 rows, 20 times" in report.facts


@pytest.mark.slow
def test_the_command(case: Case, tmp_path: Path):
    run = run_command("preflight", "--json", "--reward-timeout", "300", "--", *case.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert (report["ok"], report["diagnostics"]) == (True, [])
    assert (run.stderr, (tmp_path / "outputs").exists()) == ("", False)  # a folder that Hydra makes in a run
    skipping = ("preflight", "--json", "--skip", "reward", "--", *case.arguments)
    unloaded = run_command(*skipping, VERL_USE_EXTERNAL_PLUGINS="none")
    assert unloaded.returncode == 1
    [error] = [one for one in json.loads(unloaded.stdout)["diagnostics"] if one["severity"] == "error"]
    assert (error["check"], error["location"]) == ("config", "VERL_USE_EXTERNAL_PLUGINS")


@pytest.mark.parametrize(("option", "status"), [("--json", 0), ("--strict", 1)])
def test_strict_counts_warnings(option, status, monkeypatch, capsys):
    report = Report([Diagnostic("warning", "data", "unseeded", "data.seed", "data.seed=1")])
    monkeypatch.setattr(runner, "preflight", lambda *_: report)
    assert main(["preflight", option, "--", "data.seed=null"]) == status
    assert "data.seed=1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "usage", [("--reward-timeout", "nan", "--"), ("--skip", "everything", "--"), ("--", "--multirun")]
)
def test_wrong_usage(usage: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    assert main(["preflight", *usage]) == 2
    out, error = capsys.readouterr()
    assert (out, "error:" in error) == ("", True)


def test_a_check_that_fails_itself_is_a_warning_unless_it_is_skipped(case: Case, monkeypatch: pytest.MonkeyPatch):
    def broken(*_):
        raise OSError("the disk has gone")

    assert set(dict(checks.CHECKS)) == set(runner.CHECK_NAMES)
    monkeypatch.setattr(checks, "CHECKS", (("groups", broken), ("reward", broken)))
    assert problems(case.check(skip=("reward",))) == {("warning", "groups")}


@pytest.mark.slow
def test_the_callers_process_stays_as_it_is(case: Case):
    """Logging, warnings and modules."""
    code = f"""
import logging, sys, warnings
def state(): return logging.root.manager.disable, list(logging.root.handlers), list(warnings.filters)
logging.disable(logging.INFO)
before = state()
from verl_pgrpo.preflight import Settings, preflight
assert preflight({case.arguments!r}, Settings(reward_timeout=300.0)).ok
assert state() == before
assert not {{'verl', 'torch', 'ray'}} & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=case.out, env=environment, check=True)


@pytest.mark.slow
def test_a_million_rows_take_less_than_thirty_seconds(case: Case):
    """Of processor time, because the machine may be busy. A tenth of the prompts is too long."""
    table = pa.Table.from_pylist(rows(1000, prompt=lambda i: prompt("few words " * 50 if i % 10 == 0 else "jazz")))
    path = case.out / "million.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(1000):
            writer.write_table(table)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # verl shuffles such a subset, so its rows are scattered over the file.
    subset = ("data.filter_overlong_prompts=True", "data.train_max_samples=999000")
    arguments = [*case.arguments, f"data.train_files={path}", *subset]
    report = preflight(arguments, Settings(reward_timeout=300.0))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert report.ok, report.diagnostics
    assert ("warning", "data") in problems(report)
    # Of 500,000 rows per group, the filter drops a fifth of one group's; estimated from a sample.
    [groups] = [fact for fact in report.facts if "preference groups" in fact]
    smallest = int(groups.removeprefix("2 preference groups, the smallest with ").split()[0].replace(",", ""))
    assert smallest == pytest.approx(400_000, rel=0.05)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
