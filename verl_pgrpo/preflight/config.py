# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Check the configuration with verl's own validation, dataclasses and registries."""

from __future__ import annotations

import ast
import copy
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import PGRPOError
from verl_pgrpo.integration.checks import check_config as check_plugin_config
from verl_pgrpo.integration.checks import is_personalized

from .context import PreflightContext
from .diagnostic import Diagnostics

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
V1 = "trainer.v1"


def check_config(context: PreflightContext, diagnostics: Diagnostics) -> None:
    if is_personalized(context.config):
        _check_plugin(context, diagnostics)
    _check_reward_keys(context, diagnostics)
    _check_files(context, diagnostics)
    _check_names(context, diagnostics)
    if context.sizes_valid:
        _check_dataclasses(context, diagnostics)
    if context.get(f"{ROLLOUT}.temperature") == 0:
        message = "temperature=0: all responses to a prompt are equal, so there is nothing to learn from"
        diagnostics.warning(message, f"{ROLLOUT}.temperature", "1.0")


def _check_plugin(context: PreflightContext, diagnostics: Diagnostics) -> None:
    import verl  # noqa: F401  # loads its plugins

    plugin = sys.modules.get("verl_pgrpo.integration.plugin")
    if plugin is None:
        message = "verl does not load the plugin here: pgrpo would be an unknown estimator"
        diagnostics.error(
            message, "VERL_USE_EXTERNAL_PLUGINS", "unset it, or install verl-pgrpo; see `verl-pgrpo doctor`"
        )
    try:
        context.options = PGRPOConfig.from_algorithm(context.config.algorithm)
    except PGRPOError as error:
        diagnostics.raised(error, "algorithm.pgrpo", "")
        return
    try:
        if plugin is None:
            check_plugin_config(context.config)
        else:
            plugin.check_run(context.config)
    except PGRPOError as error:
        filters = context.get("algorithm.filter_groups.enable")
        diagnostics.raised(error, "algorithm.filter_groups.enable" if filters else "verl", "")


