# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic behind the memory tables."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "recipes"))
import memory  # isort: skip  (recipes/memory.py)

PUBLISHED = {
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "google/gemma-2b-it": 2_506_172_416,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
}


def launch(*overrides: str) -> memory.Launch:
    pytest.importorskip("verl")
    from verl_pgrpo.preflight.command_line import compose, parse

    return memory.Launch(compose(parse(["model_engine=megatron", "trainer.n_gpus_per_node=8", *overrides])))


TP = "actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
PP = "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size"
EP = "actor_rollout_ref.actor.megatron.expert_model_parallel_size"


@pytest.mark.parametrize("model", memory.MODELS, ids=lambda model: model.path)
def test_parameters_are_those_of_transformers(model):
    """Built from the dimensions without memory for weights."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = "qwen3_moe" if model.experts else "qwen3" if model.qk_norm else "gemma"
    experts = {"num_experts": model.experts, "num_experts_per_tok": model.topk, "moe_intermediate_size": model.moe_ffn}
    config = AutoConfig.for_model(
        kind,
        vocab_size=model.vocab,
        hidden_size=model.hidden,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        head_dim=model.head_dim,
        intermediate_size=model.ffn,
        tie_word_embeddings=model.tied,
        **(experts if model.experts else {}),
    )
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    assert sum(weight.numel() for weight in built.parameters()) == model.parameters == PUBLISHED[model.path]


@pytest.mark.parametrize("overrides", [(), (f"{TP}=2",), (f"{TP}=2", f"{PP}=2"), (f"{EP}=4",)])
def test_a_divided_model_loses_no_parameter(overrides: tuple[str, ...]):
    model, sizes = memory.model_of("Qwen/Qwen3-30B-A3B"), launch(*overrides)
    stages = sizes.stages(model.layers)
    held = [memory.stage_parameters(model, sizes, stage, stages) for stage in range(sizes.pp)]
    replicated = (sizes.tp - 1) * (model.layers * model.replicated_layer + model.hidden)
    dense = sizes.tp * sum(part[0] for part in held) - replicated
    assert dense + sizes.ep * sizes.etp * sum(part[1] for part in held) == pytest.approx(model.parameters, abs=1)


@pytest.mark.parametrize(
    ("layers", "pp", "uneven", "stages"),
    [
        (36, 1, (None, None), [36]),
        (64, 2, (None, None), [32, 32]),
        (94, 8, (11, 11), [11, *[12] * 6, 11]),
        (94, 4, (None, 22), [24, 24, 24, 22]),
        (10, 2, (4, 6), [4, 6]),
        (94, 8, (None, None), None),
    ],
)
def test_stages(layers: int, pp: int, uneven: tuple[int | None, int | None], stages: list[int] | None):
    sizes = SimpleNamespace(pp=pp, uneven=uneven)
    if stages is None:
        with pytest.raises(ValueError, match="pipeline stages"):
            memory.Launch.stages(sizes, layers)
    else:
        assert memory.Launch.stages(sizes, layers) == stages


def test_memory_by_hand():
    """Qwen3-8B, TP2 of 8 GPUs: 2, 4 and 12 / 4 bytes of half its parameters; and what a token of cache takes."""
    tokens = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192"
    guess = memory.estimate(memory.model_of("/models/Qwen3-8B/"), launch(f"{TP}=2", tokens))
    half = 8.19e9 / 2 / 2**30
    update = guess.phases["update"].parts
    assert update["weights"] == pytest.approx(2 * half, rel=1e-3)
    assert update["gradients"] == pytest.approx(4 * half, rel=1e-3)
    assert update["optimizer"] == pytest.approx(12 / 4 * half, rel=1e-3)
    assert update["logits"] == pytest.approx(12 * 8192 * 151936 / 2 / 2**30)
    assert guess.kv_bytes_per_token == 2 * 36 * 4 * 128 * 2  # rollout TP 2
    with pytest.raises(ValueError, match="unknown model"):
        memory.model_of("Qwen/Qwen3-9B")
