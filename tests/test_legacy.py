# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's older trainers with a history: their own loops, on workers and rollouts that are played here."""

from __future__ import annotations

import asyncio
import inspect
import json
from concurrent.futures import Future
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from ray import cloudpickle

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.errors import ConfigError, HistoryFileWrongStep, MissingGroupError, UnsupportedVerlError
from verl_pgrpo.integration.checks import HISTORY_FILE
from verl_pgrpo.integration.legacy import _GROUP, FullyAsyncTrainer, LegacyTrainer

pytestmark = pytest.mark.slow

GROUPS = ["a", "b", "a", "c", "a", "b", "a", "b"]
N = 2  # responses of a prompt


class Prompts(torch.utils.data.Dataset):
    """Eight rows as verl's RLHFDataset gives them."""

    def __init__(self, **columns):
        columns = columns or {"preference_group": GROUPS}
        info = [{"index": row, "segment": f"of {group}"} for row, group in enumerate(GROUPS)]
        self.dataframe = datasets.Dataset.from_dict({"extra_info": info, **columns})

    def __len__(self):
        return len(self.dataframe)

    def __getitem__(self, row):
        return {"dummy_tensor": torch.tensor([0]), "raw_prompt": ["?"], "data_source": "x", **self.dataframe[row]}


def rollout(prompts):
    """What verl's agent loops bring back: tensors and the reward's own columns, and none of the dataset's.

    One of the reward's columns is called as the dataset's; the first response has no token that is trained.
    """
    from verl.protocol import DataProto

    n, length = len(prompts), 3
    generator = torch.Generator().manual_seed(prompts.meta_info.get("global_steps", 0))
    scores = torch.zeros(n, length)
    scores[:, -1] = torch.rand(n, generator=generator)
    mask = torch.ones(n, length, dtype=torch.long)
    mask[0] = 0
    both = torch.ones(n, 2 * length, dtype=torch.long)
    tensors = {
        "prompts": both[:, :length],
        "responses": both[:, length:],
        "input_ids": both,
        "attention_mask": both,
        "position_ids": both.cumsum(1),
        "response_mask": mask,
        "rollout_log_probs": -torch.ones(n, length),
        "rm_scores": scores,
    }
    others = {
        "preference_group": np.array(["the reward's"] * n),
        "multi_modal_inputs": np.array([{}] * n, dtype=object),
        "min_global_steps": np.zeros(n, dtype=object),
        "max_global_steps": np.zeros(n, dtype=object),
    }
    meta = {"timing": {}, "reward_extra_keys": ["preference_group"]}
    return DataProto.from_dict(tensors=tensors, non_tensors=others, meta_info=meta)


class Workers:
    """The actor's worker group; keeps what it was given to train on."""

    def __init__(self):
        self.seen = []

    def update_actor(self, batch):
        from verl.utils import tensordict_utils as tu

        info = tu.get(batch, "extra_info")  # what a rollout from a queue does not have
        rows = [int(uid.split()[1]) for uid in batch["uid"]] if info is None else [each["index"] for each in info]
        counted = batch["response_mask"].any(-1)
        self.seen.append((rows, counted, batch["token_level_scores"].sum(-1), batch["advantages"].clone()))
        return tu.get_tensordict({}, non_tensor_dict={"metrics": {"mfu": 0.0}})

    def save_checkpoint(self, *_, **__):
        pass

    load_checkpoint = save_checkpoint


class Rollouts:
    """Agent loops and the weight sync to them, for a loop that waits for them (`Async`) and one that does not."""

    def generate_sequences(self, prompts):
        return rollout(prompts)

    def update_weights(self, *_):
        return {}

    def sleep_replicas(self):
        pass


class AsyncRollouts(Rollouts):
    async def generate_sequences(self, prompts):
        return rollout(prompts)


def classes(kind):
    """verl's trainer as its launcher finds it, and the class that it was."""
    if kind == "v0":
        from verl.trainer.main_ppo_v0 import RayPPOTrainer as cls
    else:
        from verl.experimental.one_step_off_policy.main_ppo import OneStepOffRayTrainer as cls
    return cls, next(stock for stock in cls.__mro__ if not stock.__module__.startswith("verl_pgrpo") and stock != cls)


