# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The launchers of recipes/launch without a cluster: what `--dry-run` prints, who waits how long for whom, and what
ends with which status. On real clusters: tests/e2e/test_clusters.py."""

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

LAUNCH = ROOT / "recipes" / "launch"
sys.path.insert(0, str(LAUNCH))

import nodes as cluster_nodes  # noqa: E402
import recipe as recipes  # noqa: E402
import run_on_cluster as cluster  # noqa: E402

SLURM, RAY, KUBERAY, SKY = "slurm/pgrpo.sbatch", "ray_job.sh", "kuberay/submit.py", "sky/launch.py"
LAUNCHERS = (SLURM, RAY, KUBERAY, SKY)
RECIPES = ("personas/run_tiny_cpu", "personas/run_qwen3_1_7b_fsdp", "goodreads/run_qwen3_1_7b_fsdp")
MEGATRON = "personas/run_qwen3_32b_megatron"

every_launcher = pytest.mark.parametrize("launcher", LAUNCHERS)


def call(launcher: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """A launcher, with nothing of this process's environment but where to find programs."""
    interpreter = sys.executable if launcher.endswith(".py") else "bash"
    return subprocess.run(
        [interpreter, str(LAUNCH / launcher), *arguments],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def main_ppo_of(text: str) -> list[str]:
    """verl's arguments in what a dry run printed: the last command, over several lines."""
    lines = [line.removeprefix("#").strip() for line in text.splitlines()]
    first = max(index for index, line in enumerate(lines) if line == "python3 \\")
    words = []
    for line in lines[first:]:
        words += shlex.split(line.removesuffix("\\"))
        if not line.endswith("\\"):
            return words
    raise AssertionError(text)


# ------------------------------------------------------------------------------------------------ by name, dry


def test_every_script_is_a_recipe():
    scripts = {str(path.relative_to(ROOT / "recipes").with_suffix("")) for path in ROOT.glob("recipes/*/run_*.sh")}
    assert set(recipes.known()) == scripts
    assert recipes.script("recipes/personas/run_tiny_cpu.sh") == ROOT / "recipes" / "personas" / "run_tiny_cpu.sh"


@every_launcher
@pytest.mark.parametrize("name", RECIPES)
def test_dry_run_prints_what_would_run_and_touches_nothing(launcher: str, name: str, tmp_path: Path):
    run = call(launcher, "--dry-run", name, "trainer.total_training_steps=3", cwd=tmp_path, ESTIMATOR="grpo")
    assert run.returncode == 0, run.stderr
    command = main_ppo_of(run.stdout)
    assert "verl.trainer.main_ppo" in command or "verl_cpu.run" in command
    assert "trainer.total_training_steps=3" in command
    assert "algorithm.adv_estimator=grpo" in command
    # The last word for a key counts.
    last = dict(word.split("=", 1) for word in command if "=" in word)
    paths = [last[key] for key in ("trainer.default_local_dir", "trainer.rollout_data_dir", "data.train_files")]
    assert all(Path(path).is_absolute() for path in paths), "a Ray worker may be anywhere"
    assert name in run.stdout
    assert list(tmp_path.iterdir()) == []


@every_launcher
def test_unknown_recipe_gets_the_list(launcher: str):
    run = call(launcher, "--dry-run", "personas/run_qwen3_1_7_fsdp")
    assert run.returncode == 2
    assert "Did you mean personas/run_qwen3_1_7b_fsdp?" in run.stderr
    assert all(name in run.stderr for name in recipes.known())
    assert "Traceback" not in run.stderr


NODES = {
    SLURM: ["--nodes=4", "--gpus-per-node=4"],
    KUBERAY: ["--nodes", "4", "--gpus-per-node", "4"],
    SKY: ["--nodes", "4", "--gpus", "H100:4"],
}


@pytest.mark.parametrize("launcher", NODES)
def test_nodes_and_gpus_are_said_once(launcher: str):
    run = call(launcher, "--dry-run", *NODES[launcher], MEGATRON)
    assert run.returncode == 0, run.stderr
    command = main_ppo_of(run.stdout)
    assert {"trainer.nnodes=4", "trainer.n_gpus_per_node=4"} <= set(command)
    if launcher != KUBERAY:
        assert run.stdout.count("worker on") == 3
        assert run.stdout.count("--num-gpus=4") == 4


@pytest.mark.parametrize("launcher", [RAY, KUBERAY, SKY])
def test_a_dry_run_asked_for_too_late_starts_nothing(launcher: str):
    run = call(launcher, MEGATRON, "--dry-run", RAY_ADDRESS="http://127.0.0.1:1")
    assert run.returncode == 2
    assert "--dry-run goes before the recipe's name" in run.stderr


def test_pods_are_counted_and_not_what_was_meant_for_another_launcher():
    run = call(KUBERAY, "--dry-run", "--nodes", "4", MEGATRON, NNODES="2")
    assert "trainer.nnodes=4" in main_ppo_of(run.stdout)
    assert "NNODES\n" not in run.stdout.replace("#   NNODES", "")


@pytest.mark.parametrize(
    ("launcher", "arguments", "variables", "said"),
    [
        (SLURM, ["--nodes", "2"], {}, "--name=value"),
        (SLURM, ["-N2"], {}, "--name=value"),
        (SLURM, ["--nodes=2-4"], {}, "one number of nodes"),
        (SLURM, ["--nodes=2"], {"NGPUS_PER_NODE": "16"}, "a node has 8 GPUs"),
        (SKY, ["--gpus", "H100:x"], {}, "invalid accelerators value"),
        (SKY, ["--nodes", "0"], {}, "invalid number value"),
    ],
)
def test_sizes_that_are_none(launcher: str, arguments: list[str], variables: dict[str, str], said: str):
    run = call(launcher, "--dry-run", *arguments, MEGATRON, **variables)
    assert run.returncode in (2, cluster.UNAVAILABLE)
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_slurm_gpus_may_be_of_a_kind():
    run = call(SLURM, "--dry-run", "--nodes=2", "--gpus-per-node=h100:4", MEGATRON)
    assert {"trainer.nnodes=2", "trainer.n_gpus_per_node=4"} <= set(main_ppo_of(run.stdout))


def test_ray_job_travels_with_what_the_recipe_reads():
    run = call(RAY, "--dry-run", MEGATRON, "a='b $c'", NNODES="4", TP="2", UNRELATED="1", DIRECTORY="/mnt/shared")
    assert run.returncode == 0, run.stderr
    words = shlex.split(run.stdout.splitlines()[0])
    assert words[:3] == ["ray", "job", "submit"]
    assert words[words.index("--") + 1 :] == ["python3", "recipes/launch/run_on_cluster.py"]
    sent = json.loads(words[words.index("--runtime-env-json") + 1])["env_vars"]
    assert json.loads(sent.pop("ARGUMENTS")) == ["a='b $c'"]
    assert sent == {"RECIPE": MEGATRON, "NNODES": "4", "TP": "2", "DIRECTORY": "/mnt/shared"}
    command = main_ppo_of(run.stdout)
    assert "trainer.nnodes=4" in command
    assert any(word.startswith("trainer.default_local_dir=/mnt/shared/runs/") for word in command)


def test_ray_job_says_how_many_nodes_for_every_recipe():
    """Also for one that takes NNODES from nowhere."""
    run = call(RAY, "--dry-run", "personas/run_tiny_cpu", NNODES="4")
    words = shlex.split(run.stdout.splitlines()[0])
    assert json.loads(words[words.index("--runtime-env-json") + 1])["env_vars"]["NNODES"] == "4"
    assert "trainer.nnodes=4" in main_ppo_of(run.stdout)


def test_ray_job_without_a_cluster_says_how():
    run = call(RAY, MEGATRON)
    assert run.returncode == 2
    assert "RAY_ADDRESS=http://<head>:8265" in run.stderr


def test_slurm_script_is_for_sbatch():
    run = call(SLURM, MEGATRON)
    assert run.returncode == 2
    assert "submit it: sbatch" in run.stderr
    assert "which recipe?" in call(SLURM).stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shell_is_clean():
    files = [LAUNCH / "node.sh", LAUNCH / RAY, LAUNCH / SLURM, LAUNCH / "slurm" / "worker.sh"]
    run = subprocess.run(["shellcheck", *map(str, files)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


# ------------------------------------------------------------------------------------------------ counting


def test_shape_is_what_ray_has():
    nodes = {"x": ("192.0.2.1", 8), "y": ("192.0.2.2", 8)}
    assert cluster_nodes.shape(nodes, {}) == {"NNODES": "2", "NGPUS_PER_NODE": "8"}
    assert cluster_nodes.shape(nodes, {"NGPUS_PER_NODE": "4"})["NGPUS_PER_NODE"] == "4"
    # A judge's nodes come on top of the run's: recipes/_method.sh.
    assert cluster_nodes.shape(nodes, {"JUDGE": "some/model"})["NNODES"] == "1"
    with pytest.raises(cluster_nodes.ClusterError, match="leave none to train on"):
        cluster_nodes.shape(nodes, {"JUDGE": "some/model", "JUDGE_NNODES": "2"})
    with pytest.raises(cluster_nodes.ClusterError, match="different numbers of GPUs"):
        cluster_nodes.shape({**nodes, "z": ("192.0.2.3", 4)}, {})
    with pytest.raises(cluster_nodes.ClusterError, match="NGPUS_PER_NODE=9"):
        cluster_nodes.shape(nodes, {"NGPUS_PER_NODE": "9"})


@pytest.mark.parametrize(
    ("key", "value"), [("NNODES", "two"), ("NNODES", "0"), ("JOIN_LIMIT", "5m"), ("ARGUMENTS", "a")]
)
def test_a_bad_variable_is_one_line(key: str, value: str):
    run = call("run_on_cluster.py", "--dry-run", MEGATRON, **{key: value})
    assert run.returncode == cluster.UNAVAILABLE
    assert f"{key}={value!r} is not a" in run.stderr
    assert "Traceback" not in run.stderr


def never() -> bool:
    return False


def test_waiting_ends_with_the_names_of_the_missing(capsys: pytest.CaptureFixture[str]):
    def look(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        return {"x": ("192.0.2.1", 8)}

    names = {"192.0.2.1": "alpha", "192.0.2.2": "beta", "192.0.2.3": "gamma"}
    with pytest.raises(cluster_nodes.ClusterError) as error:
        cluster_nodes.wait_for_nodes(look, 3, names, limit=0.5, stopped=never)
    assert "only 1 of 3 nodes with GPUs joined Ray within 0 s; missing: beta (192.0.2.2), gamma (192.0.2.3)" in str(
        error.value
    )
    assert "1 of 3 nodes after 0 s: alpha (192.0.2.1)" in capsys.readouterr().err


def test_waiting_takes_whoever_comes_once_nobody_new_does():
    seen = iter([{}, {"x": ("a", 1)}, None, {"x": ("a", 1), "y": ("b", 1)}])

    def look(timeout: float) -> cluster_nodes.Nodes | None:
        time.sleep(0.05)
        return next(seen, None)

    assert set(cluster_nodes.wait_for_nodes(look, None, {}, limit=10, stopped=never, settle=0.4)) == {"x", "y"}


# ------------------------------------------------------------------------------------------------ watching


def supervised(script: str, look, received: list[int] | None = None, needed: int = 2, grace: float = 5.0) -> int:
    nodes = {"x": ("192.0.2.1", 1), "y": ("192.0.2.2", 1)}
    names = {"192.0.2.2": "beta"}
    return cluster.supervise(
        ["bash", "-c", script],
        dict(os.environ),
        nodes,
        look,
        names,
        [] if received is None else received,
        needed,
        grace,
    )


def both(timeout: float) -> cluster_nodes.Nodes:
    time.sleep(0.05)
    return {"x": ("192.0.2.1", 1), "y": ("192.0.2.2", 1)}


@pytest.mark.parametrize("status", [0, 3])
def test_status_is_the_runs(status: int):
    assert supervised(f"exit {status}", both, grace=0.5) == status
    assert supervised("kill -KILL $$", both, grace=0.5) == 137


def test_a_lost_node_ends_a_run_that_hangs(capsys: pytest.CaptureFixture[str]):
    started = time.monotonic()
    assert supervised("sleep 100", lambda timeout: {"x": ("192.0.2.1", 1)}, grace=1.0) == cluster.LOST
    assert time.monotonic() - started < 10
    said = capsys.readouterr().err
    assert "lost beta (192.0.2.2)" in said
    assert "resumes from its last checkpoint" in said


def test_a_node_that_the_run_missed_before_ray_did_is_named(capsys: pytest.CaptureFixture[str]):
    started = time.monotonic()

    def look(timeout: float) -> cluster_nodes.Nodes:
        return both(timeout) if time.monotonic() - started < 1 else {"x": ("192.0.2.1", 1)}

    assert supervised("exit 1", look) == cluster.LOST
    assert "lost beta (192.0.2.2): the run cannot go on without it" in capsys.readouterr().err


def test_a_lost_node_that_was_to_spare_ends_nothing(capsys: pytest.CaptureFixture[str]):
    assert supervised("sleep 2", lambda timeout: {"x": ("192.0.2.1", 1)}, needed=1, grace=0.1) == 0
    assert "lost beta (192.0.2.2), which the run may not have used" in capsys.readouterr().err


def test_a_run_that_ended_well_beside_a_lost_node_ended_well():
    assert supervised("sleep 0.5", lambda timeout: {"x": ("192.0.2.1", 1)}) == 0


def test_a_head_that_is_gone_ends_the_run():
    def look(timeout: float) -> cluster_nodes.Nodes:
        raise cluster_nodes.ClusterError("Ray's head is gone")

    assert supervised("sleep 100", look, grace=1.0) == cluster.LOST


def test_signal_reaches_the_whole_run(tmp_path: Path):
    received: list[int] = []
    # A shell that waits for its child, as recipes/_common.sh does, passes no signal on by itself.
    child = f"trap 'touch {tmp_path}/told; exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done"

    def look(timeout: float) -> cluster_nodes.Nodes:
        if (tmp_path / "up").exists():
            received.append(signal.SIGTERM)
        return both(timeout)

    assert supervised(f"bash -c {shlex.quote(child)}; true", look, received) == 128 + signal.SIGTERM
    assert (tmp_path / "told").exists()


# ------------------------------------------------------------------------------------------------ node.sh


@pytest.fixture
def listener():
    """A port where somebody answers, as the head's Ray would."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server


def node(role: str, port: int, *path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join([*map(str, path), str(Path(sys.executable).parent), os.environ["PATH"]])
    values = {"NODES": "alpha=127.0.0.1,beta=127.0.0.3", "NODE_ADDRESS": "127.0.0.3", "NODE_GPUS": "1"}
    values |= {"RAY_PORT": str(port), "JOIN_LIMIT": "2", "PATH": search}
    return subprocess.run(
        ["bash", str(LAUNCH / "node.sh"), role, "personas/run_qwen3_1_7b_fsdp"],
        env={**values, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ray_that(folder: Path, does: str) -> Path:
    (folder / "ray").write_text(f"#!/usr/bin/env bash\n{does}\n")
    (folder / "ray").chmod(0o755)
    return folder


def test_worker_waits_for_its_head_with_a_limit():
    run = node("worker", free_port())
    assert run.returncode == 69
    assert "the head, alpha=127.0.0.1, did not answer on port" in run.stderr
    assert "within 2 s" in run.stderr


def test_worker_that_is_lost_says_so(tmp_path: Path, listener):
    run = node("worker", listener.getsockname()[1], ray_that(tmp_path, "exit 1"))
    assert run.returncode == 75
    assert "Ray ended on 127.0.0.3 (status 1) while the head goes on" in run.stderr


def test_worker_ends_well_when_its_head_has_ended(tmp_path: Path, listener):
    closes = threading.Timer(2, lambda: listener.shutdown(socket.SHUT_RDWR))
    closes.start()
    run = node("worker", listener.getsockname()[1], ray_that(tmp_path, "sleep 4; exit 1"))
    assert run.returncode == 0, run.stderr
    assert "the head has ended" in run.stdout


def test_head_that_cannot_start_says_so(tmp_path: Path, listener):
    run = node("head", free_port(), ray_that(tmp_path, "echo no such thing; exit 1"))
    assert run.returncode == 69
    assert "no such thing" in run.stdout
    assert "Ray did not start on 127.0.0.1" in run.stderr
    run = node("head", listener.getsockname()[1])
    assert run.returncode == 69
    assert "is taken" in run.stderr


def test_verl_sees_one_list_of_gpus(tmp_path: Path, listener):
    """verl refuses to start a worker with ROCR_VISIBLE_DEVICES beside the others, and Slurm sets both."""
    says = ray_that(tmp_path, 'echo "$CUDA_VISIBLE_DEVICES ${ROCR_VISIBLE_DEVICES-none}"')
    run = node("worker", listener.getsockname()[1], says, CUDA_VISIBLE_DEVICES="0,1", ROCR_VISIBLE_DEVICES="0,1")
    assert run.stdout == "0,1 none\n"
    run = node("worker", listener.getsockname()[1], says, ROCR_VISIBLE_DEVICES="0,1")
    assert run.stdout == " 0,1\n"


def test_node_of_an_unknown_recipe_starts_nothing():
    run = subprocess.run(
        ["bash", str(LAUNCH / "node.sh"), "head", "personas/run_nothing"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "There is no recipe" in run.stderr


# ------------------------------------------------------------------------------------------------ docs/multinode.md


def documented() -> list[str]:
    text = (ROOT / "docs" / "multinode.md").read_text(encoding="utf-8")
    return [line.strip() for line in text.replace("\\\n", "").splitlines() if line.startswith("    ")]


def split(line: str) -> tuple[dict[str, str], list[str]]:
    words = shlex.split(line)
    count = next(index for index, word in enumerate(words) if "=" not in word or word.startswith("-"))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


@pytest.mark.slow
@pytest.mark.parametrize("line", documented())
def test_documented_command_does_what_it_says(line: str, tmp_path: Path):
    variables, words = split(line)
    if words[0] in ("scancel", "scontrol"):
        assert words[-1] == "1234"
        assert f'"{words[0]}", ' + ('"requeue", job' if "requeue" in words else "job") in (
            ROOT / "tests" / "e2e" / "test_clusters.py"
        ).read_text(encoding="utf-8")
        return
    if words[0] == "verl-pgrpo":
        command = [str(Path(sys.executable).with_name("verl-pgrpo")), *words[1:]]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, run.stderr
        assert (tmp_path / "data" / "personas_english" / "train.parquet").exists()
        return
    if words[0] == "sbatch":
        script = next(word for word in words if word.endswith(".sbatch"))
        at = words.index(script)
        words = ["bash", script, *words[1:at], *words[at + 1 :]]
    launcher = words[1].removeprefix("recipes/launch/")
    if launcher in LAUNCHERS:
        options = [word for word in words[2:] if word != "--dry-run"]
        run = call(launcher, "--dry-run", *options, **variables)
        assert run.returncode == 0, run.stderr
        command = main_ppo_of(run.stdout)
    else:
        command = recipes.recorded(words[1], words[2:], {"PATH": os.environ["PATH"], **variables})
    complaints = complaints_about(command)
    assert complaints == [], line


def complaints_about(command: list[str]) -> list[str]:
    """What does not divide or fit in memory, of a run that a dry run printed."""
    pytest.importorskip("verl")
    from verl_pgrpo.launch import Launch, estimate, model_of, problems
    from verl_pgrpo.launch.recorded import composed

    launch = Launch.of(composed(command[1:]))
    model = model_of(launch.model_path)
    return problems(model, launch) or estimate(model, launch).problems()
