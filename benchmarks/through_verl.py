# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes through real verl and vLLM on the CPU: `grpo`, P-GRPO, and P-GRPO with options and random groups.

    python benchmarks/through_verl.py [--study personas-tiny|personas-smollm2|movielens-smollm2] [--first-seed 0]
        [--seeds 5] [--jobs 1] [--arms grpo pgrpo] [--archive ml-100k.zip] [--json FILE]
        [--picture FILE.png]

| study | setting | a run on two cores |
|---|---|---|
| `personas-tiny` | that of `make quickstart`: n = 2, noise 0.2, 100 steps | 4 minutes |
| `personas-smollm2` | that of `make quickstart-smollm2`: n = 2, noise 0.2, 60 steps | 20 minutes |
| `movielens-smollm2` | the task `stars` with real ratings: n = 4, 60 steps | 50 minutes |

Each seed has its own data and noise (and model, if tiny), shared by all arms. The recipes' variables (`N`, `STEPS` ...)
are not taken from the environment. Finished runs are kept in `--out` and reused, so a study can be interrupted and
extended.
Utility is that of the last fifth of the run: `mean` weights preference groups equally, `worst` is the group with the
lowest utility. `area` is the mean over groups and all steps. Intervals are Student-t, 95 %, over seeds; differences are
paired by seed. Rollouts are asynchronous, so a second run with the same seed differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from speed import machine

from verl_pgrpo.data.movielens import prepare
from verl_pgrpo.data.movielens_log import MovieLensOptions
from verl_pgrpo.data.tastes import ENGLISH_GENRES, ENGLISH_STYLES
from verl_pgrpo.evaluation.rollouts import find_dumps
from verl_pgrpo.report.loading import load_runs
from verl_pgrpo.report.picture import draw_picture
from verl_pgrpo.rewards.personas import count_markers

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"
sys.path.insert(0, str(RECIPES / "launch"))
import recipe  # noqa: E402

SCRIPTS = {
    "personas-tiny": RECIPES / "personas" / "run_tiny_cpu.sh",
    "personas-smollm2": RECIPES / "personas" / "run_smollm2_135m_cpu.sh",
    "movielens-smollm2": RECIPES / "movielens" / "run_smollm2_135m_cpu.sh",
}
HALF_LIFE = 128  # rewards of a preference group, as in personas_torch.py
ARMS: dict[str, dict[str, str]] = {  # variables of the recipe
    "grpo": {"ESTIMATOR": "grpo"},
    "pgrpo": {"ESTIMATOR": "pgrpo"},
    "random": {"RANDOM_GROUPS": "1"},
    "exponential": {"PGRPO_OPTIONS": f"half_life={HALF_LIFE}"},
    "shrinkage": {"PGRPO_OPTIONS": "baseline=shrinkage group_balance=1"},
}


