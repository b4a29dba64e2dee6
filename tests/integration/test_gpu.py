# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Tests that need a GPU: `pytest -m gpu`. Skipped without one; docs/gpu.md lists what has run, and when."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.integration.batch import BatchRows
from verl_pgrpo.integration.estimator import compute_pgrpo_outcome_advantage
from verl_pgrpo.integration.state import PGRPOState

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimator_on_a_gpu_equals_that_on_a_cpu(dtype):
    """The history is on the CPU in float64 either way; only the device of the tensors differs."""
    rng, rewards = np.random.default_rng(0), torch.zeros(64, 32, dtype=dtype)
    rewards[:, -1] = torch.from_numpy(rng.standard_normal(64)).to(dtype)
    mask = torch.from_numpy(rng.random((64, 32)) < 0.8)
    mask[:, -1] = True
    keys, groups = [f"{i // 4}_{i % 4}_0" for i in range(64)], [f"g{i // 16}" for i in range(64)]
    rows = BatchRows.from_keys(keys, [{}] * 64, groups)
    results = {}
    for device in ("cpu", "cuda"):
        arguments = rewards.to(device), mask.to(device), rows.uids
        advantages, _ = PGRPOState(PGRPOConfig()).advantage_step(
            rows, lambda arguments=arguments: compute_pgrpo_outcome_advantage(*arguments)
        )
        assert advantages.device.type == device
        results[device] = advantages.cpu()
    torch.testing.assert_close(results["cpu"], results["cuda"], rtol=0, atol=0)


@pytest.mark.e2e
def test_a_few_steps_with_fsdp_and_vllm(tmp_path):
    """Stock verl on one GPU with a tiny model: the history counts the rewards of all steps."""
    from tests.e2e import runs

    runs.prepare(tmp_path)
    model = "actor_rollout_ref"
    arguments = {
        "algorithm.adv_estimator": "pgrpo",
        "data.train_files": tmp_path / "train.parquet",
        "data.val_files": tmp_path / "val.parquet",
        "data.train_batch_size": 16,
        "data.max_prompt_length": 64,
        "data.max_response_length": 16,
        f"{model}.model.path": tmp_path / "model",
        f"+{model}.model.override_config.attn_implementation": "sdpa",  # flash-attn may not be installed
        f"{model}.actor.ppo_mini_batch_size": 16,
        f"{model}.actor.use_dynamic_bsz": True,
        f"{model}.rollout.name": "vllm",
        f"{model}.rollout.n": 2,
        f"{model}.rollout.tensor_model_parallel_size": 1,  # verl's default is 2
        f"{model}.rollout.gpu_memory_utilization": 0.3,
        f"{model}.rollout.enforce_eager": True,
        "reward.custom_reward_function.path": "pkg://verl_pgrpo.rewards.personas",
        "trainer.n_gpus_per_node": 1,
        "trainer.logger": "[console,file]",
        "trainer.default_local_dir": tmp_path / "checkpoints",
        "trainer.total_training_steps": 3,
        "trainer.save_freq": 3,
        "trainer.val_before_train": False,
        "hydra.run.dir": tmp_path / "hydra",
    }
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *(f"{key}={value}" for key, value in arguments.items())]
    environment = {**os.environ, "VERL_FILE_LOGGER_PATH": str(tmp_path / "metrics.jsonl")}
    subprocess.run(command, env=environment, check=True, timeout=900)
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    totals = [step["data"]["pgrpo/observed_total"] for step in steps if "pgrpo/observed_total" in step["data"]]
    assert totals == [32.0, 64.0, 96.0]
    history = GroupHistoryManager.load(tmp_path / "checkpoints" / "global_step_3" / "pgrpo_history.parquet", step=3)
    assert history.total_count == 96
