# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The launchers without a cluster: dry runs, bad input, and the commands in docs/multinode.md. On real clusters:
tests/e2e/test_clusters.py."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.recipes.launches import RECIPES, broken_rules, commands_of, composed, environment, recipe
from tests.recipes.launches import run_on_cluster as cluster

SLURM, RAY, KUBERAY, SKY = "slurm/pgrpo.sbatch", "ray_job.sh", "kuberay/submit.py", "sky/launch.py"
LAUNCHERS = (SLURM, RAY, KUBERAY, SKY)
ANY = "run_on_cluster.py"  # in which all of them end
MEGATRON = "personas/run_qwen3_32b_megatron"


def call(launcher: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable if launcher.endswith(".py") else "bash", str(RECIPES / "launch" / launcher), *arguments]
    values = environment(**variables)
    return subprocess.run(command, env=values, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def verl_command(run: subprocess.CompletedProcess[str]) -> list[str]:
    """verl's command in a dry run's output: the last `python3` and its continuation lines."""
    assert run.returncode == 0, run.stderr
    lines = [line.removeprefix("#").strip() for line in run.stdout.splitlines()]
    first = max(index for index, line in enumerate(lines) if line == "python3 \\")
    last = next(index for index in range(first, len(lines)) if not lines[index].endswith("\\"))
    return shlex.split(" ".join(line.removesuffix("\\") for line in lines[first : last + 1]))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_dry_run_prints_the_command_and_writes_nothing(launcher: str, tmp_path: Path):
    arguments = ["--dry-run", "personas/run_tiny_cpu", "trainer.total_training_steps=3"]
    values = cluster.settings(verl_command(call(launcher, *arguments, cwd=tmp_path, ESTIMATOR="grpo")))
    assert values["trainer.total_training_steps"] == "3"
    assert values["algorithm.adv_estimator"] == "grpo"
    for key in ("trainer.default_local_dir", "trainer.rollout_data_dir", "data.train_files"):
        assert Path(values[key]).is_absolute(), "Ray workers run in other folders"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        (SLURM, ["--nodes=4", "--gpus-per-node=h100:4"]),
        (KUBERAY, ["--nodes", "4", "--gpus-per-node", "4"]),
        (SKY, ["--nodes", "4", "--gpus", "H100:4"]),
    ],
)
def test_nodes_and_gpus_are_set_once(launcher: str, options: list[str]):
    run = call(launcher, "--dry-run", *options, MEGATRON, **({"NNODES": "2"} if launcher == KUBERAY else {}))
    assert {"trainer.nnodes=4", "trainer.n_gpus_per_node=4"} <= set(verl_command(run))
    if launcher != KUBERAY:
        assert run.stdout.count("worker on") == 3
        assert run.stdout.count("--num-gpus=4") == 4


UNKNOWN = "personas/run_qwen3_1_7_fsdp"


@pytest.mark.parametrize(
    ("launcher", "arguments", "variables"),
    [
        *((launcher, f"--dry-run {UNKNOWN}", {}) for launcher in LAUNCHERS),
        (SLURM, f"--dry-run --nodes 2 {MEGATRON}", {}),
        (SLURM, f"--dry-run --nodes=2-4 {MEGATRON}", {}),
        (SLURM, f"--dry-run --nodes=2 {MEGATRON}", {"NGPUS_PER_NODE": "16"}),
        (SLURM, MEGATRON, {}),
        (RAY, MEGATRON, {}),
        (RAY, f"{MEGATRON} --dry-run", {"RAY_ADDRESS": "http://127.0.0.1:1"}),
        (SKY, f"--dry-run --gpus H100:x {MEGATRON}", {}),
        (KUBERAY, f"--dry-run --rdma rdma/ib {MEGATRON}", {}),
        (ANY, f"--dry-run {MEGATRON}", {"NNODES": "two"}),
        (ANY, f"--dry-run {MEGATRON}", {"STALL_LIMIT": "-1"}),
        (ANY, f"--dry-run {MEGATRON}", {"ARGUMENTS": "a"}),
        (ANY, f"--dry-run {MEGATRON} trainer.default_local_dir=checkpoints", {}),
        (ANY, f"--dry-run {MEGATRON} data.train_files=[/a.parquet,'b.parquet']", {}),
        (SKY, MEGATRON, {"PATH": "/no/sky"}),
        (KUBERAY, MEGATRON, {"PATH": "/no/kubectl"}),
    ],
)
def test_bad_input_is_an_error_without_traceback(launcher: str, arguments: str, variables: dict[str, str]):
    run = call(launcher, *arguments.split(), **variables)
    assert run.returncode in (2, cluster.UNAVAILABLE)
    assert run.stderr
    assert "Traceback" not in run.stderr
    if UNKNOWN in arguments:
        assert all(name in run.stderr for name in recipe.names())