def _check_dataclasses(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """As main_ppo does before it starts Ray, and as its workers do."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = context.config
    critic = need_critic(config)
    if critic and not Path(str(config.critic.model.path)).expanduser().exists():
        diagnostics.note(f"critic not checked: {config.critic.model.path} is not on this machine", "critic.model.path")
        critic = False
    stock = inspect.unwrap(validate_config)  # without the plugin's part, which _check_plugin covers
    try:
        stock(config=config, use_reference_policy=need_reference_policy(config), use_critic=critic)
    except Exception as error:
        if "SGLang also not Found" in str(error):  # verl asks this machine's vLLM for its largest LoRA rank
            diagnostics.note("LoRA not checked: no vLLM on this machine", "actor_rollout_ref.model.lora_rank")
        else:
            diagnostics.raised(error, "verl.utils.config.validate_config", "set the keys that the message names")
    judge = ["reward.reward_model.rollout"] if context.get("reward.reward_model.enable") else []
    for key in (ROLLOUT, *judge):
        node: Any = OmegaConf.select(config, key)
        check_accepted(partial(omega_conf_to_dataclass, node), key, "set the keys that the message names", diagnostics)


def _check_names(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Ask verl's registries for the names that it looks up late."""
    import torch
    from verl.checkpoint_engine import CheckpointEngineRegistry
    from verl.trainer.ppo import core_algos
    from verl.utils.config import omega_conf_to_dataclass
    from verl.utils.import_utils import import_external_libs
    from verl.utils.torch_dtypes import PrecisionType
    from verl.utils.tracking import Tracking
    from verl.workers.config.optimizer import build_optimizer
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY

    config = context.config
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    # The user's modules may register losses, agent loops and engines, so they are imported first.
    for key in ("actor_rollout_ref.model.external_lib", f"{ROLLOUT}.checkpoint_engine.custom_backend_module"):
        if module := context.get(key):
            check_accepted(partial(import_external_libs, module), key, "install it, or fix the name", diagnostics)
    if config.trainer.use_v1:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        check_choice(config.trainer.v1.trainer_mode, TRAINER_REGISTRY, f"{V1}.trainer_mode", diagnostics)
    check_choice(config.trainer.resume_mode, ("auto", "disable", "resume_path"), "trainer.resume_mode", diagnostics)
    estimators = {*core_algos.ADV_ESTIMATOR_REGISTRY, "pgrpo"}
    check_choice(str(config.algorithm.adv_estimator), estimators, "algorithm.adv_estimator", diagnostics)
    losses = core_algos.POLICY_LOSS_REGISTRY
    check_choice(actor.policy_loss.loss_mode, losses, f"{ACTOR}.policy_loss.loss_mode", diagnostics)
    zeros = torch.zeros(1, 1)
    penalties = {f"{ACTOR}.kl_loss_type": actor.kl_loss_type} if actor.use_kl_loss else {}
    if config.algorithm.use_kl_in_reward:
        penalties["algorithm.kl_penalty"] = config.algorithm.kl_penalty
        control = config.algorithm.kl_ctrl
        check_accepted(
            lambda: core_algos.get_kl_controller(control), "algorithm.kl_ctrl", "fixed, or adaptive", diagnostics
        )
    for key, name in penalties.items():
        check_accepted(partial(core_algos.kl_penalty, zeros, zeros, name), key, "low_var_kl, for example", diagnostics)
    for key in (ROLLOUT, *(["reward.reward_model.rollout"] if context.get("reward.reward_model.enable") else [])):
        check_choice(context.get(f"{key}.name"), {name for name, _ in _ROLLOUT_REGISTRY}, f"{key}.name", diagnostics)
    _check_engine(rollout.checkpoint_engine.backend, CheckpointEngineRegistry, diagnostics)
    strategies = registered("workers/engine", "EngineRegistry")
    if not check_choice(str(actor.strategy), strategies, f"{ACTOR}.strategy", diagnostics):
        context.sizes_valid = False
    if str(actor.strategy).startswith("fsdp"):
        engine = actor.fsdp_config
        dtypes = {f"mixed_precision.{name}": value for name, value in (engine.get("mixed_precision") or {}).items()}
        dtypes = {"dtype": engine.dtype} | {name: value for name, value in dtypes.items() if name.endswith("dtype")}
        for name, value in dtypes.items():
            key = f"{ACTOR}.fsdp_config.{name}"
            check_accepted(partial(PrecisionType.to_dtype, value), key, "fp32, bf16 or fp16", diagnostics)
        implementation = str(actor.optim.optimizer_impl)
        if find_spec(implementation.partition(".")[0]) is None:
            message = f"optimizer not checked: {implementation} is not installed here"
            diagnostics.warning(message, f"{ACTOR}.optim.optimizer_impl", "install it where the run will be")
        elif context.sizes_valid:
            weight = [torch.nn.Parameter(torch.zeros(1))]
            make = lambda: build_optimizer(weight, omega_conf_to_dataclass(actor.optim))  # noqa: E731
            check_accepted(make, f"{ACTOR}.optim", "AdamW of torch.optim, for example", diagnostics)
    loggers = [config.trainer.logger] if isinstance(config.trainer.logger, str) else config.trainer.logger or []
    source = inspect.getsource(sys.modules[Tracking.__module__])
    for name in loggers:
        if check_choice(name, {*Tracking.supported_backend, "tracking"}, "trainer.logger", diagnostics):
            imported = re.search(rf"\b(import {name}|{name} import)\b", source)
            if imported and find_spec(name) is None:
                message = f"{name} is not installed, and verl imports it after all workers have started"
                diagnostics.error(message, "trainer.logger", f"install {name}, or remove it from trainer.logger")


def check_choice(name: Any, choices: Iterable[str], key: str, diagnostics: Diagnostics) -> bool:
    """Report a name that is not one of the choices; whether it is one."""
    choices = sorted(map(str, choices))
    if name in choices:
        return True
    near = difflib.get_close_matches(str(name), choices, n=1)
    fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(choices)}"
    diagnostics.error(f"{key}={name}: verl has no such name", key, fix)
    return False


