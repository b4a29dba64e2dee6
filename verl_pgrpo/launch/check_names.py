# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Names that verl looks up late, at the first rollout, update or validation: verl is asked for each of them now."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from .finding import Found
from .run import Run

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

# Of verl's packages, which only a machine with their libraries can import.
STRATEGIES = ("fsdp", "fsdp2", "fsdp_turbo", "megatron", "veomni", "torchtitan", "automodel")
ENGINES = ("naive", "nccl", "nixl", "kimi_ckpt_engine", "mooncake", "delta_sharded")
# Of vLLM, which takes seconds to import; its plugins may add formats.
DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
LOAD_FORMATS = (
    *("auto", "dummy", "hf", "safetensors", "fastsafetensors", "instanttensor", "pt", "npcache", "mistral", "gguf"),
    *("runai_streamer", "runai_streamer_sharded", "sharded_state", "tensorizer", "bitsandbytes", "ipc_cache"),
    "modelexpress",
)
AGENTS = ("single_turn_agent", "tool_agent")  # verl's own; others register themselves when they are imported
CONTENTS = ("model", "optimizer", "extra", "hf_model")  # verl.trainer.config.CheckpointConfig
# What `trainer.logger` imports, which is after all workers have started.
LOGGERS = {
    "wandb": "wandb",
    "tracking": "wandb",
    "vemlp_wandb": "volcengine_ml_platform",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "torch.utils.tensorboard",
    "clearml": "clearml",
    "trackio": "trackio",
    "rl_insight": "rl_insight",
    "console": None,
    "file": None,
}
EXTERNAL = ("data.custom_cls", "trainer.v1.sampler.custom_sampler", "reward.reward_manager.module")


def check_names(run: Run, found: Found) -> None:
    config = run.config
    _check_trainer(config, found)
    _check_algorithm(config, found)
    check_server(config.actor_rollout_ref.rollout, ROLLOUT, found)
    _check_checkpoint_engine(config.actor_rollout_ref.rollout.checkpoint_engine, found)
    _check_training(run, found)
    _check_agents(run, found)
    _check_reward_manager(config.reward.reward_manager, found)
    _check_loggers(config, found)
    for key in EXTERNAL:
        _check_external(key, OmegaConf.select(config, f"{key}.path"), found)


def _known(what: str, name: Any, names: Iterable[str], where: str, found: Found) -> bool:
    """Say so if a name is none of these."""
    names = list(names)
    if name in names:
        return True
    near = difflib.get_close_matches(str(name), names, n=1)
    found.error(
        f"no {what} is called {str(name)!r}",
        where,
        f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}",
    )
    return False


def _refused(ask: Any, where: str, what: str, fix: str, found: Found) -> None:
    """What verl says of a value. Some of its refusals have no words."""
    try:
        ask()
    except Exception as error:
        words = " ".join(str(error).split())
        found.error(f"{what}: {words[:200] or 'verl does not know it'} ({type(error).__name__})", where, fix)


def _check_trainer(config: Any, found: Found) -> None:
    trainer = config.trainer
    modes = [name for name, value in trainer.v1.items() if name != "sampler" and OmegaConf.is_dict(value)]
    if trainer.use_v1:
        _known("trainer mode", trainer.v1.trainer_mode, modes, "trainer.v1.trainer_mode", found)
    _known("resume mode", trainer.resume_mode, ("auto", "disable", "resume_path"), "trainer.resume_mode", found)


