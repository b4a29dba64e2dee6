# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A recipe's launch, composed with verl's configuration tree, and the rules that every launch must follow."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import hydra
from omegaconf import DictConfig

from tests.conftest import ROOT

RECIPES = ROOT / "recipes"
sys.path[:0] = [str(RECIPES / "launch"), str(RECIPES)]

import memory  # noqa: E402, F401
import model_sizes  # noqa: E402
import recipe  # noqa: E402


def launch_modules(*names: str) -> list[ModuleType]:
    """Modules of recipes/launch, which are scripts and in no package."""
    return [importlib.import_module(name) for name in names]


def arguments_of(name: str | Path, *arguments: str, **variables: str) -> list[str]:
    """verl's arguments in a recipe that is run with exactly these variables."""
    return recipe.record(name, arguments, variables)[1:]


def composed(arguments: list[str]) -> DictConfig:
    """verl's configuration with the arguments of `python3 -m verl.trainer.main_ppo`."""
    assert arguments[:2] == ["-m", "verl.trainer.main_ppo"]
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        return hydra.compose("ppo_trainer", arguments[2:])


TOKENS = 210  # of a persona's prompt and response, on average


def broken_rules(config: DictConfig, vllm: tuple[int, int] = (0, 24)) -> set[str]:
    """Names of the rules that a launch violates with a given release of vLLM."""
    model = model_sizes.model_of(config.actor_rollout_ref.model.path)
    tied = model.tied and 4 * (model.parameters + model.embedding)  # bytes; the table is sent twice
    actor, ref, rollout = (config.actor_rollout_ref[name] for name in ("actor", "ref", "rollout"))
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    megatron = actor.strategy == "megatron"
    parallel = actor.megatron if megatron else None
    tp, pp, cp = (
        (parallel[f"{name}_parallel_size"] for name in ("tensor_model", "pipeline_model", "context"))
        if parallel
        else (1, 1, 1)
    )
    copies = gpus // (tp * pp * cp)
    replica = rollout.tensor_model_parallel_size * rollout.data_parallel_size
    asynchronous = config.trainer.v1.trainer_mode == "separate_async"
    rollout_gpus = rollout.nnodes * rollout.n_gpus_per_node if asynchronous else gpus
    node = min(8, rollout.n_gpus_per_node) if asynchronous else config.trainer.n_gpus_per_node
    responses = actor.ppo_mini_batch_size * rollout.n
    length = config.data.max_prompt_length + config.data.max_response_length
    bucket = rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20
    environment = (config.ray_kwargs.ray_init.get("runtime_env") or {}).get("env_vars", {})
    micro_batches = max(1, responses * TOKENS // max(1, copies) // actor.ppo_max_token_len_per_gpu)
    rules = {
        "tied embeddings in one bucket": tied <= bucket,
        "max_model_len": rollout.max_model_len == length,
        "FSDP2": megatron or actor.strategy == ref.strategy == "fsdp2",
        "a sequence fits a micro-batch": actor.ppo_max_token_len_per_gpu * cp >= length,
        "batches divide": config.data.train_batch_size % actor.ppo_mini_batch_size == 0 and responses % copies == 0
        if copies
        else False,
        "vLLM's size": rollout_gpus % replica == 0
        and replica % min(node, replica) == 0
        and model.heads % rollout.tensor_model_parallel_size == 0,
        "data parallel over nodes": vllm < (0, 28) or rollout.data_parallel_size == 1 or replica <= node,
    }
    if megatron:
        layers = model.layers
        first = parallel.override_transformer_config.get("num_layers_in_first_pipeline_stage")
        if first is not None:
            last = parallel.override_transformer_config.num_layers_in_last_pipeline_stage
            layers = (model.layers - first - last) % (pp - 2)
            rules["pipeline"] = layers == 0
        else:
            rules["pipeline"] = model.layers % pp == 0
        experts = parallel.expert_tensor_parallel_size * parallel.expert_model_parallel_size
        rules |= {
            "tensor parallel": model.heads % tp == model.kv_heads % tp == 0 and tp <= config.trainer.n_gpus_per_node,
            "GPUs divide": gpus % (tp * pp * cp) == gpus % (experts * pp) == 0,
            "one queue": environment.get("CUDA_DEVICE_MAX_CONNECTIONS") == "1",
            "idle pipeline": (pp - 1) / (micro_batches + pp - 1) <= 0.25,
            "reference": ref.megatron.tensor_model_parallel_size == tp
            and ref.megatron.pipeline_model_parallel_size == pp,
        }
    if model.experts:
        router = parallel.override_transformer_config.get("moe_router_dtype")
        kernel = (rollout.engine_kwargs.get("vllm") or {}).get("moe_backend")
        ep = parallel.expert_model_parallel_size
        rules |= {
            "router in fp32": router == "fp32",
            "Triton experts": kernel == "triton",
            "experts divide": model.experts % ep == 0 and ep <= config.trainer.n_gpus_per_node,
        }
    if asynchronous:
        offload = parallel.param_offload if megatron else actor.fsdp_config.param_offload
        rules |= {
            "policy stays on the GPU": not offload,
            "no second vLLM": not config.actor_rollout_ref.hybrid_engine,
            "log level": environment.get("VERL_LOGGING_LEVEL") == "WARN",
            "sync engine": rollout.checkpoint_engine.backend != "naive",
            "steps": config.data.train_batch_size
            == config.trainer.v1.separate_async.parameter_sync_step * actor.ppo_mini_batch_size,
            # GiB of an 80 GB GPU: vLLM's share, two buckets to receive, one to load, CUDA contexts
            "room for buckets": 79 * rollout.gpu_memory_utilization + 3 * bucket / 2**30 + 2 < 79,
        }
    return {name for name, kept in rules.items() if not kept}


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
