# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Notice that a worker of a run died while verl goes on waiting for it.

verl's trainers wait without a limit for rollouts and weight syncs. When a vLLM engine or a Ray actor is killed, for
instance for lack of memory, some of these waits never end.
"""

import contextlib
import re
import time
from pathlib import Path

import psutil

from verl_cpu.processes import ERROR, processes_of

GRACE = 10.0
"""Seconds that verl gets to stop by itself after a worker has died."""

# Ray's process titles: `ray::Class`, `ray::Class.method`, `ray::name:Class.method`; `ray::function` is a task and
# `ray::IDLE` a process without work, which Ray ends now and then.
_WORKER = re.compile(r"ray::(?:\S+:)?(?!IDLE\b)v?[A-Z]\w*|VLLM::\w+")
_DRIVER = re.compile(r"ray::(?:\S+:)?\w*TaskRunner\w*\.run\b")
_ERROR = re.compile(r"\b(?:\w+\.)*\w*(?:Error|Exception): .+")


class Watchdog:
    """Remembers the workers of a run and looks for those that have died.

    Args:
        run_id: the run whose processes are watched.
        folder: the run's TMPDIR, where Ray writes its logs.
    """

    def __init__(self, run_id: str, folder: Path) -> None:
        self._run_id, self._folder, self._logs = run_id, folder, folder / "ray" / "session_latest" / "logs"
        self._workers: dict[int, tuple[str, int]] = {}  # pid: title and parent
        self._died: dict[int, tuple[str, int, float]] = {}  # pid: title, parent and when

    def look(self) -> str | None:
        """Return why the run has to be ended, None if it does not. To be called about once a second."""
        now = time.monotonic()
        alive: dict[int, tuple[str, int]] = {}
        for process in processes_of(self._run_id):
            with contextlib.suppress(psutil.Error):
                alive[process.pid] = " ".join(process.cmdline()).strip(), process.ppid()
        if any(_DRIVER.match(title) for title, _ in alive.values()):
            self._died |= {pid: (*self._workers[pid], now) for pid in self._workers.keys() - alive.keys()}
        else:  # before the training, or after it, when all workers end
            self._died.clear()
        self._workers = {pid: worker for pid, worker in alive.items() if _WORKER.match(worker[0])}
        for pid, (title, parent, since) in self._died.items():
            if now - since > GRACE:
                error = self._last_error(pid) or self._last_error(parent)
                return f"{title} (pid {pid}) died and verl went on waiting for it. " + (
                    f"The last error in its log: {error}" if error else "Its log has no error: it was killed."
                )
        return None

    def uncaught_error(self) -> str | None:
        """Return the error that ended verl's main process, None if there was none."""
        path = self._folder / ERROR
        if not path.exists():
            return None
        text = path.read_text(errors="replace")
        return last_error(text) or text.strip()

    def _last_error(self, pid: int) -> str | None:
        """Return the last error in the logs of this Ray worker."""
        logs = sorted(self._logs.glob(f"worker-*-{pid}.*"))
        return last_error("\n".join(path.read_text(errors="replace") for path in logs))


def last_error(text: str) -> str | None:
    """Return the last line in a log or traceback that names a Python exception, from the exception's name on."""
    found = _ERROR.findall(text)
    return found[-1] if found else None
