# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic that verl's validation leaves to Megatron, FSDP and vLLM, which fail when the workers start.

Each function names the code whose rule it applies.
"""

from __future__ import annotations

import math
from typing import Any

from .context import PreflightContext
from .diagnostic import Diagnostics
from .versions import has_patch, needs_older_vllm

ACTOR, REF, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "actor_rollout_ref.rollout"
MEGATRON, FSDP = f"{ACTOR}.megatron", f"{ACTOR}.fsdp_config"
PARALLEL = ("tensor_model", "pipeline_model", "context", "expert_model", "expert_tensor")
TP, PP, CP, EP, ETP = (f"{MEGATRON}.{name}_parallel_size" for name in PARALLEL)
VPP, ULYSSES = f"{MEGATRON}.virtual_pipeline_model_parallel_size", f"{ACTOR}.ulysses_sequence_parallel_size"
ROLLOUT_TP, ROLLOUT_DP = f"{ROLLOUT}.tensor_model_parallel_size", f"{ROLLOUT}.data_parallel_size"
ROLLOUT_EP = f"{ROLLOUT}.expert_parallel_size"
JUDGE = "reward.reward_model"


def check_sizes(context: PreflightContext, diagnostics: Diagnostics) -> None:
    if not context.sizes_valid:
        return
    sizes = Sizes(context, diagnostics)
    if sizes.megatron:
        sizes.check_megatron()
    elif str(context.get(f"{ACTOR}.strategy")).startswith("fsdp"):
        sizes.check_fsdp()
    sizes.check_batches()
    sizes.check_rollout()
    sizes.check_reward_model()
    if context.hf_config is None:
        diagnostics.note("the model's configuration is unknown: its sizes were not checked (--model-config)", ACTOR)


class Sizes:
    """The sizes of a launch. The model's own are None where its configuration is unknown."""

    def __init__(self, context: PreflightContext, diagnostics: Diagnostics) -> None:
        self.context, self.get = context, context.get
        self.diagnostics, self.error, self.warning = diagnostics, diagnostics.error, diagnostics.warning
        self.megatron = self.get(f"{ACTOR}.strategy") == "megatron"
        self.node = self.get("trainer.n_gpus_per_node")
        self.gpus = self.get("trainer.nnodes") * self.node
        self.tp, self.pp, self.cp, self.ep = (self.get(key, 1) if self.megatron else 1 for key in (TP, PP, CP, EP))
        self.etp = self.get(ETP, self.tp)  # Megatron's default
        if not self.megatron:
            self.cp = max(self.get(ULYSSES, 1), self.get(f"{FSDP}.ulysses_sequence_parallel_size", 1))
        self.dp = max(1, self.gpus // (self.tp * self.pp * self.cp))
        self.n, self.mini = self.get(f"{ROLLOUT}.n"), self.get(f"{ACTOR}.ppo_mini_batch_size")
        self.train_batch = self.get("data.train_batch_size")
        self.longest = self.get("data.max_prompt_length") + self.get("data.max_response_length")
        self.separate = self.get("trainer.v1.trainer_mode") == "separate_async" and self.get("trainer.use_v1")
        # With LoRA the actor without its adapter is the reference.
        lora = (self.get(f"actor_rollout_ref.model.{key}") for key in ("lora.rank", "lora_rank", "lora_adapter_path"))
        kl = self.get(f"{ACTOR}.use_kl_loss") or self.get("algorithm.use_kl_in_reward")
        self.reference = bool(kl) and not any(lora)
        model = None if context.hf_config is None else context.hf_config.get_text_config()
        self.heads = getattr(model, "num_attention_heads", None)
        self.kv_heads = getattr(model, "num_key_value_heads", None) or self.heads
        self.vocab, self.layers = getattr(model, "vocab_size", None), getattr(model, "num_hidden_layers", None)
        names = ("num_experts", "num_local_experts", "n_routed_experts")
        self.experts = next((found for name in names if (found := getattr(model, name, None))), None)
        self.ffn = getattr(model, "intermediate_size", None)
        self.expert_ffn = getattr(model, "moe_intermediate_size", None) or self.ffn

    def divisible(self, what: str, number: int | None, by: str, divisor: int, location: str) -> None:
        if number is not None and number % divisor:
            fits = [str(size) for size in range(1, min(number, 1024) + 1) if number % size == 0][:12]
            self.error(f"{what} ({number}) not divisible by {by} ({divisor})", location, f"{by}: {', '.join(fits)}")

    def share_heads(self, by: str, size: int, location: str) -> None:
        """Attention heads are divided; KV heads may be replicated instead."""
        self.divisible("the model's attention heads", self.heads, by, size, location)
        if self.kv_heads is not None and self.kv_heads % size and size % self.kv_heads:
            message = f"the model's KV heads ({self.kv_heads}) and {by} ({size}): neither divides the other"
            self.error(message, location, f"a divisor or a multiple of {self.kv_heads}")

    def within_node(self, what: str, size: int, node: int, location: str) -> None:
        if size > node:
            message = f"{what} ({size}) spans nodes of {node} GPUs: each layer waits for the network"
            self.warning(message, location, f"at most {node}")

    def check_megatron(self) -> None:
        """megatron-core's parallel_state and TransformerConfig; Megatron-Bridge, which does not pad the vocabulary."""
        rules = [
            ("the trainer's GPUs", self.gpus, "TP x PP x CP", self.tp * self.pp * self.cp, f"{TP}, {PP}, {CP}"),
            ("the model's attention heads", self.heads, "actor TP", self.tp, TP),
            ("the model's KV heads", self.kv_heads, "actor TP", self.tp, TP),
            ("the model's vocabulary", self.vocab, "actor TP", self.tp, TP),
        ]
        if self.experts:
            rules += [
                ("the model's experts", self.experts, "EP", self.ep, EP),
                ("an expert's FFN width", self.expert_ffn, "ETP", self.etp, ETP),
                ("the trainer's GPUs", self.gpus, "ETP x EP x PP", self.etp * self.ep * self.pp, f"{EP}, {ETP}"),
            ]
            if self.tp > 1 and not self.get(f"{MEGATRON}.sequence_parallel"):
                key = f"{MEGATRON}.sequence_parallel"
                self.error("actor TP > 1 with experts needs sequence_parallel=True", key, "True")
        else:
            rules.append(("the model's FFN width", self.ffn, "actor TP", self.tp, TP))
            if self.ep > 1 and self.ffn is not None:
                self.error(f"EP ({self.ep}) > 1, but the model has no experts", EP, "1")
        for rule in rules:
            self.divisible(*rule)
        self.within_node("actor TP", self.tp, self.node, TP)
        self._check_stages()
        for name in PARALLEL if self.reference else ():  # actor and reference share a process and its parallel groups
            ours, theirs = (self.get(f"{node}.megatron.{name}_parallel_size") for node in (ACTOR, REF))
            if ours != theirs:
                message = f"ref {name}_parallel_size ({theirs}) differs from the actor's ({ours}), which it uses"
                key = f"{REF}.megatron.{name}_parallel_size"
                self.error(message, key, "leave it out: verl's default is the actor's")

    def _check_stages(self) -> None:
        chunks = self.get(VPP, 1)
        if self.pp == 1 and chunks > 1:
            self.error(f"virtual PP ({chunks}) without PP", VPP, f"leave it out, or set {PP}")
        if self.pp == 1 or self.layers is None:
            return
        override = f"{MEGATRON}.override_transformer_config.num_layers_in_{{}}_pipeline_stage"
        uneven = [size for end in ("first", "last") if (size := self.get(override.format(end))) is not None]
        stages, rest = self.pp - len(uneven), self.layers - sum(uneven)
        if rest < 0 or (stages and rest % stages) or (not stages and rest):
            message = f"the model's {self.layers} layers cannot be divided among PP ({self.pp}) stages"
            self.error(message, PP, f"another PP, or {override.format('first')} and ..._last_...")
        elif chunks > 1:
            self.divisible("the layers of a pipeline stage", rest // max(stages, 1), "virtual PP", chunks, VPP)

    def check_fsdp(self) -> None:
        """verl's FSDPEngine; Ulysses divides a sequence by heads."""
        self.divisible("the trainer's GPUs", self.gpus, "Ulysses' size", self.cp, ULYSSES)
        self.share_heads("Ulysses' size", self.cp, ULYSSES)
        if (shards := self.get(f"{FSDP}.fsdp_size", -1)) > 0:
            self.divisible("the trainer's GPUs", self.gpus, "fsdp_size", shards, f"{FSDP}.fsdp_size")
        bypass = "algorithm.rollout_correction.bypass_mode"
        if self.separate and self.get(f"{FSDP}.param_offload") and not self.get(bypass):
            message = "separate_async with param_offload=True: verl's DetachActorWorker expects the weights on the GPU"
            self.error(message, f"{FSDP}.param_offload", f"False, or {bypass}=True")

    def check_batches(self) -> None:
        """verl's TrainingWorker.train_mini_batch, prepare_micro_batches and rearrange_micro_batches."""
        mini_key = f"{ACTOR}.ppo_mini_batch_size"
        mini = self.mini * self.n
        self.divisible("ppo_mini_batch_size x n", mini, "the trainer's DP", self.dp, f"{mini_key}, {ROLLOUT}.n")
        if not self.separate and self.train_batch % self.mini:  # otherwise verl's trainer checks this
            pads = self.get("trainer.use_v1")
            effect = "verl fills each step with padding rows" if pads else "verl stops at the first update"
            message = f"train_batch_size ({self.train_batch}) is no multiple of ppo_mini_batch_size ({self.mini})"
            add = self.warning if pads else self.error
            add(f"{message}: {effect}", f"data.train_batch_size, {mini_key}", "make the first a multiple of the second")
        dynamic = bool(self.get(f"{ACTOR}.use_dynamic_bsz"))
        if dynamic != bool(self.get(f"{ROLLOUT}.log_prob_use_dynamic_bsz")):
            keys = f"{ROLLOUT}.log_prob_use_dynamic_bsz, {ACTOR}.use_dynamic_bsz"
            message = "log_prob_use_dynamic_bsz differs from use_dynamic_bsz, which verl's worker asserts"
            self.error(message, keys, "set them alike")
        whole = math.lcm(self.dp, mini)  # verl pads a step to a multiple of this
        step = math.ceil((mini if self.separate else self.train_batch * self.n) / whole) * whole
        computes = not self.get("algorithm.rollout_correction.bypass_mode")
        self._check_micro(f"{ACTOR}.ppo_", dynamic, mini)
        if computes or not dynamic:
            self._check_micro(f"{ROLLOUT}.log_prob_", dynamic, step if computes else 0)
        if self.reference:
            self._check_micro(f"{REF}.log_prob_", bool(self.get(f"{REF}.log_prob_use_dynamic_bsz")), step)

    def _check_micro(self, prefix: str, dynamic: bool, responses: int) -> None:
        key = f"{prefix}{'max_token_len' if dynamic else 'micro_batch_size'}_per_gpu"
        size = self.get(key)
        if size is None:
            if not dynamic:
                self.error(f"{key} is not set, which verl's worker needs without dynamic batch sizes", key, "set it")
        elif dynamic and size * self.cp < self.longest:
            message = f"{key} ({size}) x CP ({self.cp}) is less than one prompt and response ({self.longest})"
            self.error(message, key, f"at least {math.ceil(self.longest / self.cp)}")
        elif not dynamic and responses % self.dp == 0:
            self.divisible("the responses of a GPU", responses // self.dp, key, size, key)

    def check_rollout(self) -> None:
        """verl's RolloutReplica and LLMServerManager; vLLM's ModelConfig and SchedulerConfig."""
        tp, dp, ep = self.get(ROLLOUT_TP), self.get(ROLLOUT_DP, 1), self.get(ROLLOUT_EP, 1)
        nodes, node = self.get("trainer.nnodes"), self.node
        if self.separate:
            nodes, node = self.get(f"{ROLLOUT}.nnodes", 0), self.get(f"{ROLLOUT}.n_gpus_per_node", 0)
        if nodes * node < 1:
            return  # verl's trainer checks this
        replica, keys, vllm = tp * dp, f"{ROLLOUT_TP}, {ROLLOUT_DP}", self.get(f"{ROLLOUT}.name") == "vllm"
        self.divisible("the rollout's GPUs", nodes * node, "rollout TP x DP", replica, keys)
        if replica > node:
            self.divisible("rollout TP x DP", replica, "the GPUs of a node", node, keys)
            if dp > 1 and vllm and not has_patch("0002"):
                needs_older_vllm(self.diagnostics, (0, 28), f"rollout DP ({dp}) spans nodes", keys, f"{ROLLOUT_DP}=1")
        else:  # a replica that would span nodes is never placed
            self.divisible("the GPUs of a node", node, "rollout TP x DP", replica, keys)
        self.within_node("rollout TP", tp, node, ROLLOUT_TP)
        self.share_heads("rollout TP", tp, ROLLOUT_TP)
        if ep > 1 and self.heads is not None and not self.experts:
            self.error(f"expert_parallel_size ({ep}) > 1, but the model has no experts", ROLLOUT_EP, "1")
        elif ep > 1:
            self.divisible("the model's experts", self.experts, "expert_parallel_size", ep, ROLLOUT_EP)
        else:
            width = self.expert_ffn if self.experts else self.ffn
            self.divisible("the model's FFN width", width, "rollout TP", tp, ROLLOUT_TP)
        actor = f"{MEGATRON}.dtype" if self.megatron else f"{FSDP}.mixed_precision.param_dtype"
        ours, theirs = torch_dtype(self.get(actor, "bf16")), torch_dtype(self.get(f"{ROLLOUT}.dtype"))
        if ours != theirs:
            message = f"rollout.dtype ({theirs}) differs from the actor's ({ours}): responses come from another policy"
            self.warning(message, f"{ROLLOUT}.dtype", ours)
        limit = self.get(f"{ROLLOUT}.max_model_len", self.longest)
        if limit < self.longest:
            message = f"max_model_len ({limit}) is less than a prompt and a response ({self.longest})"
            self.error(message, f"{ROLLOUT}.max_model_len", f"at least {self.longest}")
        tokens, sequences = self.get(f"{ROLLOUT}.max_num_batched_tokens"), self.get(f"{ROLLOUT}.max_num_seqs")
        if not self.get(f"{ROLLOUT}.enable_chunked_prefill"):
            tokens = max(tokens, self.longest)  # verl's vLLMHttpServer increases it
        if vllm and tokens < sequences:
            message = f"max_num_batched_tokens ({tokens}) is less than max_num_seqs ({sequences})"
            self.error(message, f"{ROLLOUT}.max_num_batched_tokens, {ROLLOUT}.max_num_seqs", f"at least {sequences}")

    def check_reward_model(self) -> None:
        """verl's RewardModelManager and RewardLoopWorker."""
        if not self.get(f"{JUDGE}.enable"):
            return
        pool = JUDGE if self.get(f"{JUDGE}.enable_resource_pool") else "trainer"
        sizes: list[Any] = [self.get(f"{pool}.{name}") for name in ("nnodes", "n_gpus_per_node")]
        sizes += [self.get(f"{JUDGE}.rollout.{name}_parallel_size", 1) for name in ("tensor_model", "data")]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            self.error(f"the reward model's GPUs and sizes must be integers >= 1 (got {sizes})", JUDGE, "set them")
            return
        key = f"{JUDGE}.rollout.tensor_model_parallel_size"
        self.divisible("the reward model's GPUs", sizes[0] * sizes[1], "its TP x DP", sizes[2] * sizes[3], key)
        if not self.get(f"{JUDGE}.model_path"):
            self.error("no reward model is named", f"{JUDGE}.model_path", "name one, or set enable=False")
        if self.get(f"{JUDGE}.rollout.skip_tokenizer_init"):
            self.error("a reward model needs its tokenizer", f"{JUDGE}.rollout.skip_tokenizer_init", "False")


def torch_dtype(name: object) -> str:
    """The dtype's name in torch, such as bfloat16 for bf16; another name unchanged."""
    from verl.utils.torch_dtypes import PrecisionType

    try:
        return str(PrecisionType.to_dtype(name)).removeprefix("torch.")
    except RuntimeError:
        return str(name)
