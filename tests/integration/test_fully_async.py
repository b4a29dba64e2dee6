# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""fully-async with a history: verl's own loop, fed by verl's own rollouter with simulated workers."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from tests.core.test_history import assert_same
from tests.integration.legacy_run import GROUPS, N, Prompts, Workers, configured, logged, recomputed, rollout, saved
from verl_pgrpo import ConfigError, GroupHistoryManager, HistoryFileWrongStep, MissingGroupError
from verl_pgrpo.errors import DataError
from verl_pgrpo.integration.legacy import _GROUP
from verl_pgrpo.integration.state import HISTORY_FILE

pytestmark = pytest.mark.slow


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

    def __await__(self):
        yield from ()
        return self.answer


class Queue:
    """The trainer's input: prompts with their rollouts, as verl's rollouter produces them."""

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


def behind_the_actor(name, options):
    """Return the class behind one of the launcher's actors, which has verl's own options."""
    from verl.experimental.fully_async_policy import fully_async_main

    actor = getattr(fully_async_main, name)
    assert actor._default_options == options
    return actor.__ray_metadata__.modified_class.__ray_actor_class__


def rollouter(config, dataset, monkeypatch):
    """verl's own rollouter, on this dataset."""
    from verl.experimental.fully_async_policy import fully_async_rollouter

    monkeypatch.setattr(fully_async_rollouter, "create_rl_dataset", lambda *_, **__: dataset)
    cls = behind_the_actor("FullyAsyncRollouter", {"num_cpus": 10, "max_concurrency": 100})
    return cls(config=config, tokenizer=None)


@pytest.fixture
def config(compose, tmp_path):
    batch = "actor_rollout_ref.actor.ppo_mini_batch_size=4", "data.train_batch_size=0"
    save = "trainer.save_freq=2", "trainer.test_freq=-1"
    return lambda *overrides: configured(compose, tmp_path, "fully_async", *batch, *save, *overrides)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the trainer behind the actor on some rows: four prompts per update, two updates per version."""
    from verl.experimental.fully_async_policy import fully_async_trainer

    def get(futures):
        return [each.answer for each in futures] if isinstance(futures, list) else futures.answer

    async def update_weights(**_):
        pass

    def ran(config, rows, dataset=None):
        trainer = behind_the_actor("FullyAsyncTrainer", {"num_cpus": 10})(
            config=config,
            tokenizer=None,
            role_worker_mapping={},
            resource_pool_manager=SimpleNamespace(get_n_gpus=lambda: 1),
        )
        trainer.set_total_train_steps(9)
        trainer.actor_rollout_wg = workers = Workers()
        trainer.checkpoint_manager = SimpleNamespace(update_weights=update_weights)
        trainer.message_queue_client = Queue(config, rows)
        trainer._setup_checkpoint_manager = update_weights
        group_sizes = rollouter(config, dataset or Prompts(), monkeypatch).pgrpo_group_sizes
        rollouts = SimpleNamespace(
            pgrpo_group_sizes=Remote(group_sizes),
            get_total_produced_samples=Remote(lambda: 0),
            get_completed_steps=Remote(lambda: 0),
            reset_staleness=Remote(dict),
            save_checkpoint=Remote(lambda folder: None),
        )

        async def train():
            await trainer.set_rollouter(rollouts)
            await trainer.load_checkpoint()
            await trainer.fit()

        (tmp_path / "run").mkdir(exist_ok=True)
        asyncio.run(train())
        return workers.seen, logged(tmp_path)

    played = SimpleNamespace(get=get, cloudpickle=SimpleNamespace(loads=lambda it: it))
    monkeypatch.setattr(fully_async_trainer, "ray", played)
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    return ran


def test_groups_come_with_the_queue_and_checkpoints_count_versions(config, run, tmp_path):
    seen, metrics = run(config(), range(24))
    assert len(seen) == 6
    # One response of each prompt has no trained token; a version's metrics are of its own two updates.
    assert [metrics[version]["pgrpo/observed_total"] for version in (1, 2, 3)] == [8, 16, 24]
    assert metrics[1]["pgrpo/group/a/count"] == 4
    assert_same(recomputed(GroupHistoryManager(), seen[:4]), saved(tmp_path, 2))
    history = recomputed(GroupHistoryManager(), seen)
    assert_same(history, saved(tmp_path, 3))  # verl saves at the end, regardless of save_freq

    seen, metrics = run(config(), range(24, 40))
    assert [metrics[version]["pgrpo/observed_total"] for version in (4, 5)] == [32, 40]
    assert_same(recomputed(history, seen), saved(tmp_path, 5))


def test_the_rollouter_checks_and_counts_the_training_data(config, run, monkeypatch, capsys):
    run(config(), range(24))
    assert "3 preference groups in 8 training rows: 'a' 4 (50.0%)" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no preference group in common"):
        run(config(), range(24, 32), Prompts(preference_group=["x"] * 8))
    reserved = {"preference_group": GROUPS, "trajectory": GROUPS}
    for columns, error in (({"other": GROUPS}, MissingGroupError), (reserved, DataError)):
        with pytest.raises(error, match=r"preference_group|trajectory"):
            rollouter(config(), Prompts(**columns), monkeypatch)
        grpo = rollouter(config("algorithm.adv_estimator=grpo"), Prompts(**columns), monkeypatch)
        assert grpo.pgrpo_group_sizes() is None


def test_other_estimators_are_verls_own(config, run, tmp_path):
    grpo = config("algorithm.adv_estimator=grpo", "+algorithm.pgrpo.nonsense=1")
    seen, metrics = run(grpo, range(8))
    assert len(seen) == 2
    assert not any("pgrpo" in name for name in metrics[1])
    assert not list(tmp_path.rglob(HISTORY_FILE))
    sample, _ = asyncio.run(Queue(grpo, [0]).get_sample())
    assert _GROUP not in sample.full_batch.non_tensor_batch


def test_a_run_stops_at_another_version_than_the_historys_and_at_a_wrong_option(config, run, monkeypatch, tmp_path):
    """verl's fully-async launcher validates no configuration, so the trainer must."""
    from verl.experimental.fully_async_policy import fully_async_trainer

    with pytest.raises(ConfigError, match="half_life"):
        run(config("+algorithm.pgrpo.halflife=3"), [])
    run(config(), range(24))
    later = str(tmp_path / "run" / "global_step_4")
    monkeypatch.setattr(fully_async_trainer, "find_latest_ckpt_path", lambda _: later)
    with pytest.raises(HistoryFileWrongStep):
        run(config(), range(24, 32))
