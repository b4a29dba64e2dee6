# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The launcher leaves nothing behind, affects no other process or file, and ends a run whose worker died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.cpu.support import wait_for
from verl_cpu import processes, watchdog
from verl_cpu.run import TIMED_OUT, needs_hub

LAUNCH = """
import sys
from verl_cpu import run, watchdog
run.PATIENCE, watchdog.GRACE = 1.0, 1.0
sys.exit(run.supervise([sys.executable, *sys.argv[2:]], timeout=float(sys.argv[1]) or None))
"""

# A run as hard to clean up as Ray: a grandchild in its own session, whose parent has exited, ignores SIGTERM and holds
# a shared memory segment and a socket of the run. Its child has no environment, like Ray's agents, only a log of
# Ray's. Arguments: a file to write, seconds to run.
UNTIDY = """
import os, signal, sys, tempfile, time
from multiprocessing import resource_tracker, shared_memory
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        resource_tracker.register = lambda *args: None
        run, folder = os.environ["VERL_CPU_RUN_ID"], tempfile.gettempdir()
        segment = shared_memory.SharedMemory(f"{run}_1234", create=True, size=100)
        path = f"/tmp/rl-colocate-zmq-{run}-01-replica-0-rank-0.sock"
        open(path, "w").close()
        os.mkdir(os.path.join(folder, "ray"))
        log = open(os.path.join(folder, "ray", "agent.log"), "w")
        agent = os.fork()
        if agent == 0:
            os.dup2(log.fileno(), 1)
            os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(1000)"], {})
        with open(sys.argv[1] + ".part", "w") as facts:
            facts.write(f"/proc/{os.getpid()} /proc/{agent} /dev/shm/{segment.name} {path} {folder}")
        os.rename(sys.argv[1] + ".part", sys.argv[1])
        time.sleep(1000)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
time.sleep(float(sys.argv[2]))
sys.exit(7)
"""


def launch(*command: str, timeout: float = 0.0) -> subprocess.Popen[str]:
    arguments, pipe = [sys.executable, "-c", LAUNCH, str(timeout), *command], subprocess.PIPE
    return subprocess.Popen(arguments, text=True, stdout=pipe, stderr=subprocess.STDOUT)


def start_untidy(facts: Path, seconds: float = 1000, timeout: float = 0.0) -> tuple[subprocess.Popen, list[Path]]:
    """Start such a run; return its launcher, and the paths of its processes and of everything that it created."""
    launcher = launch("-c", UNTIDY, str(facts), str(seconds), timeout=timeout)
    wait_for(facts.exists)
    return launcher, [Path(path) for path in facts.read_text().split()]


def exists(path: Path) -> bool:
    """Whether a file or folder exists, or a process that is no zombie."""
    try:
        return path.exists() and (path.parts[1] != "proc" or psutil.Process(int(path.name)).status() != "zombie")
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("seconds", "timeout", "signals", "status"),
    [
        pytest.param(0.1, 0.0, [], 7, id="exits"),
        pytest.param(1000, 2.0, [], TIMED_OUT, id="times out"),
        pytest.param(1000, 0.0, [signal.SIGINT], 130, id="Ctrl-C"),
        pytest.param(1000, 0.0, [signal.SIGTERM], 143, id="SIGTERM"),
        pytest.param(1000, 0.0, [signal.SIGINT, signal.SIGINT], 130, id="Ctrl-C twice"),
    ],
)
def test_a_run_leaves_nothing_behind_and_touches_nothing_else(tmp_path, seconds, timeout, signals, status):
    foreign = shared_memory.SharedMemory(create=True, size=100)
    other = Path(f"/tmp/rl-colocate-zmq-vother{os.getpid()}-01-replica-0-rank-0.sock")
    other.touch()
    try:
        launcher, paths = start_untidy(tmp_path / "facts", seconds, timeout)
        for number in signals:
            launcher.send_signal(number)
            time.sleep(0.2)
        output, _ = launcher.communicate(timeout=60)
        assert launcher.returncode == status, output
        assert [path for path in paths if exists(path)] == []
        assert other.exists()
        assert (processes.SHARED_MEMORY / foreign.name).exists()
    finally:
        other.unlink()
        foreign.close()
        foreign.unlink()


def test_the_next_launcher_removes_what_a_killed_one_left(tmp_path, monkeypatch, short_tmpdir):
    """Including its processes, but nothing of a run whose launcher is alive."""
    monkeypatch.setenv("TMPDIR", str(short_tmpdir))  # out of sight of the launchers of other tests
    launcher, paths = start_untidy(tmp_path / "facts")
    assert launch("-c", "").wait(timeout=60) == 0
    assert all(map(exists, paths))
    launcher.kill()
    launcher.wait()
    after = launch("-c", "")
    output, _ = after.communicate(timeout=60)
    assert after.returncode == 0
    assert str(paths[-1]) in output
    assert [path for path in paths if exists(path)] == []


