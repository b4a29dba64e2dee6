# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes that do not divide or agree. The models are configurations only, made by transformers."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from verl_pgrpo.preflight import sizes
from verl_pgrpo.preflight.command_line import compose, parse
from verl_pgrpo.preflight.context import PreflightContext
from verl_pgrpo.preflight.diagnostic import Diagnostics

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
MEGATRON = f"{ACTOR}.megatron"
TP, PP, EP = (f"{MEGATRON}.{name}_model_parallel_size" for name in ("tensor", "pipeline", "expert"))
GOOD = [
    "model_engine=megatron",
    "trainer.n_gpus_per_node=8",
    f"{TP}=2",
    f"{PP}=2",
    "data.train_batch_size=64",
    f"{ACTOR}.ppo_mini_batch_size=32",
    f"{ACTOR}.use_dynamic_bsz=True",
    f"{ACTOR}.ppo_max_token_len_per_gpu=8192",
    f"{ACTOR}.use_kl_loss=True",
    f"{ROLLOUT}.name=vllm",
    f"{ROLLOUT}.n=2",
    f"{ROLLOUT}.tensor_model_parallel_size=2",
]
FSDP = ["model_engine=dp", "trainer.n_gpus_per_node=8", *GOOD[4:]]
DENSE = {"hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 8,
         "intermediate_size": 128, "vocab_size": 1024, "tie_word_embeddings": False}  # fmt: skip
EXPERTS = {**DENSE, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def check(arguments: list[str], kind: str = "qwen3", model: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    """Severity and location of what is reported."""
    from transformers import AutoConfig

    config = compose(parse(arguments))
    OmegaConf.set_struct(config, True)
    context = PreflightContext(config, hf_config=AutoConfig.for_model(kind, **(model or DENSE)))
    found = Diagnostics("parallel")
    sizes.check_sizes(context, found)
    return [(one.severity, one.location) for one in found.found]


def test_good_sizes():
    assert check(GOOD) == []
    assert check(FSDP) == []
    assert check([*GOOD, f"{EP}=2", f"{MEGATRON}.sequence_parallel=True"], "qwen3_moe", EXPERTS) == []


WRONG = [
    (GOOD, f"{TP}=3", "error", TP),
    (GOOD, "trainer.n_gpus_per_node=6", "error", TP),
    (GOOD, f"{TP}=16", "error", TP),
    (GOOD, f"{PP}=3", "error", PP),
    (GOOD, f"{EP}=2", "error", EP),
    (GOOD, f"{MEGATRON}.virtual_pipeline_model_parallel_size=3", "error", "virtual_pipeline"),
    (GOOD, "actor_rollout_ref.ref.megatron.tensor_model_parallel_size=4", "error", "ref.megatron.tensor"),
    ([*GOOD, f"{ROLLOUT}.n=1"], f"{ACTOR}.ppo_mini_batch_size=31", "error", f"{ROLLOUT}.n"),
    (GOOD, f"{ACTOR}.ppo_mini_batch_size=24", "warning", "data.train_batch_size"),
    (GOOD, f"{ACTOR}.ppo_max_token_len_per_gpu=256", "error", "ppo_max_token_len_per_gpu"),
    (GOOD, f"{ROLLOUT}.log_prob_use_dynamic_bsz=False", "error", "log_prob_use_dynamic_bsz"),
    (GOOD, f"{ROLLOUT}.tensor_model_parallel_size=3", "error", f"{ROLLOUT}.tensor_model_parallel_size"),
    (GOOD, f"{ROLLOUT}.tensor_model_parallel_size=16", "warning", f"{ROLLOUT}.tensor_model_parallel_size"),
    (GOOD, f"{ROLLOUT}.expert_parallel_size=2", "error", "expert_parallel_size"),
    (GOOD, f"{ROLLOUT}.dtype=float16", "warning", f"{ROLLOUT}.dtype"),
    (GOOD, f"{ROLLOUT}.max_model_len=256", "error", "max_model_len"),
    (GOOD, f"{ROLLOUT}.max_num_seqs=100000", "error", "max_num_seqs"),
    (FSDP, f"{ACTOR}.ulysses_sequence_parallel_size=3", "error", "ulysses"),
    (FSDP, f"{ACTOR}.fsdp_config.fsdp_size=3", "error", "fsdp_size"),
    (FSDP, f"{ACTOR}.use_dynamic_bsz=False", "error", "micro_batch_size_per_gpu"),
    ([*FSDP, "trainer.use_v1=False"], f"{ACTOR}.ppo_mini_batch_size=24", "error", "data.train_batch_size"),
    ([*FSDP, "reward.reward_model.enable=True"], "reward.reward_model.rollout.tensor_model_parallel_size=3", "error",
     "reward.reward_model"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "override", "severity", "location"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_sizes(good: list[str], override: str, severity: str, location: str):
    assert any(found == severity and location in where for found, where in check([*good, override]))


def test_sizes_of_experts():
    moe = [*GOOD, f"{MEGATRON}.sequence_parallel=True"]
    assert ("error", EP) in check([*moe, f"{EP}=3"], "qwen3_moe", EXPERTS)
    assert ("error", f"{MEGATRON}.sequence_parallel") in check(
        [*moe, f"{MEGATRON}.sequence_parallel=False"], "qwen3_moe", EXPERTS
    )


@pytest.mark.parametrize(
    ("vllm", "severity"), [(None, "warning"), ((0, 27), None), ((0, 28), "error"), ((0, 33), "error")]
)
def test_data_parallel_rollouts_across_nodes(monkeypatch: pytest.MonkeyPatch, vllm, severity: str | None):
    monkeypatch.setattr(sizes, "vllm_version", lambda: vllm)
    across = ["trainer.nnodes=2", f"{ROLLOUT}.tensor_model_parallel_size=8", f"{ROLLOUT}.data_parallel_size=2"]
    assert check([*GOOD, *across]) == (
        [] if severity is None else [(severity, f"{ROLLOUT}.tensor_model_parallel_size, {ROLLOUT}.data_parallel_size")]
    )


@pytest.mark.parametrize(("vllm", "severity"), [(None, "warning"), ((0, 28), None), ((0, 30), "error")])
def test_tied_embeddings_in_several_buckets(monkeypatch: pytest.MonkeyPatch, vllm, severity: str | None):
    """23 MB of weights in bf16."""
    monkeypatch.setattr(sizes, "vllm_version", lambda: vllm)
    bucket = f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes"
    tied = {**DENSE, "vocab_size": 1 << 17, "tie_word_embeddings": True}
    expected = [] if severity is None else [(severity, bucket)]
    assert check([*FSDP, f"{bucket}=8"], model=tied) == expected
    assert check([*FSDP, f"{bucket}=256"], model=tied) == []
    assert check([*FSDP, f"{bucket}=8"], model={**tied, "tie_word_embeddings": False}) == []
