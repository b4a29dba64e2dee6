# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Estimate the memory of a launch on its fullest GPU, phase by phase, by formula. Not measured.

Sources:

- Megatron, bytes per parameter: 2 for bf16 weights, 4 for fp32 gradients, 12 for the optimizer's fp32 weights and two
  moments, the 12 sharded over data parallelism (`6 + 12/d` in Megatron-core's page on its distributed optimizer).
- FSDP: 4 + 4 + 8 bytes per parameter for fp32 weights, gradients and moments, sharded over all GPUs (ZeRO-3, arXiv
  1910.02054), and in bf16 what is gathered: the unit around the layers (embeddings, output) and two layers.
- Activations: what each operation of a layer keeps (arXiv 2205.05198, with grouped-query attention, a gated FFN and
  flash attention, which keeps no scores). With full recomputation only each layer's input is kept, and one layer at a
  time is recomputed. Pipeline stage i of p keeps those of p - i micro-batches (1F1B, arXiv 2104.04473).
- Logits: bytes per entry as counted in verl's and Megatron's code, see LOGIT_BYTES.
- vLLM: takes `gpu_memory_utilization` of the whole GPU; its cache gets what weights and a profiled forward pass leave
  (`GPUWorker.determine_available_memory`).
- The other constants are assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_sizes import Model
from omegaconf import DictConfig, OmegaConf

GIB = float(1 << 30)
GPU_GIB = 79.0  # CUDA reports 79.1 to 79.6 GiB of an A100 or H100 with 80 GB
FILL = 0.9  # of that formulas may fill: fragmentation, uneven sequences and the unknown need the rest

# Megatron: fp32 logits (its Float16Module casts the last stage's output), verl's clone for the entropy and a temporary;
# in training fp32 softmax instead of the logits, and gradients in fp32 and bf16. FSDP: bf16 logits, softmax, its
# product and gradient in bf16.
LOGIT_BYTES = {"megatron": 12, "fsdp": 8, "fsdp2": 8}

# Assumptions, GiB: CUDA contexts, NCCL's buffers, cuBLAS workspaces, and what the allocator keeps unused.
TRAINER_OVERHEAD = 5.0
IDLE_TRAINER_OVERHEAD = 2.5  # verl empties the allocator's cache before vLLM wakes up
SLEEPING_VLLM_OVERHEAD = 2.5  # CUDA graphs and NCCL's buffers stay when vLLM sleeps
VLLM_OVERHEAD = 2.0  # CUDA graphs, captured after vLLM has sized its cache
# Assumption: the GPU with the most popular experts gets this multiple of its share of the tokens.
ROUTING_SKEW = 2.0


class Launch:
    """Size-related settings of a resolved verl config."""

    def __init__(self, config: DictConfig) -> None:
        models, v1 = config.actor_rollout_ref, config.trainer.v1
        actor, ref, rollout = models.actor, models.ref, models.rollout
        self.strategy, self.mode = str(actor.strategy), str(v1.trainer_mode)
        if self.strategy not in LOGIT_BYTES:
            raise ValueError(f"no formulas for strategy={self.strategy}; known: {', '.join(LOGIT_BYTES)}")
        self.model_path = str(models.model.path)
        megatron = self.strategy == "megatron"
        engine, ref_engine = (node.megatron if megatron else node.fsdp_config for node in (actor, ref))
        self.separate = self.mode == "separate_async"
        self.train_gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
        self.rollout_gpus = rollout.nnodes * rollout.n_gpus_per_node if self.separate else self.train_gpus
        self.hybrid = not self.separate or bool(models.hybrid_engine)
        size: Any = lambda name: engine[f"{name}_parallel_size"] if megatron else 1  # noqa: E731
        self.tp, self.pp, self.cp = size("tensor_model"), size("pipeline_model"), size("context")
        self.ep, self.etp = size("expert_model"), size("expert_tensor") or self.tp  # Megatron's default
        self.sequence_parallel = megatron and bool(engine.sequence_parallel) and self.tp > 1
        override: Any = engine.override_transformer_config if megatron else {}
        self.uneven = [override.get(f"num_layers_in_{end}_pipeline_stage") for end in ("first", "last")]
        names = ("recompute_granularity", "recompute_method", "recompute_num_layers")
        full = tuple(override.get(name) for name in names) == ("full", "uniform", 1)
        self.full_recompute = full if megatron else bool(models.model.enable_gradient_checkpointing)
        self.deferred_gradients = not megatron and bool(engine.get("use_no_sync_for_gradient_accumulation"))
        shards = 1 if megatron else engine.fsdp_size
        self.fsdp_shards = shards if shards > 0 else self.train_gpus
        self.param_offload, self.optimizer_offload = bool(engine.param_offload), bool(engine.optimizer_offload)
        lora = any(OmegaConf.select(models.model, key) for key in ("lora.rank", "lora_rank", "lora_adapter_path"))
        self.reference = bool(actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not lora
        self.ref_param_offload = bool(ref_engine.param_offload)
        self.train_batch, self.n = config.data.train_batch_size, rollout.n
        self.bucket = (rollout.checkpoint_engine.update_weights_bucket_megabytes << 20) / GIB
        self.rollout_tp, self.rollout_dp = rollout.tensor_model_parallel_size, rollout.data_parallel_size or 1
        self.rollout_ep, self.utilization = rollout.expert_parallel_size or 1, rollout.gpu_memory_utilization
        longest = config.data.max_prompt_length + config.data.max_response_length
        self.max_tokens = _micro_batch_tokens(actor, "", "ppo_", longest)
        self.ref_max_tokens = _micro_batch_tokens(ref, "log_prob_", "log_prob_", longest) if self.reference else 0
        self.max_model_len, self.max_num_seqs = rollout.max_model_len or longest, rollout.max_num_seqs
        # verl raises it to the longest sequence where prefill is not chunked (its vLLMHttpServer).
        least = 0 if rollout.enable_chunked_prefill else longest
        self.max_num_batched_tokens = max(rollout.max_num_batched_tokens, least)

    @property
    def dp(self) -> int:
        return max(1, self.train_gpus // (self.tp * self.pp * self.cp))

    @property
    def expert_dp(self) -> int:
        return max(1, self.train_gpus // (self.etp * self.ep * self.pp))

    @property
    def replica_gpus(self) -> int:
        return self.rollout_tp * self.rollout_dp

    def stages(self, layers: int) -> list[int]:
        """Layers of each pipeline stage. Uneven ones come first and last."""
        first, last = ([size] if size is not None and self.pp > 1 else [] for size in self.uneven)
        others, left = self.pp - len(first) - len(last), layers - sum(first) - sum(last)
        if left < 0 or (others and left % others) or (not others and left):
            raise ValueError(f"{layers} layers cannot be divided among {self.pp} pipeline stages")
        return [*first, *([left // others] * others if others else []), *last]


def _micro_batch_tokens(settings: DictConfig, dynamic: str, size: str, longest: int) -> int:
    """Return the most tokens of a micro-batch on one GPU; `dynamic` and `size` are the prefixes of verl's keys."""
    if settings[f"{dynamic}use_dynamic_bsz"]:
        return settings[f"{size}max_token_len_per_gpu"]
    sequences = settings[f"{size}micro_batch_size_per_gpu"]
    if sequences is None:
        raise ValueError(f"needs {dynamic}use_dynamic_bsz=True or {size}micro_batch_size_per_gpu")
    return sequences * longest


@dataclass(frozen=True, slots=True)
class Phase:
    """What is on the fullest GPU at one time; `parts` are GiB by name."""

    name: str
    parts: dict[str, float]
    limit: float  # GiB

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = " + ".join(f"{name} {gib:.1f}" for name, gib in self.parts.items() if gib)
        too_much = " (does not fit)" if self.total > self.limit else ""
        return f"{self.name}: {self.total:.1f} of {self.limit:.1f} GiB{too_much} = {parts}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The phases of a step, and vLLM's cache."""

    parameters: float  # on the fullest training GPU
    phases: dict[str, Phase]
    rollout_weights: float  # GiB on one GPU
    kv_cache: float  # GiB on one GPU
    kv_bytes_per_token: int  # on one GPU
    full_sequences: float  # of full length that one vLLM holds at a time

    def __str__(self) -> str:
        too_little = " (less than one prompt and response)" if self.full_sequences < 1 else ""
        cache = f"KV cache: {self.kv_cache:.1f} GiB on a GPU, {self.kv_bytes_per_token / 1024:.0f} KiB per token"
        return "\n".join(
            [
                f"{self.parameters / 1e9:.2f} G parameters on the fullest training GPU",
                *map(str, self.phases.values()),
                f"{cache}, {self.full_sequences:.0f} full sequences in one vLLM{too_little}",
            ]
        )


def estimate(model: Model, launch: Launch, gpu: float = GPU_GIB) -> Estimate:
    """Return GiB on the fullest GPU in each phase of a step; `gpu`: GiB of one GPU, as CUDA reports them."""
    stages = launch.stages(model.layers)
    phases: dict[str, Phase] = {}
    for stage in range(len(stages)):
        for phase in _training(model, launch, gpu, stage, stages):
            phases[phase.name] = max(phases.get(phase.name, phase), phase, key=lambda one: one.total)
    if not launch.hybrid:
        buffers = {"vLLM": launch.utilization * gpu, "sync buffers": 2 * launch.bucket, "overhead": VLLM_OVERHEAD}
        phases["rollout"] = Phase("rollout", buffers, gpu)
    weights = _rollout_weights(model, launch)
    kv_cache = launch.utilization * gpu - weights - _rollout_profile(model, launch)
    per_token = 2 * model.layers * max(1, model.kv_heads // launch.rollout_tp) * model.head_dim * 2
    # Data-parallel parts of one vLLM hold different sequences.
    full = kv_cache * GIB / (per_token * launch.max_model_len) * launch.rollout_dp
    parameters = max(sum(stage_parameters(model, launch, stage, stages)) for stage in range(len(stages)))
    return Estimate(parameters, phases, weights, kv_cache, per_token, full)


def _training(model: Model, launch: Launch, gpu: float, stage: int, stages: list[int]) -> list[Phase]:
    """Return the phases of a step on a GPU of one pipeline stage."""
    megatron = launch.strategy == "megatron"
    dense, experts = stage_parameters(model, launch, stage, stages)
    if megatron:
        weights, gradients = 2 * (dense + experts) / GIB, 4 * (dense + experts) / GIB
        optimizer = 12 * (dense / (launch.dp * launch.cp) + experts / launch.expert_dp) / GIB
        ref_weights, gathered = weights, 0.0
    else:
        shard = (dense + experts) / launch.fsdp_shards / GIB
        around = model.parameters - model.layers * (model.dense_layer + model.expert_layer)
        weights, gradients, optimizer, ref_weights = 4 * shard, 4 * shard, 8 * shard, 4 * shard
        gathered = 2 * (around + 2 * (model.dense_layer + model.expert_layer)) / GIB
        if launch.deferred_gradients:  # whole on each GPU until a mini-batch's last micro-batch
            gradients += 4 * (dense + experts) / GIB
    # What stays on the GPU in other phases. Megatron's gradient buffer goes with the weights; FSDP frees its gradients.
    stays = {
        "weights": 0.0 if launch.param_offload else weights,
        "gradients": gradients if megatron and not launch.param_offload else 0.0,
        "optimizer": 0.0 if launch.optimizer_offload else optimizer,
    }
    ref_stays = ref_weights if launch.reference and not launch.ref_param_offload else 0.0
    overhead = TRAINER_OVERHEAD + (SLEEPING_VLLM_OVERHEAD if launch.hybrid else 0.0)
    layer = _layer_activations(model, launch, launch.max_tokens)
    layer_input = 2 * launch.max_tokens * model.hidden / _sequence_parts(launch)
    kept = stages[stage] * (launch.pp - stage) * (layer_input if launch.full_recompute else layer)
    last = stage == len(stages) - 1
    limit = FILL * gpu
    update = {
        "weights": weights + gathered,
        "gradients": gradients,
        "optimizer": optimizer,
        "reference": ref_stays,
        "activations": (kept + 2 * layer) / GIB,  # of one layer also the gradients
        "logits": _logits(model, launch, launch.max_tokens) if last else 0.0,
        "overhead": overhead,
    }
    phases = [Phase("update", update, limit)]
    if launch.reference:
        parts = {
            "reference": ref_weights + gathered,
            "activations": _layer_activations(model, launch, launch.ref_max_tokens) / GIB,
            "logits": _logits(model, launch, launch.ref_max_tokens) if last else 0.0,
            "overhead": overhead,
        }
        phases.append(Phase("reference", stays | parts, limit))
    # One tensor at a time is assembled from its parts, and for a moment exists twice.
    tensor = 2 * (2 if megatron else 4) * max(model.embedding, 2 * model.hidden * model.ffn) / GIB
    sync = {
        "weights": weights,
        "reference": ref_stays,
        "rollout's weights": _rollout_weights(model, launch) if launch.hybrid else 0.0,
        "sync buffers": (1 if launch.hybrid else 2) * launch.bucket + tensor,
        "overhead": overhead,
    }
    phases.append(Phase("weight sync", stays | sync, limit))
    if launch.hybrid:
        rollout = {
            "reference": ref_stays,
            "vLLM": launch.utilization * gpu,
            "overhead": IDLE_TRAINER_OVERHEAD + VLLM_OVERHEAD,
        }
        phases.append(Phase("rollout", stays | rollout, gpu))
    return phases


def stage_parameters(model: Model, launch: Launch, stage: int, stages: list[int]) -> tuple[float, float]:
    """Return dense and experts' parameters on one GPU of a stage, before sharding over data parallelism."""
    dense = stages[stage] * ((model.dense_layer - model.replicated_layer) / launch.tp + model.replicated_layer)
    first, last = stage == 0, stage == len(stages) - 1
    if first:
        dense += model.embedding / launch.tp
    if last:
        dense += model.hidden
        if not (first and model.tied):  # with a pipeline the last stage has a copy of a tied embedding
            dense += model.embedding / launch.tp
    return dense, stages[stage] * model.expert_layer / (launch.ep * launch.etp)


def _sequence_parts(launch: Launch) -> int:
    return launch.tp if launch.sequence_parallel else 1


def _layer_activations(model: Model, launch: Launch, tokens: int) -> float:
    """Return the bytes that one layer's forward pass keeps for its backward pass, in bf16."""
    between = 4 * tokens * model.hidden / _sequence_parts(launch)  # inputs and outputs of both norms
    gathered = 2 * tokens * model.hidden if launch.tp > 1 else 0  # sequence-parallel inputs of both blocks
    attention = tokens * (3 * model.q + 3 * model.kv) / launch.tp  # projected, rotated (not the values), attended
    if model.experts:
        rows = ROUTING_SKEW * model.topk * tokens / _sequence_parts(launch)  # copies of tokens on one GPU
        ffn = rows * (2 * model.hidden + 3 * model.moe_ffn) + 2 * tokens * model.experts
    else:
        ffn = 3 * tokens * model.ffn / launch.tp  # gate, up, and their product
    return 2 * (between + gathered + attention + ffn)


def _logits(model: Model, launch: Launch, tokens: int) -> float:
    return LOGIT_BYTES[launch.strategy] * tokens * model.vocab / launch.tp / GIB


def _rollout_weights(model: Model, launch: Launch) -> float:
    """Return GiB of vLLM's bf16 weights on one GPU. Experts are divided over all of a replica's GPUs."""
    tp = launch.rollout_tp
    dense = model.layers * ((model.dense_layer - model.replicated_layer) / tp + model.replicated_layer)
    if tp > model.kv_heads:  # each GPU then has a whole KV head
        dense += model.layers * 2 * model.hidden * model.head_dim * (1 - model.kv_heads / tp)
    dense += (1 if model.tied else 2) * model.embedding / tp + model.hidden
    return 2 * (dense + model.layers * model.expert_layer / launch.replica_gpus) / GIB


def _rollout_profile(model: Model, launch: Launch) -> float:
    """Return GiB of the forward pass by which vLLM sizes its cache: one layer, and the sampler's fp32 logits."""
    tokens, tp = launch.max_num_batched_tokens, launch.rollout_tp
    if model.experts:
        rows = ROUTING_SKEW * model.topk * tokens * launch.rollout_dp / launch.replica_gpus
        ffn = rows * (2 * model.hidden + 3 * model.moe_ffn)
    else:
        ffn = 3 * tokens * model.ffn / tp
    layer = 2 * (4 * tokens * model.hidden + tokens * (2 * model.q + 2 * model.kv) / tp + ffn)
    return (layer + 3 * 4 * launch.max_num_seqs * model.vocab) / GIB
