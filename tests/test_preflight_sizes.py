# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What `preflight` says of a model's sizes, files and memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.preflight_case import Case, large, serious
from verl_pgrpo.launch.preflight import preflight
from verl_pgrpo.launch.run import Settings

pytestmark = pytest.mark.launch

pytest.importorskip("verl")

TP = "actor_rollout_ref.actor.megatron.tensor_model_parallel_size"


def test_parallel_sizes_and_memory_of_a_model_that_is_not_here(case: Case):
    def found(*overrides: str, gpu: float | None):
        return preflight(large(case, *overrides), Settings(gpu=gpu, skip=("reward", "checkpoints")))

    report = found(gpu=79.0)
    assert serious(report) == []
    assert report.memory.phase("update").limit == pytest.approx(0.9 * 79)
    assert any("is not on this machine" in one.what for one in report.findings)
    said = [one[2] for one in serious(found(f"{TP}=3", gpu=79.0)) if one[0] == "error"]
    assert "the model's attention heads (64) is not divisible by actor TP (3)" in said
    assert "the trainer's GPUs (32) is not divisible by actor TP x PP x CP (6)" in said
    small = serious(found(gpu=24.0))
    assert {one[:2] for one in small} == {("error", "memory")}
    assert any(one[2].startswith("update: ") for one in small)
    guessed = serious(found("actor_rollout_ref.rollout.gpu_memory_utilization=0.95", gpu=None))
    assert [one[:2] for one in guessed] == [("warning", "memory")]  # no GPU was named


def test_the_configuration_of_a_model_that_is_elsewhere(case: Case, tmp_path: Path):
    report = case.check("actor_rollout_ref.model.path=somebody/model")
    assert serious(report)[0][2].startswith("the model somebody/model is not on this machine")
    assert "--model-config" in report.findings[0].fix
    wrong = ["actor_rollout_ref.model.path=somebody/model", "actor_rollout_ref.rollout.tensor_model_parallel_size=3"]
    report = case.check(*wrong, model_config=case.folder / "model" / "config.json")
    assert any("attention heads (4) is not divisible" in one[2] for one in serious(report))
    report = case.check("actor_rollout_ref.model.path=somebody/model", model_config=tmp_path / "none.json")
    assert "there is no model configuration" in serious(report)[0][2]


def test_the_models_files(case: Case, tmp_path: Path):
    model = shutil.copytree(case.folder / "model", tmp_path / "model")
    here = f"actor_rollout_ref.model.path={model}"
    (model / "chat_template.jinja").write_text("{{ raise_exception('no system messages') }}")
    (severity, check, said), _ = serious(case.check(here))  # and of the validation data
    assert (severity, check) == ("error", "model")
    assert "refuses 256 of the first 256 training prompts (row 0: " in said
    assert "no system messages" in said
    shutil.copy(case.folder / "model" / "chat_template.jinja", model)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    [(severity, check, said)] = serious(case.check(here))
    assert (severity, check) == ("error", "model")
    assert "2 of 2 files that model.safetensors.index.json names" in said
    (model / "model.safetensors.index.json").unlink()
    (model / "tokenizer.json").unlink()
    assert [one[:2] for one in serious(case.check(here))] == [("error", "model")]
    (model / "config.json").unlink()
    assert "has no config.json" in serious(case.check(here))[0][2]


def test_prompts_that_are_too_long(case: Case):
    cut, also_cut = serious(case.check("data.max_prompt_length=8"))
    assert cut[:2] == also_cut[:2] == ("warning", "model")
    assert "256 of the first 256 training prompts lose their beginning" in cut[2]
    assert "70 of the first 70 validation prompts lose their beginning" in also_cut[2]
    for severity, _, said in serious(case.check("data.max_prompt_length=8", "data.filter_overlong_prompts=True")):
        assert (severity, "prompts are dropped" in said) == ("error", True), "nothing would be left"
