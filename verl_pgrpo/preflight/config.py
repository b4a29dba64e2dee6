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
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.integration.checks import check_config as check_plugin_config
from verl_pgrpo.integration.checks import is_personalized

from .context import PreflightContext
from .diagnostic import Diagnostics

ACTOR, ROLLOUT, JUDGE = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "reward.reward_model"
SET_KEYS = "set the keys that the message names"


def check_config(context: PreflightContext, diagnostics: Diagnostics) -> None:
    if is_personalized(context.config):
        _check_plugin(context, diagnostics)
    _check_reward_keys(context, diagnostics)
    _check_files(context, diagnostics)
    _check_names(context, diagnostics)
    _check_optimizer(context, diagnostics)
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
        fix = "unset it, or install verl-pgrpo; see `verl-pgrpo doctor`"
        diagnostics.error(message, "VERL_USE_EXTERNAL_PLUGINS", fix)
    with diagnostics.reporting("algorithm.pgrpo"):
        context.options = PGRPOConfig.from_algorithm(context.config.algorithm)
        filters = context.get("algorithm.filter_groups.enable")
        with diagnostics.reporting("algorithm.filter_groups.enable" if filters else "verl"):
            (check_plugin_config if plugin is None else plugin.check_run)(context.config)


def _check_dataclasses(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Validate as main_ppo does before it starts Ray, and as its workers do."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = context.config
    critic = need_critic(config)
    if critic and not Path(str(config.critic.model.path)).expanduser().exists():
        diagnostics.note(f"critic not checked: {config.critic.model.path} is not on this machine", "critic.model.path")
        critic = False
    stock = inspect.unwrap(validate_config)  # without the plugin's part, which _check_plugin covers
    with diagnostics.reporting("verl.utils.config.validate_config", SET_KEYS):
        try:
            stock(config=config, use_reference_policy=need_reference_policy(config), use_critic=critic)
        except Exception as error:
            if "SGLang also not Found" not in str(error):  # verl asks this machine's vLLM for its largest LoRA rank
                raise
            diagnostics.note("LoRA not checked: no vLLM on this machine", "actor_rollout_ref.model.lora_rank")
    for key in _rollouts(context):
        with diagnostics.reporting(key, SET_KEYS):
            omega_conf_to_dataclass(context.get(key))


def _check_names(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Look up names in verl's registries that verl itself looks up only later."""
    import torch
    from verl.checkpoint_engine import CheckpointEngineRegistry
    from verl.trainer.ppo import core_algos
    from verl.utils.import_utils import import_external_libs
    from verl.utils.tracking import Tracking
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY

    def check_choice(key: str, choices: Iterable[str], name: Any = None) -> bool:
        """Return whether a name is one of the choices; report it if not."""
        choices, name = sorted(map(str, choices)), str(name or context.get(key))
        if name not in choices:
            near = difflib.get_close_matches(name, choices, n=1)
            fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(choices)}"
            diagnostics.error(f"{key}={name}: verl has no such name", key, fix)
        return name in choices

    # The user's modules may register losses, agent loops and engines, so they are imported first.
    for key in ("actor_rollout_ref.model.external_lib", f"{ROLLOUT}.checkpoint_engine.custom_backend_module"):
        if module := context.get(key):
            with diagnostics.reporting(key, "install it, or fix the name"):
                import_external_libs(module)
    if context.get("trainer.use_v1"):
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        check_choice("trainer.v1.trainer_mode", TRAINER_REGISTRY)
    check_choice("trainer.resume_mode", ("auto", "disable", "resume_path"))
    check_choice("algorithm.adv_estimator", {*core_algos.ADV_ESTIMATOR_REGISTRY, "pgrpo"})
    check_choice(f"{ACTOR}.policy_loss.loss_mode", core_algos.POLICY_LOSS_REGISTRY)
    context.sizes_valid &= check_choice(f"{ACTOR}.strategy", registered("workers/engine", "EngineRegistry"))
    for key in _rollouts(context):
        check_choice(f"{key}.name", {name for name, _ in _ROLLOUT_REGISTRY})

    in_reward, in_loss = context.get("algorithm.use_kl_in_reward"), context.get(f"{ACTOR}.use_kl_loss")
    penalties = ["algorithm.kl_penalty"] * bool(in_reward) + [f"{ACTOR}.kl_loss_type"] * bool(in_loss)
    for key in penalties:
        with diagnostics.reporting(key, "low_var_kl, for example"):
            core_algos.kl_penalty(torch.zeros(1, 1), torch.zeros(1, 1), context.get(key))
    if in_reward:
        with diagnostics.reporting("algorithm.kl_ctrl", "fixed, or adaptive"):
            core_algos.get_kl_controller(context.config.algorithm.kl_ctrl)

    key, known = f"{ROLLOUT}.checkpoint_engine.backend", CheckpointEngineRegistry._registry
    exists = check_choice(key, {*known, *registered("checkpoint_engine", "CheckpointEngineRegistry")})
    if exists and context.get(key) not in known:
        diagnostics.note(f"{key}={context.get(key)} cannot be imported on this machine", key)

    loggers = context.get("trainer.logger", [])
    source = inspect.getsource(sys.modules[Tracking.__module__])
    for name in [loggers] if isinstance(loggers, str) else loggers:
        if check_choice("trainer.logger", {*Tracking.supported_backend, "tracking"}, name):
            imported = re.search(rf"\b(import {name}|{name} import)\b", source)
            if imported and find_spec(name) is None:
                message = f"{name} is not installed, and verl imports it after all workers have started"
                diagnostics.error(message, "trainer.logger", f"install {name}, or remove it from trainer.logger")


def _check_optimizer(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Build FSDP's optimizer for one weight, and check its dtypes."""
    import torch
    from verl.utils.config import omega_conf_to_dataclass
    from verl.utils.torch_dtypes import PrecisionType
    from verl.workers.config.optimizer import build_optimizer

    actor = context.config.actor_rollout_ref.actor
    if not context.sizes_valid or not str(actor.strategy).startswith("fsdp"):
        return
    mixed = (f"mixed_precision.{name}" for name in actor.fsdp_config.get("mixed_precision") or ())
    for name in ("dtype", *(name for name in mixed if name.endswith("dtype"))):
        key = f"{ACTOR}.fsdp_config.{name}"
        with diagnostics.reporting(key, "fp32, bf16 or fp16"):
            PrecisionType.to_dtype(context.get(key))
    implementation = str(actor.optim.optimizer_impl)
    if find_spec(implementation.partition(".")[0]) is None:
        message = f"optimizer not checked: {implementation} is not installed here"
        diagnostics.warning(message, f"{ACTOR}.optim.optimizer_impl", "install it where the run will be")
        return
    with diagnostics.reporting(f"{ACTOR}.optim", "AdamW of torch.optim, for example"):
        build_optimizer([torch.nn.Parameter(torch.zeros(1))], omega_conf_to_dataclass(actor.optim))


def _rollouts(context: PreflightContext) -> list[str]:
    return [ROLLOUT, *([f"{JUDGE}.rollout"] if context.get(f"{JUDGE}.enable") else [])]


def registered(folder: str, registry: str) -> set[str]:
    """The names that verl's modules register with `@<registry>.register(...)`, even if they cannot be imported."""
    import verl

    names: set[str] = set()
    for path in (Path(verl.__file__).parent / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"{registry}.register":
                given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "backend")]
                names |= {str(n.value) for value in given for n in ast.walk(value) if isinstance(n, ast.Constant)}
    return names


def _check_reward_keys(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Report legacy reward keys: main_ppo reads only the new ones."""
    from verl.experimental.reward_loop import migrate_legacy_reward_impl

    migrated = copy.deepcopy(context.config)
    OmegaConf.set_struct(migrated, False)
    try:
        new = _leaves(OmegaConf.to_container(migrate_legacy_reward_impl(migrated).reward), "reward")
    except Exception:  # other versions of verl lack these keys
        return
    old = _leaves(OmegaConf.to_container(context.config.reward), "reward")
    for key, value in new.items():
        if old.get(key) != value:
            message = f"a legacy key sets {key.removeprefix('reward.')}={value}, which verl's main_ppo ignores"
            diagnostics.error(message, key, f"{key}={value}")


def _check_files(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Report missing files that the configuration names, except those that later checks open."""
    from verl.trainer.ppo.utils import need_critic

    skipped = ["actor_rollout_ref.model.path", "trainer.resume_from_path", "custom_reward_function.", "reward_model.",
               "reward.custom_reward_function.path", "data.custom_cls.path", "ray_kwargs."]  # fmt: skip
    skipped += [] if need_critic(context.config) else ["critic."]
    skipped += [] if context.get(f"{JUDGE}.enable") else [f"{JUDGE}."]
    for key, value in _leaves(OmegaConf.to_container(context.config, resolve=True)).items():
        name = key.rpartition(".")[2]
        is_path = name.endswith(("path", "_file")) and name != "save_path" and "dir" not in name
        if not isinstance(value, str) or not is_path or "profile" in key or key.startswith(tuple(skipped)):
            continue
        if value.startswith("pkg://"):
            with diagnostics.reporting(key, "fix it"):
                importlib.import_module(value[6:].replace("/", "."))
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
