# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A recipe's launch, composed with verl's configuration tree, and the rules that every launch must follow."""

from __future__ import annotations

import os
import re
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
from omegaconf import DictConfig, OmegaConf

from tests.conftest import ROOT, overridden
from verl_pgrpo.preflight import sizes, versions, weight_sync
from verl_pgrpo.preflight.context import PreflightContext
from verl_pgrpo.preflight.diagnostic import Diagnostics

RECIPES = ROOT / "recipes"
sys.path[:0] = [str(RECIPES / "launch"), str(RECIPES)]  # scripts, which are in no package

import memory  # noqa: E402
import model_sizes  # noqa: E402
import nodes  # noqa: E402, F401
import recipe  # noqa: E402
import run_on_cluster  # noqa: E402, F401


def arguments_of(name: str | Path, *arguments: str, **variables: str) -> list[str]:
    """verl's arguments in a recipe that is run with exactly these variables."""
    return recipe.record(name, arguments, variables)[1:]


@cache
def stock(*engine: str) -> DictConfig:
    """verl's own configuration."""
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        return hydra.compose("ppo_trainer", [*engine])


def composed(arguments: list[str]) -> DictConfig:
    """verl's configuration with the arguments of `python3 -m verl.trainer.main_ppo`."""
    assert arguments[:2] == ["-m", "verl.trainer.main_ppo"]
    engine = [argument for argument in arguments if argument.startswith("model_engine=")]
    return overridden(stock(*engine), *(argument for argument in arguments[2:] if argument not in engine))


def hf_config(model: model_sizes.Model) -> Any:
    """The model's configuration, built from its dimensions."""
    from transformers import AutoConfig

    values = {
        "vocab_size": model.vocab, "hidden_size": model.hidden, "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads, "num_key_value_heads": model.kv_heads, "head_dim": model.head_dim,
        "intermediate_size": model.ffn, "tie_word_embeddings": model.tied,
    }  # fmt: skip
    if model.experts:
        values |= {"num_experts": model.experts, "num_experts_per_tok": model.topk}
        values["moe_intermediate_size"] = model.moe_ffn
    kind = "qwen3_moe" if model.experts else "qwen3" if model.qk_norm else "gemma"
    return AutoConfig.for_model(kind, **values)


TOKENS = 210  # of a persona's prompt and response, on average
NODES_SPANNED = f"{sizes.ROLLOUT_TP}, {sizes.ROLLOUT_DP}"
VARIABLES = "ray_kwargs.ray_init.runtime_env.env_vars"  # of Ray's workers


def broken_rules(config: DictConfig, patched: bool = True) -> set[str]:
    """What is wrong with a launch: keys that preflight reports with the newest vLLM, and names of our own rules.

    With `patched`, verl has the patch that lets data-parallel vLLM span nodes.
    """
    model, launch = model_sizes.model_of(config.actor_rollout_ref.model.path), memory.Launch(config)
    reported = Diagnostics("parallel")
    with (
        mock.patch.object(versions, "vllm_version", return_value=(0, 33)),
        mock.patch.object(sizes, "has_patch", lambda number: patched and number == "0002"),
        mock.patch.object(weight_sync, "has_patch", return_value=False),
    ):
        context = PreflightContext(config, hf_config=hf_config(model))
        sizes.check_sizes(context, reported)
        weight_sync.check_weight_sync(context, reported)
    actor, ref, rollout = (config.actor_rollout_ref[name] for name in ("actor", "ref", "rollout"))
    megatron, separate = actor.strategy == "megatron", launch.separate
    micro_batches = max(1, actor.ppo_mini_batch_size * launch.n * TOKENS // launch.dp // launch.max_tokens)
    select = partial(OmegaConf.select, config)
    router = select(f"{sizes.MEGATRON}.override_transformer_config.moe_router_dtype")
    rules = {
        "max_model_len": rollout.max_model_len == config.data.max_prompt_length + config.data.max_response_length,
        "FSDP2": megatron or actor.strategy == ref.strategy == "fsdp2",
        "idle pipeline": (launch.pp - 1) / (micro_batches + launch.pp - 1) <= 0.25,
        "one queue": not megatron or select(f"{VARIABLES}.CUDA_DEVICE_MAX_CONNECTIONS") == "1",
        "experts in a node": launch.ep <= config.trainer.n_gpus_per_node,
        "router in fp32": not model.experts or router == "fp32",
        "Triton experts": not model.experts or select(f"{sizes.ROLLOUT}.engine_kwargs.vllm.moe_backend") == "triton",
        "policy stays on the GPU": not separate or not launch.param_offload,
        "log level": not separate or select(f"{VARIABLES}.VERL_LOGGING_LEVEL") == "WARN",
        # GiB of an 80 GB GPU: vLLM's share, two buckets to receive, one to load, CUDA contexts
        "room for buckets": not separate or 79 * launch.utilization + 3 * launch.bucket + 2 < 79,
    }
    return {one.location for one in reported.found} | {name for name, kept in rules.items() if not kept}


def commands_of(page: Path) -> list[str]:
    """Indented command lines of a page, continuation lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", "")
    return [line.strip() for line in text.splitlines() if re.match(r"    \S", line)]


def validate(config: DictConfig) -> None:
    """verl's own validation of a launch."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    assert not need_critic(config)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=False)
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)  # its own assertions


def environment(**variables: str) -> dict[str, str]:
    """An environment with programs on PATH and these variables."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