def run(study: str, arm: str, seed: int, out: Path, jobs: int = 1) -> Path:
    """Train one run, with its share of the processor, unless it is finished already, and return its folder."""
    folder = out / f"{arm}-{seed}"
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = {"DATA_DIR": str(out / f"data-{seed}"), "RUN_DIR": str(folder), "SEED": str(seed), "PYTHON": sys.executable}
    with open(folder / "run.log", "wb") as log:
        command = ["bash", str(SCRIPTS[study]), "trainer.save_freq=-1"]
        share = {"THREADS": str(max(1, (os.cpu_count() or 1) // jobs)), "TIMEOUT": "10800"}
        read = recipe.variables(str(SCRIPTS[study].relative_to(RECIPES)))
        others = {name: value for name, value in os.environ.items() if name not in read}
        environment = {**others, **share, **ARMS[arm], **paths}
        status = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise RuntimeError(f"the run failed with status {status}: {folder / 'run.log'}")
    (folder / "done").touch()
    return folder


def film_data(archive: Path, seed: int, out: Path) -> None:
    """Create a seed's data, which the script of MovieLens does not."""
    folder = out / f"data-{seed}"
    if not (folder / "val.parquet").exists():
        options = MovieLensOptions(task="stars", groups="4", history=3, seed=seed)
        prepare(archive, folder, options)


def measures(arm: str, folder: Path, data: Path) -> tuple[float, float, float]:
    """Mean over the true groups and worst group in the last fifth, and the mean over groups and all steps."""
    files, key = [data / "train.parquet"], "preference_group"
    comparison = load_runs([f"{arm}={folder}"], value="utility", data=files, group_key=key)
    end = comparison.ends[0]
    return end.mean(), end.min(), comparison.means(0, comparison.steps).mean()


def taste_words(folders: Sequence[Path]) -> pd.DataFrame:
    """Shares of the last fifth's responses that hold words which the reward looks for; a row for each kind of persona.

    The personas of the most frequent style are one row, the others another.
    """
    rows = []
    for folder in folders:
        files = list(find_dumps(folder / "rollouts").files.values())
        for row in (json.loads(line) for file in files[-(len(files) // 5) :] for line in file.open(encoding="utf-8")):
            truth, styles, genres = json.loads(row["gts"]), ENGLISH_STYLES, ENGLISH_GENRES
            found = {f"any {style}": count_markers(row["output"], words) > 0 for style, words in styles.items()}
            own = {"own genre": count_markers(row["output"], genres[truth["genre"]]) > 0}
            rows.append({"style": truth["style"], **own, "own style": found[f"any {truth['style']}"], **found})
    frame = pd.DataFrame(rows)
    most = frame["style"].mode()[0]
    kinds = np.where(frame["style"] == most, most, "others")
    return frame.groupby(kinds)[["own genre", "own style", f"any {most}"]].mean()


def interval(values: np.ndarray, sign: str = "") -> str:
    """Return the mean and, from two seeds on, the half-width of its 95 % interval."""
    if len(values) == 1:
        return f"{values[0]:{sign}.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():{sign}.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=SCRIPTS, default="personas-tiny")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--against", default="grpo", choices=ARMS, help="the arm that the others are compared with")
    parser.add_argument("--archive", type=Path, default=ROOT / "data" / "ml-100k.zip", help="default: data/ml-100k.zip")
    parser.add_argument("--out", type=Path, help="default: runs/benchmarks/STUDY")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the curves of each persona (.png)")
    args = parser.parse_args()
    if args.picture and args.study == "movielens-smollm2":
        parser.error("--picture: every seed clusters its own groups, so they cannot be averaged over seeds")
    out = (args.out or ROOT / "runs" / "benchmarks" / args.study).resolve()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    found: dict[tuple[str, int], tuple[float, float, float]] = {}

    def train(seed: int) -> None:  # arms run sequentially: the first one creates the data
        if args.study == "movielens-smollm2":
            film_data(args.archive, seed, out)
        for arm in args.arms:
            folder = run(args.study, arm, seed, out, args.jobs)
            found[arm, seed] = measures(arm, folder, out / f"data-{seed}")
            print(
                "{:<12} seed {}: mean {:.2f}, worst {:.2f}, area {:.2f}".format(arm, seed, *found[arm, seed]),
                flush=True,
            )

    if args.study == "movielens-smollm2":
        subprocess.run([sys.executable, str(RECIPES / "movielens" / "make_ml_100k.py"), str(args.archive)], check=True)
    if args.study.endswith("smollm2"):  # once, before several jobs look for it
        model = ROOT / "runs" / "models" / "SmolLM2-135M-Instruct"
        subprocess.run([sys.executable, str(RECIPES / "personas" / "make_smollm2.py"), str(model)], check=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(train, seeds))

    print(f"\n{args.study}, seeds {seeds[0]} to {seeds[-1]}; {machine()}\n")
    print(f"| arm | mean | worst group | area | minus {args.against}: mean | worst | area |\n{'|---' * 7}|")
    for arm in args.arms:
        values = np.array([found[arm, seed] for seed in seeds])
        cells = [interval(column) for column in values.T]
        if arm != args.against and args.against in args.arms:
            paired = values - np.array([found[args.against, seed] for seed in seeds])
            cells += [f"{interval(column, '+')} (better in {(column > 0).sum()})" for column in paired.T]
        else:
            cells += ["", "", ""]
        print(f"| {arm} | {' | '.join(cells)} |")
    if args.study == "personas-smollm2":
        for arm in args.arms:
            print(f"\n{arm}, words in the last fifth:")
            print(taste_words([out / f"{arm}-{seed}" for seed in seeds]).round(2).to_string())
    if args.picture:
        runs = [f"{arm}={out / f'{arm}-{seed}'}" for arm in args.arms for seed in seeds]
        data = [out / f"data-{seed}" / "train.parquet" for seed in seeds]
        comparison = load_runs(runs, value="utility", data=data, group_key="preference_group")
        subtitle = f"{args.study}: {len(comparison.steps)} steps, means of seeds {seeds[0]} to {seeds[-1]}"
        draw_picture(comparison, args.picture, subtitle)
    if args.json:
        table = [
            {"arm": arm, "seed": seed, "mean": m, "worst": w, "area": a} for (arm, seed), (m, w, a) in found.items()
        ]
        Path(args.json).write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
