# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run a module of this package in a process that may hang or crash, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

LONGEST_TMPDIR = 40  # Ray puts sockets below it, and the path of a socket has at most 107 bytes


class IsolatedProcess:
    """`python -m verl_pgrpo.preflight.<module> <arguments> <folder>` in its own session and temporary folder.

    A context manager: on exit the process, its children and the folder are removed.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        base = tempfile.gettempdir()
        self.folder = Path(tempfile.mkdtemp(prefix="vd-", dir=base if len(base) <= LONGEST_TMPDIR else "/tmp"))
        self._command = [sys.executable, "-m", f"verl_pgrpo.preflight.{module}", *arguments, str(self.folder)]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> IsolatedProcess:
        with open(self.folder / "output", "wb") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def ended(self) -> bool:
        """Whether it has ended. The status is not collected, so that its process group keeps its number."""
        if self._process is None or self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, deadline: float) -> bool:
        """Wait until it has ended (True) or `time.monotonic()` reaches the deadline (False)."""
        while not self.ended:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    @property
    def last_output_line(self) -> str:
        """The last line that it printed, empty if there is none."""
        lines = (self.folder / "output").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def stop(self, patience: float = 0.0) -> int:
        """Terminate it after `patience` seconds, kill its process group, and return its exit status."""
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            if patience and not self.ended:
                process.send_signal(signal.SIGTERM)
                self.wait(time.monotonic() + patience)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return process.returncode
