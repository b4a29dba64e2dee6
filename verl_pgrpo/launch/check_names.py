# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Names that verl looks up late, at the first rollout, update or validation.

verl's own registries are asked, and lists of what is in libraries that need not be here.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from .check_training import check_training
from .finding import Found
from .known import known, taken
from .problem import ACTOR, ROLLOUT
from .run import Run

# Of verl's packages, some of which only a machine with their libraries can import.
ENGINES = ("naive", "nccl", "nixl", "kimi_ckpt_engine", "mooncake", "delta_sharded")
# Of vLLM, which takes seconds to import; its plugins may add formats.
DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
LOAD_FORMATS = (
    *("auto", "dummy", "hf", "safetensors", "fastsafetensors", "instanttensor", "pt", "npcache", "mistral", "gguf"),
    *("runai_streamer", "runai_streamer_sharded", "sharded_state", "tensorizer", "bitsandbytes", "ipc_cache"),
    "modelexpress",
)
AGENTS = ("single_turn_agent", "tool_agent")  # verl's own; others register themselves when they are imported
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
    _import_users(config.actor_rollout_ref, found)
    _check_trainer(config, found)
    _check_algorithm(config, found)
    check_server(config.actor_rollout_ref.rollout, ROLLOUT, found)
    _check_checkpoint_engine(config.actor_rollout_ref.rollout.checkpoint_engine, found)
    check_training(run, found)
    _check_agents(run, found)
    _check_reward_manager(config.reward, found)
    _check_loggers(config, found)
    for key in EXTERNAL:
        _check_external(key, OmegaConf.select(config, f"{key}.path"), found)


def _import_users(models: Any, found: Found) -> None:
    """Modules that verl's workers import first; they may register losses, agent loops and engines."""
    from verl.utils.import_utils import import_external_libs

    engine = "rollout.checkpoint_engine.custom_backend_module"
    for name in ("model.external_lib", engine):
        chosen = OmegaConf.select(models, name)
        if chosen:
            libraries = list(chosen) if OmegaConf.is_list(chosen) else chosen
            said, fix = f"{libraries} cannot be imported", "install it, or mend the name"
            taken(partial(import_external_libs, libraries), f"actor_rollout_ref.{name}", said, fix, found)


def _check_trainer(config: Any, found: Found) -> None:
    trainer = config.trainer
    modes = [name for name, value in trainer.v1.items() if name != "sampler" and OmegaConf.is_dict(value)]
    if trainer.use_v1 and trainer.v1.trainer_mode not in modes:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        modes += TRAINER_REGISTRY
        known("trainer mode", trainer.v1.trainer_mode, modes, "trainer.v1.trainer_mode", found)
    known("resume mode", trainer.resume_mode, ("auto", "disable", "resume_path"), "trainer.resume_mode", found)


def _check_algorithm(config: Any, found: Found) -> None:
    from verl.trainer.ppo import core_algos

    algorithm, actor = config.algorithm, config.actor_rollout_ref.actor
    estimators = sorted({*core_algos.ADV_ESTIMATOR_REGISTRY, "pgrpo"})
    known("advantage estimator", str(algorithm.adv_estimator), estimators, "algorithm.adv_estimator", found)
    losses = sorted(core_algos.POLICY_LOSS_REGISTRY)
    known("policy loss", actor.policy_loss.loss_mode, losses, f"{ACTOR}.policy_loss.loss_mode", found)
    penalties = [(f"{ACTOR}.kl_loss_type", actor.kl_loss_type)] if actor.use_kl_loss else []
    if algorithm.use_kl_in_reward:
        penalties.append(("algorithm.kl_penalty", algorithm.kl_penalty))
        said, fix = f"algorithm.kl_ctrl.type={algorithm.kl_ctrl.type}", "fixed; adaptive with a horizon above 0"
        taken(lambda: core_algos.get_kl_controller(algorithm.kl_ctrl), "algorithm.kl_ctrl", said, fix, found)
    for key, name in penalties:
        _check_kl(key, str(name), found)


def _check_kl(key: str, name: str, found: Found) -> None:
    import torch
    from verl.trainer.ppo.core_algos import kl_penalty

    log_probs = torch.zeros(1, 1)
    fix = "k1, abs, k2 or k3 (low_var_kl)"
    taken(lambda: kl_penalty(log_probs, log_probs, name), key, f"{key}={name}", fix, found)


def check_server(rollout: Any, key: str, found: Found) -> None:
    """The names by which a rollout's or a reward model's server is started."""
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY

    if OmegaConf.is_missing(rollout, "name"):
        found.error(f"{key}.name is not set", f"{key}.name", f"{key}.name=vllm")
        return
    servers = list(dict.fromkeys(name for name, _ in _ROLLOUT_REGISTRY))
    if known("rollout", rollout.name, servers, f"{key}.name", found) and rollout.name == "vllm":
        known("dtype of vLLM", str(rollout.dtype), DTYPES, f"{key}.dtype", found)
        if str(rollout.load_format) not in LOAD_FORMATS:
            said = f"vLLM itself knows no load_format {str(rollout.load_format)!r}"
            found.warning(said, f"{key}.load_format", f"one of {', '.join(LOAD_FORMATS)}, unless a plugin adds it")


def _check_checkpoint_engine(engine: Any, found: Found) -> None:
    if not engine.get("custom_backend_module"):
        from verl.checkpoint_engine import CheckpointEngineRegistry

        names = dict.fromkeys([*ENGINES, *CheckpointEngineRegistry._registry])
        known("checkpoint engine", engine.backend, names, f"{ROLLOUT}.checkpoint_engine.backend", found)


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
    loops = {*AGENTS, *_own_agents(agent.get("agent_loop_config_path"), found)}
    for where, names in named.items():
        for name in sorted(names - loops):
            known("agent loop", name, sorted(loops), where, found)


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


def _check_reward_manager(reward: Any, found: Found) -> None:
    where, manager = "reward.reward_manager", reward.reward_manager
    if manager.source == "register":
        from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER

        if reward.custom_reward_function.path is None or manager.name in REWARD_MANAGER:
            known("reward manager", manager.name, sorted(REWARD_MANAGER), f"{where}.name", found)
        else:
            said = f"verl has no reward manager {manager.name!r}, unless the reward function's file registers it"
            found.warning(said, f"{where}.name", f"one of {', '.join(sorted(REWARD_MANAGER))}")
        return
    named = known("source of reward managers", manager.source, ("register", "importlib"), f"{where}.source", found)
    if named and not OmegaConf.select(manager, "module.path"):
        found.error("source=importlib without a module", f"{where}.module.path", "name the file, or pkg://module")


def _check_loggers(config: Any, found: Found) -> None:
    chosen = config.trainer.logger
    for name in [chosen] if isinstance(chosen, str) else chosen or []:
        if known("logger", name, LOGGERS, "trainer.logger", found):
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
