# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What of a launch does not divide or agree, found in its configuration instead of an hour into a queue.

verl's `validate_config` leaves most of this to Megatron and vLLM, which find it when the workers start. Each rule names
whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from verl_pgrpo.errors import ConfigError

from .batches import batch_problems
from .models import Model
from .problem import ACTOR, REF, ROLLOUT, Problem, indivisible
from .settings import Launch, Parallel

MEGATRON = f"{ACTOR}.megatron"


def problems(model: Model | None, launch: Launch) -> list[Problem]:
    """Everything that would stop this launch of this model or make it slow, one sentence each, empty if nothing would.

    Without a model, what does not depend on it.
    """
    found = batch_problems(launch)
    found += _layout(launch)
    found += _reference(launch)
    found += _rollout(launch)
    if model is not None:
        found += _trained_model(model, launch) if launch.strategy == "megatron" else _fsdp_model(model, launch)
        found += _generating_model(model, launch)
    if launch.separate:
        found += _separate(launch)
    return found


def _across_nodes(what: str, tp: int, gpus: int, where: str) -> Iterator[Problem]:
    if tp > gpus:
        said = f"{what} ({tp}) spans nodes of {gpus} GPUs: each layer would wait for the network"
        yield Problem(said, where, f"at most {gpus}; share layers out over nodes with PP", False, of_gpus=True)


def _layout(launch: Launch) -> Iterator[Problem]:
    """Megatron-core's parallel_state; verl's FSDPEngine, where a copy's GPUs are a part of all."""
    p, gpus = launch.parallel, ("the trainer's GPUs", launch.train_gpus)
    if launch.strategy != "megatron":
        yield from indivisible(
            *gpus, "Ulysses' sequence parallel size", p.cp, f"{ACTOR}.ulysses_sequence_parallel_size"
        )
        yield from indivisible(*gpus, "fsdp_config.fsdp_size", launch.fsdp_shards, f"{ACTOR}.fsdp_config.fsdp_size")
        return
    sizes = f"{MEGATRON}.{{tensor,pipeline}}_model_parallel_size, {MEGATRON}.context_parallel_size"
    yield from indivisible(*gpus, "actor TP x PP x CP", p.tp * p.pp * p.cp, sizes)
    yield from _across_nodes("actor TP", p.tp, launch.gpus_per_node, f"{MEGATRON}.tensor_model_parallel_size")
    if p.pp == 1 and p.vpp is not None and p.vpp > 1:
        where = f"{MEGATRON}.virtual_pipeline_model_parallel_size"
        yield Problem(f"virtual PP ({p.vpp}) without PP", where, "drop it, or set pipeline_model_parallel_size")


def _trained_model(model: Model, launch: Launch) -> Iterator[Problem]:
    """Megatron-core's TransformerConfig; Megatron-Bridge, which does not pad the vocabulary."""
    p, tp = launch.parallel, f"{MEGATRON}.tensor_model_parallel_size"
    yield from indivisible("the model's attention heads", model.heads, "actor TP", p.tp, tp)
    yield from indivisible("the model's KV heads", model.kv_heads, "actor TP", p.tp, tp)
    yield from indivisible("the model's vocabulary", model.vocab, "actor TP", p.tp, tp)
    if not model.experts:
        yield from indivisible("the model's FFN width", model.ffn, "actor TP", p.tp, tp)
    yield from _layers(model, p)
    ep, etp = f"{MEGATRON}.expert_model_parallel_size", f"{MEGATRON}.expert_tensor_parallel_size"
    if model.experts:
        yield from indivisible("the model's experts", model.experts, "EP", p.ep, ep)
        yield from indivisible("an expert's FFN width", model.moe_ffn, "ETP", p.etp, etp)
        product = p.etp * p.ep * p.pp
        yield from indivisible("the trainer's GPUs", launch.train_gpus, "ETP x EP x PP", product, f"{ep}, {etp}")
        if p.tp > 1 and not p.sequence_parallel:
            where = f"{MEGATRON}.sequence_parallel"
            yield Problem("actor TP > 1 with experts needs sequence_parallel=True", where, "set it to True")
    elif p.ep > 1:
        yield Problem(f"EP ({p.ep}) > 1, but {model.path} has no experts", ep, "set it to 1")


