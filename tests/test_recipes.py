# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe to start from launches a run that verl itself accepts: its real arguments, composed and validated by verl.

The other scripts are tested in `test_data_recipes.py` and `test_large_recipes.py`, which take longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from verl_pgrpo.launch.recorded import arguments_of, composed

pytest.importorskip("verl")

SCRIPT = ROOT / "recipes" / "personas" / "run_qwen3_1_7b_fsdp.sh"


@pytest.mark.parametrize("estimator", ["grpo", "pgrpo"])
def test_qwen3_recipe_passes_verls_own_validation(estimator: str) -> None:
    config = composed(arguments_of(SCRIPT, "trainer.total_epochs=1", ESTIMATOR=estimator))
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    assert config.algorithm.adv_estimator == estimator
    assert not need_critic(config)
    assert config.trainer.total_epochs == 1, "an argument of the user's must win over the script's"
    assert config.trainer.n_gpus_per_node == 8
    assert config.data.apply_chat_template_kwargs.enable_thinking is False
    assert config.data.train_files == "data/personas_english/train.parquet"
    assert config.reward.custom_reward_function.path == "pkg://verl_pgrpo.rewards.personas"


def test_each_start_of_a_run_logs_into_a_file_of_its_own(tmp_path: Path) -> None:
    """verl's logger overwrites: of a run that was resumed only the last part would be left."""
    run, key = tmp_path / "run", "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH="
    for name in ("metrics.jsonl", "metrics_2.jsonl", "metrics_3.jsonl"):
        for script in (SCRIPT, SCRIPT.with_name("run_tiny_cpu.sh")):
            assert f"{key}{run / name}" in arguments_of(script, RUN_DIR=str(run))
        assert list(tmp_path.glob("run/*")) == sorted(tmp_path.glob("run/metrics*")), "looking on writes nothing"
        run.mkdir(exist_ok=True)
        (run / name).touch()
