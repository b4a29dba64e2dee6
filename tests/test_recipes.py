# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The recipes' scripts launch a run that verl itself accepts: their real arguments, composed and validated by verl."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "recipes/personas/run_qwen3_1_7b_fsdp.sh"


def launch_arguments(script: Path, folder: Path, *arguments: str, **environment: str) -> list[str]:
    """What a script would give to `python3`: run with a `python3` on PATH that writes down its arguments."""
    record = folder / "argv"
    stub = folder / "bin" / "python3"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >> '{record}'\n")
    stub.chmod(0o755)
    path = f"{stub.parent}:/usr/bin:/bin"
    subprocess.run(["bash", script, *arguments], check=True, cwd=ROOT, env={"PATH": path, **environment}, timeout=60)
    return record.read_text().split("\0")[:-1]


def compose(arguments: list[str]):
    """verl's configuration tree with a launch's arguments, as `main_ppo` would see it."""
    verl = pytest.importorskip("verl")
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    module, *overrides = arguments[1:]
    assert arguments[0] == "-m"
    assert module == "verl.trainer.main_ppo"
    config = Path(verl.__file__).parent / "trainer/config"
    with initialize_config_dir(str(config), version_base=None):
        return hydra_compose("ppo_trainer", overrides)


@pytest.mark.parametrize("estimator", ["grpo", "pgrpo"])
def test_qwen3_recipe_passes_verls_own_validation(tmp_path: Path, estimator: str) -> None:
    config = compose(launch_arguments(SCRIPT, tmp_path, "trainer.total_epochs=1", ESTIMATOR=estimator))
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    assert config.algorithm.adv_estimator == estimator
    assert not need_critic(config)
    assert config.trainer.total_epochs == 1, "an argument of the user's must win over the script's"
    assert config.trainer.n_gpus_per_node == 8
    assert config.data.apply_chat_template_kwargs.enable_thinking is False


def test_qwen3_recipe_compares_estimators_on_equal_terms(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours = launch_arguments(SCRIPT, tmp_path / "a")
    theirs = launch_arguments(SCRIPT, tmp_path / "b", ESTIMATOR="grpo")
    different = {a.partition("=")[0] for a, b in zip(ours, theirs, strict=True) if a != b}
    assert different == {
        "algorithm.adv_estimator",
        "trainer.experiment_name",
        "trainer.default_local_dir",
        "trainer.rollout_data_dir",
    }


def test_qwen3_recipe_names_a_reward_that_exists(tmp_path: Path) -> None:
    [path] = [a for a in launch_arguments(SCRIPT, tmp_path) if a.startswith("reward.custom_reward_function.path=")]
    module = importlib.import_module(path.partition("pkg://")[2])
    assert callable(module.compute_score)
