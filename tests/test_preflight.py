# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo preflight`: a good launch passes, what is wrong with others is said at once; exit status, JSON, time."""

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

from tests.preflight_case import ROOT, Case, serious
from verl_pgrpo.launch.preflight import CHECKS

pytest.importorskip("verl")


def called(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "verl_pgrpo.cli", "preflight", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_the_recipe_for_the_cpu_is_clean(case: Case):
    run = called("--json", "--", *case.arguments, cwd=case.folder)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert report["ok"] is True
    assert report["memory"] is None
    assert [one for one in report["findings"] if one["severity"] != "note"] == []
    assert "7 preference groups, the smallest with 26 training rows" in report["facts"]
    assert "512 training rows, 100 steps of 32 prompts x 2 responses" in report["facts"]
    assert "the reward function ran on 15 rows, 30 calls" in report["facts"]
    assert run.stderr == ""
    assert not (case.folder / "outputs").exists()  # which Hydra makes in a run


@pytest.mark.slow
def test_everything_that_is_wrong_is_said_at_once(case: Case):
    bad = case.data().assign(preference_group="all")
    bad.loc[3, "preference_group"] = None
    report = case.check(
        case.written(bad),
        "data.val_files=none.parquet",
        "data.train_filez=1",
        "algorithm.adv_estimatr=grpo",
        "algorithm.filter_groups.enable=True",
        "+algorithm.pgrpo.halflife=512",
        "trainer.n_gpus_per_node=3",
        "actor_rollout_ref.actor.checkpoint.async_save=True",
        "actor_rollout_ref.model.path=/models/none",
        "trainer.logger=nonsense",
        "reward.custom_reward_function.path=none.py",
        reward=True,
    )
    said = "\n".join(one[2] for one in serious(report))
    for part in (
        "Could not override 'data.train_filez'",
        "Could not override 'algorithm.adv_estimatr'",
        "none.parquet: no such file",
        "1 of 512 training rows have no 'preference_group'",
        "filter_groups",
        "halflife",
        "trainer's DP (3)",
        "async_save",
        "/models/none",
        "nonsense",
        "Custom module file not found",
    ):
        assert part in said
    assert [one.severity for one in report.findings] == sorted(
        (one.severity for one in report.findings), key=["error", "warning", "note"].index
    )
    near = {one.where: one.fix for one in report.findings if one.check == "arguments"}
    assert near["data.train_filez=1"] == "did you mean data.train_files?"
    assert near["algorithm.adv_estimatr=grpo"] == "did you mean algorithm.adv_estimator?"


def test_a_check_that_fails_itself_is_a_warning(case: Case, monkeypatch: pytest.MonkeyPatch):
    def broken(run, found):
        raise OSError("the disk has gone")

    monkeypatch.setattr("verl_pgrpo.launch.preflight.CHECKS", (*CHECKS, ("data", broken)))
    [(severity, check, said)] = serious(case.check())
    assert (severity, check) == ("warning", "data")
    assert said == "this could not be checked: OSError: the disk has gone"


def test_other_estimators_are_checked_without_groups(case: Case):
    without = case.written(case.data().drop(columns="preference_group"))
    assert serious(case.check(without, "algorithm.adv_estimator=grpo")) == []


def test_exit_status_json_and_usage(case: Case, tmp_path: Path):
    skipped = ["--skip", "reward"]
    run = called(*skipped, "--json", "--", *case.arguments, "algorithm.adv_estimator=pgrop", cwd=tmp_path)
    assert run.returncode == 1
    [one] = [one for one in json.loads(run.stdout)["findings"] if one["severity"] == "error"]
    assert one == {
        "severity": "error",
        "check": "config",
        "what": "no advantage estimator is called 'pgrop'",
        "where": "algorithm.adv_estimator",
        "fix": "did you mean pgrpo?",
    }
    run = called(*skipped, "--strict", "--", *case.arguments, "data.max_prompt_length=8", cwd=tmp_path)
    assert run.returncode == 1
    assert "warning  256 of the first 256 training prompts" in run.stdout
    assert "         where: data.train_files:" in run.stdout
    assert "         fix:   data.max_prompt_length=" in run.stdout
    for usage in (
        ["--reward-timeout", "-1", "--"],
        ["--reward-timeout", "nan", "--"],
        ["--gpu", "abacus", "--"],
        ["--skip", "everything", "--"],
        ["--", "--multirun"],
        ["--nonsense"],
    ):
        run = called(*usage, cwd=tmp_path)
        assert (run.returncode, run.stdout) == (2, ""), usage
        assert "error:" in run.stderr


def test_a_plugin_that_verl_does_not_load(case: Case, tmp_path: Path):
    run = called("--skip", "reward", "--", *case.arguments, cwd=tmp_path, VERL_USE_EXTERNAL_PLUGINS="none")
    assert run.returncode == 1
    assert "verl does not load the plugin here" in run.stdout
    assert "1 error and 0 warnings" in run.stdout


@pytest.mark.slow
def test_a_million_rows_take_less_than_thirty_seconds(case: Case, tmp_path: Path):
    """Of processor time, all processes together: a busy machine is no error of the code."""
    rows = pq.read_table(case.folder / "train.parquet")
    path = tmp_path / "million.parquet"
    with pq.ParquetWriter(path, rows.schema) as writer:
        for _ in range(16):
            writer.write_table(pa.concat_tables([rows] * 128))
    assert pq.ParquetFile(path).metadata.num_rows == 1_048_576
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = called("--json", "--", *case.arguments, f"data.train_files={path}", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0, run.stdout
    assert "7 preference groups, the smallest with 53,248 training rows" in json.loads(run.stdout)["facts"]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
    assert after.ru_maxrss < 3 << 20  # KiB: it is not loaded as a whole
