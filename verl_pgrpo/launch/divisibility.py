# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What of a launch does not divide or agree, found in its configuration instead of an hour into a queue.

verl's `validate_config` leaves most of this to Megatron and vLLM, which find it when the workers start. Each rule names
whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from verl_pgrpo.errors import ConfigError

from .models import Model
from .settings import Launch, Parallel


def problems(model: Model, launch: Launch) -> list[str]:
    """Everything that would stop this launch of this model, one sentence each, empty if nothing would."""
    found = list(_batches(launch))
    if launch.strategy == "megatron":
        found += _training(model, launch)
    else:
        found += _fsdp(model, launch)
    found += _reference(launch)
    found += _rollout(model, launch)
    if launch.separate:
        found += _separate(launch)
    return found


def _indivisible(what: str, number: int, by: str, divisor: int) -> Iterator[str]:
    if divisor < 1 or number % divisor:
        yield f"{what} ({number}) is not divisible by {by} ({divisor})"


def _training(model: Model, launch: Launch) -> Iterator[str]:
    """Megatron-core's TransformerConfig and parallel_state; Megatron-Bridge, which does not pad the vocabulary."""
    p = launch.parallel
    yield from _indivisible("the model's attention heads", model.heads, "actor TP", p.tp)
    yield from _indivisible("the model's KV heads", model.kv_heads, "actor TP", p.tp)
    yield from _indivisible("the model's vocabulary", model.vocab, "actor TP", p.tp)
    if not model.experts:
        yield from _indivisible("the model's FFN width", model.ffn, "actor TP", p.tp)
    yield from _layers(model, p)
    yield from _indivisible("the trainer's GPUs", launch.train_gpus, "actor TP x PP x CP", p.tp * p.pp * p.cp)
    if model.experts:
        yield from _indivisible("the model's experts", model.experts, "EP", p.ep)
        yield from _indivisible("an expert's FFN width", model.moe_ffn, "ETP", p.etp)
        yield from _indivisible("the trainer's GPUs", launch.train_gpus, "ETP x EP x PP", p.etp * p.ep * p.pp)
        if p.tp > 1 and not p.sequence_parallel:
            yield "actor TP > 1 with experts needs sequence_parallel=True"
    elif p.ep > 1:
        yield f"EP ({p.ep}) > 1, but {model.path} has no experts"
    if p.tp > launch.gpus_per_node:
        yield f"actor TP ({p.tp}) spans nodes of {launch.gpus_per_node} GPUs: each layer would wait for the network"


def _fsdp(model: Model, launch: Launch) -> Iterator[str]:
    """verl's FSDPEngine: Ulysses cuts a sequence by heads; a copy's GPUs are a part of all."""
    ulysses = "Ulysses' sequence parallel size"
    yield from _indivisible("the model's attention heads", model.heads, ulysses, launch.parallel.cp)
    yield from _indivisible("the trainer's GPUs", launch.train_gpus, ulysses, launch.parallel.cp)
    yield from _indivisible("the trainer's GPUs", launch.train_gpus, "fsdp_config.fsdp_size", launch.fsdp_shards)


def _layers(model: Model, p: Parallel) -> Iterator[str]:
    try:
        stages = p.stages(model.layers)
    except ConfigError:
        remedy = "set override_transformer_config.num_layers_in_first_pipeline_stage and ..._last_..."
        yield f"the model's layers ({model.layers}) cannot be shared out over PP ({p.pp}) pipeline stages: {remedy}"
        return
    if p.vpp is not None and p.vpp > 1:
        if p.pp == 1:
            yield f"virtual PP ({p.vpp}) without PP"
        yield from _indivisible("the layers of a pipeline stage", stages[0], "virtual PP", p.vpp)


def _batches(launch: Launch) -> Iterator[str]:
    """verl: TrainingWorker.train_mini_batch, PPOTrainer._get_required_batch_multiple, rearrange_micro_batches."""
    yield from _indivisible(
        "a mini-batch's responses (ppo_mini_batch_size x n)",
        launch.mini_batch * launch.n,
        "the trainer's DP",
        launch.dp,
    )
    if not launch.separate and (launch.mini_batch > launch.train_batch or launch.train_batch % launch.mini_batch):
        yield (
            f"train_batch_size ({launch.train_batch}) is not a multiple of ppo_mini_batch_size ({launch.mini_batch}): "
            "verl would fill each step up with padding rows"
        )
    if launch.dynamic_batches:
        longest, cp = launch.max_prompt + launch.max_response, launch.parallel.cp
        for key, tokens in (
            ("ppo_max_token_len_per_gpu", launch.max_tokens),
            ("log_prob_max_token_len_per_gpu", launch.log_prob_max_tokens),
        ):
            if tokens * cp < longest:
                yield f"{key} ({tokens}) x CP ({cp}) is less than one prompt and response ({longest} tokens)"
    if not launch.remove_padding:
        yield "model.use_remove_padding=False: micro-batches by tokens would be padded to the longest response"