def test_folders_of_others_stay(tmp_path):
    """Folders without the launcher's lock file, with a name that is not a run's, or reached by a link."""
    dead, alive = processes.Run.begin(tmp_path), processes.Run.begin(tmp_path)
    os.close(dead.lock)  # as if its launcher had died
    (tmp_path / "vcpu-v0000000").mkdir()
    (tmp_path / "vcpu-v1234567").symlink_to(dead.folder)
    (tmp_path / "vcpu-photos").mkdir()
    (tmp_path / "vcpu-photos" / processes.LOCK).touch()
    others = {"vcpu-v0000000", "vcpu-v1234567", "vcpu-photos"}
    assert processes.end_killed_runs(tmp_path) == [dead.folder]
    assert {path.name for path in tmp_path.iterdir()} == {*others, alive.folder.name}
    alive.end(patience=0.0)
    assert {path.name for path in tmp_path.iterdir()} == others


# A driver, a worker that dies after a second with an error in its log, and a main process that waits for both, like
# verl.
WORKERS = """
import os, subprocess, sys, tempfile, time
def start(title, code):
    return subprocess.Popen([title, "-c", code], executable=sys.executable)
logs = os.path.join(tempfile.gettempdir(), "ray", "session_latest", "logs")
os.makedirs(logs)
driver = start("ray::TaskRunnerV1.run", f"import time; time.sleep({sys.argv[1]})")
worker = start(sys.argv[2], "import time; time.sleep(2)")
with open(os.path.join(logs, f"worker-00-01-{os.getpid()}.err"), "w") as log:  # as vLLM's, in the log of its parent
    for pid, error in (1, "KeyError: 1"), (worker.pid, "ValueError: too small"), (1, "KeyError: 2"):
        for line in "Traceback (most recent call last):", "    raise", error:
            log.write(f"(EngineCore pid={pid}) ERROR {line}\\n")
    log.write(f"(EngineCore pid={worker.pid}) WARNING ignored ImportError: no flash\\n")
worker.wait()
driver.wait()
"""


def test_a_dead_worker_ends_the_run_with_its_error():
    titles = ["VLLM::EngineCore", "ray::WorkerDict.actor_update", "ray::vllm_server_0:vLLMHttpServer"]
    for title, launcher in [(title, launch("-c", WORKERS, "1000", title)) for title in titles]:
        output, _ = launcher.communicate(timeout=120)
        assert launcher.returncode == 1
        last = output.splitlines()[-1]
        assert title in last
        assert last.endswith("ValueError: too small")


def test_ray_may_end_workers_without_work_and_all_may_end_after_the_driver():
    cases = [("6", "ray::IDLE"), ("6", "ray::get_master_addr_port"), ("0", "VLLM::EngineCore")]
    assert [run.wait(timeout=60) for run in [launch("-c", WORKERS, *case) for case in cases]] == [0, 0, 0]


def test_a_model_that_is_no_folder_may_come_from_the_hub(tmp_path):
    local = (
        f"actor_rollout_ref.model.path={tmp_path}",
        f"reward.reward_model.model_path='{tmp_path}'",
        "data.path=a/b",
    )
    assert not needs_hub(local)
    for argument in ("actor_rollout_ref.model.path=org/model", "+reward.reward_model.model_path=org/judge"):
        assert needs_hub([*local, argument])


def watchdog_of(titles: dict[int, str], monkeypatch, folder: Path) -> watchdog.Watchdog:
    """A watchdog of processes with these titles, by pid; 2 has started those after 3."""

    def process(pid: int) -> SimpleNamespace:
        return SimpleNamespace(pid=pid, cmdline=lambda: [titles[pid]], ppid=lambda: 2 if pid > 3 else 1)

    monkeypatch.setattr(watchdog, "processes_of", lambda run_id: map(process, titles))
    return watchdog.Watchdog("v0000000", folder)


