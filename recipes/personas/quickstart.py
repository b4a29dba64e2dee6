# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`make quickstart`: stock verl on a CPU, once with `grpo` and once with `pgrpo`, and compare what each persona got.

    N=2 NOISE=0.2 STEPS=100 SEED=0 python recipes/personas/quickstart.py [--model tiny|smollm2]

Runs `run_tiny_cpu.sh`, or with `--model smollm2` `run_smollm2_135m_cpu.sh`, for each estimator (same seed, data, model
and settings), prints a table, draws `runs/quickstart/report.png` and writes `runs/quickstart/report.html`
(`runs/quickstart_smollm2/`). What an earlier call has finished is reused.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from verl_pgrpo.cli.output import format_table
from verl_pgrpo.report.loading import load_runs
from verl_pgrpo.report.narrative import headline
from verl_pgrpo.report.page import make_report, render
from verl_pgrpo.report.picture import draw_picture, fifths_table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "launch"))
import recipe  # noqa: E402

RUNS = Path(os.environ.get("RUNS") or HERE.parents[1] / "runs").resolve()
ESTIMATORS = ("grpo", "pgrpo")


@dataclass(frozen=True)
class Model:
    """A script of this folder.

    Attributes:
        steps, timeout: default number of steps, and the seconds after which such a run is ended.
        responses: per step.
        folder: below runs.
    """

    script: str
    steps: int
    timeout: int
    responses: int
    folder: str


MODELS = {
    "tiny": Model("run_tiny_cpu.sh", 100, 1500, 64, "quickstart"),
    "smollm2": Model("run_smollm2_135m_cpu.sh", 60, 5400, 32, "quickstart_smollm2"),
}


@dataclass(frozen=True)
class Setting:
    """Responses per prompt, std of the rating noise (in units of a persona's scale), steps, seed."""

    model: Model
    n: int
    noise: float
    steps: int
    seed: int

    @classmethod
    def from_environment(cls, model: Model) -> Setting:
        def read(name: str, default: Any) -> Any:
            text = os.environ.get(name)
            try:
                return type(default)(text) if text else default
            except ValueError:
                sys.exit(f"quickstart: {name}={text!r} is not a number; leave it out for {default}")

        setting = cls(model, read("N", 2), read("NOISE", 0.2), read("STEPS", model.steps), read("SEED", 0))
        if setting.n < 1 or model.responses % setting.n:
            sys.exit(
                f"quickstart: N={setting.n} does not divide the {model.responses} responses of a step; "
                "take 1, 2, 4, 8, ..."
            )
        if not 0 <= setting.noise < math.inf or setting.steps < 1 or setting.seed < 0:
            sys.exit("quickstart: NOISE and SEED must not be negative, NOISE finite, STEPS at least 1")
        return setting

    def __str__(self) -> str:
        prompts = self.model.responses // self.n
        return (
            f"{self.steps} steps of {prompts} prompts x {self.n} responses, rating noise {self.noise:g} of a user's "
            f"scale, seed {self.seed}"
        )

    @property
    def timeout(self) -> int:
        """Seconds after which a run is ended."""
        return math.ceil(self.model.timeout * max(1.0, self.steps / self.model.steps))

    @property
    def folder(self) -> Path:
        name = f"n{self.n}-noise{self.noise:g}-steps{self.steps}-seed{self.seed}"
        return RUNS / self.model.folder / name


