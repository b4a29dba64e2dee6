# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes that do not divide or match. The models are only configurations, created by transformers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import overridden
from verl_pgrpo.preflight import sizes, versions
from verl_pgrpo.preflight.command_line import compose, parse
from verl_pgrpo.preflight.context import PreflightContext
from verl_pgrpo.preflight.diagnostic import Diagnostics

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
MEGATRON, FSDP = f"{ACTOR}.megatron", f"{ACTOR}.fsdp_config"
TP, PP, EP = (f"{MEGATRON}.{name}_model_parallel_size" for name in ("tensor", "pipeline", "expert"))
BOTH = [
    "trainer.n_gpus_per_node=8",
    "data.train_batch_size=64",
    f"{ACTOR}.ppo_mini_batch_size=32",
    f"{ACTOR}.use_dynamic_bsz=True",
    f"{ACTOR}.ppo_max_token_len_per_gpu=8192",
    f"{ACTOR}.use_kl_loss=True",
    f"{ROLLOUT}.name=vllm",
    f"{ROLLOUT}.n=2",
    f"{ROLLOUT}.tensor_model_parallel_size=2",
]
MIXED = f"+{ACTOR}.fsdp_config.mixed_precision"
GOOD = {"megatron": (*BOTH, f"{TP}=2", f"{PP}=2"), "dp": BOTH}
SEQUENCE = f"{MEGATRON}.sequence_parallel"
DENSE = {"hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 8,
         "intermediate_size": 128, "vocab_size": 1024, "tie_word_embeddings": False}  # fmt: skip
EXPERTS = {**DENSE, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


@functools.cache
def good(engine: str) -> Any:
    return compose(parse([f"model_engine={engine}", *GOOD[engine]]))


def check(
    engine: str,
    *overrides: str,
    kind: str = "qwen3",
    model: dict[str, Any] = DENSE,
    by: Callable[[PreflightContext, Diagnostics], None] = sizes.check_sizes,
) -> list[tuple[str, str]]:
    """Severity and location of what is reported."""
    from transformers import AutoConfig

    config = overridden(good(engine), *overrides)
    found = Diagnostics("parallel")
    by(PreflightContext(config, hf_config=AutoConfig.for_model(kind, **model)), found)
    return [(one.severity, one.location) for one in found.found]


experts = functools.partial(check, "megatron", f"{SEQUENCE}=True", kind="qwen3_moe", model=EXPERTS)


def test_good_sizes():
    assert check("megatron") == check("dp") == experts(f"{EP}=2") == []
    assert check("dp", f"{MIXED}={{param_dtype:fp32}}", f"{ROLLOUT}.dtype=float32") == []
    assert check("dp", f"{ACTOR}.fsdp_config.dtype=float16") == [], "verl does not read this"
    assert ("error", EP) in experts(f"{EP}=3")
    assert ("error", SEQUENCE) in experts(f"{EP}=2", f"{SEQUENCE}=False")


WRONG = [
    ("megatron", f"{TP}=3", "error", TP),
    ("megatron", "trainer.n_gpus_per_node=6", "error", TP),
    ("megatron", f"{TP}=16", "error", TP),
    ("megatron", f"{PP}=3", "error", PP),
    ("megatron", f"{EP}=2", "error", EP),
    ("megatron", f"{MEGATRON}.virtual_pipeline_model_parallel_size=3", "error", "virtual_pipeline"),
    ("megatron", "actor_rollout_ref.ref.megatron.tensor_model_parallel_size=4", "error", "ref.megatron.tensor"),
    ("megatron", f"{ROLLOUT}.n=1 {ACTOR}.ppo_mini_batch_size=31", "error", f"{ROLLOUT}.n"),
    ("megatron", f"{ACTOR}.ppo_mini_batch_size=24", "warning", "data.train_batch_size"),
    ("megatron", f"{ACTOR}.ppo_max_token_len_per_gpu=256", "error", "ppo_max_token_len_per_gpu"),
    ("megatron", f"{ROLLOUT}.log_prob_use_dynamic_bsz=False", "error", "log_prob_use_dynamic_bsz"),
    ("megatron", f"{ROLLOUT}.tensor_model_parallel_size=3", "error", f"{ROLLOUT}.tensor_model_parallel_size"),
    ("megatron", f"{ROLLOUT}.tensor_model_parallel_size=16", "warning", f"{ROLLOUT}.tensor_model_parallel_size"),
    ("megatron", f"{ROLLOUT}.expert_parallel_size=2", "error", "expert_parallel_size"),
    ("megatron", f"{ROLLOUT}.dtype=float16", "warning", f"{ROLLOUT}.dtype"),
    ("dp", f"{MIXED}={{param_dtype:fp32}}", "warning", f"{ROLLOUT}.dtype"),
    ("megatron", f"{ROLLOUT}.max_model_len=256", "error", "max_model_len"),
    ("megatron", f"{ROLLOUT}.max_num_seqs=100000", "error", "max_num_seqs"),
    ("dp", f"{ACTOR}.ulysses_sequence_parallel_size=3", "error", "ulysses"),
    ("dp", f"{ACTOR}.fsdp_config.fsdp_size=3", "error", "fsdp_size"),
    ("dp", f"{ACTOR}.use_dynamic_bsz=False", "error", "micro_batch_size_per_gpu"),
    ("dp", f"trainer.use_v1=False {ACTOR}.ppo_mini_batch_size=24", "error", "data.train_batch_size"),
    ("dp", "reward.reward_model.enable=True reward.reward_model.rollout.tensor_model_parallel_size=3", "error",
     "reward.reward_model"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "overrides", "severity", "location"), WRONG)
def test_wrong_sizes(engine, overrides, severity, location):
    assert any(found == severity and location in where for found, where in check(engine, *overrides.split()))


@pytest.mark.parametrize(("vllm", "severity"), [(None, "warning"), ((0, 27), None), ((0, 28), "error")])
def test_data_parallel_rollouts_across_nodes(monkeypatch, vllm, severity):
    monkeypatch.setattr(versions, "vllm_version", lambda: vllm)
    tp, dp = f"{ROLLOUT}.tensor_model_parallel_size", f"{ROLLOUT}.data_parallel_size"
    launch = ("megatron", "trainer.nnodes=2", f"{tp}=8", f"{dp}=2")
    assert check(*launch) == ([] if severity is None else [(severity, f"{tp}, {dp}")])
    monkeypatch.setattr(sizes, "has_patch", lambda number: number == "0002")
    assert check(*launch) == []