def _fsdp_model(model: Model, launch: Launch) -> Iterator[Problem]:
    """verl's FSDPEngine: Ulysses cuts a sequence by heads."""
    where = f"{ACTOR}.ulysses_sequence_parallel_size"
    ulysses = "Ulysses' sequence parallel size"
    cp = launch.parallel.cp
    yield from indivisible("the model's attention heads", model.heads, ulysses, cp, where)
    if model.kv_heads % cp and cp % model.kv_heads:
        said = f"the model's KV heads ({model.kv_heads}) and {ulysses} ({cp}): neither divides the other"
        yield Problem(said, where, f"a divisor or a multiple of {model.kv_heads}")


def _layers(model: Model, p: Parallel) -> Iterator[Problem]:
    try:
        stages = p.stages(model.layers)
    except ConfigError:
        yield Problem(
            f"the model's layers ({model.layers}) cannot be shared out over PP ({p.pp}) pipeline stages",
            f"{MEGATRON}.pipeline_model_parallel_size",
            "set override_transformer_config.num_layers_in_first_pipeline_stage and ..._last_...",
        )
        return
    if p.vpp is not None and p.vpp > 1:
        where = f"{MEGATRON}.virtual_pipeline_model_parallel_size"
        yield from indivisible("the layers of a pipeline stage", stages[0], "virtual PP", p.vpp, where)


def _reference(launch: Launch) -> Iterator[Problem]:
    """verl's MegatronEngine: actor and reference share a process, hence one set of Megatron's parallel groups."""
    if launch.ref is None:
        return
    if launch.ref_strategy != launch.strategy:
        said = f"ref.strategy ({launch.ref_strategy}) is not actor.strategy ({launch.strategy})"
        yield Problem(said, f"{REF}.strategy", "make them the same")
    for field, name in (("tp", "TP"), ("pp", "PP"), ("cp", "CP"), ("ep", "EP"), ("etp", "ETP"), ("vpp", "virtual PP")):
        ours, theirs = getattr(launch.parallel, field), getattr(launch.ref, field)
        if ours != theirs:
            yield Problem(
                f"ref {name} ({theirs}) is not actor {name} ({ours}): both live in one process, and whichever comes "
                "second silently gets the other's parallel groups",
                f"{REF}.megatron",
                "leave the reference's sizes out: verl's defaults take the actor's",
            )


def _rollout(launch: Launch) -> Iterator[Problem]:
    """verl's RolloutConfig, RolloutReplica and LLMServerManager."""
    tp, ep, replica, node = launch.rollout_tp, launch.rollout_ep, launch.replica_gpus, launch.rollout_gpus_per_node
    where = f"{ROLLOUT}.tensor_model_parallel_size, {ROLLOUT}.data_parallel_size"
    yield from indivisible("the rollout's GPUs", launch.rollout_gpus, "rollout TP x DP", replica, where)
    if ep > 1 and ep != replica and launch.rollout_name != "trtllm":
        said = f"rollout.expert_parallel_size ({ep}) must be 1 or rollout TP x DP ({replica})"
        yield Problem(said, f"{ROLLOUT}.expert_parallel_size", f"1 or {replica}")
    if replica > node:
        yield from indivisible("rollout TP x DP", replica, "the rollout's GPUs a node", node, where)
    else:  # one that straddles nodes is never placed
        yield from indivisible("the rollout's GPUs a node", node, "rollout TP x DP", replica, where)
    yield from _across_nodes("rollout TP", tp, node, f"{ROLLOUT}.tensor_model_parallel_size")
    if launch.rollout_dtype != launch.dtype:
        yield Problem(
            f"rollout.dtype ({launch.rollout_dtype}) is not the actor's dtype ({launch.dtype})",
            f"{ROLLOUT}.dtype",
            f"{launch.dtype}: else responses come from another policy than the one that is trained",
            fatal=False,
        )
    if launch.max_model_len < launch.max_prompt + launch.max_response:
        said = f"rollout.max_model_len ({launch.max_model_len}) is less than a prompt and a response"
        yield Problem(said, f"{ROLLOUT}.max_model_len", f"at least {launch.max_prompt + launch.max_response}")
    if launch.rollout_name == "vllm" and launch.max_num_batched_tokens < launch.max_num_seqs:  # SchedulerConfig
        said = f"rollout.max_num_batched_tokens ({launch.max_num_batched_tokens}) is less than max_num_seqs"
        where = f"{ROLLOUT}.max_num_batched_tokens, {ROLLOUT}.max_num_seqs"
        yield Problem(f"{said} ({launch.max_num_seqs})", where, "at least as many tokens as sequences")
    if not 0 < launch.utilization < 1:
        said = f"rollout.gpu_memory_utilization ({launch.utilization}) is not between 0 and 1"
        yield Problem(said, f"{ROLLOUT}.gpu_memory_utilization", "a share, 0.6 for example")


