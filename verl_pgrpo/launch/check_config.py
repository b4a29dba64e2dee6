# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What verl itself would refuse, now or once its workers have started, and what it would pass over in silence."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import PGRPOError
from verl_pgrpo.integration.checks import check_filter_groups, is_personalized

from .finding import Found
from .model_files import local_folder, means_folder
from .run import Run

# verl's trainers read their settings from these keys; main_ppo moves nothing there from the old ones.
OLD_KEYS = {
    "custom_reward_function.path": "reward.custom_reward_function.path",
    "reward_model.enable": "reward.reward_model.enable",
    "reward_model.model.path": "reward.reward_model.model_path",
    "reward_model.reward_manager": "reward.reward_manager.name",
    "sandbox_fusion.url": "reward.sandbox_fusion.url",
}
# Whole numbers without which no other size means anything, and the least they may be.
NUMBERS = {
    "data.train_batch_size": 1,
    "data.max_prompt_length": 1,
    "data.max_response_length": 1,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 1,
    "actor_rollout_ref.rollout.n": 1,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.val_kwargs.n": 1,
    "actor_rollout_ref.rollout.max_num_seqs": 1,
    "actor_rollout_ref.rollout.max_num_batched_tokens": 1,
    "trainer.nnodes": 1,
    "trainer.n_gpus_per_node": 1,
    "trainer.total_epochs": 1,
    "trainer.save_freq": -1,
    "trainer.test_freq": -1,
}
# The same for keys that not every engine has, or that may be null.
OPTIONAL = {
    **{
        f"actor_rollout_ref.actor.megatron.{kind}_parallel_size": 1
        for kind in (
            "tensor_model",
            "pipeline_model",
            "virtual_pipeline_model",
            "context",
            "expert_model",
            "expert_tensor",
        )
    },
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 1,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 1,
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 1,
    "actor_rollout_ref.rollout.data_parallel_size": 1,
    "actor_rollout_ref.rollout.expert_parallel_size": 1,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 1,
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": 1,
    "trainer.total_training_steps": 1,
}
# Numbers that need not be whole: what they have to be.
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "actor_rollout_ref.rollout.temperature": (lambda value: 0 <= value < math.inf, "at least 0"),
    "actor_rollout_ref.rollout.top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "actor_rollout_ref.rollout.gpu_memory_utilization": (lambda value: 0 < value < math.inf, "above 0"),
}
TEXTS = ("actor_rollout_ref.model.path", "actor_rollout_ref.rollout.name", "trainer.default_local_dir")


def check_values(run: Run, found: Found) -> None:
    """What every other check takes for granted."""
    for key, least in (NUMBERS | OPTIONAL).items():
        value = OmegaConf.select(run.config, key)
        if value is None and key in OPTIONAL:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            found.error(f"{key}={value} is no whole number of at least {least}", key, "set one")
    for key, (fits, words) in RANGES.items():
        value = OmegaConf.select(run.config, key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            found.error(f"{key}={value} is no number", key, "set one")
        elif not fits(value):
            found.error(f"{key}={value} is not {words}", key, "set such a one")
    if OmegaConf.select(run.config, "trainer.v1.trainer_mode") == "separate_async":
        for key in ("actor_rollout_ref.rollout.nnodes", "actor_rollout_ref.rollout.n_gpus_per_node"):
            if not isinstance(value := OmegaConf.select(run.config, key), int) or value < 1:
                found.error(f"{key}={value} is no whole number of at least 1", key, "set one: separate_async needs it")
    for key in TEXTS:
        if not isinstance(OmegaConf.select(run.config, key), str):
            found.error(f"{key} is not set", key, f"{key}=<...>")
    run.sound = not found.findings


def check_config(run: Run, found: Found) -> None:
    config = run.config
    if is_personalized(config):
        _check_plugin(run, found)
    _check_dapo(config, found)
    if run.sound:
        _check_verls_own(config, found)
    if config.actor_rollout_ref.rollout.temperature == 0:
        said = "temperature=0: all responses to a prompt are the same, and there is nothing to learn from"
        found.warning(said, "actor_rollout_ref.rollout.temperature", "1.0")
    for old, new in OLD_KEYS.items():
        if OmegaConf.select(config, old) not in (None, False):
            said = f"{old} has no effect: verl's main_ppo reads {new}"
            found.error(said, old, f"{new}={OmegaConf.select(config, old)}")


def _check_plugin(run: Run, found: Found) -> None:
    import verl  # noqa: F401  # which loads its plugins

    plugin = sys.modules.get("verl_pgrpo.integration.plugin")
    if plugin is None:
        said = "verl does not load the plugin here, so that pgrpo would be an unknown estimator"
        found.error(said, "VERL_USE_EXTERNAL_PLUGINS", "unset it, or install verl-pgrpo; `verl-pgrpo doctor` says more")
    try:
        check_filter_groups(run.config)
    except PGRPOError as error:
        found.raised(error, "algorithm.filter_groups.enable", "set it to False")
    try:
        run.options = PGRPOConfig.from_algorithm(run.config.algorithm)
    except PGRPOError as error:
        found.raised(error, "algorithm.pgrpo", "the README lists the options")
    if plugin is None or found.findings:
        return
    try:
        plugin.check_run(run.config)
    except PGRPOError as error:
        found.raised(error, "verl", "`verl-pgrpo doctor` says more")


def _check_dapo(config: Any, found: Found) -> None:
    dapo = config.algorithm.filter_groups
    if dapo.enable and not dapo.metric and not is_personalized(config):
        found.error("filter_groups.enable=True without a metric", "algorithm.filter_groups.metric", "reward, or acc")


def _check_verls_own(config: Any, found: Found) -> None:
    """As main_ppo does before it starts Ray, and as its workers do with the rollout's settings."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    critic, named = need_critic(config), str(OmegaConf.select(config, "critic.model.path"))
    if critic and local_folder(named) is None and not means_folder(named):
        found.note(
            f"the critic {named} is not on this machine, and its settings were not looked at", "critic.model.path"
        )
        critic = False
    stock = inspect.unwrap(validate_config)  # without the plugin's part, which has been asked already
    try:
        stock(config=config, use_reference_policy=need_reference_policy(config), use_critic=critic)
    except Exception as error:
        if "SGLang also not Found" in str(error):  # of this machine's packages, not of the launch
            said = "LoRA was not checked: verl asks the vLLM of this machine how large it may be"
            found.note(said, "actor_rollout_ref.model.lora_rank", "preflight where vLLM is installed")
        else:
            found.raised(error, "verl.utils.config.validate_config", "set the keys that the message names")
    try:
        omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    except Exception as error:
        found.raised(error, "actor_rollout_ref.rollout", "set the keys that the message names")