@pytest.fixture
def configure(compose, tmp_path):
    def configured(kind, *overrides, folder="run"):
        return compose(
            "algorithm.adv_estimator=pgrpo",
            f"trainer.use_v1={kind != 'v0'}",
            f"actor_rollout_ref.rollout.n={N}",
            "algorithm.rollout_correction.bypass_mode=True",
            "data.train_batch_size=4",
            "data.shuffle=False",
            "trainer.total_epochs=9",
            "trainer.total_training_steps=5",
            "trainer.save_freq=3",
            "trainer.balance_batch=False",
            "trainer.logger=[file]",
            f"trainer.default_local_dir={tmp_path / folder}",
            *overrides,
            config_name={"v0": "cpu"}.get(kind, f"cpu_{kind}"),
        )

    return configured


def run(config, cls, monkeypatch, tmp_path, dataset=None):
    """The trainer's own constructor and loop; the workers, and the metrics of each step."""
    from verl.trainer.ppo.utils import Role

    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    hybrid = config.actor_rollout_ref.hybrid_engine
    trainer = cls(
        config=config,
        tokenizer=None,
        role_worker_mapping={Role.ActorRollout if hybrid else Role.Actor: None},
        resource_pool_manager=SimpleNamespace(get_n_gpus=lambda: 1),
        train_dataset=dataset or Prompts(),
        val_dataset=Prompts(),
    )
    trainer.actor_rollout_wg = workers = Workers()
    trainer.checkpoint_manager = trainer.async_rollout_manager = Rollouts() if hybrid else AsyncRollouts()
    trainer.fit() if hybrid else asyncio.run(trainer.fit())
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    return trainer, workers, {line["step"]: line["data"] for line in lines}


def replayed(history, workers):
    """Fold what was trained on into `history`, and hold each advantage against it."""
    for rows, counted, scores, advantages in workers.seen:
        assert not counted.all()
        groups = [GROUPS[row % 8] for row, counts in zip(rows, counted, strict=True) if counts]
        expected = history.advantages(groups, scores[counted].double().numpy()).advantages
        assert (advantages[~counted] == 0).all()
        assert (advantages[counted] == torch.from_numpy(expected).float()[:, None]).all()
    return history


def same(one, other):
    assert sorted(one.groups) == sorted(other.groups)
    for name in ("count", "mean", "std"):
        mine, theirs = (getattr(history.statistics(one.groups), name) for history in (one, other))
        assert mine.tobytes() == theirs.tobytes()


def saved(tmp_path, step, folder="run"):
    return GroupHistoryManager.load(tmp_path / folder / f"global_step_{step}" / HISTORY_FILE, step=step)


@pytest.mark.parametrize("kind", ["v0", "one_step_off"])
def test_every_response_is_normalised_counted_logged_and_saved(kind, configure, monkeypatch, tmp_path):
    cls, _ = classes(kind)
    _, workers, metrics = run(configure(kind), cls, monkeypatch, tmp_path)
    assert len(workers.seen) == 5
    rewards = 4 * N - 1
    assert [metrics[step]["pgrpo/observed_total"] for step in range(1, 6)] == [rewards * step for step in range(1, 6)]
    assert {"pgrpo/a/mean", "pgrpo/b/reward", "pgrpo/c/count", "pgrpo/reward_gap"} <= set(metrics[5])
    final = replayed(GroupHistoryManager(), workers)
    same(final, saved(tmp_path, 5))
    assert saved(tmp_path, 3).total_count == 3 * rewards
    assert (tmp_path / "run" / "latest_checkpointed_iteration.txt").read_text() == "5"


@pytest.mark.parametrize("kind", ["v0", "one_step_off"])
def test_a_resumed_run_goes_on_from_its_history(kind, configure, monkeypatch, tmp_path, capsys):
    cls, _ = classes(kind)
    run(configure(kind, "trainer.total_training_steps=3"), cls, monkeypatch, tmp_path)
    before = saved(tmp_path, 3)
    _, second, metrics = run(configure(kind), cls, monkeypatch, tmp_path)
    assert f"history so far: {before.total_count} rewards of 3 groups" in capsys.readouterr().out
    assert sorted(metrics) == [4, 5]
    same(replayed(before, second), saved(tmp_path, 5))
    if kind == "v0":  # one-step-off loses the batch that it had fetched ahead, and trains on other rows
        _, whole, _ = run(configure(kind, folder="whole"), cls, monkeypatch, tmp_path)
        same(saved(tmp_path, 5), saved(tmp_path, 5, "whole"))
        for (*_, resumed), (*_, unbroken) in zip(second.seen, whole.seen[3:], strict=True):
            assert torch.equal(resumed, unbroken)