def _generating_model(model: Model, launch: Launch) -> Iterator[Problem]:
    """vLLM's ModelConfig.verify_with_parallel_config."""
    tp, ep, where = launch.rollout_tp, launch.rollout_ep, f"{ROLLOUT}.tensor_model_parallel_size"
    yield from indivisible("the model's attention heads", model.heads, "rollout TP", tp, where)
    if tp > 0 and model.kv_heads % tp and tp % model.kv_heads:
        said = f"the model's KV heads ({model.kv_heads}) and rollout TP ({tp}): neither divides the other"
        yield Problem(said, where, f"a divisor or a multiple of {model.kv_heads}")
    if ep > 1 and not model.experts:
        said = f"rollout.expert_parallel_size ({ep}) > 1, but {model.path} has no experts"
        yield Problem(said, f"{ROLLOUT}.expert_parallel_size", "1")
    elif model.experts and ep > 1:
        key = "rollout.expert_parallel_size"
        yield from indivisible("the model's experts", model.experts, key, ep, f"actor_rollout_ref.{key}")
    elif model.experts:
        yield from indivisible("an expert's FFN width", model.moe_ffn, "rollout TP", tp, where)
    else:
        yield from indivisible("the model's FFN width", model.ffn, "rollout TP", tp, where)


def _separate(launch: Launch) -> Iterator[Problem]:
    """verl's PPOTrainerSeparateAsync and DetachActorWorker."""
    step = "trainer.v1.separate_async.parameter_sync_step"
    if launch.train_batch != launch.sync_every * launch.mini_batch:
        yield Problem(
            f"separate_async: train_batch_size ({launch.train_batch}) is not parameter_sync_step ({launch.sync_every}) "
            f"x ppo_mini_batch_size ({launch.mini_batch})",
            f"data.train_batch_size, {step}, {ACTOR}.ppo_mini_batch_size",
            f"for these two, data.train_batch_size={launch.sync_every * launch.mini_batch}",
        )
    if launch.rollout_gpus < 1:
        said = "separate_async: rollout.nnodes and rollout.n_gpus_per_node give generation no GPU of its own"
        yield Problem(said, f"{ROLLOUT}.nnodes, {ROLLOUT}.n_gpus_per_node", "at least 1 each")
    if launch.checkpoint_engine == "naive":
        yield Problem(
            "separate_async: rollout.checkpoint_engine.backend=naive syncs weights within one process only; "
            "set nccl (or nixl, mooncake)",
            f"{ROLLOUT}.checkpoint_engine.backend",
            "nccl",
        )
    if launch.strategy != "megatron" and launch.param_offload and not launch.bypass_old_log_probs:
        yield Problem(
            "separate_async: fsdp_config.param_offload=True, but verl's copies of the policy between two syncs "
            "(DetachActorWorker.save_model_to_cpu) expect the weights on the GPU",
            f"{ACTOR}.fsdp_config.param_offload",
            "set it to False, or algorithm.rollout_correction.bypass_mode=True",
        )
