# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's `separate_async` on the CPU: two local updates per step, rollouts ahead of training, a kill, a resume."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import psutil
import pytest

from tests.e2e import runs
from verl_pgrpo import GroupHistoryManager

pytestmark = pytest.mark.e2e


def start(folder: Path, name: str, steps: int, max_versions: int):
    return runs.start(
        folder,
        name,
        f"trainer.total_training_steps={steps}",
        "trainer.save_freq=4",
        f"trainer.v1.sampler.max_off_policy_threshold={max_versions}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "trainer.v1.sampler.custom_sampler.path=pkg://tests.e2e.parts",
        "trainer.v1.sampler.custom_sampler.name=noting_replay_buffer",
        f"+trainer.v1.sampler.sampler_kwargs.notes={folder / name}.notes",
        mode="separate_async",
        preset="cpu_separate_async",
    )


def updates(folder: Path, name: str) -> dict[int, list[set[str]]]:
    """The uids of each local update of each step, as the replay buffer returned them."""
    noted = defaultdict(list)
    for line in (folder / f"{name}.notes").read_text().splitlines():
        sample = json.loads(line)
        noted[sample["step"]].append(set(sample["uids"]))
    return noted


def kill(run) -> None:
    """Send SIGKILL to all processes of the run except its launcher, which then cleans up."""
    for process in psutil.Process(run.pid).children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    assert run.wait(timeout=60) == 137


def check_probabilities(values: dict[str, float]) -> bool:
    """Return whether a step's rollouts come from its initial weights; if so, vLLM and the trainer agree on every token.

    This requires every weight sync, and for a step's later updates that its initial policy is saved and restored.
    """
    fresh = values["training/off_policy/trajectory_staleness_worst/max"] == 0
    difference = values["training/rollout_probs_diff_max"]
    assert difference < 1e-5 if fresh else difference > 1e-4
    return fresh


def test_run_is_killed_and_resumed_with_exact_accounting(tmp_path):
    """A step has 8 prompts x 2 sessions in two local updates of 12 rows, padded to 16; 8 more prompts are queued."""
    runs.prepare(tmp_path)
    # Rollouts of an earlier version of the weights are dropped, that is, all that were generated ahead.
    run = start(tmp_path, "first", steps=40, max_versions=1)
    runs.wait_for(tmp_path / "rollouts" / "5.jsonl", run)
    kill(run)
    saved = int((tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    assert saved >= 4
    dump = [json.loads(line) for line in (tmp_path / "rollouts" / "1.jsonl").read_text().splitlines()]
    assert sum(row["uid"].startswith("pad") for row in dump) == 8

    first = updates(tmp_path, "first")
    assert [[len(uids) for uids in first[step]] for step in range(1, saved + 1)] == [[4, 4]] * saved
    afresh = GroupHistoryManager()
    assert runs.replay(afresh, tmp_path, range(1, saved + 1), first) == [16] * saved
    runs.assert_same(afresh, runs.history_of(tmp_path, saved))
    logged = runs.metrics(tmp_path, "first")
    assert set(logged) >= set(range(1, saved + 1))
    for step, values in logged.items():
        assert values["pgrpo/observed_total"] == 16 * step
        assert check_probabilities(values)
    assert sum(values.get("training/off_policy/evicted_samples", 0) for values in logged.values()) > 0

    # The checkpoint contains rollouts that were generated ahead; now they are recent enough to be trained on.
    end = saved + 3
    log = runs.finish(start(tmp_path, "second", steps=end, max_versions=2), tmp_path, "second")
    assert f"history so far: {16 * saved} rewards" in log
    runs.replay(afresh, tmp_path, range(saved + 1, end + 1), updates(tmp_path, "second"))
    final = runs.history_of(tmp_path, end)
    runs.assert_same(afresh, final)
    assert runs.totals(tmp_path, "second") == {step: 16.0 * step for step in range(saved + 1, end + 1)}
    assert final.total_count == 16 * end
    assert not all([check_probabilities(values) for values in runs.metrics(tmp_path, "second").values()])
