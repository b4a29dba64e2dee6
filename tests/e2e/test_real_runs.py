# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a user does: stock verl with one flag, real vLLM rollouts, on the CPU; killed, and resumed."""

from __future__ import annotations

import json
import os
import re
import signal

import numpy as np
import pytest

from tests.e2e import runs
from verl_cpu.tiny_model import make_tiny_qwen3
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.data import personas
from verl_pgrpo.preflight import preflight

pytestmark = pytest.mark.e2e


def test_sync_run_is_killed_and_resumed_with_exact_accounting(tmp_path):
    """Padding rows and sessions of two outputs are in every batch (8 prompts x 2 sessions: 24 rows, padded to 32)."""
    runs.prepare(tmp_path)
    command = runs.command(tmp_path)
    report = preflight(command[command.index("--") + 1 :])
    assert report.ok, report.diagnostics
    run = runs.start(tmp_path, "first", "trainer.total_training_steps=40")
    runs.wait_for(tmp_path / "rollouts" / "3.jsonl", run)
    os.kill(run.pid, signal.SIGKILL)  # the launcher dies; processes that it started must end soon after
    run.wait()
    saved, _ = runs.settle(tmp_path)
    assert saved >= 2

    rows = [json.loads(line) for line in (tmp_path / "rollouts" / "1.jsonl").read_text().splitlines()]
    assert sum(row["uid"].startswith("pad") for row in rows) == 8
    assert sum(row["uid"].endswith("_1_1") for row in rows) == 8

    at_save = runs.history_of(tmp_path, saved)
    afresh = GroupHistoryManager()
    assert runs.replay(afresh, tmp_path, range(1, saved + 1)) == [16] * saved
    runs.assert_same(at_save, afresh)
    for step, values in runs.metrics(tmp_path, "first").items():
        assert values["pgrpo/observed_total"] == 16 * step

    end = saved + 3
    keep_one = "trainer.max_actor_ckpt_to_keep=1"
    second = runs.start(tmp_path, "second", f"trainer.total_training_steps={end}", keep_one)
    log = runs.finish(second, tmp_path, "second")
    assert f"history so far: {16 * saved} rewards" in log
    resumed = runs.metrics(tmp_path, "second")
    assert runs.totals(tmp_path, "second") == {step: 16.0 * step for step in range(saved + 1, end + 1)}
    # verl deletes the weights of the second run's first checkpoint, and only those; the history stays.
    weights = {int(path.parent.name.split("_")[-1]) for path in (tmp_path / "checkpoints").glob("global_step_*/actor")}
    assert {saved, end} <= weights
    assert saved + 2 not in weights
    assert runs.history_of(tmp_path, saved + 2).total_count == 16 * (saved + 2)
    # The resumed history continued exactly from the saved one; the same rollouts give the same bits.
    continued = runs.history_of(tmp_path, saved)
    runs.replay(continued, tmp_path, range(saved + 1, end + 1))
    final = runs.history_of(tmp_path, end)
    runs.assert_same(continued, final)
    runs.replay(afresh, tmp_path, range(saved + 1, end + 1))
    runs.assert_same(afresh, final)

    last = resumed[end]
    groups = [key.split("/")[2] for key in last if re.fullmatch("pgrpo/group/[^/]+/count", key)]
    assert sorted(groups) == sorted(final.groups)
    for group, mean in zip(final.groups, final.statistics(final.groups).mean, strict=True):
        assert last[f"pgrpo/group/{group}/mean"] == pytest.approx(mean)
    assert {f"pgrpo/group/{g}/{m}" for g in groups for m in ("count", "mean", "std")} <= set(last)
    assert {"pgrpo/worst_group/reward", "pgrpo/reward_gap", "pgrpo/cold_fraction"} <= set(last)
    assert np.isfinite([value for key, value in last.items() if key.startswith("pgrpo/")]).all()

    # A checkpoint whose history is damaged or gone stops the next run before it builds anything.
    path = tmp_path / "checkpoints" / f"global_step_{end}" / "pgrpo_history.parquet"
    path.unlink()
    run = runs.start(tmp_path, "third", f"trainer.total_training_steps={end + 1}")
    assert run.wait(timeout=runs.TIMEOUT) != 0
    log = (tmp_path / "third.log").read_text(errors="replace")
    assert "no reward history at" in log
    assert "on_missing_history=reset" in log
    assert "model engine initialized" not in log


def test_colocate_async_run_with_options_ends_with_the_error_of_a_weight_sync(tmp_path, monkeypatch):
    """verl alone would wait forever. The model has tied embeddings in several buckets; the first five syncs succeed."""
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "tests.e2e.failing_sync")
    monkeypatch.setenv("FAILED_SYNC", str(tmp_path / "failed"))
    runs.prepare(tmp_path)
    words = personas.toy_vocabulary()
    make_tiny_qwen3(tmp_path / "model", [*words, *(f"word{i}" for i in range(1500 - len(words)))], seed=0)
    options = ["+algorithm.pgrpo.half_life=64", *runs.OURS, "trainer.total_training_steps=9"]
    options.append("actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=1")
    run = runs.start(tmp_path, "run", *options, mode="colocate_async")
    runs.wait_for(tmp_path / "failed", run)
    assert runs.last_line(run, tmp_path, "run").endswith("ValueError: these weights cannot be loaded")
    changed = "{'half_life': 64.0, 'baseline': 'shrinkage', 'group_balance': 0.5}"
    assert f"options: {changed}" in (tmp_path / "run.log").read_text(errors="replace")
    afresh = GroupHistoryManager(PGRPOConfig(half_life=64))
    counts = runs.replay(afresh, tmp_path, range(1, 5))
    runs.assert_same(afresh, runs.history_of(tmp_path, 4, afresh.config))
    totals = runs.totals(tmp_path, "run")
    assert [totals[step] for step in range(1, 5)] == np.cumsum(counts).tolist()
