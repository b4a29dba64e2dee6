# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run a module of this package in a process that may hang or crash, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

LONGEST_TMPDIR = 40  # Ray puts sockets below it, and a socket's path has at most 107 bytes


class IsolatedProcess(subprocess.Popen[bytes]):
    """`python -m verl_pgrpo.preflight.<module> <arguments> <folder>` in a new session.

    `folder` is temporary and initially contains `files` (name: text). On exit from the context manager, the process,
    its children and the folder are removed.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        base = tempfile.gettempdir()
        self.folder = Path(tempfile.mkdtemp(prefix="vd-", dir=base if len(base) <= LONGEST_TMPDIR else "/tmp"))
        for name, text in (files or {}).items():
            (self.folder / name).write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", f"verl_pgrpo.preflight.{module}", *arguments, str(self.folder)]
        with open(self.folder / "output", "wb") as out:
            super().__init__(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                             start_new_session=True)  # fmt: skip

    def __exit__(self, *_: object) -> None:
        self.terminate()  # Ray's processes end with the one that started them
        with suppress(subprocess.TimeoutExpired):
            self.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ends_by(self, deadline: float) -> bool:
        """Wait until it has ended (True) or `time.monotonic()` reaches the deadline (False).

        The exit status is not collected, so that the id of its process group is not reused.
        """
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def read(self, name: str = "output") -> str:
        """A file in the folder; by default what the process printed."""
        path = self.folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def last_output_line(self) -> str:
        return (self.read().strip().splitlines() or [""])[-1]