@pytest.mark.parametrize("kind", ["v0", "one_step_off"])
def test_other_estimators_are_verls_own(kind, configure, monkeypatch, tmp_path):
    from verl.trainer.ppo import ray_trainer

    seen = []
    compute_advantage = ray_trainer.compute_advantage
    for number, cls in enumerate(classes(kind)):
        config = configure(kind, "algorithm.adv_estimator=grpo", "+algorithm.pgrpo.nonsense=1", folder=str(number))
        trainer, workers, metrics = run(config, cls, monkeypatch, tmp_path)
        assert not list((tmp_path / str(number)).rglob(HISTORY_FILE))
        assert not any("pgrpo" in name for name in metrics[5])
        assert {name for name in vars(trainer) if "pgrpo" in name} <= {"pgrpo_history"}
        assert ray_trainer.compute_advantage is compute_advantage
        seen.append([advantages.numpy().tobytes() for *_, advantages in workers.seen])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5


@pytest.mark.parametrize("kind", ["v0", "one_step_off"])
def test_the_history_is_on_disk_before_verl_saves_anything(kind, configure, monkeypatch, tmp_path):
    def save_checkpoint(*_, **__):
        assert saved(tmp_path, 3).total_count == 3 * (4 * N - 1)
        raise OSError("the disk is full")

    monkeypatch.setattr(Workers, "save_checkpoint", save_checkpoint)
    from verl.trainer.ppo import ray_trainer

    compute_advantage = ray_trainer.compute_advantage
    with pytest.raises(OSError, match="disk is full"):
        run(configure(kind), classes(kind)[0], monkeypatch, tmp_path)
    assert not (tmp_path / "run" / "latest_checkpointed_iteration.txt").exists()
    assert ray_trainer.compute_advantage is compute_advantage


@pytest.mark.parametrize("kind", ["v0", "one_step_off", "fully_async"])
def test_wrong_runs_stop_in_the_constructor(kind, configure):
    """verl's fully-async launcher checks no configuration, so that the trainer must."""
    cls = trainer_behind_the_actor() if kind == "fully_async" else classes(kind)[0]
    with pytest.raises(ConfigError, match="did you mean half_life"):
        cls(config=configure(kind, "+algorithm.pgrpo.halflife=3"))


def test_a_checkpoint_of_another_step_than_the_history_stops_the_run(configure, monkeypatch, tmp_path):
    cls, stock = classes("v0")
    monkeypatch.setattr(stock, "_load_checkpoint", lambda self: setattr(self, "global_steps", 8))
    with pytest.raises(HistoryFileWrongStep, match=r"step 8.*step 0"):
        run(configure("v0"), cls, monkeypatch, tmp_path)


def test_groups_may_lie_deeper_or_be_missing(configure, monkeypatch, tmp_path):
    cls, _ = classes("v0")
    deep = "+algorithm.pgrpo.group_key=extra_info.segment"
    run(configure("v0", deep), cls, monkeypatch, tmp_path, Prompts(id=list(range(8))))
    path = tmp_path / "run" / "global_step_5" / HISTORY_FILE
    assert GroupHistoryManager.load(path, PGRPOConfig(group_key="extra_info.segment"), step=5).groups[0] == "of a"

    with pytest.raises(MissingGroupError, match="no column 'preference_group'"):
        run(configure("v0", folder="none"), cls, monkeypatch, tmp_path, Prompts(id=list(range(8))))
    filled = PGRPOConfig(missing_group="somebody")
    some = Prompts(preference_group=["a", None, " ", "a"] * 2)
    run(configure("v0", "+algorithm.pgrpo.missing_group=somebody", folder="some"), cls, monkeypatch, tmp_path, some)
    history = GroupHistoryManager.load(tmp_path / "some" / "global_step_5" / HISTORY_FILE, filled, step=5)
    assert sorted(history.groups) == ["a", "somebody"]


def test_a_rollout_that_loses_the_groups_stops_the_run(configure, monkeypatch, tmp_path):
    cls, stock = classes("v0")
    monkeypatch.setattr(LegacyTrainer, "_get_gen_batch", stock._get_gen_batch)
    with pytest.raises(UnsupportedVerlError, match="without the preference groups"):
        run(configure("v0"), cls, monkeypatch, tmp_path)


