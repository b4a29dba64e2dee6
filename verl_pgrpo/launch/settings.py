# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Of verl's composed configuration what decides sizes: which model, on how many GPUs, cut how, in batches of what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pgrpo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Parallel:
    """How one copy of the model for training, and its data, are cut. FSDP has `cp` alone: Ulysses."""

    tp: int = 1  # tensor
    pp: int = 1  # pipeline
    cp: int = 1  # context
    ep: int = 1  # expert
    etp: int = 1  # tensor, within an expert
    vpp: int | None = None  # chunks of layers a pipeline stage holds, if more than one
    first_stage: int | None = None  # layers of the first pipeline stage, if other than the rest
    last_stage: int | None = None
    sequence_parallel: bool = False

    @classmethod
    def of_megatron(cls, megatron: DictConfig) -> Parallel:
        tp = megatron.tensor_model_parallel_size
        etp = megatron.expert_tensor_parallel_size
        override = megatron.override_transformer_config
        return cls(
            tp=tp,
            pp=megatron.pipeline_model_parallel_size,
            cp=megatron.context_parallel_size,
            ep=megatron.expert_model_parallel_size,
            etp=tp if etp is None else etp,  # Megatron's default
            vpp=megatron.virtual_pipeline_model_parallel_size,
            first_stage=override.get("num_layers_in_first_pipeline_stage"),
            last_stage=override.get("num_layers_in_last_pipeline_stage"),
            sequence_parallel=megatron.sequence_parallel and tp > 1,  # verl switches it off for tp=1
        )

    def stages(self, layers: int) -> list[int]:
        """Layers of each pipeline stage. The uneven ones come first and last; the rest must share evenly."""
        if self.pp == 1:
            return [layers]
        named = [n for n in (self.first_stage, self.last_stage) if n is not None]
        others, left = self.pp - len(named), layers - sum(named)
        if left < 0 or (others and left % others) or (not others and left):
            raise ConfigError(f"pp={self.pp}: {layers} layers cannot be shared out over the pipeline stages")
        middle = [left // others] * others if others else []
        first = [] if self.first_stage is None else [self.first_stage]
        last = [] if self.last_stage is None else [self.last_stage]
        return [*first, *middle, *last]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A run's sizes. `train_gpus` are the trainer's; where `separate`, generation has GPUs of its own beside them."""

    estimator: str
    model_path: str
    strategy: str  # fsdp, fsdp2 or megatron
    rollout_name: str  # vllm, sglang or trtllm
    mode: str  # trainer.v1.trainer_mode
    pads: bool  # verl fills a step up with padding rows; its older trainers do not
    train_gpus: int
    gpus_per_node: int
    rollout_gpus: int
    rollout_gpus_per_node: int
    parallel: Parallel
    ref: Parallel | None  # None: no reference model
    ref_strategy: str
    dtype: str  # the weights' when training computes
    rollout_dtype: str
    param_offload: bool
    optimizer_offload: bool
    ref_param_offload: bool
    full_recompute: bool
    remove_padding: bool
    fsdp_shards: int  # FSDP: GPUs over which a copy is shared out
    deferred_gradients: bool  # FSDP: gradients stay whole on each GPU until a mini-batch's last micro-batch
    train_batch: int  # prompts
    mini_batch: int  # prompts
    n: int  # responses a prompt
    max_prompt: int
    max_response: int
    dynamic_batches: bool
    log_prob_dynamic: bool
    ref_dynamic: bool
    micro_batch: int | None  # responses on one GPU, where batches are not by tokens
    log_prob_micro_batch: int | None
    ref_micro_batch: int | None
    max_tokens: int  # of a micro-batch, on one GPU
    log_prob_max_tokens: int
    ref_max_tokens: int
    sync_every: int  # policy updates between two weight syncs; separate_async
    hybrid: bool  # whether training GPUs also generate
    checkpoint_engine: str
    bucket_bytes: int
    rollout_tp: int
    rollout_dp: int
    rollout_ep: int
    utilization: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    free_cache: bool
    bypass_old_log_probs: bool
    computes_log_probs: bool  # with the sizes of the rollout's log-probabilities

    @classmethod
    def of(cls, config: DictConfig) -> Launch:
        """The sizes of verl's composed configuration.

        Raises:
            ConfigError: a strategy whose sizes are not known here.
        """
        models, v1 = config.actor_rollout_ref, config.trainer.v1
        actor, ref, rollout = models.actor, models.ref, models.rollout
        strategy = str(actor.strategy)
        if strategy == "megatron":
            engine, ref_engine = actor.megatron, ref.megatron
            parallel = Parallel.of_megatron(engine)
            ref_parallel = Parallel.of_megatron(ref_engine)
            override = engine.override_transformer_config
            recompute = override.recompute_granularity == "full" and override.recompute_method == "uniform"
            recompute = recompute and override.recompute_num_layers == 1
            deferred, shards = False, 1
        elif strategy in ("fsdp", "fsdp2"):
            engine, ref_engine = actor.fsdp_config, ref.fsdp_config
            parallel = ref_parallel = Parallel(
                cp=max(actor.ulysses_sequence_parallel_size, engine.ulysses_sequence_parallel_size)
            )
            recompute = bool(models.model.enable_gradient_checkpointing)
            deferred = bool(engine.get("use_no_sync_for_gradient_accumulation"))  # since verl 0.9.1
            shards = engine.fsdp_size
        else:
            raise ConfigError(f"actor.strategy={strategy}: known are fsdp, fsdp2 and megatron")
        mode = str(v1.trainer_mode)
        separate = mode == "separate_async"
        train_gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
        # Of LoRA the actor without its adapter is the reference, in one worker (verl's PPOTrainer).
        lora = bool(OmegaConf.select(models, "model.lora.rank") or models.model.get("lora_rank"))
        lora = lora or bool(models.model.get("lora_adapter_path"))
        kl = bool(actor.use_kl_loss or config.algorithm.use_kl_in_reward)
        longest = config.data.max_prompt_length + config.data.max_response_length
        bypass: Any = OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode")
        return cls(
            estimator=str(config.algorithm.adv_estimator),
            pads=bool(config.trainer.use_v1),
            model_path=str(models.model.path),
            strategy=strategy,
            rollout_name=str(rollout.name),
            mode=mode,
            train_gpus=train_gpus,
            gpus_per_node=config.trainer.n_gpus_per_node,
            rollout_gpus=rollout.nnodes * rollout.n_gpus_per_node if separate else train_gpus,
            rollout_gpus_per_node=rollout.n_gpus_per_node,
            parallel=parallel,
            ref=ref_parallel if kl and not lora else None,
            ref_strategy=str(ref.strategy),
            dtype=str(engine.dtype),
            rollout_dtype=str(rollout.dtype),
            param_offload=bool(engine.param_offload),
            optimizer_offload=bool(engine.optimizer_offload),
            ref_param_offload=bool(ref_engine.param_offload),
            full_recompute=recompute,
            remove_padding=bool(models.model.use_remove_padding),
            fsdp_shards=shards if shards > 0 else train_gpus,
            deferred_gradients=deferred,
            train_batch=config.data.train_batch_size,
            mini_batch=actor.ppo_mini_batch_size,
            n=rollout.n,
            max_prompt=config.data.max_prompt_length,
            max_response=config.data.max_response_length,
            dynamic_batches=bool(actor.use_dynamic_bsz),
            log_prob_dynamic=bool(rollout.log_prob_use_dynamic_bsz),
            ref_dynamic=bool(ref.log_prob_use_dynamic_bsz),
            micro_batch=actor.ppo_micro_batch_size_per_gpu,
            log_prob_micro_batch=rollout.log_prob_micro_batch_size_per_gpu,
            ref_micro_batch=ref.log_prob_micro_batch_size_per_gpu,
            max_tokens=actor.ppo_max_token_len_per_gpu,
            log_prob_max_tokens=rollout.log_prob_max_token_len_per_gpu,
            ref_max_tokens=ref.log_prob_max_token_len_per_gpu,
            sync_every=v1.separate_async.parameter_sync_step,
            hybrid=not separate or bool(models.hybrid_engine),
            checkpoint_engine=str(rollout.checkpoint_engine.backend),
            bucket_bytes=rollout.checkpoint_engine.update_weights_bucket_megabytes << 20,
            rollout_tp=rollout.tensor_model_parallel_size,
            rollout_dp=rollout.data_parallel_size or 1,
            rollout_ep=rollout.expert_parallel_size or 1,
            utilization=rollout.gpu_memory_utilization,
            max_model_len=rollout.max_model_len or longest,
            max_num_seqs=rollout.max_num_seqs,
            # verl raises it to the longest sequence where prefill is not chunked (its vLLMHttpServer).
            max_num_batched_tokens=max(
                rollout.max_num_batched_tokens, 0 if rollout.enable_chunked_prefill else longest
            ),
            free_cache=bool(rollout.free_cache_engine),
            bypass_old_log_probs=bool(bypass),
            computes_log_probs=not bypass or (kl and lora),
        )

    @property
    def separate(self) -> bool:
        """Whether generation runs on GPUs of its own."""
        return self.mode == "separate_async"

    @property
    def dp(self) -> int:
        """Copies of what experts do not hold: how many parts a batch is cut into."""
        p = self.parallel
        return max(1, self.train_gpus // (p.tp * p.pp * p.cp))

    @property
    def expert_dp(self) -> int:
        """Copies of each expert."""
        p = self.parallel
        return max(1, self.train_gpus // (p.etp * p.ep * p.pp))

    @property
    def replica_gpus(self) -> int:
        """GPUs of one vLLM."""
        return self.rollout_tp * self.rollout_dp
