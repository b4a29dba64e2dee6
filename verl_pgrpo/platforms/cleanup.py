# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Take away what one run leaves behind, and nothing else, while other runs may be going on beside it.

What belongs to a run is known from the run, never from comparing folders before and after:

- processes: a run's supervisor (`run_cpu.py`) makes itself the reaper of its descendants. Whatever they detach from -
  Ray's and vLLM's processes have sessions of their own, and parents that end before them - the kernel then makes them
  children of the supervisor and not of init, so its descendants are the run, all of it;
- temporary files (Ray's session, vLLM's sockets, verl's locks): the run has a TMPDIR of its own;
- `/tmp/rl-colocate-zmq-*.sock`: verl ignores TMPDIR there, so the CPU platform puts the run's id into the name;
- `/dev/shm`: the names are random, so a segment is the run's if one of its processes has been seen to map it. It is
  removed when the run has ended and if nobody alive has it mapped.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
_SEGMENT = re.compile(rb"/dev/shm/((?:psm_|verl_weights_|sem\.mp-)[^\s/]+)$", re.MULTILINE)


def segments_of(pids: Iterable[int]) -> set[str]:
    """Names in /dev/shm, of the kinds that verl and vLLM leave behind, that any of these processes has mapped."""
    names: set[str] = set()
    for pid in pids:
        try:
            names.update(name.decode() for name in _SEGMENT.findall(Path(f"/proc/{pid}/maps").read_bytes()))
        except OSError:  # it has ended, or is another user's
            continue
    return names


def remove_segments(names: set[str]) -> list[Path]:
    """Remove those of the segments that exist and that no living process has mapped; return them."""
    removed = []
    for name in sorted(names - segments_of(psutil.pids())):
        path = SHARED_MEMORY / name
        if path.exists():
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