def _check_algorithm(config: Any, found: Found) -> None:
    from verl.trainer.ppo import core_algos

    algorithm, actor = config.algorithm, config.actor_rollout_ref.actor
    estimators = sorted({*core_algos.ADV_ESTIMATOR_REGISTRY, "pgrpo"})
    _known("advantage estimator", str(algorithm.adv_estimator), estimators, "algorithm.adv_estimator", found)
    losses = sorted(core_algos.POLICY_LOSS_REGISTRY)
    _known("policy loss", actor.policy_loss.loss_mode, losses, f"{ACTOR}.policy_loss.loss_mode", found)
    penalties = [(f"{ACTOR}.kl_loss_type", actor.kl_loss_type)] if actor.use_kl_loss else []
    if algorithm.use_kl_in_reward:
        penalties.append(("algorithm.kl_penalty", algorithm.kl_penalty))
        said, fix = f"algorithm.kl_ctrl.type={algorithm.kl_ctrl.type}", "fixed; adaptive with a horizon above 0"
        _refused(lambda: core_algos.get_kl_controller(algorithm.kl_ctrl), "algorithm.kl_ctrl", said, fix, found)
    for key, name in penalties:
        _check_kl(key, str(name), found)


def _check_kl(key: str, name: str, found: Found) -> None:
    import torch
    from verl.trainer.ppo.core_algos import kl_penalty

    log_probs = torch.zeros(1, 1)
    fix = "k1, abs, k2 or k3 (low_var_kl)"
    _refused(lambda: kl_penalty(log_probs, log_probs, name), key, f"{key}={name}", fix, found)


def check_server(rollout: Any, key: str, found: Found) -> None:
    """The names by which a rollout's or a reward model's server is started."""
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY

    if OmegaConf.is_missing(rollout, "name"):
        found.error(f"{key}.name is not set", f"{key}.name", f"{key}.name=vllm")
        return
    servers = list(dict.fromkeys(name for name, _ in _ROLLOUT_REGISTRY))
    if _known("rollout", rollout.name, servers, f"{key}.name", found) and rollout.name == "vllm":
        _known("dtype of vLLM", str(rollout.dtype), DTYPES, f"{key}.dtype", found)
        if str(rollout.load_format) not in LOAD_FORMATS:
            said = f"vLLM itself knows no load_format {str(rollout.load_format)!r}"
            found.warning(said, f"{key}.load_format", f"one of {', '.join(LOAD_FORMATS)}, unless a plugin adds it")


def _check_checkpoint_engine(engine: Any, found: Found) -> None:
    if not engine.get("custom_backend_module"):
        from verl.checkpoint_engine import CheckpointEngineRegistry

        names = dict.fromkeys([*ENGINES, *CheckpointEngineRegistry._registry])
        _known("checkpoint engine", engine.backend, names, f"{ROLLOUT}.checkpoint_engine.backend", found)


def _check_training(run: Run, found: Found) -> None:
    actor = run.config.actor_rollout_ref.actor
    if not _known("training strategy", str(actor.strategy), STRATEGIES, f"{ACTOR}.strategy", found):
        run.sound = False  # nothing is known of its sizes
        return
    _check_rate(actor.optim, found)
    if str(actor.strategy) in ("fsdp", "fsdp2"):
        _check_fsdp(actor, found)
    parts = {
        part: key for key in ("load_contents", "save_contents") for part in actor.checkpoint.get(key) or ()
    }  # the second are the first by default
    for part, key in parts.items():
        _known("part of a checkpoint", part, CONTENTS, f"{ACTOR}.checkpoint.{key}", found)


def _check_rate(optim: Any, found: Found) -> None:
    if isinstance(optim.lr, bool) or not isinstance(optim.lr, int | float) or not 0 <= optim.lr < float("inf"):
        found.error(f"lr={optim.lr} is no number of at least 0", f"{ACTOR}.optim.lr", "1e-6, for example")


