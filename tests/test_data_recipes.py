# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The MovieLens and Goodreads recipes: verl accepts them, controls are one variable away, commands as documented."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.test_recipes import ROOT, compose, launch_arguments

pytestmark = pytest.mark.slow

TASKS = ("movielens", "goodreads")
CONTROLS = ({"ESTIMATOR": "grpo"}, {"ESTIMATOR": "reinforce_plus_plus"}, {"RANDOM_GROUPS": "1"})


def real(task: str) -> Path:
    return ROOT / "recipes" / task / "run_qwen3_1_7b_fsdp.sh"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("control", [{}, *CONTROLS], ids=str)
def test_verl_accepts_every_run(tmp_path: Path, task: str, control: dict[str, str]) -> None:
    config = compose(launch_arguments(real(task), tmp_path, "trainer.total_epochs=1", **control))
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    assert config.algorithm.adv_estimator == control.get("ESTIMATOR", "pgrpo")
    assert not need_critic(config)
    assert config.trainer.total_epochs == 1, "an argument of the user's must win over the script's"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("script", ["run_qwen3_1_7b_fsdp.sh", "run_tiny_cpu.sh"])
@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_a_control_differs_in_nothing_else(tmp_path: Path, task: str, script: str, control: dict[str, str]) -> None:
    path = ROOT / "recipes" / task / script
    runs = []
    for name, variables in (("ours", {}), ("theirs", control)):
        (tmp_path / name).mkdir()
        runs.append(set(launch_arguments(path, tmp_path / name, RUN_DIR=str(tmp_path / "run"), **variables)))
    keys = {argument.partition("=")[0] for argument in runs[0] ^ runs[1]}
    method = "+algorithm.pgrpo.group_key" if "RANDOM_GROUPS" in control else "algorithm.adv_estimator"
    assert keys == {method, "trainer.experiment_name"}


@pytest.mark.parametrize("task", TASKS)
def test_the_judge_and_the_rewards_exist(tmp_path: Path, task: str) -> None:
    [path] = [a for a in launch_arguments(real(task), tmp_path) if a.startswith("reward.custom_reward_function.path=")]
    assert callable(importlib.import_module(path.partition("pkg://")[2]).compute_score)


@pytest.mark.parametrize("task", TASKS)
def test_the_script_says_the_readmes_commands(task: str) -> None:
    """The smoke test runs the script's head; so the README is only tested if it says the same."""
    readme = (ROOT / "recipes" / task / "README.md").read_text()
    head = (ROOT / "recipes" / task / "run_tiny_cpu.sh").read_text()
    for line in re.findall(r"^#   (.*)$", head, re.MULTILINE):
        assert line.strip() in readme
