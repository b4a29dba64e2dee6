# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""How much memory a launch needs on its fullest GPU, phase by phase, by formula. Nothing here has been measured.

Sources, by what they are for:

- Megatron, bytes a parameter: 2 for bf16 weights, 4 for fp32 gradients, 12 for the optimizer's fp32 weights and two
  moments, the 12 shared out over data parallelism (the table `6 + 12/d` in Megatron-core's page on its distributed
  optimizer; verl's `offload_megatron_model_to_cpu` says the same).
- FSDP: 4 + 4 + 8 bytes a parameter for fp32 weights, gradients and moments, shared out over all GPUs (ZeRO-3, arXiv
  1910.02054), and in bf16 what is gathered: the unit around the layers (embeddings, output) and two layers.
- Activations: what each operation of a layer keeps (arXiv 2205.05198, here with grouped-query attention, a gated
  feed-forward net and flash attention, which keeps no scores). With full recomputation only each layer's input is kept,
  and one layer at a time is computed again. Pipeline stage i of p keeps those of p - i micro-batches (1F1B, arXiv
  2104.04473).
- Logits: of the last stage, bytes an entry as counted from verl's and Megatron's code, see LOGIT_BYTES.
- vLLM: takes `gpu_memory_utilization` of the whole GPU; the cache gets what weights and a profiled forward pass leave
  (`GPUWorker.determine_available_memory`).
- What no formula gives is an assumption, written here as a constant.
"""

from __future__ import annotations

from verl_pgrpo.errors import ConfigError

from .models import Model
from .phases import GIB, Estimate, Phase
from .settings import Launch

# What CUDA reports of an A100 or H100 with 80 GB is 79.1 to 79.6 GiB.
GPU_GIB = 79.0
# Of that, formulas may fill so much: fragmentation, uneven sequences and what they do not know need the rest.
FILL = 0.9

# Megatron: fp32 logits (its Float16Module casts the last stage's output), verl's clone for the entropy and one
# temporary; in training fp32 softmax in place of the logits, and their gradients in fp32 and bf16. FSDP: bf16 logits,
# and softmax, its product and gradient in bf16.
LOGIT_BYTES = {"megatron": 12, "fsdp": 8, "fsdp2": 8}

# Assumptions, GiB: CUDA contexts, NCCL's buffers, cuBLAS workspaces, and what the allocator keeps in vain.
TRAINER_OVERHEAD = 5.0
IDLE_TRAINER_OVERHEAD = 2.5  # verl empties the allocator's cache before vLLM wakes up
SLEEPING_VLLM_OVERHEAD = 2.5  # CUDA graphs and NCCL's buffers stay when vLLM sleeps
VLLM_OVERHEAD = 2.0  # CUDA graphs, captured after vLLM has sized its cache

# Assumption: the GPU with the most popular experts gets so many times its share of the tokens. verl trains experts
# without a loss that balances them.
ROUTING_SKEW = 2.0


def estimate(model: Model, launch: Launch, gpu: float = GPU_GIB) -> Estimate:
    """GiB on the fullest GPU in each phase of a step.

    Args:
        gpu: GiB of one GPU, as CUDA reports them.

    Raises:
        ConfigError: layers that do not share out over the pipeline, or a setting whose memory is not known here.
    """
    if launch.parallel.vpp is not None and launch.parallel.vpp > 1:
        raise ConfigError("virtual pipeline stages: their memory is not known here")
    stages = launch.parallel.stages(model.layers)
    candidates = [_training(model, launch, gpu, stage, stages) for stage in range(len(stages))]
    # Each phase of the stage where it is fullest.
    phases = [
        max(of_stage, key=lambda phase: phase.total) for of_stage in zip(*(c[1] for c in candidates), strict=True)
    ]
    weights, profile = _rollout_weights(model, launch), _rollout_profile(model, launch)
    kv_cache = launch.utilization * gpu - weights - profile
    kv_heads = max(1, model.kv_heads // launch.rollout_tp)
    a_token = 2 * model.layers * kv_heads * model.head_dim * 2
    # Data-parallel parts of one vLLM hold different sequences.
    full = kv_cache * GIB / (a_token * launch.max_model_len) * launch.rollout_dp
    if not launch.hybrid:
        parts = {
            "vLLM": launch.utilization * gpu,
            "sync buffers": 2 * launch.bucket_bytes / GIB,
            "overhead": VLLM_OVERHEAD,
        }
        phases.append(Phase("rollout", parts, gpu))
    return Estimate(
        launch=launch,
        gpu=gpu,
        parameters=max(c[0] for c in candidates),
        phases=tuple(phases),
        rollout_weights=weights,
        kv_cache=kv_cache,
        kv_bytes_a_token=a_token,
        full_sequences=full,
    )


def _training(model: Model, launch: Launch, gpu: float, stage: int, stages: list[int]) -> tuple[float, list[Phase]]:
    """Parameters on one GPU of a pipeline stage, and the phases there."""
    megatron = launch.strategy == "megatron"
    dense, experts = _stage_parameters(model, launch, stage, stages)
    if megatron:
        weights = 2 * (dense + experts) / GIB
        gradients = 4 * (dense + experts) / GIB
        shards = launch.dp * launch.parallel.cp
        optimizer = 12 * (dense / shards + experts / launch.expert_dp) / GIB
        ref_weights, gathered = weights, 0.0
    else:
        shard = (dense + experts) / launch.fsdp_shards / GIB
        around = model.parameters - model.layers * (model.dense_layer + model.expert_layer)
        weights, gradients, optimizer, ref_weights = 4 * shard, 4 * shard, 8 * shard, 4 * shard
        gathered = 2 * (around + 2 * (model.dense_layer + model.expert_layer)) / GIB
        if launch.deferred_gradients:
            gradients += 4 * (dense + experts) / GIB

    # What stays on the GPU while something else has its turn. Megatron's gradient buffer goes with the weights; FSDP
    # frees its gradients after each update.
    stays = {
        "weights": 0.0 if launch.param_offload else weights,
        "gradients": gradients if megatron and not launch.param_offload else 0.0,
        "optimizer": 0.0 if launch.optimizer_offload else optimizer,
    }
    ref_stays = ref_weights if launch.ref is not None and not launch.ref_param_offload else 0.0
    asleep = SLEEPING_VLLM_OVERHEAD if launch.hybrid else 0.0
    overhead = TRAINER_OVERHEAD + asleep

    layer = _layer_activations(model, launch, launch.max_tokens)
    kept_layers = stages[stage] * (launch.parallel.pp - stage)
    kept = kept_layers * (_layer_input(model, launch, launch.max_tokens) if launch.full_recompute else layer)
    last = stage == len(stages) - 1
    limit = FILL * gpu
    phases = [
        Phase(
            "update",
            {
                "weights": weights + gathered,
                "gradients": gradients,
                "optimizer": optimizer,
                "reference": ref_stays,
                "activations": (kept + 2 * layer) / GIB,  # of one layer also the gradients
                "logits": _logits(model, launch, launch.max_tokens) if last else 0.0,
                "overhead": overhead,
            },
            limit,
        )
    ]
    if launch.ref is not None:
        forward = _layer_activations(model, launch, launch.log_prob_max_tokens) / GIB
        phases.append(
            Phase(
                "reference",
                stays
                | {
                    "reference": ref_weights + gathered,
                    "activations": forward,
                    "logits": _logits(model, launch, launch.log_prob_max_tokens) if last else 0.0,
                    "overhead": overhead,
                },
                limit,
            )
        )
    # One tensor at a time is put together from its parts, which for a moment exist twice.
    tensor = 2 * (2 if megatron else 4) * max(model.embedding, 2 * model.hidden * model.ffn) / GIB
    sync = stays | {
        "weights": weights,
        "reference": ref_stays,
        "rollout's weights": _rollout_weights(model, launch) if launch.hybrid else 0.0,
        "sync buffers": (1 if launch.hybrid else 2) * launch.bucket_bytes / GIB + tensor,
        "overhead": overhead,
    }
    phases.append(Phase("weight sync", sync, limit))
    if launch.hybrid:
        rollout = stays | {"reference": ref_stays, "vLLM": launch.utilization * gpu}
        phases.append(Phase("rollout", rollout | {"overhead": IDLE_TRAINER_OVERHEAD + VLLM_OVERHEAD}, gpu))
    return dense + experts, phases


def _stage_parameters(model: Model, launch: Launch, stage: int, stages: list[int]) -> tuple[float, float]:
    """Parameters on one GPU of a stage before any sharding over data parallelism: dense ones, experts' ones."""
    p = launch.parallel
    layer = (model.dense_layer - model.replicated_layer) / p.tp + model.replicated_layer
    dense = stages[stage] * layer
    first, last = stage == 0, stage == len(stages) - 1
    if first:
        dense += model.embedding / p.tp
    if last:
        dense += model.hidden
        if not (first and model.tied):  # with a pipeline the last stage has a copy of a tied table
            dense += model.embedding / p.tp
    return dense, stages[stage] * model.expert_layer / (p.ep * p.etp)


def _sequence_parts(launch: Launch) -> int:
    """Into how many parts what lies between the matrix products is cut."""
    return launch.parallel.tp if launch.parallel.sequence_parallel else 1


def _layer_input(model: Model, launch: Launch, tokens: int) -> float:
    """Bytes of a layer's bf16 input."""
    return 2 * tokens * model.hidden / _sequence_parts(launch)


def _layer_activations(model: Model, launch: Launch, tokens: int) -> float:
    """Bytes that one layer's forward pass keeps for its backward pass, bf16."""
    p = launch.parallel
    between = 4 * tokens * model.hidden / _sequence_parts(launch)  # inputs and outputs of both norms
    gathered = 2 * tokens * model.hidden if p.tp > 1 else 0  # sequence-parallel inputs of both blocks, put together
    attention = tokens * (3 * model.q + 3 * model.kv) / p.tp  # projected, rotated (not the values), attended
    if model.experts:
        rows = ROUTING_SKEW * model.topk * tokens / _sequence_parts(launch)  # copies of tokens that a GPU's experts get
        feed_forward = rows * (2 * model.hidden + 3 * model.moe_ffn) + 2 * tokens * model.experts
    else:
        feed_forward = 3 * tokens * model.ffn / p.tp  # gate, up, and their product
    return 2 * (between + gathered + attention + feed_forward)


def _logits(model: Model, launch: Launch, tokens: int) -> float:
    return LOGIT_BYTES[launch.strategy] * tokens * model.vocab / launch.parallel.tp / GIB


def _rollout_weights(model: Model, launch: Launch) -> float:
    """GiB of vLLM's bf16 weights on one GPU. Experts are cut by tensor or by expert over all of a replica's GPUs."""
    tp = launch.rollout_tp
    dense = model.layers * ((model.dense_layer - model.replicated_layer) / tp + model.replicated_layer)
    if tp > model.kv_heads:  # each GPU then has a whole KV head
        dense += model.layers * 2 * model.hidden * model.head_dim * (1 - model.kv_heads / tp)
    dense += (1 if model.tied else 2) * model.embedding / tp + model.hidden
    return 2 * (dense + model.layers * model.expert_layer / launch.replica_gpus) / GIB


def _rollout_profile(model: Model, launch: Launch) -> float:
    """GiB of the forward pass by which vLLM sizes its cache: one layer at a time, and the sampler's fp32 logits."""
    tokens, tp = launch.max_num_batched_tokens, launch.rollout_tp
    if model.experts:
        rows = ROUTING_SKEW * model.topk * tokens * launch.rollout_dp / launch.replica_gpus
        feed_forward = rows * (2 * model.hidden + 3 * model.moe_ffn)
    else:
        feed_forward = 3 * tokens * model.ffn / tp
    layer = 2 * (4 * tokens * model.hidden + tokens * (2 * model.q + 2 * model.kv) / tp + feed_forward)
    return (layer + 3 * 4 * launch.max_num_seqs * model.vocab) / GIB
