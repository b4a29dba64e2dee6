# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that do not fit into verl's buckets. The models are only configurations, created by transformers."""

from __future__ import annotations

import functools

import pytest

from tests.preflight import test_sizes
from tests.preflight.test_sizes import DENSE, FSDP, MEGATRON, ROLLOUT
from verl_pgrpo.preflight import versions, weight_sync
from verl_pgrpo.preflight.values import check_values
from verl_pgrpo.preflight.weight_sync import BUCKET, check_weight_sync

TIED = {**DENSE, "vocab_size": 1 << 17, "tie_word_embeddings": True}

check = functools.partial(test_sizes.check, by=check_weight_sync)


@pytest.mark.parametrize(("vllm", "severity"), [(None, "warning"), ((0, 28), None), ((0, 29), "error")])
def test_tied_embeddings_in_several_buckets(monkeypatch, vllm, severity):
    monkeypatch.setattr(versions, "vllm_version", lambda: vllm)
    tied = {**TIED, "architectures": ["Qwen3ForCausalLM"], "attn_implementation": "flash_attention_2"}
    expected = [] if severity is None else [(severity, BUCKET)]
    # Two tables of 32 MB and 12.8 MB of layers in float32; Megatron-Bridge: two of 16 MB in bfloat16, and the norm.
    for engine, enough, options in (("dp", 77, ()), ("megatron", 33, ()), ("dp", 39, (f"{FSDP}.model_dtype=bf16",))):
        assert check(engine, f"{BUCKET}={enough - 1}", *options, model=tied) == expected
        assert check(engine, f"{BUCKET}={enough}", *options, model=tied) == []
    assert check("megatron", f"{BUCKET}=33", f"{MEGATRON}.vanilla_mbridge=True", model=tied) == expected
    assert check("dp", f"{BUCKET}=8", model={**tied, "tie_word_embeddings": False}) == []
    lora = "actor_rollout_ref.model.lora"
    for engine, rank in (("dp", f"{lora}_rank=8"), ("megatron", f"{lora}.rank=8")):
        adapters = engine, f"{BUCKET}=8", f"{ROLLOUT}.load_format=safetensors", rank
        assert check(*adapters, model=tied) == [], "only adapters are sent"
        for sent in (f"{lora}.merge=True", f"{ROLLOUT}.load_format=dummy", f"{ROLLOUT}.load_format=null"):
            assert check(*adapters, sent, model=tied) == expected
    merged = "dp", f"{lora}_rank=8", f"{lora}.merge=True"  # in bfloat16
    assert [check(*merged, f"{BUCKET}={enough}", model=tied) for enough in (38, 39)] == [expected, []]
    monkeypatch.setattr(weight_sync, "has_patch", lambda number: number == "0003")
    assert check("dp", f"{BUCKET}=8", model=tied) == []
    assert check("megatron", f"{BUCKET}=8", model=tied) == expected, "the patch is for FSDP"


@pytest.mark.parametrize(("flags", "tied"), [((True, False), True), ((False, True), False), ((True, True), True)])
def test_tied_embeddings_of_a_model_for_images(monkeypatch, flags, tied):
    """transformers, verl and vLLM read the flag of the whole model, which the text model's may contradict."""
    monkeypatch.setattr(versions, "vllm_version", lambda: (0, 30))
    text = {**TIED, "tie_word_embeddings": flags[1]}
    model = {"tie_word_embeddings": flags[0], "text_config": text, "architectures": ["Qwen3_5ForConditionalGeneration"]}
    assert check("dp", f"{BUCKET}=8", kind="qwen3_5", model=model) == [("error", BUCKET)] * tied


def test_embeddings_must_fit_into_a_bucket_on_a_cpu() -> None:
    """There, verl's sender rejects a tensor that is larger. The table has 32 MB in float32."""
    for model in (TIED, {**TIED, "tie_word_embeddings": False}):
        cpu = functools.partial(check, "dp", "trainer.device=cpu", model=model)
        assert [cpu(f"{BUCKET}={enough}") for enough in (31, 32)] == [[("error", BUCKET)], []]
        assert cpu(f"{BUCKET}=16", f"{FSDP}.model_dtype=bf16") == []
        assert cpu(f"{BUCKET}=8", "actor_rollout_ref.model.lora_rank=8", f"{ROLLOUT}.load_format=auto") == []


@pytest.mark.parametrize("bucket", ["null", "0", "2gb"])
def test_a_bucket_must_be_a_number(bucket: str) -> None:
    assert ("error", BUCKET) in check("dp", f"{BUCKET}={bucket}", by=check_values)
