# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The advantage step of the V1 trainer of whatever verl is on the path, over verl's own TransferQueue.

    python -m tests.patch_probe OUT gdpo|gdpo-before-v1|pgrpo|pgrpo-native ...

Each word is a way to compute advantages, on the same recorded rollouts; they go to OUT.npz, and what a way raised, and
how often the plugin fetched groups itself, to OUT.json. `pgrpo` is the plugin's, `pgrpo-native` this project's
estimator registered with its batch fields and nothing else, `gdpo-before-v1` verl's GDPO given by hand all that the
older trainer gives it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tests.conftest import ROOT
from tests.replay_run import recorded

REWARDS = ["accuracy", "style"]


def rollouts() -> list[dict]:
    """Recorded rows: padding, rows without a token that is trained; with a reward of each of two kinds.

    One output a session: how sessions of several are counted, the plugin learns from the batch's keys.
    """
    rows = [row for row in recorded(1, 0) if row["key"].endswith("_0")]
    random = np.random.default_rng(7)
    return [{**row, **{name: float(random.integers(0, 4)) for name in REWARDS}} for row in rows]


def config(estimator: str):
    import verl
    from hydra import compose, initialize_config_dir

    search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
    with initialize_config_dir(str(ROOT / "verl_cpu" / "presets"), version_base=None):
        return compose(
            "cpu",
            [
                search,
                f"algorithm.adv_estimator={estimator}",
                f"+algorithm.gdpo_reward_keys=[{','.join(REWARDS)}]",
                "actor_rollout_ref.model.path=none",
                "trainer.resume_mode=disable",
            ],
        )


def trainer_of(estimator: str):
    """verl's sync trainer, without the workers that its constructor would start."""
    from verl.trainer.ppo.v1 import get_trainer_cls

    trainer = object.__new__(get_trainer_cls("sync"))
    trainer.config, trainer.pgrpo_history = config(estimator), None
    return trainer


def personalized():
    from verl_pgrpo import GroupHistoryManager, PGRPOConfig

    trainer = trainer_of("pgrpo")
    trainer.pgrpo_history, trainer._pgrpo_options = GroupHistoryManager(), PGRPOConfig()
    trainer._pgrpo_column = ("preference_group", [])
    trainer._pgrpo_begin(None)
    return trainer


def register_natively() -> None:
    """What anybody would write whose verl lets an estimator declare its fields."""
    from verl.trainer.ppo.core_algos import register_adv_est

    from verl_pgrpo import GroupHistoryManager
    from verl_pgrpo.integration.estimator import batch_of_run, compute_pgrpo_outcome_advantage
    from verl_pgrpo.integration.rows import Rows

    history = GroupHistoryManager()

    @register_adv_est("pgrpo", batch_fields=["preference_group"])
    def estimator(token_level_rewards, response_mask, index, non_tensor_batch, **kwargs):
        rows = Rows.of_sessions(index.tolist(), non_tensor_batch["preference_group"].tolist())
        with batch_of_run(history, rows):
            return compute_pgrpo_outcome_advantage(token_level_rewards, response_mask, index=index)


def gdpo_before_v1(rows: list[dict]) -> np.ndarray:
    import torch
    from verl.protocol import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    width = max(len(row["mask"]) for row in rows)
    mask = torch.tensor(np.array([np.pad(row["mask"], (0, width - len(row["mask"]))) for row in rows]))
    tensors = {
        "token_level_rewards": torch.zeros(len(rows), width),
        "response_mask": mask,
        "prompts": torch.ones(len(rows), 3),
        "attention_mask": torch.cat([torch.ones(len(rows), 3), mask], dim=1).long(),
    }
    columns = {name: np.array([row[name] for row in rows]) for name in REWARDS}
    uids = np.array([row["key"].rsplit("_", 2)[0] for row in rows], dtype=object)
    data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": uids, **columns})
    return compute_advantage(data, "gdpo", config=config("gdpo").algorithm).batch["advantages"].numpy()


def put(rows: list[dict], partition: str):
    import torch
    import transfer_queue as tq
    from tensordict import NonTensorStack, TensorDict
    from transfer_queue import KVBatchMeta

    def nested(arrays, dtype):
        return torch.nested.as_nested_tensor([torch.as_tensor(a, dtype=dtype) for a in arrays], layout=torch.jagged)

    keys, tags = [row["key"] for row in rows], [{"is_padding": row["padding"]} for row in rows]
    fields = {
        "uid": NonTensorStack(*[key.rsplit("_", 2)[0] for key in keys]),
        "preference_group": NonTensorStack(*[row["group"] for row in rows]),
        "response_mask": nested([row["mask"] for row in rows], torch.int64),
        "rm_scores": nested([np.eye(len(row["mask"]))[-1] * row["reward"] for row in rows], torch.float32),
        # As an agent loop leaves them (verl/experimental/agent_loop/agent_loop.py).
        "extra_fields": NonTensorStack(*[{"reward_extra_info": {name: row[name] for name in REWARDS}} for row in rows]),
    }
    tq.kv_batch_put(keys=keys, partition_id=partition, fields=TensorDict(fields, batch_size=len(rows)), tags=tags)
    return KVBatchMeta(partition_id=partition, keys=keys, tags=tags)


def main() -> None:
    out, *ways = sys.argv[1:]
    import ray
    import transfer_queue as tq
    import verl

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=100_000_000)
    settings = config("grpo").transfer_queue
    settings.enable = True
    tq.init(settings)
    rows, advantages = rollouts(), {}
    told: dict[str, object] = {"verl": str(Path(verl.__file__).parent.parent), "version": verl.__version__}
    if "pgrpo" in ways:
        from verl_pgrpo.integration import trainers

        fetch, calls = trainers.preference_groups, []
        trainers.preference_groups = lambda *args: (calls.append(args), fetch(*args))[1]
    for way in ways:
        try:
            if way == "gdpo-before-v1":
                advantages[way] = gdpo_before_v1(rows)
                continue
            if way == "pgrpo-native":
                register_natively()
            trainer = personalized() if way == "pgrpo" else trainer_of(way.partition("-")[0])
            assert (type(trainer).__module__ == "verl_pgrpo.integration.trainers") == ("pgrpo" in ways)
            batch = trainer._compute_advantage(put(rows, way), {})
            data = tq.kv_batch_get(keys=batch.keys, partition_id=way, select_fields=["advantages"])
            advantages[way] = data["advantages"].to_padded_tensor(0.0).numpy()
        except Exception as error:
            told[way] = f"{type(error).__name__}: {error}"
    if "pgrpo" in ways:
        told["fetched by the plugin"] = len(calls)
    np.savez(f"{out}.npz", **advantages)
    Path(f"{out}.json").write_text(json.dumps(told))
    tq.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
