# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The launchers on clusters of two nodes, which are two loopback addresses of this machine: P-GRPO on both with real
verl and vLLM on the CPU, interrupted and resumed. `make test-clusters`."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.cpu.support import free_port
from tests.e2e import loopback, runs, slurm
from tests.e2e.loopback import Loopback
from verl_pgrpo import GroupHistoryManager, PGRPOConfig

pytestmark = pytest.mark.clusters

LAUNCH = ROOT / "recipes" / "launch"
RECIPE = "personas/run_tiny_cpu"
FIRST, SECOND = "127.0.0.2", "127.0.0.3"  # Ray would replace 127.0.0.1 by this machine's outer address
STEPS = 10
PATIENCE = 900.0  # seconds until a run reaches what a test waits for


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Persona data and a tiny model, as the recipe expects them in DATA_DIR."""
    folder = tmp_path_factory.mktemp("data")
    runs.prepare(folder, rows=1024, noise=0.2)
    return folder


@pytest.fixture
def network() -> Iterator[Loopback]:
    if (reason := loopback.why_not()) is not None:
        pytest.skip(reason)
    with Loopback() as network:
        yield network


def machine() -> dict[str, str]:
    """The environment of a machine on which verl and this package are installed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def environment(data: Path, folder: Path, **values: str) -> dict[str, str]:
    """The environment of a user who starts the recipe; logs and checkpoints go to `folder`."""
    paths = {"DATA_DIR": str(data), "RUN_DIR": str(folder), "STEPS": str(STEPS), "TIMEOUT": "900"}
    return {**machine(), **paths, **values}


def spawn(path: Path, command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> subprocess.Popen[bytes]:
    """Start a command whose output goes to this file."""
    with open(path, "ab") as log:
        return subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=subprocess.STDOUT)


def until(condition: Callable[[], object], goes_on: Callable[[], bool], log: Path, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        text = log.read_text(errors="replace")[-5000:] if log.exists() else ""
        assert goes_on(), f"it ended too early:\n{text}"
        assert time.monotonic() < deadline, f"nothing for {seconds:.0f} s:\n{text}"
        time.sleep(0.2)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("rollouts/*.jsonl"))


def saved(folder: Path) -> bool:
    """Whether there is a checkpoint and a later step."""
    tracker = folder / "checkpoints" / "latest_checkpointed_iteration.txt"
    return tracker.exists() and max(steps(folder), default=0) > int(tracker.read_text() or 99)


def history_to(folder: Path, steps: int) -> GroupHistoryManager:
    history = GroupHistoryManager(PGRPOConfig())
    runs.replay(history, folder, range(1, steps + 1))
    return history


def assert_resumed(folder: Path, at: int, before: GroupHistoryManager) -> None:
    """Check that the run continued from the checkpoint at step `at`, and recompute its final history bit for bit.

    `before` is the history at that checkpoint, recomputed before later steps were repeated.
    """
    runs.assert_same(before, runs.history_of(folder, at))
    runs.replay(before, folder, range(at + 1, STEPS + 1))
    runs.assert_same(before, runs.history_of(folder, STEPS))
    assert before.total_count == STEPS * 64
    assert (folder / "metrics.jsonl").exists()
    first = (folder / "metrics_2.jsonl").read_text().partition("\n")[0]
    assert first.startswith(f'{{"step":{at + 1},'), "each start has a file of its own"
    for rank in (0, 1):
        assert list((folder / "checkpoints" / f"global_step_{STEPS}" / "actor").glob(f"model_*_rank_{rank}.pt"))


