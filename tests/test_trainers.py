# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's trainer class with a history, apart from a whole run: what must hold when a step of it fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.errors import HistoryFileWrongStep
from verl_pgrpo.integration.checks import HISTORY_FILE


@pytest.fixture
def trainer(compose, tmp_path):
    """verl's sync trainer at step 7, without the workers that its constructor would start."""
    from verl.trainer.ppo.v1 import get_trainer_cls

    cls = get_trainer_cls("sync")
    made = object.__new__(cls)
    made.config = compose("algorithm.adv_estimator=pgrpo", f"trainer.default_local_dir={tmp_path}")
    made.global_steps, made.use_critic = 7, False
    made.pgrpo_history = GroupHistoryManager()
    made.pgrpo_history.observe(["a"], [1.0])
    made._pgrpo_options, made._pgrpo_step = PGRPOConfig(), 0
    return made


def test_the_history_is_on_disk_before_verl_saves_anything(trainer, tmp_path):
    def save_checkpoint(path, *_, **__):
        saved = GroupHistoryManager.load(tmp_path / "global_step_7" / HISTORY_FILE, step=7)
        assert saved.total_count == 1
        assert not (tmp_path / "latest_checkpointed_iteration.txt").exists()
        raise OSError("the disk is full")

    trainer.actor_rollout_wg = SimpleNamespace(save_checkpoint=save_checkpoint)
    with pytest.raises(OSError, match="disk is full"):
        trainer._save_checkpoint()
    assert not (tmp_path / "latest_checkpointed_iteration.txt").exists()


def test_a_checkpoint_of_another_step_than_the_history_stops_the_run(trainer, tmp_path):
    (tmp_path / "global_step_3").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    trainer.trainer_mode = "sync"
    trainer.actor_rollout_wg = SimpleNamespace(load_checkpoint=lambda *_, **__: None)
    with pytest.raises(HistoryFileWrongStep, match=r"step 3.*step 0"):
        trainer._load_checkpoint()


def test_one_row_of_each_prompt_is_fetched_and_all_its_rows_get_its_group(monkeypatch):
    from transfer_queue import KVBatchMeta

    from verl_pgrpo.integration import trainers

    def kv_batch_get(keys, partition_id, select_fields):
        fetched.append((keys, partition_id, select_fields))
        return {"user": [{"segment": key.split("_")[0].upper()} for key in keys]}

    fetched: list[tuple] = []
    monkeypatch.setattr(trainers.tq, "kv_batch_get", kv_batch_get)
    keys = ["b_0_0", "a_0_0", "b_1_0", "a_1_1", "a_1_0", "padx_0_0"]
    groups = trainers.preference_groups(KVBatchMeta(keys, [{}] * 6, "train"), ("user", ["segment"]))
    assert groups == ["B", "A", "B", "A", "A", "PADX"]
    assert fetched == [(["b_0_0", "a_0_0", "padx_0_0"], "train", ["user"])]
