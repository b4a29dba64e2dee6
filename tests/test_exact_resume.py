# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The same rollouts, straight through and killed and resumed: the same history, statistics and advantages, to the bit.

Recorded rewards go through verl's own trainer (`tests/replay_run.py`), so that sampling does not blur the comparison.
Every step has two local updates with padding rows, sessions of two outputs, rows without a token that is trained, and
rows that rollout correction rejects.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests import replay_run
from tests.conftest import ROOT
from tests.e2e import runs
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.integration.checks import HISTORY_FILE

pytestmark = pytest.mark.slow

ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All runs: those that start from nothing at the same time, then those that go on from them."""
    folder = tmp_path_factory.mktemp("replay")
    runs.prepare(folder)
    finish(
        folder,
        straight=start(folder, "straight", "12"),
        killed=start(folder, "killed", "12", "8"),
        grpo=start(folder, "grpo", "3", overrides=["algorithm.adv_estimator=grpo"]),
    )
    (folder / "straight" / "global_step_12").rename(folder / "global_step_12")
    path = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={folder}/straight/global_step_9"]
    finish(
        folder,
        killed=start(folder, "killed-again", "12"),
        straight=start(
            folder, "straight-path", "12", overrides=[*path, "actor_rollout_ref.actor.checkpoint.async_save=True"]
        ),
        refused=start(folder, "grpo-refused", "6"),
        anew=start(folder, "grpo-anew", "6", overrides=["+algorithm.pgrpo.resume_without_history=true"]),
    )
    return folder


def start(folder, name, *arguments, overrides=()):
    command = [sys.executable, "-m", "tests.replay_run", str(folder), name, *arguments, "--", *overrides]
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
    """What the recorded rollouts make of a history, by the rules written down once more."""
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
            made.observe([row["group"] for row in counted], [row["reward"] for row in counted])
    return made


def test_the_recorded_rollouts_have_everything_in_them():
    rows = [row for step in range(1, 13) for update in range(2) for row in replay_run.recorded(step, update)]
    assert sum(row["padding"] for row in rows) > 20
    assert sum(row["rejected"] for row in rows) > 20
    assert sum(not row["mask"].any() and not row["padding"] for row in rows) > 10
    assert sum(row["key"].endswith("_1") for row in rows) > 20


def test_exact_accounting(folder):
    expected = history()
    runs.assert_same(GroupHistoryManager.load(folder / "global_step_12" / HISTORY_FILE, step=12), expected)
    total = json.loads((folder / "straight-out" / "12.json").read_text())["pgrpo/observed_total"]
    assert total == expected.total_count


def test_killed_and_resumed_equals_straight(folder):
    assert sorted(path.stem for path in (folder / "killed-out").glob("*.npy")) == [str(step) for step in range(1, 9)]
    straight = (folder / "global_step_12" / HISTORY_FILE).read_bytes()
    assert (folder / "killed" / "global_step_12" / HISTORY_FILE).read_bytes() == straight
    assert "history so far: " in (folder / "killed-again.log").read_text(errors="replace")
    for step in range(7, 13):
        same_step(folder, "straight-out", "killed-again-out", step)
    for step in (7, 8):  # lost with the killed run, and made again as they were
        same_step(folder, "killed-out", "killed-again-out", step)


def test_resume_path_and_async_save(folder):
    straight = (folder / "global_step_12" / HISTORY_FILE).read_bytes()
    assert (folder / "straight" / "global_step_12" / HISTORY_FILE).read_bytes() == straight
    for step in range(10, 13):
        same_step(folder, "straight-out", "straight-path-out", step)


def test_a_checkpoint_of_grpo_is_a_choice(folder):
    log = (folder / "grpo-refused.log").read_text(errors="replace")
    assert "HistoryFileMissing" in log
    assert "trained with another estimator" in log
    assert "resume_without_history=true" in log
    assert not list((folder / "grpo-refused-out").glob("*"))
    config = PGRPOConfig(resume_without_history=True)
    made = GroupHistoryManager.load(folder / "grpo" / "global_step_6" / HISTORY_FILE, config, step=6)
    runs.assert_same(made, history(config, range(4, 7)))


def same_step(folder, one, other, step):
    for kind in ("npy", "json"):
        assert (folder / one / f"{step}.{kind}").read_bytes() == (folder / other / f"{step}.{kind}").read_bytes()
    assert np.isfinite(np.load(folder / one / f"{step}.npy")).all()
