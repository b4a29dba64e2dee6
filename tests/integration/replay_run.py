# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run recorded rollouts through verl's own trainer and TransferQueue, without the workers that generate and train.

    python -m tests.integration.replay_run FOLDER NAME STEPS [KILLED_IN_STEP] -- [overrides]

Two local updates a step. Each has sessions of two outputs, padding rows, rows without a token that is trained, and rows
that rollout correction rejects. Advantages go to FOLDER/NAME/<step>.npy, metrics to FOLDER/NAME/<step>.json. A
checkpoint follows every third step. With KILLED_IN_STEP the process kills itself in that step, after computing
advantages and before saving. FOLDER must contain the files that `prepare` writes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

UPDATES = 2
PROMPTS, SESSIONS = 6, 2
GROUPS = ["a", "b", "c", "ü\n"]
REJECTION = [
    "++algorithm.rollout_correction.rollout_rs=seq_mean_k3",
    "++algorithm.rollout_correction.rollout_rs_threshold='0.5'",
]


def prepare(folder: Path) -> None:
    """Write a dataset and a tokenizer, which the trainer's constructor needs but these runs do not use."""
    import pandas as pd
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen3Config

    rows = {"prompt": [[{"role": "user", "content": "?"}]] * 64, "data_source": "x", "preference_group": GROUPS * 16}
    for split in ("train", "val"):
        pd.DataFrame(rows).to_parquet(folder / f"{split}.parquet")
    words = Tokenizer(models.WordLevel({"?": 0, "<pad>": 1, "<eos>": 2}, unk_token="?"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(folder / "model")
    Qwen3Config(num_hidden_layers=1, architectures=["Qwen3ForCausalLM"]).save_pretrained(folder / "model")


def recorded(step: int, update: int) -> list[dict]:
    """Per row: key, group, reward, mask, whether it is padding, and whether rollout correction must reject it."""
    rng, rows = np.random.default_rng([step, update]), []
    for prompt in range(PROMPTS):
        group = str(rng.choice(GROUPS))
        for session in range(SESSIONS):
            outputs = 2 if rng.random() < 0.3 else 1
            for output in range(outputs):
                length = int(rng.integers(1, 6))
                mask = np.ones(length, dtype=np.int64) if rng.random() < 0.9 else np.zeros(length, dtype=np.int64)
                rows.append(
                    {
                        "key": f"{step}_{update}_{prompt}_{session}_{output}",
                        "group": group,
                        "reward": float(np.float32(100 * rng.standard_normal())),
                        "mask": mask,
                        "padding": False,
                        "rejected": bool(rng.random() < 0.15),
                    }
                )
    padding = {**rows[0], "reward": 0.0, "mask": np.zeros_like(rows[0]["mask"]), "padding": True, "rejected": False}
    return rows + [{**padding, "key": f"pad{i}{step}{update}_0_0"} for i in range(-len(rows) % 8)]


def main() -> None:
    end = sys.argv.index("--")
    folder, name, steps, *kill = sys.argv[1:end]
    import ray
    import torch
    import transfer_queue as tq
    import verl
    from hydra import compose, initialize_config_dir
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.utils.tensordict_utils import get_tensordict

    from tests.conftest import ROOT

    search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
    with initialize_config_dir(str(ROOT / "verl_cpu" / "presets"), version_base=None):
        overrides = {
            "algorithm.adv_estimator": "pgrpo",
            "data.train_files": f"{folder}/train.parquet",
            "data.val_files": f"{folder}/val.parquet",
            "actor_rollout_ref.model.path": f"{folder}/model",
            "trainer.default_local_dir": f"{folder}/{name.split('-')[0]}",
        }
        config = compose("cpu", [search, *(f"{k}={v}" for k, v in overrides.items()), *REJECTION, *sys.argv[end + 1 :]])

    class Replay(get_trainer_cls("sync")):
        """verl's sync trainer with recorded rollouts instead of sampling."""

        def _step_once(self, metrics, timing_raw, sample_batch_size):
            rows = recorded(self.global_steps, self.local_trigger_step)
            return self._compute_advantage(put(rows), metrics=metrics)

    def put(rows: list[dict]) -> KVBatchMeta:
        def nested(arrays, dtype):
            return torch.nested.as_nested_tensor([torch.as_tensor(a, dtype=dtype) for a in arrays], layout=torch.jagged)

        keys, tags = [row["key"] for row in rows], [{"is_padding": row["padding"]} for row in rows]
        fields = get_tensordict(
            {
                "uid": np.array([key.rsplit("_", 2)[0] for key in keys], dtype=object),
                "preference_group": np.array([row["group"] for row in rows], dtype=object),
                "response_mask": nested([row["mask"] for row in rows], torch.int64),
                "rm_scores": nested([np.eye(len(row["mask"]))[-1] * row["reward"] for row in rows], torch.float32),
                "old_log_probs": nested([np.zeros(len(row["mask"])) for row in rows], torch.float32),
                "rollout_log_probs": nested(
                    [np.full(len(row["mask"]), -3.0 * row["rejected"]) for row in rows], torch.float32
                ),
            }
        )
        tq.kv_batch_put(keys=keys, partition_id="train", fields=fields, tags=tags)
        return KVBatchMeta(partition_id="train", keys=keys, tags=tags)

    trainer = Replay(config)
    ray.init(address="local", num_cpus=8, include_dashboard=False, object_store_memory=100_000_000)
    config.transfer_queue.enable = True
    tq.init(config.transfer_queue)
    trainer.parameter_sync_step = UPDATES
    trainer._init_tokenizer()
    trainer._init_dataloader()
    trainer.actor_rollout_wg = SimpleNamespace(
        save_checkpoint=lambda *_, **__: None, load_checkpoint=lambda *_, **__: None
    )
    trainer.agent_loop_manager = SimpleNamespace(generate_sequences=lambda batch: None)
    trainer._load_checkpoint()
    out = Path(folder, f"{name}-out")
    out.mkdir(exist_ok=True)
    for step in range(trainer.global_steps + 1, int(steps) + 1):
        trainer.global_steps = step
        metrics: dict[str, float] = {}
        batch = trainer.step(metrics, {})
        data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["advantages"])
        np.save(out / f"{step}.npy", data["advantages"].to_padded_tensor(0.0).numpy())
        (out / f"{step}.json").write_text(json.dumps({k: v for k, v in metrics.items() if k.startswith("pgrpo/")}))
        if kill and step == int(kill[0]):
            os.kill(os.getpid(), signal.SIGKILL)
        if step % 3 == 0:
            trainer._save_checkpoint()
        tq.kv_clear(keys=batch.keys, partition_id="train")
    tq.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
