# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Save the weights of every sync, on both sides, and Megatron's optimizers at every save and load.

verl imports this in all of its processes if `VERL_USE_EXTERNAL_MODULES` names it. In the folder `WEIGHT_PROBE`:

- `sent-<pid>-<n>.pt`: the n-th weights that a training process sent, by their HF names;
- `loaded-<pid>-<n>.pt`: all parameters of the vLLM model after it took its n-th weights, by vLLM's names;
- `optimizer-<step>-<rank>.pt`: the optimizer's state after a checkpoint of this step was saved or loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch
import wrapt

FOLDER = Path(os.environ["WEIGHT_PROBE"])
_counts: dict[str, int] = {}


def _write(name: str, content: Any) -> None:
    torch.save(content, FOLDER / f"{name}.part")
    (FOLDER / f"{name}.part").rename(FOLDER / f"{name}.pt")


def _numbered(kind: str) -> str:
    _counts[kind] = _counts.get(kind, 0) + 1
    return f"{kind}-{os.getpid()}-{_counts[kind]}"


@wrapt.when_imported("verl.workers.rollout.vllm_rollout.bucketed_weight_transfer")
def keep_sent_weights(module: Any) -> None:
    stock = module.BucketedWeightSender.async_send_weights

    async def async_send_weights(self: Any, weights: Any) -> None:
        from verl.workers.rollout.utils import ensure_async_iterator

        sent = {}

        async def noted() -> AsyncIterator[tuple[str, torch.Tensor]]:
            async for name, tensor in ensure_async_iterator(weights):
                sent[name] = tensor.detach().clone()
                yield name, tensor

        await stock(self, noted())
        _write(_numbered("sent"), sent)

    module.BucketedWeightSender.async_send_weights = async_send_weights


@wrapt.when_imported("verl.workers.rollout.vllm_rollout.utils")
def keep_loaded_weights(module: Any) -> None:
    worker = module.vLLMColocateWorkerExtension
    stock = worker.update_weights_from_ipc

    def update_weights_from_ipc(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = stock(self, *args, **kwargs)
        _write(
            _numbered("loaded"), {name: p.detach().clone() for name, p in self.model_runner.model.named_parameters()}
        )
        return result

    worker.update_weights_from_ipc = update_weights_from_ipc


@wrapt.when_imported("verl.workers.engine.megatron.transformer_impl")
def keep_optimizers(module: Any) -> None:
    for method in ("save_checkpoint", "load_checkpoint"):
        stock = getattr(module.MegatronEngine, method)

        def noted(self: Any, local_path: str, *args: Any, stock: Any = stock, **kwargs: Any) -> Any:
            result = stock(self, local_path, *args, **kwargs)
            (step,) = re.findall(r"global_step_(\d+)", local_path)
            from tests.cpu.megatron_probe import optimizer_state

            rank = torch.distributed.get_rank()
            _write(f"optimizer-{step}-{rank}", optimizer_state(self.optimizer))
            return result

        setattr(module.MegatronEngine, method, noted)