def test_the_watchdog_names_the_worker_that_died_and_no_other(monkeypatch, tmp_path):
    """A process that a worker starts has the worker's title until it runs its own program."""
    titles = {2: "ray::TaskRunner.run", 3: "VLLM::EngineCore", 4: "ray::SimpleStorageUnit", 5: "ray::TaskRunner.run"}
    titles[6] = "ray::RewardLoopWorker.compute_score"  # a reward function's process, whose parent is idle again

    dog = watchdog_of(titles, monkeypatch, tmp_path)
    assert dog.look() is None
    for pid in (6, 5, 4, 3):
        del titles[pid]
        assert dog.look() is None
    (tmp_path / processes.ERROR).write_text("  File a\nmodule.Missing: no\nrollouts\n")
    reason = dog.failure()
    assert reason.startswith("VLLM::EngineCore (pid 3) died")
    assert reason.endswith(": module.Missing: no rollouts")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "RayTaskError(Missing): ray::run()\n  File a\nOSError: 2\n\nThe above:\n\n  File a\nm.Missing: 1\n",
            "m.Missing: 1",
        ),
        (
            "RayTaskError(AssertionError): \x1b[36mray::run()\x1b[39m\n  File a\n    assert x\nAssertionError",
            "AssertionError",
        ),
        ("  File a\nValueError: first line\n  hint: a\nnote: more", "ValueError: first line hint: a note: more"),
        ("no traceback\n", "no traceback"),
    ],
)
def test_the_error_that_ended_a_run_is_that_of_the_last_traceback(text, error):
    assert watchdog.raised_error(text) == error


KILLED, LAST = "its log ends without an error, so it may have been killed", "The last error in it:"


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (["Traceback (most recent call last):", "    assert x", "AssertionError"], "AssertionError"),
        (
            ["pid=9) Traceback (most recent call last):", "pid=9)   x", "pid=9) a.Expired: 1", "", "leaked"],
            "a.Expired: 1",
        ),
        (["ignored ImportError: no flash"], KILLED),
        (
            ["Traceback (most recent call last):", "  x", "OSError: handled", *"steps"],
            f"{KILLED}. {LAST} OSError: handled",
        ),
        (["Fatal Python error: Segmentation fault", *["  File a"] * 9], "Fatal Python error: Segmentation fault"),
        (["terminate called after throwing an instance of 'std::bad_alloc'"], None),
    ],
)
def test_a_dead_worker_s_error_is_one_that_ended_a_traceback(monkeypatch, tmp_path, log, error):
    titles = {2: "ray::TaskRunner.run", 3: "ray::WorkerDict"}
    dog = watchdog_of(titles, monkeypatch, tmp_path)
    dog.look()
    write_log(tmp_path, "worker-ab-01-3.err", log)
    del titles[3]
    dog.look()
    assert dog.failure() == f"ray::WorkerDict (pid 3) died: {error or log[0]}"


@pytest.mark.parametrize(
    "line",
    [
        "Executing worker exit: INTENDED_USER_EXIT - Worker exits by an user request",
        "Executing worker exit: INTENDED_SYSTEM_EXIT - all references to the actor were removed",
        "core_worker.cc:4630: exiting immediately... The actor is dead because it was killed by `ray.kill`.",
    ],
)
def test_an_actor_may_end_on_purpose(monkeypatch, tmp_path, line):
    titles = {2: "ray::TaskRunner.run", 3: "ray::Scorer"}
    dog = watchdog_of(titles, monkeypatch, tmp_path)
    dog.look()
    write_log(tmp_path, "python-core-worker-ab_3.log", [line])
    del titles[3]
    dog.look()
    assert dog.failure() is None


def write_log(folder: Path, name: str, lines: list[str]) -> None:
    """A log of Ray's."""
    logs = folder / "ray" / "session_latest" / "logs"
    logs.mkdir(parents=True)
    (logs / name).write_text("\n".join(lines))


def test_a_main_process_that_is_killed_is_named():
    output, _ = (run := launch("-c", "import os; os.kill(os.getpid(), 9)")).communicate(timeout=60)
    assert run.returncode == 137
    assert output == "verl_cpu: verl's main process got signal 9 (Killed)\n"


@pytest.mark.parametrize(
    ("title", "grace"), [("ray::TransferQueueController", 25), ("ray::SimpleStorageUnit", 25), ("VLLM::EngineCore", 10)]
)
def test_a_run_that_outlives_a_worker_hangs(monkeypatch, tmp_path, title, grace):
    """verl ends its queue before the driver, also after an error, so a queue gets more time and is no reason."""
    titles = {2: "ray::TaskRunner.run", 3: title}
    dog = watchdog_of(titles, monkeypatch, tmp_path)
    monkeypatch.setattr(
        watchdog, "time", SimpleNamespace(monotonic=iter([0.0, 1.0, grace + 0.5, grace + 1.5]).__next__)
    )
    assert dog.look() is None
    del titles[3]
    assert dog.look() is None
    assert dog.look() is None
    assert dog.look().startswith(f"verl hung. {title} (pid 3) died")
    assert (dog.failure() is None) == (grace == 25)
