# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command, its process, its limits, and that the caller's process stays as it is."""

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

from tests.preflight.case import ROOT, Case, problems, rows
from verl_pgrpo.preflight import Settings, checks, preflight, runner

pytestmark = pytest.mark.slow

RUN = "import sys; from verl_pgrpo.cli import main; sys.exit(main())"


def call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", RUN, "preflight", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_the_command(case: Case, tmp_path: Path):
    run = call("--json", "--reward-timeout", "300", "--", *case.arguments, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert report["ok"] is True
    assert report["diagnostics"] == []
    assert (run.stderr, (tmp_path / "outputs").exists()) == ("", False)  # a folder that Hydra makes in a run
    wrong = call("--skip", "reward", "--", *case.arguments, "data.train_batch_size=128", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "[steps]" in wrong.stdout


@pytest.mark.parametrize(
    "usage", [("--reward-timeout", "nan", "--"), ("--skip", "everything", "--"), ("--", "--multirun")]
)
def test_wrong_usage(usage: tuple[str, ...], tmp_path: Path):
    run = call(*usage, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert "error:" in run.stderr


def test_strict_counts_warnings(case: Case, tmp_path: Path):
    small = ("--", *case.arguments, "data.train_max_samples=32", "data.seed=null")
    assert call("--skip", "reward", *small, cwd=tmp_path).returncode == 0
    assert call("--skip", "reward", "--strict", *small, cwd=tmp_path).returncode == 1


def test_a_plugin_that_verl_does_not_load(case: Case, tmp_path: Path):
    run = call("--skip", "reward", "--json", "--", *case.arguments, cwd=tmp_path, VERL_USE_EXTERNAL_PLUGINS="none")
    assert run.returncode == 1
    [error] = [one for one in json.loads(run.stdout)["diagnostics"] if one["severity"] == "error"]
    assert (error["check"], error["location"]) == ("config", "VERL_USE_EXTERNAL_PLUGINS")


def test_a_check_that_fails_itself_is_a_warning(case: Case, monkeypatch: pytest.MonkeyPatch):
    def broken(*_):
        raise OSError("the disk has gone")

    monkeypatch.setattr(checks, "CHECKS", (*checks.CHECKS, ("groups", broken)))
    assert problems(case.check(skip=("reward",))) == {("warning", "groups")}
    assert set(dict(checks.CHECKS)) == set(runner.CHECK_NAMES)


def test_the_callers_process_stays_as_it_is(case: Case):
    """Logging, warnings and modules."""
    code = (
        "import logging, sys, warnings\n"
        "logging.disable(logging.INFO)\n"
        "before = logging.root.manager.disable, list(logging.root.handlers), list(warnings.filters)\n"
        "from verl_pgrpo.preflight import Settings, preflight\n"
        f"assert preflight({[*case.arguments]!r}, Settings(reward_timeout=300.0)).ok\n"
        "assert before == (logging.root.manager.disable, list(logging.root.handlers), list(warnings.filters))\n"
        "assert not {'verl', 'torch', 'ray'} & set(sys.modules), 'verl is imported in a process of its own'\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=case.out, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert run.returncode == 0


@pytest.mark.slow
def test_a_million_rows_take_less_than_thirty_seconds(case: Case):
    """Of processor time, as a busy machine is no fault of the code. A tenth of the prompts is too long."""
    long = [{"role": "user", "content": "few words " * 50}]
    table = pa.Table.from_pylist(
        rows(1000, prompt=lambda i: long if i % 10 == 0 else [{"role": "user", "content": "jazz"}])
    )
    path = case.out / "million.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(1000):
            writer.write_table(table)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [*case.arguments, f"data.train_files={path}", "data.filter_overlong_prompts=True"]
    report = preflight(arguments, Settings(reward_timeout=300.0))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert report.ok, report.diagnostics
    assert ("warning", "data") in problems(report)
    assert "2 preference groups, the smallest with 500,000 training rows" in report.facts
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
