# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic behind the memory tables."""

from __future__ import annotations

import pytest

from tests.recipes.launches import composed, memory, model_sizes
from verl_pgrpo.preflight.sizes import ACTOR, TP

PUBLISHED = {
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "google/gemma-2b-it": 2_506_172_416,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
}


def test_parameters_are_the_published_ones():
    assert {model.path: model.parameters for model in model_sizes.MODELS} == PUBLISHED


def test_memory_by_hand():
    """Qwen3-8B, TP2 of 8 GPUs: 2, 4 and 12 / 4 bytes of half its parameters; and the size of one cached token."""
    pytest.importorskip("verl")
    tokens = f"{ACTOR}.ppo_max_token_len_per_gpu=8192"
    launch = ["-m", "verl.trainer.main_ppo", "model_engine=megatron", "trainer.n_gpus_per_node=8", f"{TP}=2", tokens]
    guess = memory.estimate(model_sizes.model_of("/models/Qwen3-8B/"), memory.Launch(composed(launch)))
    half = 8.19e9 / 2 / 2**30
    update = guess.phases["update"].parts
    assert update["weights"] == pytest.approx(2 * half, rel=1e-3)
    assert update["gradients"] == pytest.approx(4 * half, rel=1e-3)
    assert update["optimizer"] == pytest.approx(12 / 4 * half, rel=1e-3)
    assert update["logits"] == pytest.approx(12 * 8192 * 151936 / 2 / 2**30)
    assert guess.kv_bytes_per_token == 2 * 36 * 4 * 128 * 2  # rollout TP 2
    with pytest.raises(ValueError, match="unknown model"):
        model_sizes.model_of("Qwen/Qwen3-9B")
