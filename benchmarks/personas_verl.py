# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The personas through real verl and vLLM on the CPU: `grpo`, P-GRPO, and P-GRPO with options and random groups.

    python benchmarks/personas_verl.py [--seeds 5] [--jobs 1] [--arms grpo pgrpo] [--against grpo] [--json FILE]

The quickstart's setting (n = 2, noise 0.2, 100 steps), each seed with data, model and noise of its own, the same for
all arms. A run takes about four minutes on two cores; finished ones are kept in `--out` and reused, so that the study
can be interrupted and extended. Utility is that of the last fifth of the run: `mean` weighs personas equally, `worst`
is the persona with least. `area` is the mean over personas and all steps. Intervals are Student-t, 95 %, over seeds;
differences are paired by seed. Rollouts are asynchronous, so that a second run of one seed differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import stats
from speed import machine

from verl_pgrpo.data import personas
from verl_pgrpo.data.tiny_model import make_tiny_qwen3
from verl_pgrpo.report.loading import load_runs

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "recipes" / "personas" / "run_tiny_cpu.sh"
N, NOISE, STEPS, RESPONSES = 2, 0.2, 100, 64
HALF_LIFE = 128  # rewards of a preference group, as in personas_torch.py
# Of each arm: the recipe's variables, and verl's arguments.
ARMS: dict[str, tuple[dict[str, str], list[str]]] = {
    "grpo": ({"ESTIMATOR": "grpo"}, []),
    "pgrpo": ({}, []),
    "random": ({"RANDOM_GROUPS": "1"}, []),
    "exponential": ({}, [f"+algorithm.pgrpo.half_life={HALF_LIFE}"]),
    "shrinkage": ({}, ["+algorithm.pgrpo.baseline=shrinkage", "+algorithm.pgrpo.group_balance=1"]),
}


def prepare(folder: Path, seed: int) -> Path:
    """Make a seed's data and model once, and return their folder."""
    data = folder / f"data-{seed}"
    if not (data / "done").exists():
        data.mkdir(parents=True, exist_ok=True)
        for split, rows in (("train", STEPS * RESPONSES // N), ("val", 70)):
            personas.make_split(split, rows, seed=seed, noise=NOISE).to_parquet(data / f"{split}.parquet")
        make_tiny_qwen3(data / "model", personas.toy_vocabulary(), seed=seed)
        (data / "done").touch()
    return data


def run(arm: str, seed: int, out: Path) -> Path:
    """Train one run unless it is finished already, and return its folder."""
    folder = out / f"{arm}-{seed}"
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    variables, arguments = ARMS[arm]
    paths = {"DATA_DIR": str(out / f"data-{seed}"), "RUN_DIR": str(folder), "SEED": str(seed), "PYTHON": sys.executable}
    sizes = {"N": str(N), "STEPS": str(STEPS), "TIMEOUT": "3600"}
    with open(folder / "run.log", "wb") as log:
        command = ["bash", str(SCRIPT), "trainer.save_freq=-1", *arguments]
        environment = {**os.environ, **variables, **paths, **sizes}
        subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)
    (folder / "done").touch()
    return folder


def measures(arm: str, folder: Path) -> tuple[float, float, float]:
    """Mean over personas and worst persona in the last fifth, and the mean over personas and all steps."""
    comparison = load_runs([f"{arm}={folder}"], value="utility")
    end = comparison.ends[0]
    return end.mean(), end.min(), comparison.means(0, comparison.steps).mean()


def interval(values: np.ndarray, sign: str = "") -> str:
    """Mean and, from two seeds on, half the width of its 95 % interval."""
    if len(values) == 1:
        return f"{values[0]:{sign}.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():{sign}.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--against", default="grpo", choices=ARMS, help="the arm that the others are compared with")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmarks" / "personas")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    args = parser.parse_args()
    out = args.out.resolve()
    for seed in range(args.seeds):
        prepare(out, seed)
    found: dict[tuple[str, int], tuple[float, float, float]] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = {(arm, seed): pool.submit(run, arm, seed, out) for seed in range(args.seeds) for arm in args.arms}
        for (arm, seed), future in runs.items():
            found[arm, seed] = measures(arm, future.result())
            print(
                "{:<12} seed {}: mean {:.2f}, worst {:.2f}, area {:.2f}".format(arm, seed, *found[arm, seed]),
                flush=True,
            )

    print(f"\nseeds 0 to {args.seeds - 1}, n={N}, noise {NOISE}, {STEPS} steps of {RESPONSES} responses; {machine()}\n")
    print(f"| arm | mean | worst persona | area | minus {args.against}: mean | worst | area |\n{'|---' * 7}|")
    for arm in args.arms:
        values = np.array([found[arm, seed] for seed in range(args.seeds)])
        cells = [interval(column) for column in values.T]
        if arm != args.against and args.against in args.arms:
            paired = values - np.array([found[args.against, seed] for seed in range(args.seeds)])
            cells += [f"{interval(column, '+')} (better in {(column > 0).sum()})" for column in paired.T]
        else:
            cells += ["", "", ""]
        print(f"| {arm} | {' | '.join(cells)} |")
    if args.json:
        table = [
            {"arm": arm, "seed": seed, "mean": m, "worst": w, "area": a} for (arm, seed), (m, w, a) in found.items()
        ]
        Path(args.json).write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
