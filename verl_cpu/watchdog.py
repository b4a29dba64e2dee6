# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Detect that a worker of a run died while verl keeps waiting for it.

verl's trainers wait without a limit for rollouts and weight syncs. If a vLLM engine or a Ray actor is killed, for
example because memory runs out, some of these waits never end.
"""

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from verl_cpu.processes import ERROR, processes_of

GRACE = 10.0
"""Seconds that verl has to stop by itself after a worker has died."""
QUEUE_GRACE = 25.0
"""The same for the actors of TransferQueue: verl waits for them up to 15 s before it ends."""

# Ray's process titles: `ray::Class`, `ray::Class.method`, `ray::name:Class.method`; `ray::function` is a task and
# `ray::IDLE` a process without work, which Ray ends now and then. Ray's own agents (`ray::DashboardAgent`) do no work
# of verl's.
_WORKER = re.compile(r"ray::(?:\S+:)?(?!IDLE\b|\w+Agent\b)v?[A-Z]\w*|VLLM::\w+")
_QUEUE = re.compile(r"ray::(?:\S+:)?(TransferQueue|SimpleStorageUnit)")
_DRIVER = re.compile(r"ray::(?:\S+:)?\w*TaskRunner\w*\.run\b")
_TRACEBACK = "Traceback (most recent call last):"
_ERROR = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?")
_FATAL = re.compile(r"Fatal Python error: .+|terminate called .+")
# Lines that may follow the error that ends a process, such as a warning about leaked semaphores.
_LAST_LINES = 2
# Ray's lines in the log of an actor that `ray.kill` or `exit_actor` ended, or that nothing referred to any more.
_ON_PURPOSE = re.compile(r"Executing worker exit: INTENDED_|killed by .ray\.kill")


class Watchdog:
    """Tracks the workers of a run and detects when one has died.

    Args:
        run_id: the run whose processes are watched.
        folder: the run's TMPDIR, where Ray writes its logs.
    """

    def __init__(self, run_id: str, folder: Path) -> None:
        self._run_id, self._folder = run_id, folder
        self._workers: dict[int, tuple[str, int]] = {}  # pid: title and parent
        # The first death of a worker and of a queue's actor, and when verl must have stopped by itself.
        self._deaths: dict[str, tuple[str, float]] = {}

    def look(self) -> str | None:
        """Return why the run must be ended, or None. Call it about once per second."""
        alive: dict[int, tuple[str, int]] = {}
        for process in processes_of(self._run_id):
            with contextlib.suppress(psutil.Error):
                alive[process.pid] = " ".join(process.cmdline()).strip(), process.ppid()
        now, training = time.monotonic(), any(_DRIVER.match(title) for title, _ in alive.values())
        dead = [pid for pid in self._workers if pid not in alive]
        for pid in dead if training else ():  # workers may end before and after training
            if any(_ON_PURPOSE.search(line) for log in self._logs("python-core-worker", pid) for line in log):
                continue
            kind, grace = ("queue", QUEUE_GRACE) if _QUEUE.match(self._workers[pid][0]) else ("worker", GRACE)
            if kind not in self._deaths:
                self._deaths[kind] = self._describe(pid), now + grace
        self._workers = {
            pid: (title, parent)
            for pid, (title, parent) in alive.items()
            if _WORKER.match(title) and not _is_forked(title, alive.get(parent, ("", 0))[0])
        }
        hung = [death for death, deadline in self._deaths.values() if training and now > deadline]
        return f"verl hung. {hung[0]}" if hung else None

    def failure(self) -> str | None:
        """Return why verl's main process failed: the worker that died, and the error that ended it, if known.

        The queue is no reason, because verl also ends it after an error.
        """
        path = self._folder / ERROR
        error = raised_error(path.read_text(errors="replace")) if path.exists() else ""
        if "worker" not in self._deaths:
            return error or None
        death, _ = self._deaths["worker"]
        return f"{death}; then verl failed: {error}" if error else death

    def _describe(self, pid: int) -> str:
        title, parent = self._workers[pid]
        # vLLM's processes write to the log of the actor that started them, prefixed with their pid.
        theirs = ([line for line in log if f"pid={pid})" in line] for log in self._logs("worker", parent))
        errors = [error for log in (*self._logs("worker", pid), *theirs) for error in _raised(log)]
        error, after = min(reversed(errors), key=lambda error: error[1], default=("", 0))
        if error and after <= _LAST_LINES:
            return f"{title} (pid {pid}) died: {error}"
        earlier = f". The last error in it: {error}" if error else ""
        return f"{title} (pid {pid}) died: its log ends without an error, so it may have been killed{earlier}"

    def _logs(self, kind: str, pid: int) -> list[list[str]]:
        """The lines of each of a process's logs."""
        paths = sorted((self._folder / "ray" / "session_latest" / "logs").glob(f"{kind}-*[-_]{pid}.*"))
        return [path.read_text(errors="replace").splitlines() for path in paths]


def _is_forked(title: str, parent: str) -> bool:
    """Whether a worker forked this process: Ray starts its workers itself, and a child has a title of its parent's.

    The parent's title may have changed since, as with each call of an actor.
    """
    return title == parent or (title.startswith("ray::") and parent.startswith("ray::"))


def _raised(log: Sequence[str]) -> list[tuple[str, int]]:
    """Return the errors that end tracebacks, and fatal ones, with the number of lines after each (0 if it is fatal).

    Lines may have a prefix, as vLLM's have. A stack that follows a fatal error is not counted.
    """
    found, start = [], -1  # start: of the lines of the current traceback
    for number, line in enumerate(log, 1):
        if fatal := _FATAL.search(line):
            found.append((fatal[0], 0))
        elif _TRACEBACK in line:
            start = line.index(_TRACEBACK)
        elif start >= 0 and (error := _ERROR.fullmatch(line[start:])):
            found.append((error[0], len(log) - number))
            start = -1
    return found


def raised_error(text: str) -> str:
    """Return the exception at the end of the last traceback as one line. Ray's error messages contain tracebacks."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", text).rstrip().splitlines()
    last_frame = max((i for i, line in enumerate(lines) if line.startswith("  File ")), default=-1)
    start = next((i for i in range(last_frame + 1, len(lines)) if re.match(r"[\w.]+(?:: |$)", lines[i])), 0)
    return " ".join(line.strip() for line in lines[start:])