def _check_fsdp(actor: Any, found: Found) -> None:
    """verl's FSDPEngine: how it computes, and an optimizer of one weight, made as there."""
    import torch
    from verl.utils.config import omega_conf_to_dataclass
    from verl.utils.torch_dtypes import PrecisionType
    from verl.workers.config.optimizer import build_optimizer

    engine = f"{ACTOR}.fsdp_config"
    precisions = {f"{engine}.model_dtype": actor.fsdp_config.get("model_dtype")}
    for name, value in (actor.fsdp_config.get("mixed_precision") or {}).items():
        if str(name).endswith("_dtype"):
            precisions[f"{engine}.mixed_precision.{name}"] = value
    for key, value in precisions.items():
        if value is not None:
            said, fix = f"{key.rpartition('.')[2]}={value}", "fp32, bf16 or fp16"
            _refused(lambda value=value: PrecisionType.to_dtype(value), key, said, fix, found)
    said = f"optimizer={actor.optim.optimizer} of {actor.optim.optimizer_impl}"
    weight = [torch.nn.Parameter(torch.zeros(1))]
    where, fix = f"{ACTOR}.optim", "AdamW of torch.optim, for example; its settings as numbers"
    _refused(lambda: build_optimizer(weight, omega_conf_to_dataclass(actor.optim)), where, said, fix, found)


def _check_agents(run: Run, found: Found) -> None:
    """Those that the data name, and the one of rows that name none."""
    agent, key = run.config.actor_rollout_ref.rollout.agent, f"{ROLLOUT}.agent.default_agent_loop"
    named: dict[str, set[str]] = {}
    for split in run.splits.values():
        if split.files.type_of("agent_name") is not None:
            values = (batch.column(0).unique().to_pylist() for batch in split.files.batches(["agent_name"]))
            named[f"{split.where}, column agent_name"] = {str(name) for some in values for name in some}
    if len(named) < len(run.splits) or not named:
        named[key] = {str(agent.default_agent_loop)}
    if all(name in AGENTS for names in named.values() for name in names):
        return
    known = {*AGENTS, *_own_agents(agent.get("agent_loop_config_path"), found)}
    for where, names in named.items():
        for name in sorted(names - known):
            _known("agent loop", name, sorted(known), where, found)


def _own_agents(path: str | None, found: Found) -> set[str]:
    """The names in `agent_loop_config_path`, a list of them, and those that were registered by what is imported."""
    from verl.experimental.agent_loop import agent_loop

    names = set(agent_loop._agent_loop_registry)
    if path:
        try:
            loops: Any = OmegaConf.load(agent_loop.resolve_config_path(path))
            names |= {str(loop.name) for loop in loops}
        except Exception as error:
            found.raised(error, f"{ROLLOUT}.agent.agent_loop_config_path={path}", "a YAML list with name and _target_")
    return names


def _check_reward_manager(manager: Any, found: Found) -> None:
    where = "reward.reward_manager"
    if manager.source == "register":
        from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER

        _known("reward manager", manager.name, sorted(REWARD_MANAGER), f"{where}.name", found)
        return
    named = _known("source of reward managers", manager.source, ("register", "importlib"), f"{where}.source", found)
    if named and not OmegaConf.select(manager, "module.path"):
        found.error("source=importlib without a module", f"{where}.module.path", "name the file, or pkg://module")


def _check_loggers(config: Any, found: Found) -> None:
    chosen = config.trainer.logger
    for name in [chosen] if isinstance(chosen, str) else chosen or []:
        if _known("logger", name, LOGGERS, "trainer.logger", found):
            module = LOGGERS[name]
            if module is not None and not _importable(module):
                said = f"trainer.logger has {name}, but {module} cannot be imported here"
                found.error(
                    f"{said}; verl would find out when all workers have started", "trainer.logger", "install it"
                )


def _check_external(key: str, path: str | None, found: Found) -> None:
    """A file or module of the user's that verl imports late."""
    if path is None:
        return
    module = path.removeprefix("pkg://").replace("/", ".")
    there = _importable(module) if path.startswith("pkg://") else Path(path.removeprefix("file://")).exists()
    if not there:
        found.error(f"{path} does not exist, seen from {Path.cwd()}", f"{key}.path", "mend the path")


def _importable(module: str) -> bool:
    try:
        if find_spec(module) is None:
            return False
        return module != "torch.utils.tensorboard" or find_spec("tensorboard") is not None
    except (ImportError, ValueError):
        return False
