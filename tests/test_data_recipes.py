# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks' recipes: verl accepts them, controls are one variable away in every script, commands as documented."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from verl_pgrpo.cli import parser
from verl_pgrpo.errors import ConfigError
from verl_pgrpo.launch.recorded import arguments_of, composed

pytestmark = pytest.mark.slow

RECIPES = ROOT / "recipes"
TASKS = ("movielens", "goodreads", "personas")
MODELS = sorted(script for script in RECIPES.glob("personas/run_*.sh") if "cpu" not in script.stem)
PAGES = [*(RECIPES / folder / "README.md" for folder in (*TASKS, "own_users")), RECIPES / "large_models.md"]
TINY = [RECIPES / task / "run_tiny_cpu.sh" for task in TASKS]
CONTROLS = ({"ESTIMATOR": "grpo"}, {"ESTIMATOR": "reinforce_plus_plus"}, {"RANDOM_GROUPS": "1"})

# Every script by itself, and every model's script with every other task.
LAUNCHES = [(script, {}) for script in sorted(RECIPES.glob("*/run_*.sh"))]
LAUNCHES += [(script, {"TASK": task}) for script in MODELS for task in ("movielens", "goodreads")]

every_task = pytest.mark.parametrize("task", TASKS)
every_launch = pytest.mark.parametrize(
    ("script", "variables"),
    LAUNCHES,
    ids=lambda v: v.get("TASK", "") if isinstance(v, dict) else f"{v.parent.name}-{v.stem}",
)


def real(task: str) -> Path:
    return RECIPES / task / "run_qwen3_1_7b_fsdp.sh"


@cache
def launched(script: Path, variables: tuple[tuple[str, str], ...], folder: Path) -> set[str]:
    run_dir = {"RUN_DIR": str(folder)} if "cpu" in script.stem else {}  # which these scripts make
    return set(arguments_of(script, **run_dir, **dict(variables)))


def validated(config) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    assert not need_critic(config)


@pytest.mark.parametrize("mode", ["sync", "separate_async"])
@pytest.mark.parametrize("control", [{}, *CONTROLS], ids=str)
@every_task
def test_verl_accepts_every_run(task: str, control: dict[str, str], mode: str) -> None:
    config = composed(arguments_of(real(task), "trainer.total_epochs=1", MODE=mode, **control))
    validated(config)
    assert config.algorithm.adv_estimator == control.get("ESTIMATOR", "pgrpo")
    assert config.algorithm.get("pgrpo") == (
        {"group_key": "extra_info.random_group"} if "RANDOM_GROUPS" in control else None
    )
    assert config.trainer.project_name == task
    assert config.trainer.v1.trainer_mode == mode
    assert config.trainer.total_epochs == 1, "an argument of the user's must win over the script's"
    assert config.data.train_batch_size * config.actor_rollout_ref.rollout.n == 1024


@pytest.mark.parametrize("task", ["movielens", "goodreads"])
@pytest.mark.parametrize("script", MODELS, ids=lambda script: script.stem)
def test_every_model_has_room_for_every_task(script: Path, task: str) -> None:
    from verl_pgrpo.launch import Launch, estimate, model_of, problems

    config = composed(arguments_of(script, TASK=task))
    validated(config)
    launch = Launch.of(config)
    model = model_of(launch.model_path)
    assert problems(model, launch) == []
    assert estimate(model, launch).problems() == []
    assert config.actor_rollout_ref.rollout.n == 4
    assert config.data.train_files == f"data/{task}/train.parquet"


