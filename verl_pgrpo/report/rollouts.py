# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a run's rollouts say: verl's `trainer.rollout_data_dir` to utility per persona and step, and to a table."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from verl_pgrpo.data.tastes import PERSONAS
from verl_pgrpo.rewards.personas import utility

WINDOWS = ("early", "middle", "end")  # first, central and last fifth of the run's steps


@dataclass(frozen=True)
class Run:
    """One training run.

    `rows` has a line per response: `step`, `persona`, `utility` (0 to 1), `score` (the reward, in stars) and `prompt`
    (verl's uid of the prompt). `truth` is the data's setting: noise and seed.
    """

    name: str
    rows: pd.DataFrame
    truth: dict

    @property
    def personas(self) -> list[str]:
        """The run's personas, the largest share first."""
        known = [p.name for p in PERSONAS]
        return sorted(
            self.rows["persona"].unique(), key=lambda name: known.index(name) if name in known else len(known)
        )

    @property
    def steps(self) -> np.ndarray:
        """The steps that were dumped, ascending."""
        return np.sort(self.rows["step"].unique())

    def window(self, which: str) -> pd.Series:
        """Mean utility per persona over a fifth of the steps; NaN where a persona had no prompt in it."""
        fifth = max(1, math.ceil(len(self.steps) / 5))
        first = {"early": 0, "middle": (len(self.steps) - fifth) // 2, "end": len(self.steps) - fifth}[which]
        inside = self.rows["step"].isin(self.steps[first : first + fifth])
        return self.rows[inside].groupby("persona")["utility"].mean().reindex(self.personas)

    def describe(self) -> str:
        """The setting in words, from the data alone."""
        last = self.rows[self.rows["step"] == self.steps[-1]]
        n = Counter(last["prompt"]).most_common(1)[0][1]
        noise = self.truth.get("noise", 0)
        rating = f"rating noise {noise:g} of a user's scale" if noise else "no rating noise"
        return (
            f"{len(self.steps)} steps of {last['prompt'].nunique()} prompts x {n} responses, {rating}, "
            f"seed {self.truth.get('seed', '?')}"
        )


def read_run(name: str, folder: str | Path) -> Run:
    """Read `<step>.jsonl` files: one JSON object a line with output, gts (the reward's ground truth), score, step, uid.

    Raises:
        ValueError: no such files, or a line that is not a persona rollout; the message names file and line.
    """
    files = sorted(Path(folder).glob("*.jsonl"), key=lambda path: (len(path.stem), path.stem))
    if not files:
        raise ValueError(f"run {name!r}: no <step>.jsonl in {folder}; was trainer.rollout_data_dir set to it?")
    rows, truth = [], {}
    for path in files:
        # A file ends its lines at "\n" alone; str.splitlines() also at U+2028, which responses may hold.
        with open(path, encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    item = json.loads(line)
                    uid = str(item["uid"])
                    if uid.startswith("pad"):  # verl fills up uneven batches with copies of a real row
                        continue
                    truth = json.loads(item["gts"])
                    rows.append(
                        {
                            "step": int(item["step"]),
                            "persona": truth["persona"],
                            "utility": utility(item["output"], item["gts"]),
                            "score": float(item["score"]),
                            "prompt": uid.rsplit("_", 2)[0],
                        }
                    )
                except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number}: not a persona rollout ({error!r})") from error
    if not rows:
        raise ValueError(f"run {name!r}: the files in {folder} are empty")
    return Run(name, pd.DataFrame(rows), truth)


def table(runs: list[Run]) -> str:
    """Every persona's mean utility in each window of each run, as aligned text; then mean and worst over personas."""
    shares = {p.name: f"{p.share:.0%}" for p in PERSONAS}
    personas = list(dict.fromkeys(name for run in runs for name in run.personas))
    columns = {(run.name, window): run.window(window).reindex(personas) for run in runs for window in WINDOWS}
    width = max(len(name) for name in [*personas, "mean over personas"])
    block = 3 * 8

    lines = [" " * (width + 7) + "".join(f"  {run.name:^{block}}" for run in runs)]
    lines.append(f"{'persona':<{width}}{'share':>7}" + ("  " + "".join(f"{w:>8}" for w in WINDOWS)) * len(runs))
    lines.append("-" * len(lines[-1]))

    def line(label: str, share: str, values: list[float]) -> str:
        cells = ["" if i % 3 else "  " for i in range(len(values))]
        cells = [
            gap + (f"{v:>8.2f}" if math.isfinite(v) else f"{'-':>8}") for gap, v in zip(cells, values, strict=True)
        ]
        return f"{label:<{width}}{share:>7}" + "".join(cells)

    for name in personas:
        lines.append(line(name, shares.get(name, ""), [float(column[name]) for column in columns.values()]))
    lines.append(lines[2])
    lines.append(line("mean over personas", "", [float(column.mean()) for column in columns.values()]))
    lines.append(line("worst persona", "", [float(column.min()) for column in columns.values()]))
    return "\n".join(lines)
