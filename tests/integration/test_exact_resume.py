# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A run that is killed and resumed equals one that is not: history, metrics and advantages, to the last bit.

Recorded rollouts go through verl's own trainer (`replay_run.py`), because sampling would make the runs differ. Every
step has two local updates with padding, sessions of two outputs, responses without a trained token, and rows that
rollout correction rejects.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.core.test_history import assert_same
from tests.integration import replay_run
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.integration.state import HISTORY_FILE

pytestmark = pytest.mark.slow

OPTIONS = {"baseline": "shrinkage", "group_balance": 0.5}  # they use every field of the history
OURS = [f"+algorithm.pgrpo.{name}={value}" for name, value in OPTIONS.items()]
ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All runs: first, in parallel, those that start from scratch, then those that continue them."""
    folder = tmp_path_factory.mktemp("replay")
    replay_run.prepare(folder)
    finish(
        folder,
        straight=start(folder, "straight", "12", overrides=OURS),
        killed=start(folder, "killed", "12", "8", overrides=OURS),
        grpo=start(folder, "grpo", "3", overrides=["algorithm.adv_estimator=grpo"]),
    )
    (folder / "straight" / "global_step_12").rename(folder / "global_step_12")
    path = [*OURS, "trainer.resume_mode=resume_path", f"trainer.resume_from_path={folder}/straight/global_step_9"]
    finish(
        folder,
        killed=start(folder, "killed-again", "12", overrides=OURS),
        straight=start(
            folder, "straight-path", "12", overrides=[*path, "actor_rollout_ref.actor.checkpoint.async_save=True"]
        ),
        refused=start(folder, "grpo-refused", "6"),
        anew=start(folder, "grpo-anew", "6", overrides=["+algorithm.pgrpo.on_missing_history=reset"]),
    )
    return folder


def start(folder, name, *arguments, overrides=()):
    command = [sys.executable, "-m", "tests.integration.replay_run", str(folder), name, *arguments, "--", *overrides]
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **ENVIRONMENT}
        )


def finish(folder, **processes):
    try:
        codes = {name: process.wait(timeout=600) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    expected = {"killed": (-signal.SIGKILL, 0), "refused": (1,)}
    logs = "\n".join(path.read_text(errors="replace")[-3000:] for path in folder.glob("*.log"))
    assert all(code in expected.get(name, (0,)) for name, code in codes.items()), f"{codes}\n{logs}"


def history(config=None, steps=range(1, 13)):
    """Build a history from the recorded rollouts. This decides without the plugin which rows count."""
    made = GroupHistoryManager(config)
    for step in steps:
        for update in range(replay_run.UPDATES):
            sessions = {}
            for row in replay_run.recorded(step, update):
                session = row["key"].rpartition("_")[0]
                sessions[session] = row  # outputs are in order: the last one stays
            counted = [
                row for row in sessions.values() if not row["padding"] and not row["rejected"] and row["mask"].any()
            ]
            prompts = [row["key"].rsplit("_", 2)[0] for row in counted]
            made.update([row["group"] for row in counted], [row["reward"] for row in counted], prompts)
    return made


def test_the_recorded_rollouts_have_everything_in_them():
    rows = [row for step in range(1, 13) for update in range(2) for row in replay_run.recorded(step, update)]
    assert sum(row["padding"] for row in rows) > 20
    assert sum(row["rejected"] for row in rows) > 20
    assert sum(not row["mask"].any() and not row["padding"] for row in rows) > 10
    assert sum(row["key"].endswith("_1") for row in rows) > 20


def test_exact_accounting(folder):
    expected = history(PGRPOConfig(**OPTIONS))
    assert_same(GroupHistoryManager.load(folder / "global_step_12" / HISTORY_FILE, step=12), expected)
    metrics = json.loads((folder / "straight-out" / "12.json").read_text())
    assert metrics["pgrpo/observed_total"] == expected.total_count
    assert metrics["pgrpo/group/a/within_std"] == expected.statistics(["a"]).within_std[0]


def test_killed_and_resumed_equals_straight(folder):
    assert sorted(path.stem for path in (folder / "killed-out").glob("*.npy")) == [str(step) for step in range(1, 9)]
    straight = (folder / "global_step_12" / HISTORY_FILE).read_bytes()
    assert (folder / "killed" / "global_step_12" / HISTORY_FILE).read_bytes() == straight
    for step in range(7, 13):
        same_step(folder, "straight-out", "killed-again-out", step)
    for step in (7, 8):  # lost with the killed run and recomputed identically
        same_step(folder, "killed-out", "killed-again-out", step)


def test_resume_path_and_async_save(folder):
    straight = (folder / "global_step_12" / HISTORY_FILE).read_bytes()
    assert (folder / "straight" / "global_step_12" / HISTORY_FILE).read_bytes() == straight
    for step in range(10, 13):
        same_step(folder, "straight-out", "straight-path-out", step)


def test_resuming_a_grpo_checkpoint_needs_an_option(folder):
    log = (folder / "grpo-refused.log").read_text(errors="replace")
    assert "HistoryFileMissing" in log
    assert "on_missing_history=reset" in log
    assert not list((folder / "grpo-refused-out").glob("*"))
    config = PGRPOConfig(on_missing_history="reset")
    made = GroupHistoryManager.load(folder / "grpo" / "global_step_6" / HISTORY_FILE, config, step=6)
    assert_same(made, history(config, range(4, 7)))


def same_step(folder, one, other, step):
    for kind in ("npy", "json"):
        assert (folder / one / f"{step}.{kind}").read_bytes() == (folder / other / f"{step}.{kind}").read_bytes()
    assert np.isfinite(np.load(folder / one / f"{step}.npy")).all()
