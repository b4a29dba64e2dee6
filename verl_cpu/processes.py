# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Find and remove the processes and files of one run while other runs may be active.

Everything is found by the run's id: processes have it in their environment (`RUN_ID`); the run's TMPDIR and anything
that the run creates elsewhere have it in their names (`verl_shims.py` and `weight_sync.py` put it there). Ray's agents
overwrite their environment with their title, but they write logs to Ray's folder in the run's TMPDIR.

A launcher holds a lock on its run's TMPDIR while it is alive. An unlocked TMPDIR was left behind by a launcher that was
killed; the next launcher ends the remaining processes of that run and removes its files.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from verl_cpu import RUN_ID

SHARED_MEMORY = Path("/dev/shm")
LOCK = "launcher.lock"
ERROR = "error.txt"
"""Files in a run's TMPDIR: the lock that the launcher holds, and the error that ended verl."""
_PREFIX = "vcpu-"  # of a run's TMPDIR
_RUN_ID = r"v[0-9a-f]{7}"


def new_run_id() -> str:
    """Return a random run id of 8 characters. The leading `v` distinguishes it from the hex names of other programs."""
    return "v" + secrets.token_hex(4)[:7]


@dataclass(frozen=True)
class Run:
    """A started run: its id, its TMPDIR and the file descriptor that holds the lock on it."""

    id: str
    folder: Path
    lock: int

    @classmethod
    def begin(cls, base: Path) -> "Run":
        """Create the TMPDIR of a new run in the folder `base`."""
        run_id = new_run_id()
        folder = base / f"{_PREFIX}{run_id}"
        folder.mkdir(mode=0o700)
        # Locked before it gets its name, so that no other launcher can see it unlocked. Closed on exec: the processes
        # of the run do not hold the lock.
        lock = os.open(folder / f"{LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / f"{LOCK}.new").rename(folder / LOCK)
        return cls(run_id, folder, lock)

    def end(self, patience: float, group: int | None = None, keep_folder: bool = False) -> None:
        """End all processes of the run and remove its files.

        Args:
            patience: seconds that the processes have to end by themselves.
            group: a process group to kill first, so that its processes start no others.
            keep_folder: keep the TMPDIR, with Ray's logs.
        """
        end_processes(self.id, patience, group)
        _remove_files(self.id)
        if keep_folder:
            (self.folder / LOCK).unlink()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


def end_killed_runs(base: Path) -> list[Path]:
    """End the runs in `base` whose launcher was killed, remove their files, and return their folders."""
    ended = []
    for folder in base.glob(f"{_PREFIX}*"):
        run_id = folder.name.removeprefix(_PREFIX)
        if not re.fullmatch(_RUN_ID, run_id) or not _is_own(folder) or run_id == os.environ.get(RUN_ID):
            continue
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # not a run's folder, or one that is being created
            continue
        with contextlib.suppress(BlockingIOError):  # its launcher is alive
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Run(run_id, folder, lock).end(patience=0.0)
            ended.append(folder)
            continue
        os.close(lock)
    return ended


def processes_of(run_id: str) -> list[psutil.Process]:
    """Return the living processes of a run. Zombies have neither environment nor files and are not among them."""
    found, folder = [], f"/{_PREFIX}{run_id}/ray/"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # another user's process, or it has just ended
            environment = process.environ()
            logs = [] if environment else process.open_files()
            if environment.get(RUN_ID) == run_id or any(folder in file.path for file in logs):
                found.append(process)
    return found


def end_processes(run_id: str, patience: float = 0.0, group: int | None = None) -> None:
    """Wait up to `patience` seconds for a run's processes to end, kill the rest, and return when none is left."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and processes_of(run_id):
        time.sleep(0.1)
    if group is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    seen_none = 0
    deadline = time.monotonic() + 30  # a process can hang in the kernel
    while seen_none < 2 and time.monotonic() < deadline:  # twice: during an exec a process shows no environment
        left = processes_of(run_id)
        seen_none = 0 if left else seen_none + 1
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def _remove_files(run_id: str) -> None:
    """Remove the run's shared memory and the sockets of its weight syncs."""
    for path in [*SHARED_MEMORY.glob(f"*{run_id}*"), *Path("/tmp").glob(f"rl-colocate-zmq-{run_id}-*.sock")]:
        if _is_own(path):
            path.unlink(missing_ok=True)


def _is_own(path: Path) -> bool:
    """Whether this is a file or folder of this user, and no symbolic link."""
    try:
        return path.lstat().st_uid == os.getuid() and not path.is_symlink()
    except OSError:
        return False
