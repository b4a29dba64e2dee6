# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes through real verl and vLLM on the CPU: `grpo`, P-GRPO, and P-GRPO with options and random groups.

    python benchmarks/through_verl.py [--study personas-tiny|personas-smollm2|movielens-smollm2] [--first-seed 0]
        [--seeds 5] [--jobs 1] [--arms grpo pgrpo] [--results FOLDER [--no-train]] [--picture FILE.png]

| study | setting | a run on two cores |
|---|---|---|
| `personas-tiny` | that of `make quickstart`: n = 2, noise 0.2, 100 steps | 4 minutes, two at a time 8 |
| `personas-smollm2` | that of `make quickstart-smollm2`: n = 2, noise 0.2, 60 steps | 20 minutes |
| `movielens-smollm2` | the task `stars` with the ratings of ml-100k: n = 2, 40 steps | 35 minutes |

Each seed has its own data and noise (and model, if tiny), shared by all arms. The recipes' variables (`N`, `STEPS` ...)
are not taken from the environment. Finished runs are kept in `--out` and reused, so a study can be interrupted and
extended. `--results` trains only the runs that the table STUDY.csv in this folder lacks, and adds their figures, so a
study can continue on another machine. With `--results benchmarks/results --no-train` it prints the pages' figures in
seconds.
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
from scipy import stats
from speed import machine

from verl_pgrpo.data.tastes import ENGLISH_GENRES, ENGLISH_STYLES
from verl_pgrpo.evaluation.rollouts import find_dumps
from verl_pgrpo.files import atomic_write
from verl_pgrpo.report.loading import load_runs
from verl_pgrpo.report.picture import draw_picture
from verl_pgrpo.rewards.movielens_stars import chosen_letter
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
_MODEL = "personas/make_smollm2.py", "runs/models/SmolLM2-135M-Instruct"
NEEDED = {  # scripts, and what they create
    "personas-tiny": [],
    "personas-smollm2": [_MODEL],
    "movielens-smollm2": [_MODEL, ("movielens/make_ml_100k.py", "data/ml-100k.zip")],
}
MEASURES = ["mean", "worst", "area"]
HALF_LIFE = 128  # rewards of a preference group, as in personas_torch.py
ARMS: dict[str, dict[str, str]] = {  # variables of the recipe
    "grpo": {"ESTIMATOR": "grpo"},
    "pgrpo": {"ESTIMATOR": "pgrpo"},
    "random": {"RANDOM_GROUPS": "1"},
    "exponential": {"PGRPO_OPTIONS": f"half_life={HALF_LIFE}"},
    "shrinkage": {"PGRPO_OPTIONS": "baseline=shrinkage group_balance=1"},
    "grpo-equal": {"ESTIMATOR": "grpo", "EQUAL_GROUPS": "1"},
    "shrinkage-equal": {"PGRPO_OPTIONS": "baseline=shrinkage", "EQUAL_GROUPS": "1"},
    "float32": {"CPUINFO": os.devnull},  # P-GRPO; `pgrpo` computes in bfloat16 where the processor has it
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


class Results:
    """The figures of each run, by arm and seed; with `file`, also kept there."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.lock = Lock()
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        keys = ["arm", "seed"]
        try:
            kept = pd.read_csv(file) if file and file.exists() else pd.DataFrame(columns=[*keys, *MEASURES])
            self.table = kept.set_index(keys)[MEASURES].astype(float)
        except (ValueError, KeyError) as error:  # pandas' errors of an empty or malformed file are a ValueError
            sys.exit(f"{file} is no table of figures: {error}")
        if self.table.isna().any(axis=None) or self.table.index.has_duplicates:
            sys.exit(f"{file}: a figure is missing, or an arm has two rows of one seed; correct or remove these rows")

    def add(self, arm: str, seed: int, figures: Sequence[float]) -> None:
        with self.lock:  # seeds may be trained in parallel
            self.table.loc[(arm, seed), :] = figures
            if self.file:
                with atomic_write(self.file) as file:
                    self.table.sort_index().round(4).to_csv(file)

    def of(self, arm: str, seeds: Sequence[int]) -> np.ndarray:
        """An arm's figures, with a row for each seed."""
        return self.table.loc[[(arm, seed) for seed in seeds], MEASURES].to_numpy(float)


def measures(arm: str, folder: Path, data: Path) -> tuple[float, float, float]:
    """Mean over the true groups and worst group in the last fifth, and the mean over groups and all steps."""
    files, key = [data / "train.parquet"], "preference_group"
    comparison = load_runs([f"{arm}={folder}"], value="utility", data=files, group_key=key)
    end = comparison.ends[0]
    return end.mean(), end.min(), comparison.means(0, comparison.steps).mean()


def taste_words(folders: Sequence[Path]) -> pd.DataFrame:
    """Shares of the last fifth's responses that hold words which the reward looks for; a row for each kind of persona.

    The personas of the most frequent style are one row, the others another. `responses`: their share of all responses.
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
    shares = frame.groupby(kinds)[["own genre", "own style", f"any {most}"]].mean()
    return shares.assign(responses=pd.Series(kinds).value_counts(normalize=True))


def answers(folders: Sequence[Path]) -> pd.DataFrame:
    """Shares of the letters that were chosen in each fifth of the steps; `none`: invalid."""
    rows = []
    for folder in folders:
        for number, files in enumerate(np.array_split(list(find_dumps(folder / "rollouts").files.values()), 5), 1):
            for row in (json.loads(line) for file in files for line in file.open(encoding="utf-8")):
                letter = chosen_letter(row["output"], json.loads(row["gts"])["stars"].keys())
                rows.append({"fifth": number, "answer": letter or "none"})
    frame = pd.DataFrame(rows)
    return pd.crosstab(frame["fifth"], frame["answer"], normalize="index")


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % interval, which is NaN for a single seed."""
    if len(values) == 1:
        return values[0], np.nan
    return values.mean(), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)


