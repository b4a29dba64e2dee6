# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Check the numbers and strings that all other checks rely on."""

from __future__ import annotations

import math
from collections.abc import Callable

from .context import PreflightContext
from .diagnostic import Diagnostics

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

# Integers without which no arithmetic is possible, and their minimum.
INTEGERS = {
    "data.train_batch_size": 1,
    "data.max_prompt_length": 1,
    "data.max_response_length": 1,
    f"{ACTOR}.ppo_mini_batch_size": 1,
    f"{ROLLOUT}.n": 1,
    f"{ROLLOUT}.tensor_model_parallel_size": 1,
    f"{ROLLOUT}.val_kwargs.n": 1,
    f"{ROLLOUT}.max_num_seqs": 1,
    f"{ROLLOUT}.max_num_batched_tokens": 1,
    f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes": 1,
    "trainer.nnodes": 1,
    "trainer.n_gpus_per_node": 1,
    "trainer.total_epochs": 1,
    "trainer.save_freq": -1,
    "trainer.test_freq": -1,
}
# Integers >= 1, or null.
OPTIONAL_INTEGERS = (
    "data.gen_batch_size",
    f"{ACTOR}.ppo_micro_batch_size_per_gpu",
    f"{ACTOR}.ppo_max_token_len_per_gpu",
    f"{ACTOR}.ulysses_sequence_parallel_size",
    *(f"{ACTOR}.megatron.{name}_model_parallel_size" for name in ("tensor", "pipeline", "virtual_pipeline", "expert")),
    f"{ACTOR}.megatron.context_parallel_size",
    f"{ACTOR}.megatron.expert_tensor_parallel_size",
    f"{ROLLOUT}.data_parallel_size",
    f"{ROLLOUT}.expert_parallel_size",
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
    f"{ROLLOUT}.log_prob_max_token_len_per_gpu",
    "trainer.total_training_steps",
)
NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    f"{ROLLOUT}.temperature": (lambda value: 0 <= value < math.inf, ">= 0"),
    f"{ROLLOUT}.top_p": (lambda value: 0 < value <= 1, "> 0 and <= 1"),
    f"{ROLLOUT}.gpu_memory_utilization": (lambda value: 0 < value < 1, "> 0 and < 1"),
    f"{ACTOR}.optim.lr": (lambda value: 0 <= value < math.inf, ">= 0"),
}
TEXTS = ("actor_rollout_ref.model.path", f"{ROLLOUT}.name", "trainer.default_local_dir")


def check_values(context: PreflightContext, diagnostics: Diagnostics) -> None:
    optional = {key: 1 for key in OPTIONAL_INTEGERS if context.get(key) is not None}
    for key, least in (INTEGERS | optional).items():
        value = context.get(key)
        if type(value) is not int or value < least:  # isinstance would accept a bool
            diagnostics.error(f"{key}={value} must be an integer >= {least}", key, "set one")
    for key, (valid, text) in NUMBERS.items():
        value = context.get(key)
        if type(value) not in (int, float) or not valid(value):
            diagnostics.error(f"{key}={value} must be a number {text}", key, "set one")
    for key in TEXTS:
        if not isinstance(context.get(key), str):
            diagnostics.error(f"{key} is not set", key, f"{key}=<...>")
    context.sizes_valid = not diagnostics.found
