# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Learning curves of persona runs: who got what, and when.

    python -m verl_pgrpo.report.curves --run grpo=runs/grpo/rollouts --run pgrpo=runs/pgrpo/rollouts --out report.png

Reads verl's rollout dumps, prints the table of early, middle and end utility, and draws one picture. Utility is read
from the responses' text; the reward that the runs were trained on is not shown, as its scale differs between personas.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from verl_pgrpo.data.tastes import PERSONAS
from verl_pgrpo.report.rollouts import Run, read_run, table

# Okabe & Ito: told apart with every common colour blindness, and in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, MUTED = "#222222", "#777777"
LABELS = {"grpo": "GRPO", "pgrpo": "P-GRPO"}
GUIDE = (
    "Titles: taste and share of\nthe training prompts.\n"
    "Thick: smoothed. Faint:\nevery step as it was.\n"
    "Numbers: mean of the last\nfifth of the run, as in the\ntable. Utility is read from\nthe text, not the rating."
)


def smooth(run: Run, persona: str) -> tuple[np.ndarray, np.ndarray]:
    """A persona's mean utility at every step of the run: raw (NaN without a prompt) and smoothed.

    A Gaussian over steps (std: a 25th of the run), each step weighted by its responses, so that a step with one prompt
    of a rare persona counts for as much as it says.
    """
    rows = run.rows[run.rows["persona"] == persona].groupby("step")["utility"]
    total = rows.sum().reindex(run.steps, fill_value=0.0).to_numpy()
    count = rows.count().reindex(run.steps, fill_value=0).to_numpy()
    width = max(1.0, len(run.steps) / 25)
    distance = np.subtract.outer(np.arange(len(run.steps)), np.arange(len(run.steps)))
    kernel = np.exp(-0.5 * (distance / width) ** 2) + 1e-30  # never 0/0, even far from a persona's only prompt
    with np.errstate(invalid="ignore"):
        return total / count, (kernel @ total) / (kernel @ count)


def draw(runs: list[Run], out: str | Path, note: str = "") -> None:
    """Write the picture: mean and worst persona large, every persona small, one scale for all."""
    personas = list(dict.fromkeys(name for run in runs for name in run.personas))
    curves = {(run.name, name): smooth(run, name) for run in runs for name in run.personas}
    columns = math.ceil((len(personas) + 1) / 2)  # two rows; the last cell says how to read the picture
    style = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#BBBBBB",
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.grid": True,
        "grid.color": "#EEEEEE",
    }
    with plt.rc_context(style):
        figure = plt.figure(figsize=(6.2 + 2.35 * columns, 6.4), dpi=150)
        frame = {"top": 0.81, "bottom": 0.09}
        large = figure.add_subplot(figure.add_gridspec(1, 1, left=0.045, right=0.315, **frame)[0])
        grid = figure.add_gridspec(2, columns, left=0.435, right=0.985, wspace=0.14, hspace=0.36, **frame)
        small = [figure.add_subplot(grid[i // columns, i % columns]) for i in range(len(personas))]
        for axes, name in zip(small, personas, strict=True):
            for run, color in zip(runs, COLORS, strict=False):
                if (run.name, name) in curves:
                    raw, line = curves[run.name, name]
                    axes.plot(run.steps, raw, color=color, lw=0.8, alpha=0.22)
                    axes.plot(run.steps, line, color=color, lw=1.9)
            share = next((f" · {p.share:.0%}" for p in PERSONAS if p.name == name), "")
            axes.set_title(name.replace("_", " ") + share, fontsize=9.5, loc="left", pad=4)
            axes.tick_params(labelleft=axes.get_subplotspec().is_first_col())
        for axes in small[-columns:]:
            axes.set_xlabel("step")
        _overview(large, runs, curves)
        for axes in figure.axes:
            axes.set_ylim(0, 1)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", ".5", "", "1"])
            axes.tick_params(length=0)
            axes.margins(x=0.01)
        guide = figure.add_subplot(grid[1, columns - 1]) if len(personas) < 2 * columns else None
        if guide is not None:
            guide.set_axis_off()
            guide.text(0.04, 1.0, GUIDE, va="top", color=MUTED, linespacing=1.5)
        names = " and ".join(LABELS.get(run.name, run.name) for run in runs)
        figure.text(0.045, 0.935, f"What each persona got from {names}", fontsize=16, weight="bold")
        subtitle = runs[0].describe() + (f" · {note}" if note else "")
        figure.text(0.045, 0.888, subtitle, fontsize=10, color=MUTED)
        figure.savefig(out, metadata={"Software": None})
        plt.close(figure)


def _overview(axes: Axes, runs: list[Run], curves: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]) -> None:
    """Mean over personas (solid) and the worst persona (dashed), each labelled at its end."""
    ends = []
    for run, color in zip(runs, COLORS, strict=False):
        raw, lines = (np.array([curves[run.name, name][k] for name in run.personas]) for k in (0, 1))
        known = ~np.isnan(raw).all(axis=0)
        axes.plot(run.steps[known], np.nanmean(raw[:, known], axis=0), color=color, lw=0.8, alpha=0.22)
        end = run.window("end")
        for line, dashes, what, value in (
            (lines.mean(axis=0), "-", "mean", end.mean()),
            (lines.min(axis=0), (0, (4, 1.6)), "worst", end.min()),
        ):
            axes.plot(run.steps, line, color=color, lw=2.6, ls=dashes)
            ends.append([line[-1], f"{LABELS.get(run.name, run.name)} {what} {value:.2f}", color])
    ends.sort(key=lambda end: end[0])
    for below, above in itertools.pairwise(ends):  # keep labels of near curves apart
        above[0] = max(above[0], below[0] + 0.045)
    for height, label, color in ends:
        axes.annotate(
            label, (1.015, height), xycoords=("axes fraction", "data"), color=color, va="center", weight="bold",
            annotation_clip=False,
        )  # fmt: skip
    axes.set_title("Mean over personas (solid) and worst persona (dashed)", fontsize=11, loc="left", pad=8)
    axes.set_xlabel("step")
    axes.set_ylabel("utility: 0 useless, 1 perfect for this user")


def main(argv: list[str] | None = None) -> None:
    """Command line: print the table, write the picture."""
    parser = argparse.ArgumentParser(prog="python -m verl_pgrpo.report.curves", description="Persona runs compared.")
    parser.add_argument(
        "--run", action="append", required=True, metavar="NAME=DIR", help="a run and its rollout_data_dir; repeat"
    )
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--note", default="", help="added to the subtitle, such as the model and the learning rate")
    args = parser.parse_args(argv)
    if any("=" not in run for run in args.run):
        parser.error("--run takes NAME=DIR, such as pgrpo=runs/pgrpo/rollouts")
    names = [run.partition("=")[0] for run in args.run]
    if len(set(names)) < len(names) or len(names) > len(COLORS):
        parser.error(f"--run takes up to {len(COLORS)} runs, each with a name of its own")
    try:
        runs = [read_run(*run.split("=", 1)) for run in args.run]
    except ValueError as error:
        parser.error(str(error))
    print(runs[0].describe())
    print(table(runs))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(runs, args.out, args.note)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
