# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""trainer.use_v1=False and one-step-off with a history: verl's own loops on simulated workers."""

from __future__ import annotations

import functools
import inspect

import pytest
import torch
from ray import cloudpickle

from tests.core.test_history import assert_same
from tests.integration.legacy_run import N, Prompts, Workers, configured, recomputed, run, saved
from verl_pgrpo import ConfigError, GroupHistoryManager, MissingGroupError, PGRPOConfig, UnsupportedVerlError
from verl_pgrpo.integration.legacy import FullyAsyncTrainerMixin, LegacyTrainerMixin
from verl_pgrpo.integration.state import HISTORY_FILE

pytestmark = pytest.mark.slow
KINDS = pytest.mark.parametrize("kind", ["v0", "one_step_off"])
REWARDS = 4 * N - 1  # per step: one response has no trained token


@pytest.fixture
def configure(compose, tmp_path):
    return functools.partial(configured, compose, tmp_path)


def classes(kind):
    """verl's trainer as its launcher imports it, and verl's own class behind it."""
    if kind == "v0":
        from verl.trainer.main_ppo_v0 import RayPPOTrainer as cls
    else:
        from verl.experimental.one_step_off_policy.main_ppo import OneStepOffRayTrainer as cls
    return cls, next(stock for stock in cls.__mro__ if not stock.__module__.startswith("verl_pgrpo") and stock != cls)


@KINDS
def test_every_response_is_normalized_counted_logged_and_saved_also_after_a_resume(
    kind, configure, monkeypatch, tmp_path
):
    cls, _ = classes(kind)
    _, first, metrics = run(configure(kind, "trainer.total_training_steps=3"), cls, monkeypatch, tmp_path)
    assert [metrics[step]["pgrpo/observed_total"] for step in (1, 2, 3)] == [REWARDS, 2 * REWARDS, 3 * REWARDS]
    assert {"pgrpo/group/a/mean", "pgrpo/group/b/reward", "pgrpo/group/c/count", "pgrpo/reward_gap"} <= set(metrics[3])
    history = recomputed(GroupHistoryManager(), first.seen)
    assert_same(history, saved(tmp_path, 3))
    assert (tmp_path / "run" / "latest_checkpointed_iteration.txt").read_text() == "3"
    _, second, metrics = run(configure(kind), cls, monkeypatch, tmp_path)
    assert metrics[5]["pgrpo/observed_total"] == 5 * REWARDS
    assert_same(recomputed(history, second.seen), saved(tmp_path, 5))
    if kind == "v0":  # one-step-off loses the batch that it had fetched ahead, and trains on other rows
        _, whole, _ = run(configure(kind, folder="whole"), cls, monkeypatch, tmp_path)
        assert_same(saved(tmp_path, 5), saved(tmp_path, 5, "whole"))
        for (*_, resumed), (*_, unbroken) in zip(second.seen, whole.seen[3:], strict=True):
            assert torch.equal(resumed, unbroken)


@KINDS
def test_other_estimators_are_verls_own_bit_for_bit(kind, configure, monkeypatch, tmp_path):
    from verl.trainer.ppo import ray_trainer

    seen, compute_advantage = [], ray_trainer.compute_advantage
    for number, cls in enumerate(classes(kind)):
        config = configure(kind, "algorithm.adv_estimator=grpo", "+algorithm.pgrpo.nonsense=1", folder=str(number))
        trainer, workers, metrics = run(config, cls, monkeypatch, tmp_path)
        assert not list((tmp_path / str(number)).rglob(HISTORY_FILE))
        assert not any("pgrpo" in name for name in [*metrics[5], *vars(trainer)])
        assert ray_trainer.compute_advantage is compute_advantage
        seen.append([advantages.numpy().tobytes() for *_, advantages in workers.seen])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5


@KINDS
def test_the_history_is_on_disk_before_verl_saves_anything(kind, configure, monkeypatch, tmp_path):
    from verl.trainer.ppo import ray_trainer

    def save_checkpoint(*_, **__):
        assert saved(tmp_path, 3).total_count == 3 * REWARDS
        raise OSError("the disk is full")

    compute_advantage = ray_trainer.compute_advantage
    monkeypatch.setattr(Workers, "save_checkpoint", save_checkpoint)
    with pytest.raises(OSError, match="disk is full"):
        run(configure(kind), classes(kind)[0], monkeypatch, tmp_path)
    assert not (tmp_path / "run" / "latest_checkpointed_iteration.txt").exists()
    assert ray_trainer.compute_advantage is compute_advantage


@KINDS
def test_wrong_runs_stop_in_the_constructor(kind, configure):
    with pytest.raises(ConfigError, match="half_life"):
        classes(kind)[0](config=configure(kind, "+algorithm.pgrpo.halflife=3"))


def test_groups_may_be_nested_or_missing(configure, monkeypatch, tmp_path):
    numbers = Prompts(id=list(range(8)))
    for folder, options, groups in (
        ("nested", {"group_key": "extra_info.segment"}, ["of a", "of b", "of c"]),
        ("missing", {"default_group": "other"}, ["other"]),
    ):
        config = configure("v0", *(f"+algorithm.pgrpo.{key}={value}" for key, value in options.items()), folder=folder)
        run(config, classes("v0")[0], monkeypatch, tmp_path, numbers)
        assert sorted(saved(tmp_path, 5, folder, PGRPOConfig(**options)).groups) == groups
    with pytest.raises(MissingGroupError):
        run(configure("v0"), classes("v0")[0], monkeypatch, tmp_path, numbers)


def test_a_rollout_that_loses_the_groups_stops_the_run(configure, monkeypatch, tmp_path):
    cls, stock = classes("v0")
    monkeypatch.setattr(LegacyTrainerMixin, "_get_gen_batch", stock._get_gen_batch)
    with pytest.raises(UnsupportedVerlError):
        run(configure("v0"), cls, monkeypatch, tmp_path)


def test_verls_task_runners_still_go_to_ray_with_the_trainers_and_the_check():
    """They are pickled by value, with everything that they refer to."""
    from verl.experimental.fully_async_policy import fully_async_main
    from verl.experimental.one_step_off_policy import main_ppo
    from verl.trainer import main_ppo_v0

    def names(actor, method):
        sent = actor.__ray_metadata__.modified_class
        assert cloudpickle.dumps(sent)  # as Ray sends it: raises if there is a wrapt proxy. Nothing is loaded
        return inspect.unwrap(getattr(sent, method)).__globals__

    v0, one_step = names(main_ppo_v0.TaskRunner, "run"), names(main_ppo.OneStepTaskRunner, "run")
    assert v0["RayPPOTrainer"] is main_ppo_v0.RayPPOTrainer
    assert v0["validate_config"] is one_step["validate_config"] is main_ppo_v0.validate_config
    assert one_step["OneStepOffRayTrainer"] is main_ppo.OneStepOffRayTrainer
    fully = names(fully_async_main.FullyAsyncTaskRunner, "_create_trainer")
    assert issubclass(fully["FullyAsyncTrainer"].__ray_metadata__.modified_class, FullyAsyncTrainerMixin)
