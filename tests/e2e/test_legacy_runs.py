# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The same with verl's older trainers: real rollouts on the CPU; killed, and resumed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.e2e import runs
from verl_pgrpo import GroupHistoryManager

pytestmark = pytest.mark.e2e

# The agent of the other runs has sessions of several outputs, which these trainers do not know.
ONE_OUTPUT = (
    "actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path=null",
)
V0 = ("trainer.use_v1=False", "trainer.test_freq=2", *ONE_OUTPUT)


def replay(history: GroupHistoryManager, folder: Path, steps: range) -> None:
    """Fold the rollout dumps of these steps into `history`: each row is a response of its own.

    The dump has the score as the reward function gave it; verl carries it on in single precision.
    """
    for step in steps:
        rows = [json.loads(line) for line in (folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        assert len(rows) == 16
        personas = [json.loads(row["gts"])["persona"] for row in rows]
        history.update(personas, [float(np.float32(row["score"])) for row in rows])


def test_v0_run_is_killed_and_resumed_with_exact_accounting(tmp_path):
    runs.prepare(tmp_path)
    endless = "trainer.total_epochs=1000"  # a step takes a third of a second, and the run must be there to be killed
    run = runs.start(tmp_path, "first", "trainer.total_training_steps=1000", endless, *V0)
    runs.wait_for(tmp_path / "rollouts" / "4.jsonl", run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    saved, dumped = runs.settle(tmp_path)
    compared = min(saved, dumped) // 2 * 2  # verl saved every second step
    assert compared >= 2
    afresh = GroupHistoryManager()
    replay(afresh, tmp_path, range(1, compared + 1))
    runs.assert_same(afresh, runs.history_of(tmp_path, compared))
    totals = {step: values["pgrpo/observed_total"] for step, values in runs.metrics(tmp_path, "first").items()}
    assert totals[compared] == 16 * compared
    assert totals == {step: 16 * step for step in totals}

    end = saved + 3
    run = runs.start(tmp_path, "second", f"trainer.total_training_steps={end}", endless, *V0)
    log = runs.finish(run, tmp_path, "second")
    assert f"history so far: {16 * saved} rewards" in log
    resumed = runs.metrics(tmp_path, "second")
    totals = {step: values["pgrpo/observed_total"] for step, values in resumed.items()}
    assert totals == {step: 16 * step for step in range(saved + 1, end + 1)}
    continued = runs.history_of(tmp_path, saved)
    replay(continued, tmp_path, range(saved + 1, end + 1))
    final = runs.history_of(tmp_path, end)
    runs.assert_same(continued, final)
    assert final.total_count == 16 * end
    groups = [key.split("/")[2] for key in resumed[end] if key.startswith("pgrpo/group/") and key.endswith("/count")]
    assert sorted(groups) == sorted(final.groups)


def test_one_step_off_run_is_killed_and_resumed_with_exact_accounting(tmp_path):
    """Rollouts of one step are made while the one before it is trained; a kill loses the ones that were made ahead."""
    runs.prepare(tmp_path)
    where = {"preset": "cpu_one_step_off", "module": "verl.experimental.one_step_off_policy.main_ppo"}
    record = (
        "trainer.rollout_data_dir=null",
        "data.custom_cls.path=pkg://tests.e2e.dataset",
        "data.custom_cls.name=RecordsBatches",
    )
    same = (*ONE_OUTPUT, *record, "trainer.total_epochs=1000")
    run = runs.start(tmp_path, "first", "trainer.total_training_steps=1000", *same, **where)
    runs.wait_for(tmp_path / "rollouts" / "4.jsonl", run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    saved, dumped = runs.settle(tmp_path)
    compared = min(saved, dumped) // 2 * 2
    assert compared >= 2
    afresh = GroupHistoryManager()
    replay(afresh, tmp_path, range(1, compared + 1))
    runs.assert_same(afresh, runs.history_of(tmp_path, compared))
    assert runs.metrics(tmp_path, "first")[compared]["pgrpo/observed_total"] == 16 * compared
    (tmp_path / "rollouts").rename(tmp_path / "first_rollouts")

    end = saved + 3
    log = runs.finish(
        runs.start(tmp_path, "second", f"trainer.total_training_steps={end}", *same, **where), tmp_path, "second"
    )
    assert f"history so far: {16 * saved} rewards" in log
    totals = {step: values["pgrpo/observed_total"] for step, values in runs.metrics(tmp_path, "second").items()}
    assert totals == {step: 16 * step for step in range(saved + 1, end + 1)}
    continued = runs.history_of(tmp_path, saved)
    replay(continued, tmp_path, range(1, 4))
    runs.assert_same(continued, runs.history_of(tmp_path, end))


def test_fully_async_run_is_killed_and_resumed_with_exact_accounting(tmp_path):
    """Two updates a version; verl numbers checkpoints by versions, and rollout dumps by updates.

    Its dumps have no ground truth, which is lost on the way to the trainer, but the persona is in the prompt.
    """
    runs.prepare(tmp_path)
    where = {"preset": "cpu_fully_async", "module": "verl.experimental.fully_async_policy.fully_async_main"}
    same = (*ONE_OUTPUT, "data.train_batch_size=0", "trainer.test_freq=-1", "trainer.total_epochs=1000")

    def fold(history, updates):
        for update in updates:
            rows = [json.loads(line) for line in (tmp_path / "rollouts" / f"{update}.jsonl").read_text().splitlines()]
            assert len(rows) == 16
            personas = ["_".join(row["input"].split()[1:3]) for row in rows]
            history.update(personas, [float(np.float32(row["score"])) for row in rows])

    run = runs.start(tmp_path, "first", "rollout.total_rollout_steps=100000", *same, **where)
    runs.wait_for(tmp_path / "rollouts" / "10.jsonl", run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    saved, dumped = runs.settle(tmp_path)
    compared = min(saved, dumped // 2) // 2 * 2
    assert compared >= 2
    afresh = GroupHistoryManager()
    fold(afresh, range(1, 2 * compared + 1))
    runs.assert_same(afresh, runs.history_of(tmp_path, compared))
    assert totals_of(tmp_path, "first")[compared] == 32 * compared
    (tmp_path / "rollouts").rename(tmp_path / "first_rollouts")

    end = saved + 3
    # verl counts prompts from the start of the first run.
    log = runs.finish(
        runs.start(tmp_path, "second", f"rollout.total_rollout_steps={16 * end}", *same, **where), tmp_path, "second"
    )
    assert "preference groups in 256 training rows" in log
    assert f"history so far: {32 * saved} rewards" in log
    final = max(int(path.name.split("_")[-1]) for path in (tmp_path / "checkpoints").glob("global_step_*"))
    assert final > saved
    totals = totals_of(tmp_path, "second")
    assert totals == {version: 32 * version for version in range(saved + 1, final + 1)}
    continued = runs.history_of(tmp_path, saved)
    fold(continued, sorted(int(path.stem) for path in (tmp_path / "rollouts").iterdir()))
    runs.assert_same(continued, runs.history_of(tmp_path, final))


def totals_of(folder: Path, name: str) -> dict[int, float]:
    """`pgrpo/observed_total` by version, of a run that logs several times a version."""
    lines = (folder / f"{name}.jsonl").read_text().rpartition("\n")[0].splitlines()
    key = "pgrpo/observed_total"
    return {line["step"]: line["data"][key] for line in map(json.loads, lines) if key in line["data"]}
