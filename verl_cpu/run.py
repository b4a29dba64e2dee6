# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run verl on the CPU and clean up after it, however it ends.

    python -m verl_cpu.run --preset cpu --timeout 1200 -- algorithm.adv_estimator=grpo \\
        data.train_files=... actor_rollout_ref.model.path=... trainer.default_local_dir=...

What follows `--` goes to `python -m verl.trainer.main_ppo`, or to another launcher of verl (`--module`). Ctrl-C and
SIGTERM are passed on; verl has ten seconds to end by itself; a second Ctrl-C ends it at once. A dead worker also ends
the run; verl alone would wait forever. The exit status is verl's, 1 after a dead worker, 124 after a timeout, 128 + n
after signal n. Linux only.
"""

import argparse
import ctypes
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from verl_cpu import ENVIRONMENT, RUN_ID, processes
from verl_cpu.watchdog import Watchdog

TIMED_OUT = 124
PATIENCE = 10.0
"""Seconds that verl has to end after the signal, and its processes after verl has ended."""

PRESETS = Path(__file__).resolve().parent / "presets"

_LONGEST_BASE = 20  # Ray puts sockets below TMPDIR, and a socket's path has at most 107 bytes
_PR_SET_PDEATHSIG = 1


def supervise(
    command: Sequence[str],
    log: Path | None = None,
    timeout: float | None = None,
    keep_tmp: bool = False,
    watch_workers: bool = True,
) -> int:
    """Run `command` as a separate run, end all its processes and clean up. Return the exit status.

    With `watch_workers` a dead worker ends the run. Switch this off for a Ray node, which outlives its jobs.
    """
    signals = _record_signals()
    output = log.open("wb") if log is not None else None
    base = Path(tempfile.gettempdir())
    if len(str(base)) > _LONGEST_BASE:
        base = Path("/tmp")
    for folder in processes.end_killed_runs(base):
        print(f"verl_cpu: removed {folder} and what was left of its run, whose launcher was killed", file=sys.stderr)
    run = processes.Run.begin(base)
    environment = {
        **ENVIRONMENT,
        # Keeps Ray on 127.0.0.1. Ray reads it at import, before our plugin is loaded.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "HYDRA_FULL_ERROR": "1",  # otherwise the last line of a failed run is Hydra's hint to set this variable
        **os.environ,
        "VERL_PLATFORM": "cpu",
        RUN_ID: run.id,
        "TMPDIR": str(run.folder),
    }
    environment.pop("RAY_TMPDIR", None)  # has precedence over TMPDIR
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        del environment["CUDA_VISIBLE_DEVICES"]  # with it, Ray would reject the logical GPU
    libc = ctypes.CDLL(None)
    child, hurry, reason = None, True, None
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal reaches only us; we forward it to main_ppo alone
            # If this process is killed, main_ppo gets a SIGTERM, and Ray's processes end after it.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        )
        deadline = time.monotonic() + timeout if timeout else None
        watchdog = Watchdog(run.id, run.folder) if watch_workers else None
        status, reason = _watch(child, signals, deadline, watchdog)
        hurry = child.poll() is None and status == 1  # a hanging verl does not end by itself
    finally:
        if child is not None:
            if child.poll() is None and not hurry:
                child.send_signal(signal.SIGINT)
                deadline = time.monotonic() + PATIENCE
                while child.poll() is None and time.monotonic() < deadline and len(signals) < 2:
                    time.sleep(0.1)
            hurry = hurry or child.poll() is None or len(signals) > 1
        group = child.pid if child is not None and child.poll() is None else None
        run.end(0.0 if hurry else PATIENCE, group, keep_folder=keep_tmp)
        if child is not None:
            child.wait()
        if keep_tmp:
            print(f"verl_cpu: Ray's logs are in {run.folder}/ray", file=sys.stderr)
        if reason is not None:
            print(f"verl_cpu: {reason}", file=sys.stderr)
        if output is not None:
            if reason is not None:
                output.write(f"verl_cpu: {reason}\n".encode())
            output.close()
    return status


def _record_signals() -> list[int]:
    """Record SIGINT, SIGTERM and SIGHUP in the returned list instead of exiting."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            signal.signal(number, lambda number, frame: received.append(number))
    return received


def _watch(
    child: subprocess.Popen, signals: list[int], deadline: float | None, watchdog: Watchdog | None
) -> tuple[int, str | None]:
    """Wait for the run's end or a reason to end it; return the exit status, and the reason if it is known."""
    while not signals:
        try:
            status = child.wait(timeout=1.0)
            reason = watchdog.failure() if watchdog and status else None
            if status >= 0:
                return status, reason
            return 128 - status, reason or f"verl's main process got signal {-status} ({signal.strsignal(-status)})"
        except subprocess.TimeoutExpired:
            pass
        if deadline is not None and time.monotonic() > deadline:
            return TIMED_OUT, "timeout"
        if watchdog is not None and (reason := watchdog.look()) is not None:
            return 1, reason
    return 128 + signals[0], None


def _seconds(text: str) -> float:
    """Parse a finite number of seconds > 0."""
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a finite number > 0")
    return value


def needs_hub(args: Sequence[str]) -> bool:
    """Return whether one of verl's arguments names a model that is not a local folder."""
    found = (re.fullmatch(r"\+{0,2}[\w.]*model[._]path=(.+)", argument) for argument in args)
    return any(match is not None and not Path(match[1].strip("'\"")).exists() for match in found)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        usage="%(prog)s [--preset NAME] [--module NAME] [--log FILE] [--timeout SECONDS] [--keep-tmp] -- ARGS...",
    )
    presets = sorted(path.stem for path in PRESETS.glob("[!_]*.yaml"))
    parser.add_argument("--preset", choices=presets, help="settings for the CPU, as --config-dir and --config-name")
    parser.add_argument("--module", default="verl.trainer.main_ppo", help="what to run; default: %(default)s")
    parser.add_argument("--log", type=Path, help="file for all output, overwritten; default: pass it through")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="seconds until the run is ended; default: never"
    )
    parser.add_argument("--keep-tmp", action="store_true", help="leave the run's temporary folder, with Ray's logs")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="arguments of the module")
    options = parser.parse_args()
    if options.log is not None and not options.log.parent.is_dir():
        parser.error(f"--log {options.log}: there is no folder {options.log.parent}")
    args = options.args[1:] if options.args[:1] == ["--"] else options.args
    if needs_hub(args):
        os.environ.setdefault("HF_HUB_OFFLINE", "0")
    if options.preset:
        args = ["--config-dir", str(PRESETS), "--config-name", options.preset, *args]
    command = [sys.executable, "-m", options.module, *args]
    return supervise(command, options.log, options.timeout, options.keep_tmp)


if __name__ == "__main__":
    sys.exit(main())
