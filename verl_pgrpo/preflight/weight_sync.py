# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that do not fit into the buckets in which verl sends them to vLLM. The first weight sync would fail."""

from __future__ import annotations

import math
from typing import Any

from . import versions
from .context import PreflightContext
from .diagnostic import Diagnostics
from .sizes import ACTOR, FSDP, MEGATRON, ROLLOUT, torch_dtype
from .versions import has_patch, needs_older_vllm

MODEL = "actor_rollout_ref.model"
BUCKET = f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes"

LIMIT = (0, 29)  # the first vLLM that rejects tied embeddings in two buckets


def check_weight_sync(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """A tensor must fit into a bucket on a CPU, and tied embeddings must be in the same bucket for vLLM >= 0.29.

    On GPUs, verl's BucketedWeightSender sends larger tensors separately. On a CPU, verl_cpu lets vLLM accept tied
    embeddings in two buckets.
    """
    config = context.hf_config
    if not context.sizes_valid or config is None or context.get(f"{ROLLOUT}.name") != "vllm" or _only_adapters(context):
        return
    megatron = context.get(f"{ACTOR}.strategy") == "megatron"
    # FSDP sends its model_dtype, but merges adapters in bfloat16.
    half = megatron or "16" in torch_dtype(context.get(f"{FSDP}.model_dtype", "fp32")) or _merges_adapters(context)
    size, bucket = 2 if half else 4, context.get(BUCKET)
    if context.get("trainer.device") == "cpu":
        text = config.get_text_config()
        megabytes = _megabytes(text.vocab_size * text.hidden_size * size)
        if bucket < megabytes:
            message = f"the model's embeddings have {megabytes:,} MB, more than a bucket of {bucket:,} MB"
            diagnostics.error(message, BUCKET, f"{BUCKET}={megabytes}")
    elif (versions.vllm_version() or LIMIT) >= LIMIT and (megatron or not has_patch("0003")):
        megabytes = _megabytes(_tied_parameters(context, config, megatron) * size)
        if bucket < megabytes:
            message = f"tied embeddings are sent in two buckets of {bucket:,} MB (one needs {megabytes:,} MB)"
            fix = f"{BUCKET}={math.ceil(megabytes * 1.05)}"
            needs_older_vllm(diagnostics, LIMIT, message, BUCKET, fix)


def _megabytes(size: int) -> int:
    return math.ceil(size / (1 << 20))


def _adapter_rank(context: PreflightContext) -> int:
    megatron = context.get(f"{ACTOR}.strategy") == "megatron"
    return context.get(f"{MODEL}.lora.rank" if megatron else f"{MODEL}.lora_rank") or 0


def _merges_adapters(context: PreflightContext) -> bool:
    return _adapter_rank(context) > 0 and bool(context.get(f"{MODEL}.lora.merge"))


def _only_adapters(context: PreflightContext) -> bool:
    """Whether vLLM loads the base weights itself (verl's `update_weights`)."""
    naive = context.get(f"{ROLLOUT}.checkpoint_engine.backend") == "naive"
    loads = "dummy" not in (context.get(f"{ROLLOUT}.load_format") or "dummy")
    return _adapter_rank(context) > 0 and not _merges_adapters(context) and naive and loads


def _tied_parameters(context: PreflightContext, config: Any, megatron: bool) -> int:
    """How many parameters are sent from the first to the second of two tied embeddings; 0 if they are not tied.

    Megatron-Bridge sends the final norm, `embed_tokens` and (if the checkpoint has it) `lm_head` first. Other engines
    send the two first and last.
    """
    # Of a model for images, one of the two configurations may have the flag; building the model tells.
    if not any(getattr(one, "tie_word_embeddings", False) for one in (config, config.get_text_config())):
        return 0
    import torch
    from transformers import AutoModelForCausalLM
    from verl.utils.model import get_hf_auto_model_class

    auto_class = get_hf_auto_model_class(config) if config.architectures else AutoModelForCausalLM
    with torch.device("meta"):  # verl's default, flash-attn, cannot be created without a GPU
        model = auto_class.from_config(config, attn_implementation="eager")
    output = model.get_output_embeddings()
    if output is None or output.weight is not model.get_input_embeddings().weight:
        return 0
    words, width = output.weight.shape
    bridge = megatron and not context.get(f"{MEGATRON}.vanilla_mbridge")
    return width + 2 * words * width if bridge else model.num_parameters() + words * width