@every_launch
@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_a_control_differs_in_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, script: Path, variables: dict[str, str], control: dict[str, str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "run"
    ours = launched(script, tuple(variables.items()), folder)
    theirs = launched(script, tuple((variables | control).items()), folder)
    method = "+algorithm.pgrpo.group_key" if "RANDOM_GROUPS" in control else "algorithm.adv_estimator"
    metrics = "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH"
    names = {"trainer.experiment_name", "trainer.default_local_dir", "trainer.rollout_data_dir", metrics}
    keys = {argument.partition("=")[0] for argument in ours ^ theirs}
    assert keys - names == {method}
    assert "trainer.experiment_name" in keys
    if "RANDOM_GROUPS" in control:
        [name] = [argument for argument in theirs if argument.startswith("trainer.experiment_name=")]
        assert "pgrpo_random_groups" in name


@pytest.mark.parametrize("script", [real("personas"), *TINY], ids=lambda s: s.stem)
@pytest.mark.parametrize("wrong", [{"ESTIMATOR": "grpo", "RANDOM_GROUPS": "1"}, {"RANDOM_GROUPS": "yes"}], ids=str)
def test_random_groups_of_an_estimator_without_groups_are_refused(script: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="0 or 1, and 1 with pgrpo only"):
        arguments_of(script, **wrong)


@every_task
def test_the_reward_exists(task: str) -> None:
    [path] = [a for a in arguments_of(real(task)) if a.startswith("reward.custom_reward_function.path=")]
    assert callable(importlib.import_module(path.partition("pkg://")[2]).compute_score)


@pytest.mark.parametrize("task", ["goodreads", "personas"])
def test_a_judge_is_served_on_gpus_of_its_own_and_awake(task: str) -> None:
    config = composed(arguments_of(real(task), JUDGE="Qwen/Qwen3-8B", JUDGE_TP="2", JUDGE_NNODES="2"))
    validated(config)
    judge, reward = config.reward.reward_model, config.reward.custom_reward_function
    assert (judge.enable, judge.enable_resource_pool, judge.nnodes, judge.n_gpus_per_node) == (True, True, 2, 8)
    assert (judge.rollout.tensor_model_parallel_size, judge.rollout.free_cache_engine) == (2, False)
    assert judge.model_path == reward.reward_kwargs.judge_model == "Qwen/Qwen3-8B"
    assert inspect.iscoroutinefunction(importlib.import_module(reward.path.partition("pkg://")[2]).compute_score)
    assert config.trainer.experiment_name.endswith("_pgrpo_judge_n" + str(config.actor_rollout_ref.rollout.n))


@every_task
def test_the_tiny_run_is_composed_with_its_preset(task: str, tmp_path: Path, compose) -> None:
    for variables, preset in (({"RANDOM_GROUPS": "1"}, "cpu"), ({"JUDGE": str(tmp_path / "judge")}, "cpu_judge")):
        arguments = arguments_of(RECIPES / task / "run_tiny_cpu.sh", RUN_DIR=str(tmp_path), **variables)
        launch = arguments[arguments.index("--") + 1 :]
        assert launch[:4] == ["--config-dir", "verl_cpu/presets", "--config-name", preset]
        config = compose(*launch[4:], config_name=preset)
        validated(config)
        assert config.ray_kwargs.ray_init.num_gpus == (2 if "JUDGE" in variables else 1)
        assert config.reward.reward_model.n_gpus_per_node == (1 if "JUDGE" in variables else 8)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_command_of_a_page_is_one(page: Path, tmp_path: Path) -> None:
    """Scripts launch, options of `verl-pgrpo` exist, modules too; what comes out is tested elsewhere."""
    text = "\n".join(re.findall(r"^    (.*)$", page.read_text(), re.MULTILINE)).replace("\\\n", " ")
    checked = 0
    for line in text.splitlines():
        if "verl-pgrpo " not in line and "bash recipes/" not in line and " -m " not in line:
            continue
        words = shlex.split(line, comments=True)
        count = sum(1 for _ in takewhile(lambda word: re.match("[A-Z_]+=", word), words))
        variables, (program, *rest) = dict(word.split("=", 1) for word in words[:count]), words[count:]
        if program == "bash":
            assert arguments_of(ROOT / rest[0], *rest[1:], **variables, RUN_DIR=str(tmp_path))
        elif program == "verl-pgrpo":
            parser().parse_args(rest)
        else:
            assert importlib.util.find_spec(rest[rest.index("-m") + 1]), line
        checked += 1
    assert checked >= 4


@every_task
def test_the_scripts_say_the_readmes_commands(task: str) -> None:
    """The smoke test runs the script's head; so the README is only tested if it says the same."""
    readme = (RECIPES / task / "README.md").read_text()
    for script in (real(task), RECIPES / task / "run_tiny_cpu.sh"):
        for line in re.findall(r"^#   (.*)$", script.read_text(), re.MULTILINE):
            assert line.strip() in readme, script
