# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A module of this package in a process of its own, which may hang or crash, and leaves nothing behind."""

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

_LONGEST_TMPDIR = 40  # Ray puts sockets below it, and the path of a socket has at most 107 bytes
_TOLD = "output"


class Child:
    """`python -m verl_pgrpo.launch.<module> <arguments> <folder>`, in a session and a temporary folder of its own."""

    def __init__(self) -> None:
        base = tempfile.gettempdir()
        self.folder = Path(tempfile.mkdtemp(prefix="vd-", dir=base if len(base) <= _LONGEST_TMPDIR else "/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        with open(self.folder / _TOLD, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"verl_pgrpo.launch.{module}", *arguments, str(self.folder)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def ended(self) -> bool:
        """Without collecting its status, so that its number stays its own and the group of that number can be ended."""
        if self._process is None or self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, deadline: float) -> bool:
        """Until it has ended (True) or `time.monotonic()` is at the deadline (False)."""
        while not self.ended:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    @property
    def last_words(self) -> str:
        """The last line that it printed, empty if there is none."""
        lines = (self.folder / _TOLD).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def end(self, patience: float = 0.0) -> int:
        """Its exit status, negative for a signal. Asks it to end if it has not, and ends all of its group by force."""
        process = self._process
        if process is not None and process.returncode is None:
            if patience and not self.ended:
                process.send_signal(signal.SIGTERM)
                self.wait(time.monotonic() + patience)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        return 0 if process is None else process.returncode
