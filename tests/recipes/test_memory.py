# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic behind the memory tables."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.recipes.launches import RECIPES, composed, memory, model_sizes
from verl_pgrpo.preflight.sizes import ACTOR, REF, TP

PUBLISHED = {
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "google/gemma-2b-it": 2_506_172_416,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
}


def test_parameters_are_the_published_ones():
    assert {model.path: model.parameters for model in model_sizes.MODELS} == PUBLISHED


def estimate(*arguments: str) -> memory.Estimate:
    launch = ["-m", "verl.trainer.main_ppo", "model_engine=megatron", "trainer.n_gpus_per_node=8", f"{TP}=2"]
    launch += [f"{ACTOR}.use_dynamic_bsz=True", f"{ACTOR}.use_kl_loss=True", *arguments]
    return memory.estimate(model_sizes.model_of("/models/Qwen3-8B/"), memory.Launch(composed(launch)))


def test_memory_by_hand():
    """Qwen3-8B, TP2 of 8 GPUs: 2, 4 and 12 / 4 bytes of half its parameters; and the size of one cached token."""
    pytest.importorskip("verl")
    guess = estimate(f"{ACTOR}.ppo_max_token_len_per_gpu=8192", f"{REF}.log_prob_max_token_len_per_gpu=4096")
    half = 8.19e9 / 2 / 2**30
    update = guess.phases["update"].parts
    assert update["weights"] == pytest.approx(2 * half, rel=1e-3)
    assert update["gradients"] == pytest.approx(4 * half, rel=1e-3)
    assert update["optimizer"] == pytest.approx(12 / 4 * half, rel=1e-3)
    assert update["logits"] == pytest.approx(12 * 8192 * 151936 / 2 / 2**30)
    assert guess.phases["reference"].parts["logits"] == pytest.approx(update["logits"] / 2)
    assert guess.kv_bytes_per_token == 2 * 36 * 4 * 128 * 2  # rollout TP 2
    with pytest.raises(ValueError, match="unknown model"):
        model_sizes.model_of("Qwen/Qwen3-9B")


def test_micro_batches_of_a_fixed_number_of_sequences():
    """Each at most as long as verl's default, 512 + 512 tokens."""
    pytest.importorskip("verl")
    fixed = f"{ACTOR}.use_dynamic_bsz=False", f"{REF}.log_prob_micro_batch_size_per_gpu=8"
    phases = estimate(*fixed, f"{ACTOR}.ppo_micro_batch_size_per_gpu=4").phases
    for phase, sequences in (("update", 4), ("reference", 8)):
        assert phases[phase].parts["logits"] == pytest.approx(12 * sequences * 1024 * 151936 / 2 / 2**30)
    with pytest.raises(ValueError, match="use_dynamic_bsz=True"):
        estimate(*fixed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--write", "--gpu", "40"],
        ["--write", "--", f"{ACTOR}.use_dynamic_bsz=True"],
        ["--", "no.such.key=1"],
        ["--", f"{ACTOR}.use_dynamic_bsz=True", "actor_rollout_ref.model.path=Qwen/Qwen3-9B"],
        ["--", "model_engine=veomni"],
    ],
)
def test_bad_arguments_of_the_memory_table_are_errors_without_traceback(arguments: list[str]):
    pytest.importorskip("verl")
    command = [sys.executable, str(RECIPES / "memory_table.py"), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
