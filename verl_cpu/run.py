# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run verl on the CPU, and clean up after it however it ends.

    python -m verl_cpu.run --preset cpu --timeout 1200 -- algorithm.adv_estimator=grpo \\
        data.train_files=... actor_rollout_ref.model.path=... trainer.default_local_dir=...

What follows `--` goes to `python -m verl.trainer.main_ppo`, or to another launcher of verl (`--module`). Ctrl-C and
SIGTERM are passed on; verl gets ten seconds to end by itself, a second Ctrl-C ends it at once. A dead worker ends the
run, too; verl would wait for it. The exit status is verl's, 1 after a dead worker, 124 after a timeout,
128 + n after signal n. From Python use `run_main_ppo`. Linux only.
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from verl_cpu import ENVIRONMENT, RUN_ID, processes
from verl_cpu.watchdog import Watchdog

TIMED_OUT = 124
PATIENCE = 10.0
"""Seconds that verl gets to end after the signal, and its processes after it has ended."""

PRESETS = Path(__file__).resolve().parent / "presets"

_LONGEST_BASE = 20  # Ray puts sockets below TMPDIR, and the path of a socket has at most 107 bytes
_PR_SET_PDEATHSIG = 1


def run_main_ppo(
    args: Sequence[str],
    log_path: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> int:
    """Run `main_ppo` with these arguments in a launcher process of its own; return its exit status.

    The launcher also ends the run when the calling process ends.

    Args:
        args: arguments of `verl.trainer.main_ppo`, one string each.
        log_path: file for all output (overwritten); None: this process's own.
        env: variables to set in addition to this process's environment.
        timeout: seconds until the run is ended; None: never.

    Returns:
        The exit status, as the module's docstring has it.
    """
    command = [sys.executable, "-m", "verl_cpu.run", "--parent", str(os.getpid())]
    if log_path is not None:
        command += ["--log", str(log_path)]
    if timeout is not None:
        command += ["--timeout", str(timeout)]
    launcher = subprocess.Popen([*command, "--", *args], env={**os.environ, **(env or {})})
    try:
        return launcher.wait()
    except BaseException:  # Ctrl-C, or what a caller's signal handler raises
        launcher.terminate()
        launcher.wait()
        raise


class _Signals:
    """Records SIGINT, SIGTERM and SIGHUP instead of ending."""

    def __init__(self) -> None:
        self.received: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, lambda number, frame: self.received.append(number))


def supervise(
    command: Sequence[str],
    log: Path | None = None,
    timeout: float | None = None,
    parent: int | None = None,
    keep_tmp: bool = False,
    watch_workers: bool = True,
) -> int:
    """Run `command` as a run of its own; end and clean up all of it afterwards. Return the exit status.

    With `watch_workers` a dead worker ends the run. To be switched off for a Ray node, which outlives its jobs.
    """
    signals = _Signals()
    output = log.open("wb") if log is not None else None
    base = Path(tempfile.gettempdir())
    if len(str(base)) > _LONGEST_BASE:
        base = Path("/tmp")
    for folder in processes.end_killed_runs(base):
        print(f"verl_cpu: removed {folder} and what was left of its run, whose launcher was killed", file=sys.stderr)
    run = processes.Run.begin(base)
    environment = {
        **ENVIRONMENT,
        # Ray stays on 127.0.0.1; it reads this while it is imported, which is before our plugin is.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "HYDRA_FULL_ERROR": "1",  # else a failed run's last line is Hydra's hint at this variable
        **os.environ,
        "VERL_PLATFORM": "cpu",
        RUN_ID: run.id,
        "TMPDIR": str(run.folder),
    }
    environment.pop("RAY_TMPDIR", None)  # has precedence over TMPDIR
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        del environment["CUDA_VISIBLE_DEVICES"]  # Ray would refuse the logical GPU
    libc = ctypes.CDLL(None)
    child, hurry, reason = None, True, None
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C reaches only us, and we pass it on to main_ppo alone
            # If this process is killed, main_ppo gets a SIGTERM, and Ray's processes end after it.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        )
        deadline = time.monotonic() + timeout if timeout else None
        watchdog = Watchdog(run.id, run.folder) if watch_workers else None
        status, reason = _watch(child, signals, deadline, parent, watchdog)
        hurry = child.poll() is None and status == 1  # a verl that hangs does not end by itself
    finally:
        if child is not None:
            if child.poll() is None and not hurry:
                child.send_signal(signal.SIGINT)
                _wait(child, PATIENCE, signals)
            hurry = hurry or child.poll() is None or len(signals.received) > 1
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


def _watch(
    child: subprocess.Popen, signals: _Signals, deadline: float | None, parent: int | None, watchdog: Watchdog | None
) -> tuple[int, str | None]:
    """Wait for the run's end or a reason to end it; return the exit status, and the reason if it is known."""
    while not signals.received:
        try:
            status = child.wait(timeout=1.0)
            return (status if status >= 0 else 128 - status), (watchdog.failure() if watchdog and status else None)
        except subprocess.TimeoutExpired:
            pass
        if deadline is not None and time.monotonic() > deadline:
            return TIMED_OUT, "timeout"
        if parent is not None and os.getppid() != parent:
            return 128 + signal.SIGTERM, "the process that started this run has ended"
        if watchdog is not None and (reason := watchdog.look()) is not None:
            return 1, reason
    return 128 + signals.received[0], None


def _wait(child: subprocess.Popen, seconds: float, signals: _Signals) -> None:
    deadline = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < deadline and len(signals.received) < 2:
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        usage="%(prog)s [--preset NAME] [--module NAME] [--log FILE] [--timeout SECONDS] [--keep-tmp] -- ARGS...",
    )
    presets = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    parser.add_argument("--preset", choices=presets, help="settings for the CPU, as --config-dir and --config-name")
    parser.add_argument("--module", default="verl.trainer.main_ppo", help="what to run; default: %(default)s")
    parser.add_argument("--log", type=Path, help="file for all output, overwritten; default: pass it through")
    parser.add_argument("--timeout", type=float, help="seconds until the run is ended; default: never")
    parser.add_argument("--keep-tmp", action="store_true", help="leave the run's temporary folder, with Ray's logs")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # end the run when this parent has ended
    parser.add_argument("args", nargs=argparse.REMAINDER, help="arguments of the module")
    options = parser.parse_args()
    args = options.args[1:] if options.args[:1] == ["--"] else options.args
    if options.preset:
        args = ["--config-dir", str(PRESETS), "--config-name", options.preset, *args]
    command = [sys.executable, "-m", options.module, *args]
    return supervise(command, options.log, options.timeout, options.parent, options.keep_tmp)


if __name__ == "__main__":
    sys.exit(main())
