# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts' variables: values that are errors, paths with any characters, the log of each start."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.recipes.launches import RECIPES, VARIABLES, arguments_of, recipe, run_on_cluster

pytest.importorskip("verl")

PERSONAS = RECIPES / "personas"
GPU = "personas/run_qwen3_8b_megatron"


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        (GPU, {"MODE": "async"}),
        (GPU, {"RANDOM_GROUPS": "yes"}),
        (GPU, {"EQUAL_GROUPS": "yes"}),
        (GPU, {"RANDOM_GROUPS": "1", "ESTIMATOR": "grpo"}),
        (GPU, {"RANDOM_GROUPS": "1", "PGRPO_OPTIONS": "half_life=9 group_key=x"}),
        (GPU, {"PGRPO_OPTIONS": "half_life=9", "ESTIMATOR": "grpo"}),
        (GPU, {"JUDGE": "judge", "TASK": "movielens"}),
        ("movielens/run_tiny_cpu", {"JUDGE": "judge"}),
        ("personas/run_tiny_cpu", {"N": "3"}),
        ("personas/run_tiny_cpu", {"N": "abc"}),
        ("movielens/run_smollm2_135m_cpu", {"N": "3"}),
        ("personas/run_smollm2_135m_cpu", {"JUDGE": "judge"}),
        ("personas/run_tiny_cpu", {"RESPONSES": "15"}),
    ],
)
def test_an_invalid_value_stops_the_script(script: str, variables: dict[str, str]):
    with pytest.raises(recipe.RecipeError, match="status 2"):
        arguments_of(script, **variables)


@pytest.mark.parametrize("script", ["personas/run_smollm2_135m_cpu", "movielens/run_smollm2_135m_cpu"])
def test_data_and_models_are_created_after_the_variables_are_checked(script: str, tmp_path: Path):
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {calls}\n')
    python.chmod(0o755)
    variables = {"PYTHON": str(python), "DATA_DIR": str(tmp_path / "data"), "RUN_DIR": str(tmp_path / "run")}
    command = ["bash", str(RECIPES / f"{script}.sh")]

    def status(**more: str) -> int:
        return subprocess.run(
            command, env={**os.environ, **variables, **more}, capture_output=True, check=False
        ).returncode

    assert status(N="3") == 2
    assert not calls.exists()
    assert status() == 0
    made = calls.read_text().splitlines()
    assert [any(name in line for line in made) for name in ("cli data", "make_smollm2.py", "verl_cpu.run")] == [
        True
    ] * 3


def test_equal_groups_train_on_data_that_follow_the_task_s(tmp_path: Path):
    source = tmp_path / "train.parquet"
    script = f'source {RECIPES / "_method.sh"} && choose_train_file && printf %s "$TRAIN_FILE"'
    variables = {"TASK": "personas", "DATA_DIR": str(tmp_path), "EQUAL_GROUPS": "1", "PYTHON": sys.executable}

    def rows(labels: list[str], options: str = "", column: str = "preference_group") -> int:
        other = ["c"] * (len(labels) - 1) + ["d"]
        pq.write_table(pa.table({"preference_group": labels, "segment": other}), source)
        environment = {**os.environ, **variables, "PGRPO_OPTIONS": options}
        run = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, check=True)
        trained = Path(run.stdout.splitlines()[-1])
        assert trained == tmp_path / f"train_equal_{column}.parquet"
        return pq.read_metadata(trained).num_rows

    assert rows(["a"] * 3 + ["b"]) == 6
    assert rows(["a"] * 5 + ["b"]) == 10, "the data have changed"
    assert rows(["a"] * 5 + ["b"] * 5, "baseline=shrinkage group_key=segment", "segment") == 18


FOLDER = "/w/josé's verl (1), a=b"


def parsed(arguments: list[str]) -> dict[str, object]:
    """Values as Hydra reads them."""
    overrides = OverridesParser.create().parse_overrides([argument for argument in arguments if "=" in argument])
    return {override.key_or_group: override.value() for override in overrides}


@pytest.mark.parametrize("script", ["run_qwen3_1_7b_fsdp.sh", "run_tiny_cpu.sh"])
def test_a_path_may_have_any_characters(script: str):
    variables = {name: f"{FOLDER}/{name}" for name in ("DATA_DIR", "MODEL_PATH", "RUN_DIR", "JUDGE", "REWARD")}
    arguments = arguments_of(PERSONAS / script, **variables)
    paths = {key: value for key, value in parsed(arguments).items() if str(value).startswith(FOLDER)}
    ends = ["DATA_DIR/train.parquet", "DATA_DIR/val.parquet", "MODEL_PATH", "JUDGE", "REWARD"]
    ends += [f"RUN_DIR/{name}" for name in ("checkpoints", "rollouts", "metrics.jsonl")]
    assert set(paths.values()) >= {f"{FOLDER}/{end}" for end in ends}
    assert run_on_cluster.settings(arguments).items() >= paths.items()


def test_the_megatron_demo_may_run_in_any_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(PERSONAS)
    folder = Path(FOLDER.replace("'", ""))
    values = parsed(importlib.import_module("megatron_demo").arguments(folder, 1))
    assert values["data.train_files"] == f"{folder}/train.parquet"
    assert values["trainer.default_local_dir"] == f"{folder}/checkpoints"


@pytest.mark.parametrize("script", ["run_qwen3_1_7b_fsdp.sh", "run_tiny_cpu.sh"])
def test_each_start_logs_into_a_file_of_its_own(tmp_path: Path, script: str):
    """verl's file logger overwrites its file: only the last part of a resumed run would remain."""
    run = tmp_path / "run"
    for name in ("metrics.jsonl", "metrics_2.jsonl", "metrics_3.jsonl"):
        values = run_on_cluster.settings(arguments_of(PERSONAS / script, RUN_DIR=str(run)))
        assert values[f"{VARIABLES}.VERL_FILE_LOGGER_PATH"] == str(run / name)
        run.mkdir(exist_ok=True)
        (run / name).touch()