def test_rejected_responses_do_not_count(configure, monkeypatch, tmp_path):
    """Rollout correction takes the tokens of what it rejects out of the response mask, before the advantage."""
    from verl.trainer.ppo import rollout_corr_helper

    def reject_two(batch, _):
        batch.batch["response_mask"][1:3] = 0
        return batch, {}

    monkeypatch.setattr(rollout_corr_helper, "compute_rollout_correction_and_add_to_batch", reject_two)
    cls, stock = classes("v0")

    def old_log_prob(self, batch):
        from verl.protocol import DataProto

        zeros = torch.zeros_like(batch.batch["rm_scores"])
        return DataProto.from_dict(tensors={"old_log_probs": zeros, "entropys": zeros}), 0.0

    monkeypatch.setattr(stock, "_compute_old_log_prob", old_log_prob)
    config = configure("v0", "algorithm.rollout_correction.bypass_mode=False")
    _, _, metrics = run(config, cls, monkeypatch, tmp_path)
    assert metrics[5]["pgrpo/observed_total"] == 5 * (4 * N - 3)


class Remote:
    """A method of a Ray actor, which answers at once."""

    def __init__(self, function):
        self.function = function

    def remote(self, *args):
        self.answer = self.function(*args)
        return self

    def future(self):
        done = Future()
        done.set_result(self.answer)
        return done


class Queue:
    """What the trainer reads: prompts with their rollouts, as verl's rollouter makes them."""

    def __init__(self, config, rows):
        self.config, self.rows = config, list(rows)

    async def get_sample(self):
        from verl.experimental.fully_async_policy.detach_utils import RolloutSample, prepare_single_generation_data
        from verl.experimental.fully_async_policy.fully_async_rollouter import FullyAsyncAgentLoopManager
        from verl.utils.dataset.rl_dataset import collate_fn

        if not self.rows:
            return None, 0
        row = self.rows.pop(0)
        manager = object.__new__(FullyAsyncAgentLoopManager)
        manager.config = self.config
        manager.agent_loop_workers = [SimpleNamespace(generate_sequences=Remote(rollout))]
        prompts = prepare_single_generation_data(collate_fn([Prompts()[row % 8]]), self.config)
        prompts.meta_info["global_steps"] = row
        output = await manager.generate_sequences_single(prompts)
        output.meta_info["metrics"] = [{"generate_sequences": 0.0, "tool_calls": 0.0}] * N
        output.non_tensor_batch["uid"] = np.array([f"prompt {row}"] * N)
        return RolloutSample(output, str(row), 0, {}), len(self.rows)

    def get_queue_size_sync(self):
        return len(self.rows)


def trainer_behind_the_actor():
    from verl.experimental.fully_async_policy.fully_async_main import FullyAsyncTrainer as actor

    assert actor._default_options == {"num_cpus": 10}  # verl's own
    return actor.__ray_metadata__.modified_class.__ray_actor_class__


def run_fully_async(config, monkeypatch, tmp_path, rows):
    """As `run`, with the class behind the actor FullyAsyncTrainer: four prompts an update, two updates a version."""
    from verl.experimental.fully_async_policy import fully_async_trainer

    async def update_weights(**_):
        pass

    async def train():
        await trainer.load_checkpoint()
        await trainer.fit()

    cls = trainer_behind_the_actor()
    get = SimpleNamespace(get=lambda one: [each.answer for each in one] if isinstance(one, list) else one.answer)
    monkeypatch.setattr(
        fully_async_trainer, "ray", SimpleNamespace(**vars(get), cloudpickle=SimpleNamespace(loads=lambda it: it))
    )
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    trainer = cls(
        config=config,
        tokenizer=None,
        role_worker_mapping={},
        resource_pool_manager=SimpleNamespace(get_n_gpus=lambda: 1),
    )
    trainer.set_total_train_steps(9)
    trainer.actor_rollout_wg = workers = Workers()
    trainer.checkpoint_manager = SimpleNamespace(update_weights=update_weights)
    trainer.message_queue_client = Queue(config, rows)
    trainer.rollouter = SimpleNamespace(
        get_total_produced_samples=Remote(lambda: 0),
        get_completed_steps=Remote(lambda: 0),
        reset_staleness=Remote(dict),
        save_checkpoint=Remote(lambda folder: None),
    )
    (tmp_path / "run").mkdir(exist_ok=True)
    asyncio.run(train())
    metrics = {}
    for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()):
        metrics.setdefault(line["step"], {}).update(line["data"])
    return trainer, workers, metrics


