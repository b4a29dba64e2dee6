# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Take away what one run leaves behind, and nothing else, while other runs may be going on beside it.

What belongs to a run is known from the run, never from comparing folders before and after:

- processes: a run's supervisor (`run.py`) makes itself the reaper of its descendants. Whatever they detach from -
  Ray's and vLLM's processes have sessions of their own, and parents that end before them - the kernel then makes them
  children of the supervisor and not of init, so its descendants are the run, all of it;
- temporary files (Ray's session, vLLM's sockets, verl's locks): the run has a TMPDIR of its own;
- `/tmp/rl-colocate-zmq-*.sock`: verl ignores TMPDIR there, so the CPU platform puts the run's id into the name;
- `/dev/shm`: the names are random, so each is written down in the run's TMPDIR: by who makes it where the CPU platform
  can see that (verl's weight syncs), else when a process of the run is seen to map it. A segment is removed when the
  run has ended and if nobody alive has it mapped.

A launcher that was killed removes nothing. The next one finds its TMPDIR, where `RUN_FILE` says whose it was.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from verl_cpu import LEDGER, RUN_ID

SHARED_MEMORY = Path("/dev/shm")
RUN_FILE = "run.json"
_KINDS = r"(?:psm_|verl_weights_|sem\.mp-)[^\s/]+"
_SEGMENT = re.compile(rf"/dev/shm/({_KINDS})$".encode(), re.MULTILINE)


def segments_of(pids: Iterable[int]) -> set[str]:
    """Names in /dev/shm, of the kinds that verl and vLLM leave behind, that any of these processes has mapped."""
    names: set[str] = set()
    for pid in pids:
        try:
            names.update(name.decode() for name in _SEGMENT.findall(Path(f"/proc/{pid}/maps").read_bytes()))
        except OSError:  # it has ended, or is another user's
            continue
    return names


def note_segments(folder: Path, names: Iterable[str]) -> None:
    """Write names of segments down in a run's TMPDIR."""
    for name in names:
        (folder / LEDGER / name).touch()


def noted_segments(folder: Path) -> set[str]:
    """The segments that were written down there."""
    return {entry.name for entry in (folder / LEDGER).glob("*") if re.fullmatch(_KINDS, entry.name)}


def remove_segments(names: set[str]) -> list[Path]:
    """Remove those of the segments that exist and that no living process has mapped; return them."""
    removed = []
    for name in sorted(names - segments_of(psutil.pids())):
        path = SHARED_MEMORY / name
        if _is_ours(path):
            path.unlink()
            removed.append(path)
    return removed


def remove_sockets(run_id: str) -> list[Path]:
    """Remove the sockets that this run's weights travelled by; return them."""
    if not run_id.isalnum():
        raise ValueError(f"A run's id is alphanumeric, not {run_id!r}.")
    removed = sorted(Path("/tmp").glob(f"rl-colocate-zmq-{run_id}-*.sock"))
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def descendants() -> list[psutil.Process]:
    """All descendants of this process that are alive."""
    alive = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except psutil.NoSuchProcess:
            continue
    return alive


def end_descendants(patience: float) -> set[str]:
    """Wait up to `patience` seconds for all descendants to end, kill the rest; return the segments they had mapped.

    They are stopped first and killed then, so that none can start another or map a segment that we do not see. Only
    for a process that has no children but the run, and has collected those whose exit status it wants.
    """
    deadline = time.monotonic() + patience
    while descendants() and time.monotonic() < deadline:
        time.sleep(0.1)
    segments: set[str] = set()
    while left := descendants():
        for process in left:
            _send(process, signal.SIGSTOP)
        segments |= segments_of(process.pid for process in left)
        for process in left:
            _send(process, signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # orphans that the kernel gave us
            pass
    return segments


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)  # checks that the pid has not been given to another process


def begin_run(folder: Path, run_id: str) -> None:
    """Write down in a run's new TMPDIR whose it is: this process's, which supervises the run."""
    (folder / LEDGER).mkdir()
    facts = {
        "run_id": run_id,
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "pid_namespace": _pid_namespace(),
    }
    (folder / RUN_FILE).write_text(json.dumps(facts))


def end_run(folder: Path, run_id: str, keep: bool = False) -> None:
    """Take away all that a run which has ended left on disk (but for its TMPDIR, with `keep`) and in shared memory."""
    remove_segments(noted_segments(folder))
    remove_sockets(run_id)
    if keep:
        (folder / RUN_FILE).unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def remove_dead_runs(folders: Iterable[Path]) -> list[Path]:
    """Of these TMPDIRs of runs, remove the ones whose supervisor was killed and of which no process is left.

    What is not ours, or does not say whose it is, stays.
    """
    removed = []
    for folder in folders:
        try:
            facts = json.loads((folder / RUN_FILE).read_text()) if _is_ours(folder) else {}
            run_id, pid, started = str(facts["run_id"]), int(facts["pid"]), float(facts["started"])
            visible = facts["pid_namespace"] == _pid_namespace()  # else it lives in another container, or did
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if visible and run_id.isalnum() and not _is_alive(pid, started) and not _has_processes(run_id):
            end_run(folder, run_id)
            removed.append(folder)
    return removed


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _is_ours(path: Path) -> bool:
    """Is this a file or folder, and no link, of this user's?"""
    try:
        return path.lstat().st_uid == os.getuid() and not path.is_symlink()
    except OSError:
        return False


def _is_alive(pid: int, started: float) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(pid).create_time() - started) < 1.0  # else the pid has been given to another
    return False


def _has_processes(run_id: str) -> bool:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # another user's, or it has just ended
            if process.environ().get(RUN_ID) == run_id:
                return True
    return False
