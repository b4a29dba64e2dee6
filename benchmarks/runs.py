# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The advantage step in real runs of verl with vLLM on the CPU: `timing_s/adv` of `pgrpo` against `grpo`.

    python benchmarks/runs.py [--runs 3] [--steps 30]

Launches the quickstart's script with each estimator in turn, a minute or two of start each, and reads verl's metrics of
each run. A run's first steps are left out, as they find caches cold. The ratio is that of the medians over all steps of
all runs; beside it, that of each pair of runs, to show the machine's noise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from itertools import chain
from pathlib import Path

from speed import machine

ROOT = Path(__file__).resolve().parent.parent
ESTIMATORS = ("grpo", "pgrpo")
WARM_UP = 5


def prepare(folder: Path) -> Path:
    """Data and a tiny model, the quickstart's."""
    from verl_pgrpo.data import personas
    from verl_pgrpo.data.tiny_model import make_tiny_qwen3

    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split, size in (("train", 4096), ("val", 70)):
        personas.make_split(split, size, noise=0.2).to_parquet(data / f"{split}.parquet")
    make_tiny_qwen3(data / "model", personas.toy_vocabulary(), seed=0)
    return data


def run(estimator: str, folder: Path, data: Path, steps: int) -> list[float]:
    """Seconds of each step's advantage."""
    environment = {
        **os.environ,
        "ESTIMATOR": estimator,
        "DATA_DIR": str(data),
        "RUN_DIR": str(folder),
        "STEPS": str(steps),
        "PYTHON": sys.executable,
    }
    folder.mkdir(parents=True)
    with open(folder / "run.log", "wb") as log:
        script = [str(ROOT / "recipes" / "personas" / "run_tiny_cpu.sh"), "trainer.save_freq=-1"]
        subprocess.run(["bash", *script], env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [step["data"]["timing_s/adv"] for step in map(json.loads, lines) if "timing_s/adv" in step["data"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each estimator")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "adv")
    args = parser.parse_args()
    times: dict[str, list[list[float]]] = {name: [] for name in ESTIMATORS}
    data = prepare(args.out)
    for number in range(args.runs):
        for name in ESTIMATORS:
            times[name].append(run(name, args.out / f"{name}_{number}", data, args.steps)[WARM_UP:])
            print(f"{name} {number}: median {1e3 * statistics.median(times[name][-1]):.1f} ms", flush=True)
    medians = {name: statistics.median(chain.from_iterable(found)) for name, found in times.items()}
    pairs = [statistics.median(b) / statistics.median(a) for a, b in zip(*times.values(), strict=True)]
    print(f"seed 0, {args.runs} runs of {args.steps} steps, 64 responses; {machine()}")
    print(
        f"timing_s/adv, ms: grpo {1e3 * medians['grpo']:.1f}, pgrpo {1e3 * medians['pgrpo']:.1f}; "
        f"pgrpo / grpo {medians['pgrpo'] / medians['grpo']:.2f} (pairs of runs: {', '.join(f'{p:.2f}' for p in pairs)})"
    )


if __name__ == "__main__":
    main()