@pytest.fixture
def fully_async(configure):
    batch = "actor_rollout_ref.actor.ppo_mini_batch_size=4", "data.train_batch_size=0"
    return lambda *overrides: configure(
        "fully_async", *batch, "trainer.save_freq=2", "trainer.test_freq=-1", *overrides
    )


def test_fully_async_groups_come_with_the_queue_and_checkpoints_count_versions(
    fully_async, monkeypatch, tmp_path, capsys
):
    _, workers, metrics = run_fully_async(fully_async(), monkeypatch, tmp_path, range(24))
    assert len(workers.seen) == 6
    # Of each prompt one response has no token; a version's metrics are of its own two updates.
    assert [metrics[version]["pgrpo/observed_total"] for version in (1, 2, 3)] == [8, 16, 24]
    assert metrics[1]["pgrpo/a/count"] == 4
    second = GroupHistoryManager()
    for history, seen in ((second, workers.seen[:4]), (GroupHistoryManager(), workers.seen)):
        replayed(history, SimpleNamespace(seen=seen))
    same(second, saved(tmp_path, 2))
    same(history, saved(tmp_path, 3))  # verl saves at the end, whatever save_freq says

    _, resumed, metrics = run_fully_async(fully_async(), monkeypatch, tmp_path, range(24, 40))
    assert "history so far: 24 rewards of 3 groups" in capsys.readouterr().out
    assert [metrics[version]["pgrpo/observed_total"] for version in (4, 5)] == [32, 40]
    same(replayed(history, resumed), saved(tmp_path, 5))


def test_fully_async_leaves_other_estimators_and_the_rollouter_alone(fully_async, monkeypatch, tmp_path):
    from verl.experimental.fully_async_policy.fully_async_rollouter import FullyAsyncRollouter
    from verl.experimental.separation.ray_trainer import SeparateRayPPOTrainer

    config = fully_async("algorithm.adv_estimator=grpo", "+algorithm.pgrpo.nonsense=1")
    _, workers, metrics = run_fully_async(config, monkeypatch, tmp_path, range(8))
    assert len(workers.seen) == 2
    assert not any("pgrpo" in name for name in metrics[1])
    assert not list(tmp_path.rglob(HISTORY_FILE))
    rollouter = FullyAsyncRollouter.__ray_metadata__.modified_class.__ray_actor_class__
    assert rollouter.__mro__[1] is SeparateRayPPOTrainer
    assert not issubclass(rollouter, LegacyTrainer)
    queue = Queue(config, [0])
    sample, _ = asyncio.run(queue.get_sample())
    assert _GROUP not in sample.full_batch.non_tensor_batch


def test_fully_async_stops_at_another_version_than_the_historys(fully_async, monkeypatch, tmp_path):
    from verl.experimental.fully_async_policy import fully_async_trainer

    run_fully_async(fully_async(), monkeypatch, tmp_path, range(24))
    later = str(tmp_path / "run" / "global_step_4")
    monkeypatch.setattr(fully_async_trainer, "find_latest_ckpt_path", lambda _: later)
    with pytest.raises(HistoryFileWrongStep, match=r"step 4.*step 3"):
        run_fully_async(fully_async(), monkeypatch, tmp_path, range(24, 32))


def test_verls_task_runners_still_go_to_ray_with_the_trainers_and_the_check():
    """They are pickled by value, with all that they refer to."""
    from verl.experimental.fully_async_policy import fully_async_main
    from verl.experimental.one_step_off_policy import main_ppo
    from verl.trainer import main_ppo_v0

    def names(actor, method):
        sent = actor.__ray_metadata__.modified_class
        assert cloudpickle.dumps(sent)  # a wrapt proxy among them would raise
        return inspect.unwrap(getattr(sent, method)).__globals__

    v0, one_step = names(main_ppo_v0.TaskRunner, "run"), names(main_ppo.OneStepTaskRunner, "run")
    assert v0["RayPPOTrainer"] is main_ppo_v0.RayPPOTrainer
    assert v0["validate_config"] is one_step["validate_config"] is main_ppo_v0.validate_config
    assert one_step["OneStepOffRayTrainer"] is main_ppo.OneStepOffRayTrainer
    fully = names(fully_async_main.FullyAsyncTaskRunner, "_create_trainer")
    assert issubclass(fully["FullyAsyncTrainer"].__ray_metadata__.modified_class, FullyAsyncTrainer)