def check_accepted(call: Callable[[], object], key: str, fix: str, diagnostics: Diagnostics) -> None:
    """Report what verl raises."""
    try:
        call()
    except Exception as error:
        diagnostics.raised(error, key, fix, prefix=f"{key}: ")


def registered(folder: str, registry: str) -> set[str]:
    """The names that verl's modules register with `@<registry>.register(...)`, also where they cannot be imported."""
    import verl

    names: set[str] = set()
    for path in (Path(verl.__file__).parent / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"{registry}.register":
                given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "backend")]
                names |= {str(n.value) for value in given for n in ast.walk(value) if isinstance(n, ast.Constant)}
    return names


def _check_engine(name: str, registry: Any, diagnostics: Diagnostics) -> None:
    key = f"{ROLLOUT}.checkpoint_engine.backend"
    known = {*registry._registry, *registered("checkpoint_engine", "CheckpointEngineRegistry")}
    if check_choice(name, known, key, diagnostics) and name not in registry._registry:
        try:
            registry.get(name)
        except Exception as error:
            diagnostics.note(f"{key}={name} cannot be imported on this machine: {error}", key)


def _check_reward_keys(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Report legacy keys of rewards: main_ppo reads the new ones only."""
    from verl.experimental.reward_loop import migrate_legacy_reward_impl

    migrated = copy.deepcopy(context.config)
    OmegaConf.set_struct(migrated, False)
    try:
        new = _leaves(OmegaConf.to_container(migrate_legacy_reward_impl(migrated).reward), "reward")
    except Exception:  # another verl's configuration has none of these keys
        return
    old = _leaves(OmegaConf.to_container(context.config.reward), "reward")
    for key, value in new.items():
        if old.get(key) != value:
            message = f"a legacy key sets {key.removeprefix('reward.')}={value}, which verl's main_ppo ignores"
            diagnostics.error(message, key, f"{key}={value}")


def _check_files(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Report files that the configuration names and that do not exist, other than those that later checks open."""
    from verl.trainer.ppo.utils import need_critic

    unused = ["actor_rollout_ref.model.path", "trainer.resume_from_path", "custom_reward_function.", "reward_model."]
    unused += ["ray_kwargs."]  # an output
    unused += [] if need_critic(context.config) else ["critic."]
    unused += [] if context.get("reward.reward_model.enable") else ["reward.reward_model."]
    unused += ["reward.custom_reward_function.path", "data.custom_cls.path"]
    for key, value in _leaves(OmegaConf.to_container(context.config, resolve=True)).items():
        name = key.rpartition(".")[2]
        if not isinstance(value, str) or not name.endswith(("path", "_file")) or name == "save_path":
            continue
        if any(key.startswith(prefix) for prefix in unused) or "profile" in key or "dir" in name:
            continue
        if value.startswith("pkg://"):
            check_accepted(partial(importlib.import_module, value[6:].replace("/", ".")), key, "fix it", diagnostics)
        elif not names_hub_model(value) and not Path(value.removeprefix("file://")).exists():
            diagnostics.error(f"{value} does not exist (working directory: {Path.cwd()})", key, "fix the path")


def names_hub_model(value: str) -> bool:
    """Whether a path may be a model on the Hugging Face hub, or on another file system."""
    if "://" in value:
        return not value.startswith("file://")
    if value[:1] in "/.~" or value.count("/") > 1 or re.search(r"\.(py|ya?ml|json|jinja|toml)$", value):
        return False
    return "/" not in value or not Path(value).parent.is_dir()


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {k: v for key, value in node.items() for k, v in _leaves(value, f"{prefix}.{key}".lstrip(".")).items()}
