# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The launchers without a cluster: what a dry run prints, waiting for nodes, lost nodes, stalls, exit statuses. On real
clusters: tests/e2e/test_clusters.py."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.recipes.launches import RECIPES, broken_rules, commands_of, composed, environment, recipe

import nodes as cluster_nodes  # isort: skip  (recipes/launch, on the path since the import above)
import run_on_cluster as cluster  # isort: skip

LAUNCH = RECIPES / "launch"
SLURM, RAY, KUBERAY, SKY = "slurm/pgrpo.sbatch", "ray_job.sh", "kuberay/submit.py", "sky/launch.py"
LAUNCHERS = (SLURM, RAY, KUBERAY, SKY)
MEGATRON = "personas/run_qwen3_32b_megatron"

every_launcher = pytest.mark.parametrize("launcher", LAUNCHERS)


def call(launcher: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    interpreter = sys.executable if launcher.endswith(".py") else "bash"
    return subprocess.run(
        [interpreter, str(LAUNCH / launcher), *arguments],
        env=environment(**variables),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def verl_command(text: str) -> list[str]:
    """verl's command in a dry run's output: the last `python3` and its continuation lines."""
    lines = [line.removeprefix("#").strip() for line in text.splitlines()]
    first = max(index for index, line in enumerate(lines) if line == "python3 \\")
    last = next(index for index in range(first, len(lines)) if not lines[index].endswith("\\"))
    return shlex.split(" ".join(line.removesuffix("\\") for line in lines[first : last + 1]))


# -------------------------------------------------------------------------------------------------------- dry runs


@every_launcher
@pytest.mark.parametrize("name", ["personas/run_tiny_cpu", "goodreads/run_qwen3_1_7b_fsdp"])
def test_dry_run_prints_the_command_and_writes_nothing(launcher: str, name: str, tmp_path: Path):
    run = call(launcher, "--dry-run", name, "trainer.total_training_steps=3", cwd=tmp_path, ESTIMATOR="grpo")
    assert run.returncode == 0, run.stderr
    values = cluster.settings(verl_command(run.stdout))
    assert values["trainer.total_training_steps"] == "3"
    assert values["algorithm.adv_estimator"] == "grpo"
    for key in ("trainer.default_local_dir", "trainer.rollout_data_dir", "data.train_files"):
        assert Path(values[key]).is_absolute(), "Ray workers run in other folders"
    assert list(tmp_path.iterdir()) == []


@every_launcher
def test_an_unknown_recipe_gets_the_list(launcher: str):
    run = call(launcher, "--dry-run", "personas/run_qwen3_1_7_fsdp")
    assert run.returncode == 2
    assert all(name in run.stderr for name in recipe.names())
    assert "Traceback" not in run.stderr


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
    assert run.returncode == 0, run.stderr
    assert {"trainer.nnodes=4", "trainer.n_gpus_per_node=4"} <= set(verl_command(run.stdout))
    if launcher != KUBERAY:
        assert run.stdout.count("worker on") == 3
        assert run.stdout.count("--num-gpus=4") == 4


@pytest.mark.parametrize("launcher", [RAY, KUBERAY, SKY])
def test_a_late_dry_run_starts_nothing(launcher: str):
    assert call(launcher, MEGATRON, "--dry-run", RAY_ADDRESS="http://127.0.0.1:1").returncode == 2


@pytest.mark.parametrize(
    ("launcher", "arguments", "variables"),
    [
        (SLURM, ["--dry-run", "--nodes", "2", MEGATRON], {}),
        (SLURM, ["--dry-run", "--nodes=2-4", MEGATRON], {}),
        (SLURM, ["--dry-run", "--nodes=2", MEGATRON], {"NGPUS_PER_NODE": "16"}),
        (SLURM, [MEGATRON], {}),
        (SLURM, [], {}),
        (RAY, [MEGATRON], {}),
        (SKY, ["--dry-run", "--gpus", "H100:x", MEGATRON], {}),
        (SKY, ["--dry-run", "--nodes", "0", MEGATRON], {}),
        (KUBERAY, ["--dry-run", "--rdma", "rdma/ib", MEGATRON], {}),
        ("run_on_cluster.py", ["--dry-run", MEGATRON], {"NNODES": "two"}),
        ("run_on_cluster.py", ["--dry-run", MEGATRON], {"JOIN_LIMIT": "5m"}),
        ("run_on_cluster.py", ["--dry-run", MEGATRON], {"STALL_LIMIT": "-1"}),
        ("run_on_cluster.py", ["--dry-run", MEGATRON], {"ARGUMENTS": "a"}),
    ],
)
def test_bad_input_is_an_error_without_traceback(launcher: str, arguments: list[str], variables: dict[str, str]):
    run = call(launcher, *arguments, **variables)
    assert run.returncode in (2, cluster.UNAVAILABLE)
    assert run.stderr
    assert "Traceback" not in run.stderr


def test_ray_job_sends_what_the_recipe_reads():
    run = call(RAY, "--dry-run", MEGATRON, "a='b $c'", NNODES="4", TP="2", UNRELATED="1", DIRECTORY="/mnt/shared")
    words = shlex.split(run.stdout.splitlines()[0])
    assert words[words.index("--") + 1 :] == ["python3", "recipes/launch/run_on_cluster.py"]
    sent = json.loads(words[words.index("--runtime-env-json") + 1])["env_vars"]
    assert json.loads(sent.pop("ARGUMENTS")) == ["a='b $c'"]
    assert sent == {"RECIPE": MEGATRON, "NNODES": "4", "TP": "2", "DIRECTORY": "/mnt/shared"}
    values = cluster.settings(verl_command(run.stdout))
    assert values["trainer.nnodes"] == "4"
    assert values["trainer.default_local_dir"].startswith("/mnt/shared/runs/")


def test_skypilot_gets_the_token_as_a_secret():
    run = call(SKY, "--dry-run", MEGATRON, HF_TOKEN="hf_secret")
    assert "--secret HF_TOKEN" in run.stdout
    assert "hf_secret" not in run.stdout


def test_many_nodes_without_a_model_folder_are_warned(tmp_path: Path):
    (tmp_path / "model").mkdir()
    run = call("run_on_cluster.py", "--dry-run", MEGATRON, cwd=tmp_path, NNODES="4")
    assert "MODEL_PATH" in run.stderr
    run = call("run_on_cluster.py", "--dry-run", MEGATRON, cwd=tmp_path, NNODES="4", MODEL_PATH="model")
    assert "MODEL_PATH" not in run.stderr
    assert f"actor_rollout_ref.model.path={tmp_path / 'model'}" in verl_command(run.stdout)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shell_is_clean():
    files = [LAUNCH / name for name in ("node.sh", "install.sh", RAY, SLURM, "slurm/worker.sh")]
    run = subprocess.run(["shellcheck", *map(str, files)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


# ----------------------------------------------------------------------------------------------- size and waiting


def test_the_size_is_what_ray_has():
    nodes = {"x": ("192.0.2.1", 8), "y": ("192.0.2.2", 8)}
    assert cluster_nodes.run_size(nodes, {}) == {"NNODES": "2", "NGPUS_PER_NODE": "8"}
    assert cluster_nodes.run_size(nodes, {"NGPUS_PER_NODE": "4"})["NGPUS_PER_NODE"] == "4"
    assert cluster_nodes.run_size(nodes, {"JUDGE": "some/model"})["NNODES"] == "1"
    for bad in ({"JUDGE": "some/model", "JUDGE_NNODES": "2"}, {"NGPUS_PER_NODE": "9"}):
        with pytest.raises(cluster_nodes.ClusterError):
            cluster_nodes.run_size(nodes, bad)
    with pytest.raises(cluster_nodes.ClusterError, match="different numbers of GPUs"):
        cluster_nodes.run_size({**nodes, "z": ("192.0.2.3", 4)}, {})


def test_waiting_ends_with_the_names_of_missing_nodes():
    names = {"192.0.2.1": "alpha", "192.0.2.2": "beta", "192.0.2.3": "gamma"}

    def poll(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        return {"x": ("192.0.2.1", 8)}

    with pytest.raises(cluster_nodes.ClusterError, match=r"1 of 3 .* missing: beta \(192.0.2.2\), gamma"):
        cluster_nodes.wait_for_nodes(poll, 3, names, limit=0.5, stopped=lambda: False)


def test_without_a_number_waiting_ends_when_no_more_nodes_join():
    reports = iter([{}, {"x": ("a", 1)}, None, {"x": ("a", 1), "y": ("b", 1)}])

    def poll(timeout: float) -> cluster_nodes.Nodes | None:
        time.sleep(0.05)
        return next(reports, None)

    found = cluster_nodes.wait_for_nodes(poll, None, {}, limit=10, stopped=lambda: False, settle=0.4)
    assert set(found) == {"x", "y"}


# -------------------------------------------------------------------------------------------------- supervision

BOTH = {"x": ("192.0.2.1", 1), "y": ("192.0.2.2", 1)}
ONE = {"x": ("192.0.2.1", 1)}


def supervise(script: str, poll=None, received: list[int] | None = None, needed: int = 2, grace: float = 1.0, **more):
    def both(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        return BOTH

    return cluster.supervise(
        ["bash", "-c", script], os.environ, BOTH, poll or both, {}, received or [], needed, grace, **more
    )


def test_the_status_is_the_runs():
    assert supervise("exit 0") == 0
    assert supervise("exit 3", grace=0.2) == 3
    assert supervise("kill -KILL $$", grace=0.2) == 137


def test_a_lost_node_ends_a_run_that_hangs(capsys: pytest.CaptureFixture[str]):
    started = time.monotonic()
    assert supervise("sleep 100", lambda timeout: ONE) == cluster.RETRY
    assert time.monotonic() - started < 30
    assert "lost 192.0.2.2" in capsys.readouterr().err


def test_a_node_that_the_run_missed_before_ray_is_found_afterwards():
    failed = time.monotonic() + 1

    def poll(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        return BOTH if time.monotonic() < failed else ONE

    assert supervise("exit 1", poll, grace=10.0) == cluster.RETRY


def test_a_lost_spare_node_and_a_run_that_ended_well_are_no_failure():
    assert supervise("sleep 0.5", lambda timeout: ONE, needed=1) == 0
    assert supervise("sleep 0.5", lambda timeout: ONE, grace=20.0) == 0


def test_a_lost_head_ends_the_run():
    def poll(timeout: float) -> cluster_nodes.Nodes:
        raise cluster_nodes.ClusterError("Ray's head is gone")

    assert supervise("sleep 100", poll) == cluster.RETRY


def test_a_run_without_progress_is_ended_to_be_started_again(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    key = "ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH"
    values = {key: str(file), "trainer.logger": '["console","file"]'}
    check = cluster.stall_check(values, 1)
    assert supervise(f"for i in 1 2 3 4 5 6 7; do touch {file}; sleep 0.4; done", stalled=check) == 0
    started = time.monotonic()
    assert supervise("sleep 100", stalled=cluster.stall_check(values, 1)) == cluster.RETRY
    assert time.monotonic() - started < 30
    assert not cluster.stall_check(values, 0)(), "0: never"
    old = time.time() - 100
    os.utime(file, (old, old))
    assert not cluster.stall_check(values, 60)(), "a file of an earlier start"
    assert not cluster.stall_check({**values, "trainer.logger": '["console"]'}, 1)(), "no file, no evidence"


def test_a_signal_reaches_the_whole_run(tmp_path: Path):
    received: list[int] = []
    # A shell that waits for a child, as recipes/_common.sh does, forwards no signal by itself.
    child = f"trap 'touch {tmp_path}/signalled; exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done"

    def poll(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        if (tmp_path / "up").exists():
            received.append(signal.SIGTERM)
        return BOTH

    status = cluster.supervise(
        ["bash", "-c", f"bash -c {shlex.quote(child)}; true"], os.environ, BOTH, poll, {}, received, 2, 20.0
    )
    assert status == 128 + signal.SIGTERM
    assert (tmp_path / "signalled").exists()


# ------------------------------------------------------------------------------------------------------- node.sh


@pytest.fixture
def listener():
    """A port that accepts connections, in place of the head's Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def node(
    role: str, port: int, tmp_path: Path, ray: str = "exit 1", before: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """node.sh with a `ray` that runs `ray` and, in the same shell before it, `before`."""
    (tmp_path / "ray").write_text(f"#!/usr/bin/env bash\n{ray}\n")
    (tmp_path / "ray").chmod(0o755)
    values = {"NODES": "alpha=127.0.0.1,beta=127.0.0.3", "NODE_ADDRESS": "127.0.0.3", "NODE_GPUS": "1"}
    values |= {"RAY_PORT": str(port), "JOIN_LIMIT": "2", **variables}
    values = environment(**values)
    values["PATH"] = f"{tmp_path}:{values['PATH']}"
    script = f"{before}\nexec bash {LAUNCH}/node.sh {role} personas/run_qwen3_1_7b_fsdp"
    return subprocess.run(["bash", "-c", script], env=values, capture_output=True, text=True, timeout=60, check=False)


def test_a_worker_waits_for_its_head_with_a_limit(tmp_path: Path, free_port: int):
    run = node("worker", free_port, tmp_path)
    assert run.returncode == 69
    assert "the head, alpha=127.0.0.1, did not answer" in run.stderr


def test_a_worker_that_loses_ray_is_lost(tmp_path: Path, listener: socket.socket):
    assert node("worker", listener.getsockname()[1], tmp_path).returncode == 75


def test_a_worker_ends_well_after_its_head(tmp_path: Path, listener: socket.socket):
    threading.Timer(2, lambda: listener.shutdown(socket.SHUT_RDWR)).start()
    assert node("worker", listener.getsockname()[1], tmp_path, "sleep 4; exit 1").returncode == 0


def test_a_head_that_cannot_start_ray_ends(tmp_path: Path, listener: socket.socket, free_port: int):
    run = node("head", free_port, tmp_path, "echo no such thing; exit 1")
    assert run.returncode == 69
    assert "no such thing" in run.stdout
    assert node("head", listener.getsockname()[1], tmp_path).returncode == 69, "the port is taken"


def test_verl_sees_one_list_of_gpus(tmp_path: Path, listener: socket.socket):
    """verl rejects ROCR_VISIBLE_DEVICES beside the other vendors' variables, and Slurm sets both."""
    ray, port = 'echo "$CUDA_VISIBLE_DEVICES ${ROCR_VISIBLE_DEVICES-none}"', listener.getsockname()[1]
    run = node("worker", port, tmp_path, ray, CUDA_VISIBLE_DEVICES="0,1", ROCR_VISIBLE_DEVICES="0,1")
    assert run.stdout == "0,1 none\n"
    assert node("worker", port, tmp_path, ray, ROCR_VISIBLE_DEVICES="0,1").stdout == " 0,1\n"


def test_ray_gets_the_hard_limits_of_files_and_locked_memory(tmp_path: Path, listener: socket.socket):
    port = listener.getsockname()[1]
    run = node(
        "worker", port, tmp_path, "ulimit -S -n; ulimit -S -l", "ulimit -S -n 256; ulimit -H -n 2048; ulimit -l 64"
    )
    assert run.stdout.splitlines() == ["2048", "64"]
    assert "2048 open files" in run.stderr
    assert "64 KiB of locked memory" in run.stderr


# ------------------------------------------------------------------------------------------------------- the docs


def documented() -> list[str]:
    skip = ("scancel ", "scontrol ", "verl-pgrpo ", "docker ", "timeout ", "hf ", "patch ", "kubectl ")
    return [line for line in commands_of(ROOT / "docs" / "multinode.md") if not line.startswith(skip)]


@pytest.mark.slow
@pytest.mark.parametrize("line", documented())
def test_a_documented_command_launches(line: str):
    words = shlex.split(line, comments=True)
    count = next(index for index, word in enumerate(words) if "=" not in word or word.startswith("-"))
    variables, words = dict(word.split("=", 1) for word in words[:count]), words[count:]
    if words[0] == "sbatch":
        at = next(index for index, word in enumerate(words) if word.endswith(".sbatch"))
        words = ["bash", words[at], *words[1:at], *words[at + 1 :]]
    launcher = words[1].removeprefix("recipes/launch/")
    if launcher in LAUNCHERS:
        run = call(launcher, "--dry-run", *(word for word in words[2:] if word != "--dry-run"), **variables)
        assert run.returncode == 0, run.stderr
        command = verl_command(run.stdout)
    else:
        command = recipe.record(words[1], words[2:], environment(**variables))
    pytest.importorskip("verl")
    assert broken_rules(composed(command[1:])) <= {"idle pipeline"}
