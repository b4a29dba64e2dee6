# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run verl's Megatron engine on the CPU: a process of `tests/cpu/test_megatron.py` and `tests/e2e`.

    python -m tests.cpu.megatron_probe '{"folder": ..., "name": ..., "tp": 2, "pp": 1, "ep": 1}'

Started once per rank (RANK, WORLD_SIZE, ... in the environment). Writes `<name>-<rank>.pt` to the folder. Runs in
separate processes, because the platform changes torch permanently.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, register
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import (
    HFModelConfig,
    McoreActorConfig,
    McoreEngineConfig,
    McoreOptimizerConfig,
    TrainingWorkerConfig,
)
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import left_right_2_no_padding, no_padding_2_padding


def optimizer_state(optimizer: Any) -> list[Any]:
    """Return step counts, main weights and moments of all optimizers that a Megatron optimizer chains."""
    held: list[Any] = []
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for group in part.optimizer.param_groups:
            held.append(group.get("step"))
            for p in group["params"]:
                state = part.optimizer.state[p]
                held += [tensor.detach().clone() for tensor in (p.data, state["exp_avg"], state["exp_avg_sq"])]
    return held


class Probe(TrainingWorker):
    """verl's worker, which can also return its weights."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def weights(self) -> dict[str, torch.Tensor]:
        """Return all weights by their HF names, as they would be sent to vLLM."""
        return {name: tensor.clone() for name, tensor in self.engine.get_per_tensor_param()[0]}


def worker_config(task: dict[str, Any]) -> TrainingWorkerConfig:
    engine = McoreEngineConfig(
        tensor_model_parallel_size=task["tp"],
        pipeline_model_parallel_size=task.get("pp", 1),
        expert_model_parallel_size=task.get("ep", 1),
        expert_tensor_parallel_size=1 if task.get("ep", 1) > 1 else None,
        # A transformer-engine kernel that Megatron-Bridge requires for every mixture of experts.
        override_transformer_config={"moe_permute_fusion": False},
        use_dynamic_bsz=True,
        max_token_len_per_gpu=128,  # several micro-batches
        infer_max_token_len_per_gpu=128,
    )
    # verl accepts only half precision here; in float32 two layouts can be compared closely.
    object.__setattr__(engine, "dtype", "float32")
    return TrainingWorkerConfig(
        model_type="language_model",
        model_config=HFModelConfig(path=str(Path(task["folder"]) / "model"), use_remove_padding=True),
        engine_config=engine,
        # With a large epsilon Adam's update is nearly proportional to the gradient and does not amplify the noise of
        # gradients near zero.
        optimizer_config=McoreOptimizerConfig(
            lr=0.1, lr_warmup_steps=0, total_training_steps=10, override_optimizer_config={"adam_eps": 1.0}
        ),
        checkpoint_config=CheckpointConfig(),
    )


def training_batch(folder: Path) -> TensorDict:
    """Load `batch.pt`, which the test wrote, in the form in which verl's trainer passes it to its workers."""
    stored = torch.load(folder / "batch.pt")
    data = TensorDict({name: tensor.clone() for name, tensor in stored.items()}, batch_size=len(stored["input_ids"]))
    data = left_right_2_no_padding(data)
    size = len(data)
    tu.assign_non_tensor(data, temperature=1.0, global_batch_size=size, calculate_entropy=False, compute_loss=False)
    return data


def log_probs(worker: Probe, folder: Path) -> torch.Tensor | None:
    output = worker.infer_batch(training_batch(folder))
    if output is None:
        return None
    stored = torch.load(folder / "batch.pt")
    return no_padding_2_padding(output["log_probs"], TensorDict(stored, batch_size=len(stored["input_ids"])))


def update(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Log-probabilities, one update, weights after it."""
    worker = Probe(config=worker_config(task))
    worker.reset()
    actor = McoreActorConfig(rollout_n=2, ppo_mini_batch_size=8, ppo_micro_batch_size_per_gpu=8)
    worker.set_loss_fn(partial(ppo_loss, config=actor))
    before = log_probs(worker, folder)
    metrics = worker.train_batch(training_batch(folder))
    grad_norm = None if metrics is None else tu.get(metrics, "metrics")["grad_norm"]
    return {"log_probs": before, "grad_norm": grad_norm, "weights": worker.weights()}


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    folder = Path(task["folder"])
    torch.save(update(task, folder), folder / f"{task['name']}-{os.environ.get('RANK', '0')}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