def test_slurm_job_trains_is_cancelled_and_requeued_and_resumes(network: Loopback, data: Path, tmp_path: Path):
    if (reason := slurm.why_not()) is not None:
        pytest.skip(reason)
    script = str((LAUNCH / "slurm" / "pgrpo.sbatch").relative_to(ROOT))
    folder = tmp_path / "run"
    with slurm.Slurm(tmp_path / "slurm", network) as cluster:
        values = environment(data, folder, SLURM_CONF=cluster.environment["SLURM_CONF"])

        def submit(*arguments: str) -> tuple[str, Path]:
            sbatch = ["sbatch", "--parsable", "--nodes=2", "--gpus-per-node=1", f"--output={tmp_path}/%x-%j.log"]
            command = network.inside(*sbatch, script, *arguments)
            run = subprocess.run(command, cwd=ROOT, env=values, capture_output=True, text=True, check=True)
            return run.stdout.strip(), tmp_path / f"pgrpo-{run.stdout.strip()}.log"

        def state(job: str) -> str:
            return cluster.job(job)["JobState"]

        # A dry run within a job uses Slurm's numbers.
        job, log = submit("--dry-run", RECIPE)
        cluster.wait(lambda: state(job) == "COMPLETED", 60)
        assert f"worker on {SECOND}" in log.read_text()
        assert "trainer.nnodes=2" in log.read_text()
        assert not folder.exists()
        # The job's status is the run's, and an unknown recipe trains nothing.
        job, log = submit("personas/run_nothing")
        cluster.wait(lambda: state(job) == "FAILED", 60)
        assert cluster.job(job)["ExitCode"] == "2:0"
        assert "The recipes are:" in log.read_text()

        job, log = submit(RECIPE, "trainer.save_freq=2")
        until(lambda: saved(folder), lambda: state(job) in ("PENDING", "RUNNING"), log)
        cluster.call("scancel", job, check=True)
        cluster.wait(lambda: state(job) == "CANCELLED", 120)
        at, _ = runs.settle(folder)
        assert at < STEPS, "cancelled too late to see it resume"
        before = history_to(folder, at)
        assert "RUNNING" not in cluster.call("squeue", "--noheader", "--format=%T")

        cluster.call("scontrol", "requeue", job, check=True)
        cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now", check=True)  # Slurm would wait two minutes
        until(lambda: state(job) == "COMPLETED", lambda: state(job) not in ("FAILED", "CANCELLED"), log)
        assert cluster.job(job)["ExitCode"] == "0:0"
        text = log.read_text(errors="replace")
    assert f"start 1: {RECIPE} on first={FIRST},second={SECOND}, 1 GPUs each" in text
    assert "start 2:" in text, "one log for all starts"
    assert "the run ended with status 0" in text
    assert_resumed(folder, at, before)


def test_slurm_starts_again_by_itself_at_the_time_limit_and_after_a_lost_node(network: Loopback, tmp_path: Path):
    """Without verl: a program that replaces a node prints how often it was started, and ends on SIGTERM."""
    if (reason := slurm.why_not()) is not None:
        pytest.skip(reason)
    (tmp_path / "recipes" / "launch" / "slurm").mkdir(parents=True)
    (tmp_path / "recipes" / "launch" / "slurm" / "worker.sh").write_text("exec sleep 1000\n")
    (tmp_path / "recipes" / "launch" / "node.sh").write_text(
        'echo "run $1 ${SLURM_RESTART_COUNT:-0}"\n'
        'case "${SLURM_RESTART_COUNT:-0}" in\n'
        "0) trap 'echo terminated; exit 143' TERM; while :; do sleep 0.2; done ;;\n"
        "1) exit 75 ;;\n"
        "2) exit 75 ;;\n"
        "esac\n"
    )
    with slurm.Slurm(tmp_path / "slurm", network) as cluster:
        sbatch = ["sbatch", "--parsable", "--nodes=2", "--gpus-per-node=1", f"--output={tmp_path}/log"]
        script = LAUNCH / "slurm" / "pgrpo.sbatch"
        job = cluster.call(*sbatch, str(script), RECIPE, REPOSITORY=str(tmp_path), MAX_RESTARTS="2").strip()
        log = tmp_path / "log"
        cluster.wait(lambda: log.exists() and "run head 0" in log.read_text(), 60)
        # Slurm does this 180 s before the limit, because of the script's --signal.
        cluster.call("scancel", "--batch", "--signal=USR1", job, check=True)
        for start in (1, 2):
            cluster.wait(lambda: cluster.job(job)["JobState"] == "PENDING", 60)
            cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now", check=True)
            cluster.wait(lambda start=start: f"run head {start}" in log.read_text(), 60)
        cluster.wait(lambda: cluster.job(job)["JobState"] == "FAILED", 60)
        assert cluster.job(job)["ExitCode"] == "75:0"
    text = log.read_text()
    assert "terminated" in text
    assert "the job's time limit is near: requeued" in text
    assert text.count("a node was lost or the run stalled: requeued") == 1
    assert "the job has already been restarted 2 times" in text


