# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by tests that start processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from verl_cpu import ENVIRONMENT, RUN_ID


def python(code: str, *arguments: str, timeout: float = 240, **environment: str) -> str:
    """Run code in a new interpreter, because verl's platform is chosen once per process; return its output."""
    # Remove the variables that the plugin set in this process, to see those that it sets in the new one.
    clean = {k: v for k, v in os.environ.items() if k not in {*ENVIRONMENT, RUN_ID, "VERL_PLATFORM"}}
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def wait_for(condition: Callable[[], object], seconds: float = 60, run: subprocess.Popen | None = None) -> None:
    """Wait until the condition holds, while the run goes on."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert run is None or run.poll() is None, "the run has ended"
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