def level(values: np.ndarray) -> str:
    mean, half = interval(values)
    return f"{mean:.2f}" if np.isnan(half) else f"{mean:.2f} ± {half:.2f}"


def gain(differences: np.ndarray) -> str:
    """A difference, bold where its interval excludes 0, and in how many seeds it is positive."""
    mean, half = interval(differences)
    if np.isnan(half):
        return f"{mean:+.2f}"
    text = f"{mean:+.2f} ± {half:.2f}"
    return f"{f'**{text}**' if abs(mean) > half else text} (better in {(differences > 0).sum()})"


def print_table(results: Results, arms: Sequence[str], seeds: Sequence[int], against: str) -> None:
    """Print each arm's figures, and their differences from the arm `against` if its figures are known."""
    known = all((against, seed) in results.table.index for seed in seeds)
    print(f"| arm | mean | worst group | area | minus {against}: mean | worst | area |\n{'|---' * 7}|")
    for arm in arms:
        values = results.of(arm, seeds)
        cells = [level(column) for column in values.T]
        compared = arm != against and known
        cells += [gain(column) for column in (values - results.of(against, seeds)).T] if compared else [""] * 3
        print(f"| `{arm}` | {' | '.join(cells)} |")


def at_least(least: int) -> Callable[[str], int]:
    """Return an argument's type: integers from `least`."""

    def integer(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{text}: must be at least {least}")
        return value

    return integer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=SCRIPTS, default="personas-tiny")
    parser.add_argument("--seeds", type=at_least(1), default=5, help="number of seeds")
    parser.add_argument("--first-seed", type=at_least(0), default=0)
    parser.add_argument("--jobs", type=at_least(1), default=1, help="seeds at a time")
    parser.add_argument("--arms", nargs="+", default=[arm for arm in ARMS if arm != "float32"], choices=ARMS)
    parser.add_argument("--against", default="grpo", choices=ARMS, help="the arm that the others are compared with")
    parser.add_argument("--out", type=Path, help="default: runs/benchmarks/STUDY")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="of the figures to start from and add to")
    parser.add_argument("--no-train", action="store_true", help="fail if --results lacks a run")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the curves of each persona (.png)")
    args = parser.parse_args()
    if args.picture and args.study == "movielens-smollm2":
        parser.error("--picture: every seed clusters its own groups, so they cannot be averaged over seeds")
    if "float32" in (*args.arms, args.against) and args.study == "personas-tiny":
        parser.error("float32: personas-tiny computes in float32 with every arm")
    args.arms = list(dict.fromkeys(args.arms))
    out = (args.out or ROOT / "runs" / "benchmarks" / args.study).resolve()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    results = Results(args.results / f"{args.study}.csv" if args.results else None)
    missing = [(arm, seed) for seed in seeds for arm in args.arms if (arm, seed) not in results.table.index]
    if missing and args.no_train:
        runs = ", ".join(f"{arm} {seed}" for arm, seed in missing)
        parser.error(f"--no-train: {results.file or 'without --results, a table'} lacks the runs (arm and seed) {runs}")
    elsewhere = {  # trained on another machine, or removed: their rollouts are not here
        (arm, seed)
        for arm in args.arms
        for seed in seeds
        if (arm, seed) not in missing and not (out / f"{arm}-{seed}" / "done").exists()
    }
    if args.picture and elsewhere:
        parser.error(f"--picture needs rollouts; {results.file} has only figures of {sorted(elsewhere)}; leave it out")

    def train(seed: int) -> None:  # arms run sequentially: the first one creates the data
        for arm in (arm for arm, its_seed in missing if its_seed == seed):
            folder = run(args.study, arm, seed, out, args.jobs)
            figures = measures(arm, folder, out / f"data-{seed}")
            results.add(arm, seed, figures)
            print("{:<12} seed {}: mean {:.2f}, worst {:.2f}, area {:.2f}".format(arm, seed, *figures), flush=True)

    for script, made in NEEDED[args.study] if missing else ():  # once, before several jobs look for it
        subprocess.run([sys.executable, str(RECIPES / script), str(ROOT / made)], check=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(train, seeds))

    where = machine() if missing else f"figures of {results.file}"
    print(f"\n{args.study}, seeds {seeds[0]} to {seeds[-1]}; {where}\n")
    print_table(results, args.arms, seeds, args.against)
    shows = {"personas-smollm2": ("words in the last fifth", taste_words), "movielens-smollm2": ("answers", answers)}
    if args.study in shows:
        title, show = shows[args.study]
        for arm in (arm for arm in args.arms if not any((arm, seed) in elsewhere for seed in seeds)):
            print(f"\n{arm}, {title}:\n{show([out / f'{arm}-{seed}' for seed in seeds]).round(2).to_string()}")
    if args.picture:
        runs = [f"{arm}={out / f'{arm}-{seed}'}" for arm in args.arms for seed in seeds]
        data = [out / f"data-{seed}" / "train.parquet" for seed in seeds]
        comparison = load_runs(runs, value="utility", data=data, group_key="preference_group")
        subtitle = f"{args.study}: {len(comparison.steps)} steps, means of seeds {seeds[0]} to {seeds[-1]}"
        draw_picture(comparison, args.picture, subtitle)


if __name__ == "__main__":
    main()
