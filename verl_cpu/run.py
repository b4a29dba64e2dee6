# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run verl's `main_ppo` on the CPU so that nothing of it is left when it ends, whatever ends it.

    python -m verl_cpu.run --log run.log --timeout 1200 -- --config-dir verl_cpu/presets \\
        --config-name cpu algorithm.adv_estimator=grpo data.train_files=... actor_rollout_ref.model.path=...

What follows `--` goes to `python -m verl.trainer.main_ppo`, or to another launcher of verl's (`--module`). Ctrl-C and
SIGTERM are passed on; verl gets ten seconds to end by itself, a second Ctrl-C means at once. The exit status is verl's,
124 after a timeout, 128 + signal after a signal. From Python, `run_main_ppo` does the same. Linux only.
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from verl_cpu import RUN_ID, cleanup

TIMED_OUT = 124
PATIENCE = 10.0
"""Seconds that verl gets to end by itself after it was asked to, and its processes after it has ended."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PREFIX = "vp-"  # of a run's TMPDIR
_LONGEST_TMPDIR = 25  # Ray puts sockets below it, and the path of a socket has at most 107 bytes


def run_main_ppo(
    args: Sequence[str],
    log_path: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> int:
    """Run `main_ppo` with these arguments in a supervisor process of its own; return its exit status.

    The supervisor ends the run also when the calling process ends, in whatever way.

    Args:
        args: arguments of `verl.trainer.main_ppo`, one string each.
        log_path: file for all output (overwritten); None: this process's own.
        env: variables to set in addition to this process's environment.
        timeout: seconds until the run is ended; None: never. A failed weight sync hangs, so give one.

    Returns:
        main_ppo's exit status; 124 after the timeout; 128 + n if it was ended by signal n.
    """
    command = [sys.executable, "-m", "verl_cpu.run", "--parent", str(os.getpid())]
    if log_path is not None:
        command += ["--log", str(log_path)]
    if timeout is not None:
        command += ["--timeout", str(timeout)]
    supervisor = subprocess.Popen([*command, "--", *args], env={**os.environ, **(env or {})})
    try:
        return supervisor.wait()
    except BaseException:  # Ctrl-C here, or whatever a caller's signal handler raises
        supervisor.terminate()
        supervisor.wait()
        raise


class _Signals:
    """Remembers the signals that ask a process to end, instead of ending."""

    def __init__(self) -> None:
        self.received: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, lambda number, frame: self.received.append(number))


def supervise(
    command: Sequence[str], log: Path | None, timeout: float | None, parent: int | None, keep_tmp: bool
) -> int:
    """Run `command` with a temporary folder and a run id of its own; end and clean up all of it afterwards."""
    signals = _Signals()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of the run's processes (prctl)")
    output = log.open("wb") if log is not None else None
    base = tempfile.gettempdir()
    base = base if len(base) <= _LONGEST_TMPDIR else "/tmp"
    for left in cleanup.remove_dead_runs(Path(base).glob(f"{_PREFIX}*")):
        print(f"verl_cpu: removed {left} and the shared memory of its run, whose launcher was killed", file=sys.stderr)
    tmp = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    run_id = uuid.uuid4().hex[:12]
    cleanup.begin_run(tmp, run_id)
    environment = {
        # Ray stays on 127.0.0.1; it reads this while it is imported, which is before our plugin is.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        **os.environ,
        "VERL_PLATFORM": "cpu",
        RUN_ID: run_id,
        "TMPDIR": str(tmp),
    }
    environment.pop("RAY_TMPDIR", None)  # would go before TMPDIR
    child = None
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C reaches only us, and we pass it on to main_ppo alone
            # Should we be killed, main_ppo gets a SIGTERM, and Ray's processes end after it.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        )
        status = _watch(child, signals, time.monotonic() + timeout if timeout else None, parent, tmp)
    finally:
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGINT)
            _wait(child, PATIENCE, signals)
        # A second signal: at once. main_ppo still there: it will not shut Ray down any more.
        hurry = child is None or child.poll() is None or len(signals.received) > 1
        if child is not None and child.poll() is None:
            cleanup.note_segments(tmp, _mapped())
            child.kill()
            child.wait()
        cleanup.note_segments(tmp, cleanup.end_descendants(patience=0.0 if hurry else PATIENCE))
        cleanup.end_run(tmp, run_id, keep=keep_tmp)
        if keep_tmp:
            print(f"verl_cpu: Ray's logs are in {tmp}/ray", file=sys.stderr)
        if output is not None:
            output.close()
    return status


def _watch(child: subprocess.Popen, signals: _Signals, deadline: float | None, parent: int | None, tmp: Path) -> int:
    """Wait for the child, a signal, the deadline or the parent's end; note the shared memory of the run meanwhile."""
    looked = 0.0
    while not signals.received:
        try:
            status = child.wait(timeout=1.0)
            return status if status >= 0 else 128 - status
        except subprocess.TimeoutExpired:
            pass
        if deadline is not None and time.monotonic() > deadline:
            print("verl_cpu: timeout", file=sys.stderr)
            return TIMED_OUT
        if parent is not None and os.getppid() != parent:
            return 128 + signal.SIGTERM
        if time.monotonic() - looked > 5.0:  # what outlives its process was mapped for long; looking costs 0.1 s
            cleanup.note_segments(tmp, _mapped())
            looked = time.monotonic()
    return 128 + signals.received[0]


def _mapped() -> set[str]:
    return cleanup.segments_of(process.pid for process in cleanup.descendants())


def _wait(child: subprocess.Popen, seconds: float, signals: _Signals) -> None:
    deadline = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < deadline and len(signals.received) < 2:
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        usage="%(prog)s [--module NAME] [--log FILE] [--timeout SECONDS] [--keep-tmp] -- ARGS...",
    )
    parser.add_argument("--module", default="verl.trainer.main_ppo", help="what to run; default: %(default)s")
    parser.add_argument("--log", type=Path, help="file for all output, overwritten; default: pass it through")
    parser.add_argument("--timeout", type=float, help="seconds until the run is ended; default: never")
    parser.add_argument("--keep-tmp", action="store_true", help="leave the run's temporary folder, with Ray's logs")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # end the run when this parent has ended
    parser.add_argument("args", nargs=argparse.REMAINDER, help="arguments of the module")
    options = parser.parse_args()
    args = options.args[1:] if options.args[:1] == ["--"] else options.args
    command = [sys.executable, "-m", options.module, *args]
    return supervise(command, options.log, options.timeout, options.parent, options.keep_tmp)


if __name__ == "__main__":
    sys.exit(main())