class Ray:
    """An existing Ray cluster: a head with a dashboard, and a second node that can leave and rejoin."""

    def __init__(self, folder: Path, network: Loopback) -> None:
        self.folder = folder
        self.network = network
        self.port, self.dashboard = free_port(), free_port()
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        # As on another machine: with a shared folder, each node would remove the other's files of a job.
        self.second_folder = tempfile.mkdtemp(prefix="vp-second-", dir="/tmp")

    def start(self, address: str) -> None:
        if address == FIRST:
            how = ["--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}"]
            how.append(f"--ray-client-server-port={free_port()}")
        else:
            how = [f"--address={FIRST}:{self.port}", f"--temp-dir={self.second_folder}"]
        command = [sys.executable, str(LAUNCH / "cpu_ray.py"), "start", "--block", f"--node-ip-address={address}"]
        path = self.folder / f"ray-{address}.log"
        command = self.network.inside(*command, "--num-cpus=16", "--num-gpus=1", *how)
        self.nodes[address] = spawn(path, command, {**machine(), **self.token})
        until(
            lambda: b"Ray runtime started" in path.read_bytes(), lambda: self.nodes[address].poll() is None, path, 120
        )

    def kill(self, address: str) -> None:
        """Simulate a machine failure: its raylet disappears without notice."""
        family = psutil.Process(self.nodes[address].pid).children(recursive=True)
        (raylet,) = (process for process in family if process.name() == "raylet")
        raylet.kill()
        self.nodes[address].wait(timeout=120)

    def stop(self) -> None:
        for node in reversed(self.nodes.values()):
            node.terminate()
        for node in self.nodes.values():
            node.wait(timeout=60)
        shutil.rmtree(self.second_folder)

    def submit(self, data: Path, folder: Path, name: str) -> subprocess.Popen[bytes]:
        values = {"RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}", "NNODES": "2", **self.token}
        command = self.network.inside("bash", str(LAUNCH / "ray_job.sh"), RECIPE, "trainer.save_freq=2")
        return spawn(self.folder / name, command, environment(data, folder, **values), self.folder)


@pytest.fixture
def ray(network: Loopback, tmp_path: Path) -> Iterator[Ray]:
    cluster = Ray(tmp_path, network)
    try:
        cluster.start(FIRST)
        cluster.start(SECOND)
        yield cluster
    finally:
        cluster.stop()


def test_ray_job_over_two_nodes_ends_clearly_with_one_and_resumes(ray: Ray, data: Path, tmp_path: Path):
    folder = tmp_path / "run"
    first = ray.submit(data, folder, "first.log")
    until(lambda: saved(folder), lambda: first.poll() is None, tmp_path / "first.log")
    ray.kill(SECOND)
    killed = time.monotonic()
    assert first.wait(timeout=180) == 1
    assert time.monotonic() - killed < 150
    log = (tmp_path / "first.log").read_text(errors="replace")
    assert f"lost {SECOND}: the run cannot continue" in log
    assert "Starting it again resumes from its last checkpoint" in log
    at, _ = runs.settle(folder)
    assert at < STEPS, "killed too late to see it resume"
    before = history_to(folder, at)

    # Submitted before the node is back: the job waits for it.
    second = ray.submit(data, folder, "second.log")
    log = tmp_path / "second.log"
    until(lambda: "1 of 2 nodes" in log.read_text(errors="replace"), lambda: second.poll() is None, log)
    ray.start(SECOND)
    until(lambda: second.poll() is not None, lambda: True, log)
    assert second.returncode == 0, log.read_text(errors="replace")[-5000:]
    assert "2 of 2 nodes" in log.read_text(errors="replace")
    assert_resumed(folder, at, before)


def test_what_skypilot_runs_trains_over_two_machines(network: Loopback, data: Path, tmp_path: Path):
    """The task's `run`, as SkyPilot starts it on each of two machines."""
    sys.path.insert(0, str(LAUNCH / "sky"))
    import launch

    storage = tmp_path / "storage"
    (storage / "data").mkdir(parents=True)
    (storage / "data" / "personas").symlink_to(data)
    port = 6379 + os.getpid() % 3000  # another test's Ray may be on the default one
    values = {"STORAGE": str(storage), "RAY_PORT": str(port), "STEPS": "2", "NODE_CPUS": "16"}
    machines = []
    for rank in (1, 0):
        command, variables = launch.run_block(RECIPE, ["trainer.save_freq=2"], [FIRST, SECOND], 1, rank)
        variables = {**variables, **environment(data, tmp_path), **values}
        del variables["RUN_DIR"], variables["DATA_DIR"]  # the defaults, below the storage
        machines.append(spawn(tmp_path / f"{rank}.log", network.inside(*command), variables))
    worker, head = machines
    try:
        until(lambda: head.poll() is not None, lambda: worker.poll() is None or head.poll() == 0, tmp_path / "0.log")
        assert head.returncode == 0, (tmp_path / "0.log").read_text(errors="replace")[-5000:]
        assert worker.wait(timeout=120) == 0
    finally:
        for machine in machines:
            machine.terminate()
            machine.wait(timeout=60)
    assert "the head has ended" in (tmp_path / "1.log").read_text(errors="replace")
    folder = storage / "runs" / "personas_tiny" / "pgrpo-n2-noise0.2-seed0"
    runs.assert_same(history_to(folder, 2), runs.history_of(folder, 2))