def test_ray_job_sends_what_the_recipe_reads_and_skypilot_the_token_as_a_secret():
    run = call(RAY, "--dry-run", MEGATRON, "a='b $c'", NNODES="4", TP="2", UNRELATED="1", DIRECTORY="/mnt/shared")
    words = shlex.split(run.stdout.splitlines()[0])
    assert words[words.index("--") + 1 :] == ["python3", "recipes/launch/run_on_cluster.py"]
    sent = json.loads(words[words.index("--runtime-env-json") + 1])["env_vars"]
    assert json.loads(sent.pop("ARGUMENTS")) == ["a='b $c'"]
    assert sent == {"RECIPE": MEGATRON, "NNODES": "4", "TP": "2", "DIRECTORY": "/mnt/shared"}
    values = cluster.settings(verl_command(run))
    assert values["trainer.nnodes"] == "4"
    assert values["trainer.default_local_dir"].startswith("/mnt/shared/runs/")
    task = recipe.variables("goodreads/run_qwen3_1_7b_fsdp", {"ROLLOUT_TP": "2"})
    assert task == {"ROLLOUT_TP": "2"}, "read by the script that it sources"
    sky = call(SKY, "--dry-run", MEGATRON, HF_TOKEN="hf_token", RAY_PORT="60000").stdout
    assert "--secret HF_TOKEN" in sky
    assert "hf_token" not in sky
    assert "--env RAY_PORT=60000" in sky


def test_skypilot_uploads_the_repository_from_every_folder(tmp_path: Path):
    (tmp_path / "sky").write_text('#!/bin/sh\npwd\nfor last; do :; done\necho "$last"\nexit 3\n')
    (tmp_path / "sky").chmod(0o755)
    run = call(SKY, MEGATRON, cwd=tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (run.returncode, run.stdout.splitlines()) == (3, [str(ROOT), "recipes/launch/sky/pgrpo.yaml"])


@pytest.mark.parametrize(("port", "client"), [("7000", "21000"), ("60000", "46000")])
def test_ray_uses_the_given_port(port: str, client: str):
    out = call(SLURM, "--dry-run", "--nodes=2", MEGATRON, RAY_PORT=port).stdout
    assert f"--address=node1:{port}" in out
    assert f"--port={port} " in out
    assert f"--ray-client-server-port={client}\n" in out


def test_many_nodes_without_a_model_folder_are_warned(tmp_path: Path):
    assert "MODEL_PATH" in call(ANY, "--dry-run", MEGATRON, cwd=tmp_path, NNODES="4").stderr
    for given in ([MEGATRON, "actor_rollout_ref.model.path=/model"], [MEGATRON]):
        variables = {"MODEL_PATH": "model"} if len(given) == 1 else {}
        assert "MODEL_PATH" not in call(ANY, "--dry-run", *given, cwd=tmp_path, NNODES="4", **variables).stderr


def test_relative_paths_become_absolute(tmp_path: Path):
    folder = tmp_path / "é (1), a=b"
    for name in ("model", "judge", "reward.py"):
        (folder / name).mkdir(parents=True)
    files = "data.train_files=[/a/train.parquet,/b/train.parquet]"
    variables = {"MODEL_PATH": "model", "JUDGE": "judge", "REWARD": "reward.py"}
    values = cluster.settings(verl_command(call(ANY, "--dry-run", MEGATRON, files, cwd=folder, **variables)))
    assert values["data.train_files"] == files.partition("=")[2]
    assert values["data.val_files"] == f"{folder}/data/personas_english/val.parquet"
    assert values["trainer.default_local_dir"].startswith(f"{folder}/runs/personas/")
    for key, name in (
        ("actor_rollout_ref.model.path", "model"),
        ("reward.reward_model.model_path", "judge"),
        ("reward.custom_reward_function.reward_kwargs.judge_model", "judge"),
        ("reward.custom_reward_function.path", "reward.py"),
    ):
        assert values[key] == str(folder / name)


PAGES = [ROOT / "docs" / "multinode.md", RECIPES / "large_models.md", *RECIPES.glob("*/README.md")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_documented_commands_launch(page: Path):
    pytest.importorskip("verl")
    for line in filter(re.compile("/run_").search, commands_of(page)):
        words = shlex.split(line, comments=True)
        pairs = [*takewhile(lambda word: "=" in word and not word.startswith("-"), words)]
        variables = dict(pair.split("=", 1) for pair in pairs)
        program, *words = words[len(pairs) :]
        if program == "sbatch":  # its options precede the script
            words.sort(key=lambda word: not word.endswith(".sbatch"))
        launcher = words[0].removeprefix("recipes/launch/")
        if launcher in LAUNCHERS:
            arguments = [word for word in words[1:] if word != "--dry-run"]
            command = verl_command(call(launcher, "--dry-run", *arguments, **variables))
        else:
            command = recipe.record(ROOT / words[0], words[1:], environment(**variables))
        assert "cpu" in line or broken_rules(composed(command[1:])) <= {"idle pipeline"}, line
