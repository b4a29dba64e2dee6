# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's V1 trainers with a history, without a complete run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from verl_pgrpo import GroupHistoryManager, HistoryFileWrongStep, MissingGroupError, PGRPOConfig
from verl_pgrpo.integration.batch import GroupColumn
from verl_pgrpo.integration.state import HISTORY_FILE, PGRPOState

HOOKS = ("_init_dataloader", "_compute_advantage", "step", "_save_checkpoint", "_load_checkpoint")


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
def test_every_trainer_of_the_registry_is_hooked_and_stays_verls_own_for_other_estimators(compose, monkeypatch, mode):
    from verl.trainer.ppo.v1 import get_trainer_cls

    from verl_pgrpo.integration.trainers import PGRPOV1TrainerMixin, with_history

    cls = get_trainer_cls(mode)
    stock = next(base for base in cls.__mro__[1:] if base.__name__ == cls.__name__)
    assert issubclass(cls, PGRPOV1TrainerMixin)
    assert stock.__module__ == f"verl.trainer.ppo.v1.trainer_{mode}"
    assert with_history(cls) is cls
    calls, arguments = [], {"_compute_advantage": ("batch", {}), "step": ({}, {})}
    for name in ("__init__", *HOOKS):
        monkeypatch.setattr(stock, name, lambda self, *args, name=name, **_: calls.append((name, *args)))
    grpo = cls(config=compose("algorithm.adv_estimator=grpo", "+algorithm.pgrpo.nonsense=1"))
    assert vars(grpo) == {}
    for name in HOOKS:
        getattr(grpo, name)(*arguments.get(name, ()))
    assert calls[1:] == [(name, *arguments.get(name, ())) for name in HOOKS]
    personalized = cls(config=compose("algorithm.adv_estimator=pgrpo", "trainer.resume_mode=disable"))
    assert personalized.pgrpo.history.num_groups == 0


@pytest.fixture
def trainer(compose, tmp_path):
    """verl's sync trainer at step 7, without the workers that its constructor would start."""
    from verl.trainer.ppo.v1 import get_trainer_cls

    made = object.__new__(get_trainer_cls("sync"))
    made.config = compose("algorithm.adv_estimator=pgrpo", f"trainer.default_local_dir={tmp_path}")
    made.global_steps, made.use_critic, made.trainer_mode = 7, False, "sync"
    made.pgrpo = PGRPOState(PGRPOConfig())
    made.pgrpo.history.update(["a"], [1.0])
    return made


def test_the_history_is_on_disk_before_verl_saves_anything(trainer, tmp_path):
    def save_checkpoint(path, *_, **__):
        assert GroupHistoryManager.load(tmp_path / "global_step_7" / HISTORY_FILE, step=7).total_count == 1
        raise OSError("the disk is full")

    trainer.actor_rollout_wg = SimpleNamespace(save_checkpoint=save_checkpoint)
    with pytest.raises(OSError, match="disk is full"):
        trainer._save_checkpoint()
    assert not (tmp_path / "latest_checkpointed_iteration.txt").exists()


def test_a_checkpoint_of_another_step_than_the_history_stops_the_run(trainer, tmp_path):
    (tmp_path / "global_step_3").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    trainer.actor_rollout_wg = SimpleNamespace(load_checkpoint=lambda *_, **__: None)
    trainer.pgrpo.step = 3
    trainer._load_checkpoint()
    trainer.pgrpo.step = 4
    with pytest.raises(HistoryFileWrongStep):
        trainer._load_checkpoint()


def test_one_row_of_each_prompt_is_fetched_and_all_its_rows_get_its_group(monkeypatch):
    from transfer_queue import KVBatchMeta

    from verl_pgrpo.integration import trainers

    fetched = []

    def kv_batch_get(keys, **where):
        if where["select_fields"] != ["user"]:
            raise ValueError("no such field")
        fetched.append((sorted(keys), where))
        return {"user": [{"segment": key.split("_")[0].upper()} for key in keys]}

    monkeypatch.setattr(trainers.tq, "kv_batch_get", kv_batch_get)
    batch = KVBatchMeta(["b_0_0", "a_0_0", "b_1_0", "a_1_1", "a_1_0", "padx_0_0"], [{}] * 6, "train")
    groups = trainers.preference_groups(batch, GroupColumn("user", ("segment",)))
    assert groups == ["B", "A", "B", "A", "A", "PADX"]
    assert fetched == [(["a_0_0", "b_0_0", "padx_0_0"], {"partition_id": "train", "select_fields": ["user"]})]
    assert trainers.preference_groups(batch, None) == [None] * 6
    with pytest.raises(MissingGroupError, match="segment"):
        trainers.preference_groups(batch, GroupColumn("segment"))