def train(estimator: str, setting: Setting, lock: int) -> Path:
    """One run, with a progress bar; its folder. A finished one is reused, an unfinished one starts again."""
    folder = setting.folder / estimator
    if (folder / "done").exists():
        print(f"{estimator}: finished earlier, reused ({folder})")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "rollouts").mkdir(parents=True)
    # The recipe's other variables are not taken from the shell, because the folder's name does not depend on them.
    others = recipe.variables(f"{HERE.name}/{setting.model.script}").keys() - {"THREADS"}
    variables = {
        **dict.fromkeys(others, ""),
        "ESTIMATOR": estimator,
        "DATA_DIR": str(setting.folder / "data"),
        "RUN_DIR": str(folder),
        "N": str(setting.n),
        "RESPONSES": str(setting.model.responses),
        "NOISE": str(setting.noise),
        "STEPS": str(setting.steps),
        "SEED": str(setting.seed),
        "PYTHON": sys.executable,
        "TIMEOUT": os.environ.get("TIMEOUT") or str(setting.timeout),
    }
    every = 1.0 if sys.stderr.isatty() else 20.0  # seconds; in a log file each update is a line of its own
    with tqdm(total=setting.steps, desc=f"{estimator:>5}", unit="step", dynamic_ncols=True, mininterval=every) as bar:

        def show() -> None:
            bar.n = sum(1 for _ in folder.glob("rollouts/*.jsonl"))
            bar.set_postfix_str("" if bar.n else "Ray, the model and vLLM are starting, 1 to 2 minutes")

        run_and_watch(["bash", str(HERE / setting.model.script)], variables, folder / "run.log", show, every, lock)
    (folder / "done").touch()
    return folder


def run_and_watch(
    command: list[str],
    variables: dict[str, str],
    log: Path,
    show: Callable[[], None],
    every: float = 1.0,
    lock: int | None = None,
) -> None:
    """Run a command to its end, and call `show` every so many seconds and after it. Exit if the command fails.

    The command keeps the file descriptor `lock` open.
    """
    with open(log, "wb") as output:
        run = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C comes to us, and we pass it on once
            pass_fds=() if lock is None else (lock,),
        )
    try:
        while run.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(timeout=every)
            show()
    finally:
        if run.poll() is None:
            print("ending the run ...", flush=True)
            run.send_signal(signal.SIGTERM)
            run.wait()
    if run.returncode != 0:
        tail = log.read_text(errors="replace")[-3000:]
        hint = "; TIMEOUT=<seconds> gives it more time" if run.returncode == 124 else ""
        sys.exit(f"{tail}\nthe run failed (exit status {run.returncode}{hint}); its whole log: {log}")


def exit_on_signals() -> None:
    """Exit on SIGTERM, and on SIGHUP when the terminal closes. `run_and_watch` then ends its command."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def lock_folder(folder: Path) -> int:
    """Create and lock a folder as long as this process or a run that it started lives. Return the file descriptor."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"quickstart: another call still trains in {folder}; wait for it, or end it")
    return lock


def compare(setting: Setting) -> tuple[str, str]:
    """Write the table, the picture and the page; return the table and the page's first sentence."""
    comparison = load_runs([f"{name}={setting.folder / name}" for name in ESTIMATORS])
    text = format_table(fifths_table(comparison))
    (setting.folder / "table.txt").write_text(text + "\n")
    (setting.folder / "report.html").write_text(render(make_report(comparison)), encoding="utf-8", errors="replace")
    draw_picture(comparison, setting.folder / "report.png", str(setting))
    for name in ("report.html", "report.png"):
        shutil.copy(setting.folder / name, setting.folder.parent / name)
    return text, headline(comparison)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    model = MODELS[parser.parse_args().model]
    exit_on_signals()
    setting = Setting.from_environment(model)
    started = time.monotonic()
    print(f"Seven personas, stock verl with real vLLM on this CPU: {setting}. Logs: {setting.folder}", flush=True)
    try:
        lock = lock_folder(setting.folder)
        for name in ESTIMATORS:
            train(name, setting, lock)
    except KeyboardInterrupt:
        sys.exit("\nquickstart: interrupted; nothing is left running. Call it again to continue.")
    text, first_sentence = compare(setting)
    print(
        f"\nMean utility (what a persona wants, 0 to 1) in the first, central and last fifth of training:\n\n{text}\n"
    )
    print(f"The picture: {setting.folder.parent / 'report.png'}   ({(time.monotonic() - started) / 60:.1f} minutes)")
    print("What it shows, and when not to use P-GRPO: recipes/personas/README.md")
    print(f"\n{first_sentence}\nDetails on one page; open it in a browser: {setting.folder.parent / 'report.html'}")


if __name__ == "__main__":
    main()
