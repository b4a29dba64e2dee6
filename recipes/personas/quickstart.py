# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`make quickstart`: stock verl on a CPU, once with `grpo` and once with `pgrpo`, and compare what each persona got.

    N=2 NOISE=0.2 STEPS=100 SEED=0 python recipes/personas/quickstart.py

Makes the persona data and a tiny Qwen3, runs `run_tiny_cpu.sh` for each estimator (same seed, data, model and
settings), prints a table, draws `runs/quickstart/report.png` and writes `runs/quickstart/report.html`. What an earlier
call has finished is reused.
"""

from __future__ import annotations

import argparse
import contextlib
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

from picture import draw_picture, fifths_table
from tqdm import tqdm

from verl_pgrpo.cli.output import format_table
from verl_pgrpo.data import personas
from verl_pgrpo.data.tiny_model import make_tiny_qwen3
from verl_pgrpo.report.loading import load_runs
from verl_pgrpo.report.narrative import headline
from verl_pgrpo.report.page import make_report, render

HERE = Path(__file__).resolve().parent
OUT = Path(os.environ.get("RUNS") or HERE.parents[1] / "runs").resolve() / "quickstart"
RESPONSES = 64  # a step; run_tiny_cpu.sh has the same
ESTIMATORS = ("grpo", "pgrpo")


@dataclass(frozen=True)
class Setting:
    """Responses per prompt, std of the rating noise (in units of a persona's scale), steps, seed."""

    n: int
    noise: float
    steps: int
    seed: int

    @classmethod
    def from_environment(cls) -> Setting:
        def read(name: str, default: Any) -> Any:
            text = os.environ.get(name)
            try:
                return type(default)(text) if text else default
            except ValueError:
                sys.exit(f"quickstart: {name}={text!r} is not a number; leave it out for {default}")

        setting = cls(n=read("N", 2), noise=read("NOISE", 0.2), steps=read("STEPS", 100), seed=read("SEED", 0))
        if setting.n < 1 or RESPONSES % setting.n:
            sys.exit(
                f"quickstart: N={setting.n} does not divide the {RESPONSES} responses of a step; take 1, 2, 4, 8, ..."
            )
        if not 0 <= setting.noise < math.inf or setting.steps < 1 or setting.seed < 0:
            sys.exit("quickstart: NOISE and SEED must not be negative, NOISE finite, STEPS at least 1")
        return setting

    def __str__(self) -> str:
        return (
            f"{self.steps} steps of {RESPONSES // self.n} prompts x {self.n} responses, rating noise {self.noise:g} of "
            f"a user's scale, seed {self.seed}"
        )

    @property
    def folder(self) -> Path:
        return OUT / f"n{self.n}-noise{self.noise:g}-steps{self.steps}-seed{self.seed}"


def prepare(setting: Setting) -> Path:
    """Data and model, made once for a setting."""
    data = setting.folder / "data"
    if not (data / "done").exists():
        data.mkdir(parents=True, exist_ok=True)
        size = max(1024, setting.steps * RESPONSES // setting.n)
        for split, rows in (("train", size), ("val", 70)):
            frame = personas.make_split(split, rows, seed=setting.seed, noise=setting.noise)
            frame.to_parquet(data / f"{split}.parquet")
        make_tiny_qwen3(data / "model", personas.toy_vocabulary(), seed=setting.seed)
        (data / "done").touch()
    return data


def train(estimator: str, setting: Setting, data: Path) -> Path:
    """One run, with a progress bar; its folder. A finished one is reused, an unfinished one starts again."""
    folder = setting.folder / estimator
    if (folder / "done").exists():
        print(f"{estimator}: finished earlier, reused ({folder})")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "rollouts").mkdir(parents=True)
    variables = {
        "ESTIMATOR": estimator,
        "DATA_DIR": str(data),
        "RUN_DIR": str(folder),
        "N": str(setting.n),
        "STEPS": str(setting.steps),
        "SEED": str(setting.seed),
        "PYTHON": sys.executable,
        "MODEL_PATH": "",  # the recipe's own
    }
    every = 1.0 if sys.stderr.isatty() else 20.0  # seconds; in a log file each update is a line of its own
    with tqdm(total=setting.steps, desc=f"{estimator:>5}", unit="step", dynamic_ncols=True, mininterval=every) as bar:

        def show() -> None:
            bar.n = sum(1 for _ in folder.glob("rollouts/*.jsonl"))
            bar.set_postfix_str("" if bar.n else "Ray, the model and vLLM are starting, 1 to 2 minutes")

        run_and_watch(["bash", str(HERE / "run_tiny_cpu.sh")], variables, folder / "run.log", show, every)
    (folder / "done").touch()
    return folder


def run_and_watch(
    command: list[str], variables: dict[str, str], log: Path, show: Callable[[], None], every: float = 1.0
) -> None:
    """Run a command to its end, and call `show` every so many seconds and after it. Exit if the command fails."""
    with open(log, "wb") as output:
        run = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C comes to us, and we pass it on once
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
        sys.exit(f"{tail}\nthe run failed (exit status {run.returncode}); its whole log: {log}")


def compare(setting: Setting) -> tuple[str, str]:
    """Write the table, the picture and the page; return the table and the page's first sentence."""
    comparison = load_runs([f"{name}={setting.folder / name}" for name in ESTIMATORS])
    text = format_table(fifths_table(comparison))
    (setting.folder / "table.txt").write_text(text + "\n")
    (setting.folder / "report.html").write_text(render(make_report(comparison)), encoding="utf-8", errors="replace")
    draw_picture(comparison, setting.folder / "report.png", str(setting))
    for name in ("report.html", "report.png"):
        shutil.copy(setting.folder / name, OUT / name)
    return text, headline(comparison)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    setting = Setting.from_environment()
    started = time.monotonic()
    print(f"Seven personas, stock verl with real vLLM on this CPU: {setting}. Logs: {setting.folder}", flush=True)
    try:
        data = prepare(setting)
        for name in ESTIMATORS:
            train(name, setting, data)
    except KeyboardInterrupt:
        sys.exit("\nquickstart: interrupted; nothing is left running. Call it again to continue.")
    text, first_sentence = compare(setting)
    print(
        f"\nMean utility (what a persona wants, 0 to 1) in the first, central and last fifth of training:\n\n{text}\n"
    )
    print(f"The picture: {OUT / 'report.png'}   ({(time.monotonic() - started) / 60:.1f} minutes)")
    print("What it shows, and when not to use P-GRPO: recipes/personas/README.md")
    print(f"\n{first_sentence}\nDetails on one page; open it in a browser: {OUT / 'report.html'}")


if __name__ == "__main__":
    main()
