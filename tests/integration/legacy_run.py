# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's older trainers with their own loops, on simulated workers and rollouts."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import datasets
import numpy as np
import torch

from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.integration.state import HISTORY_FILE

GROUPS = ["a", "b", "a", "c", "a", "b", "a", "b"]
N = 2  # responses of a prompt


class Prompts(torch.utils.data.Dataset):
    """Eight rows as verl's RLHFDataset gives them."""

    def __init__(self, **columns):
        info = [{"index": row, "segment": f"of {group}"} for row, group in enumerate(GROUPS)]
        columns = columns or {"preference_group": GROUPS}
        self.dataframe = datasets.Dataset.from_dict({"extra_info": info, **columns})

    def __len__(self):
        return len(self.dataframe)

    def __getitem__(self, row):
        return {"dummy_tensor": torch.tensor([0]), "raw_prompt": ["?"], "data_source": "x", **self.dataframe[row]}


def rollout(prompts):
    """Return what verl's agent loops return: tensors and the reward's columns, but no columns of the dataset.

    One of the reward's columns has the name of a dataset column. The first response has no trained token.
    """
    from verl.protocol import DataProto

    n, length = len(prompts), 3
    generator = torch.Generator().manual_seed(prompts.meta_info.get("global_steps", 0))
    scores, mask = torch.zeros(n, length), torch.ones(n, length, dtype=torch.long)
    scores[:, -1] = torch.rand(n, generator=generator)
    mask[0] = 0
    both = torch.ones(n, 2 * length, dtype=torch.long)
    tensors = {"prompts": both[:, :length], "responses": both[:, length:], "input_ids": both, "attention_mask": both}
    tensors |= {"position_ids": both.cumsum(1), "response_mask": mask, "rm_scores": scores}
    tensors["rollout_log_probs"] = -torch.ones(n, length)
    others = {"preference_group": np.array(["the reward's"] * n)}
    others["multi_modal_inputs"] = np.array([{}] * n, dtype=object)
    others |= {f"{which}_global_steps": np.zeros(n, dtype=object) for which in ("min", "max")}
    meta = {"timing": {}, "reward_extra_keys": ["preference_group"]}
    return DataProto.from_dict(tensors=tensors, non_tensors=others, meta_info=meta)


class Workers:
    """The actor's worker group; records the batches that it trains on."""

    def __init__(self):
        self.seen = []

    def update_actor(self, batch):
        from verl.utils import tensordict_utils as tu

        info = tu.get(batch, "extra_info")  # a rollout from a queue does not have it
        rows = [int(uid.split()[1]) for uid in batch["uid"]] if info is None else [each["index"] for each in info]
        counted = batch["response_mask"].any(-1)
        self.seen.append((rows, counted, batch["token_level_scores"].sum(-1), batch["advantages"].clone()))
        return tu.get_tensordict({}, non_tensor_dict={"metrics": {"mfu": 0.0}})

    def save_checkpoint(self, *_, **__):
        pass

    load_checkpoint = save_checkpoint


class Rollouts:
    """Agent loops and their weight sync, for a training loop that waits for them."""

    def generate_sequences(self, prompts):
        return rollout(prompts)

    def update_weights(self, *_):
        return {}

    def sleep_replicas(self):
        pass


class AsyncRollouts(Rollouts):
    async def generate_sequences(self, prompts):
        return rollout(prompts)


def configured(compose, tmp_path, kind, *overrides, folder="run"):
    """Compose the config of a run with one of the older trainers."""
    trainer = {"use_v1": kind != "v0", "total_epochs": 9, "total_training_steps": 5, "save_freq": 3}
    trainer |= {"balance_batch": False, "logger": "[file]", "default_local_dir": tmp_path / folder}
    return compose(
        "algorithm.adv_estimator=pgrpo",
        f"actor_rollout_ref.rollout.n={N}",
        "algorithm.rollout_correction.bypass_mode=True",
        "data.train_batch_size=4",
        "data.shuffle=False",
        *(f"trainer.{key}={value}" for key, value in trainer.items()),
        *overrides,
        config_name={"v0": "cpu"}.get(kind, f"cpu_{kind}"),
    )


def run(config, cls, monkeypatch, tmp_path, dataset=None):
    """Run the trainer's own constructor and loop; return it, its workers, and the metrics of each step."""
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
    return trainer, workers, logged(tmp_path)


def logged(tmp_path):
    """The metrics of each step in verl's file logger."""
    metrics = {}
    for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()):
        metrics.setdefault(line["step"], {}).update(line["data"])
    return metrics


def recomputed(history, seen):
    """Add the trained batches to `history` and compare each advantage with the history's, bit for bit."""
    for rows, counted, scores, advantages in seen:
        assert not counted.all()
        prompts = [row for row, counts in zip(rows, counted, strict=True) if counts]
        groups = [GROUPS[row % 8] for row in prompts]
        expected = history.compute_advantages(groups, scores[counted].double().numpy(), prompts).advantages
        assert (advantages[~counted] == 0).all()
        assert (advantages[counted] == torch.from_numpy(expected).float()[:, None]).all()
    return history


def saved(tmp_path, step, folder="run", config=None):
    return GroupHistoryManager.load(tmp_path / folder / f"global_step_{step}" / HISTORY_FILE, config, step=step)