def _reference(launch: Launch) -> Iterator[str]:
    """verl's MegatronEngine: actor and reference share a process, hence one set of Megatron's parallel groups."""
    if launch.ref is None:
        return
    if launch.ref_strategy != launch.strategy:
        yield f"ref.strategy ({launch.ref_strategy}) is not actor.strategy ({launch.strategy})"
    for field, name in (("tp", "TP"), ("pp", "PP"), ("cp", "CP"), ("ep", "EP"), ("etp", "ETP"), ("vpp", "virtual PP")):
        ours, theirs = getattr(launch.parallel, field), getattr(launch.ref, field)
        if ours != theirs:
            yield (
                f"ref {name} ({theirs}) is not actor {name} ({ours}): both live in one process, and whichever comes "
                "second silently gets the other's parallel groups"
            )


def _rollout(model: Model, launch: Launch) -> Iterator[str]:
    """vLLM's ModelConfig.verify_with_parallel_config; verl's RolloutConfig, RolloutReplica and LLMServerManager."""
    tp, ep, replica, node = launch.rollout_tp, launch.rollout_ep, launch.replica_gpus, launch.rollout_gpus_per_node
    yield from _indivisible("the model's attention heads", model.heads, "rollout TP", tp)
    if tp > 0 and model.kv_heads % tp and tp % model.kv_heads:
        yield f"the model's KV heads ({model.kv_heads}) and rollout TP ({tp}): neither divides the other"
    yield from _indivisible("the rollout's GPUs", launch.rollout_gpus, "rollout TP x DP", replica)
    if ep > 1 and ep != replica:
        yield f"rollout.expert_parallel_size ({ep}) must be 1 or rollout TP x DP ({replica})"
    if ep > 1 and not model.experts:
        yield f"rollout.expert_parallel_size ({ep}) > 1, but {model.path} has no experts"
    elif model.experts and ep > 1:
        yield from _indivisible("the model's experts", model.experts, "rollout.expert_parallel_size", ep)
    elif model.experts:
        yield from _indivisible("an expert's FFN width", model.moe_ffn, "rollout TP", tp)
    else:
        yield from _indivisible("the model's FFN width", model.ffn, "rollout TP", tp)
    if replica > node:
        yield from _indivisible("rollout TP x DP", replica, "the rollout's GPUs a node", node)
    if tp > node:
        yield f"rollout TP ({tp}) spans nodes of {node} GPUs: each layer would wait for the network"
    if launch.rollout_dtype != launch.dtype:
        yield f"rollout.dtype ({launch.rollout_dtype}) is not the actor's dtype ({launch.dtype})"
    if launch.max_model_len < launch.max_prompt + launch.max_response:
        yield f"rollout.max_model_len ({launch.max_model_len}) is less than a prompt and a response"
    if not 0 < launch.utilization < 1:
        yield f"rollout.gpu_memory_utilization ({launch.utilization}) is not between 0 and 1"


def _separate(launch: Launch) -> Iterator[str]:
    """verl's PPOTrainerSeparateAsync and DetachActorWorker."""
    if launch.train_batch != launch.sync_every * launch.mini_batch:
        yield (
            f"separate_async: train_batch_size ({launch.train_batch}) is not parameter_sync_step ({launch.sync_every}) "
            f"x ppo_mini_batch_size ({launch.mini_batch})"
        )
    if launch.rollout_gpus < 1:
        yield "separate_async: rollout.nnodes and rollout.n_gpus_per_node give generation no GPU of its own"
    if launch.checkpoint_engine == "naive":
        yield (
            "separate_async: rollout.checkpoint_engine.backend=naive syncs weights within one process only; "
            "set nccl (or nixl, mooncake)"
        )
    if launch.strategy != "megatron" and launch.param_offload and not launch.bypass_old_log_probs:
        yield (
            "separate_async: fsdp_config.param_offload=True, but verl's copies of the policy between two syncs "
            "(DetachActorWorker.save_model_to_cpu) expect the weights on the GPU"
        )
