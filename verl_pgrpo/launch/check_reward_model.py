# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A reward model of a launch: its folder, and GPUs for it that its copies fit on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from .finding import Found
from .model_files import local_folder, means_folder, missing_weights
from .problem import indivisible
from .run import Run

KEY = "reward.reward_model"


def check_reward_model(run: Run, found: Found) -> None:
    judge = run.config.reward.reward_model
    if run.sound and (judge.enable or judge.enable_resource_pool):  # verl makes the pool in any case
        _check_gpus(run.config, judge, found)
    if not judge.enable:
        return
    _check_files(judge.model_path, found)
    if run.config.trainer.v1.trainer_mode == "separate_async" and not judge.enable_resource_pool:
        said = "separate_async: the reward model has no GPUs of its own, and the rollout's are never free"
        found.error(said, f"{KEY}.enable_resource_pool", "set it to True, with nnodes and n_gpus_per_node")
    _check_rollout(judge.rollout, found)
    name = OmegaConf.select(judge, "rollout.name")
    if name == "trtllm" and run.config.reward.custom_reward_function.path is None:
        said = "verl does not score with a reward model in TensorRT-LLM"  # RewardLoopWorker.compute_score_disrm
        found.error(said, f"{KEY}.rollout.name", "vllm, or a reward function that asks it")


def _check_files(named: str | None, found: Found) -> None:
    where = f"{KEY}.model_path"
    if not isinstance(named, str) or not named:
        found.error("no reward model is named", where, "name one, or set enable=False")
    elif "://" in named:
        found.note(f"the reward model {named} is not on this machine, and was not looked at", where)
    elif (folder := local_folder(named)) is None:
        if means_folder(named):
            found.error(f"there is no folder {named}, seen from {Path.cwd()}", where, "mend the path")
        else:
            found.note(f"the reward model {named} is not on this machine, and was not looked at", where)
    elif not (folder / "config.json").exists():
        found.error(f"{folder} has no config.json: it is no model's folder", where, "mend the path")
    elif missing := missing_weights(folder):
        found.error(f"weights of the reward model are missing: {missing}", where, "download the model again")


def _check_gpus(config: Any, judge: Any, found: Found) -> None:
    """verl's PPOTrainer._init_resource_pool_mgr and RewardModelManager."""
    pool = judge if judge.enable_resource_pool else config.trainer
    names = ["rollout.tensor_model_parallel_size", "rollout.data_parallel_size"]
    names += ["nnodes", "n_gpus_per_node"] if judge.enable_resource_pool else []
    sizes = {f"{KEY}.{name}": OmegaConf.select(judge, name) for name in names}
    wrong = {k: n for k, n in sizes.items() if not isinstance(n, int) or isinstance(n, bool) or n < 1}
    for key, size in wrong.items():
        found.error(f"{key}={size} is no whole number of at least 1", key, "set one")
    if wrong or not judge.enable:
        return
    replica = judge.rollout.tensor_model_parallel_size * judge.rollout.data_parallel_size
    where = f"{KEY}.rollout.tensor_model_parallel_size, {KEY}.rollout.data_parallel_size"
    gpus = ("the reward model's GPUs", pool.nnodes * pool.n_gpus_per_node)
    for problem in indivisible(*gpus, "its TP x DP", replica, where):
        found.error(str(problem), problem.where, problem.fix)


def _check_rollout(rollout: Any, found: Found) -> None:
    """As its server is told; verl leaves the name open until then."""
    from verl.utils.config import omega_conf_to_dataclass

    from .check_names import check_server

    check_server(rollout, f"{KEY}.rollout", found)
    if rollout.skip_tokenizer_init:
        where = f"{KEY}.rollout.skip_tokenizer_init"
        found.error("a reward model needs its tokenizer, and skip_tokenizer_init=True", where, "set it to False")
    try:
        omega_conf_to_dataclass(rollout)
    except Exception as error:
        found.raised(error, f"{KEY}.rollout", "set the keys that the message names")
