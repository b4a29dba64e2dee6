# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The grid as a picture: when P-GRPO helps the worst group, and when it harms."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.bandit.measures import half_width
from benchmarks.bandit.tables import Results, mean_gain
from benchmarks.bandit.task import Setting

# Entrant: color (from Okabe and Ito's palette for color-blind readers) and its name in the picture.
LINES = {
    "grpo": ("#555555", "GRPO"),
    "pgrpo": ("#0072b2", "P-GRPO"),
    "pgrpo blended": ("#d55e00", "P-GRPO, blended"),
    "pgrpo, random groups": ("#cc79a7", "random groups"),
}
MOODS = {0.0: "prompts equally hard (mood 0)", 1.0: "prompts of their own difficulty (mood 1)"}


def draw_grid(results: Results, path: str) -> None:
    """One row per mood: curves of one setting, then gains over GRPO by n and by noise, over all other settings."""
    style: dict[str, Any] = {
        "svg.hashsalt": "bandit",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharey="col", layout="constrained")
        for (curves, by_n, by_noise), (mood, title) in zip(axes, MOODS.items(), strict=True):
            part = {setting: outcomes for setting, outcomes in results.items() if setting.mood == mood}
            _curves(curves, part, Setting(n=2, noise=0.3, mood=mood))
            _gains(by_n, part, "n", "responses a prompt")
            _gains(by_noise, part, "noise", "noise of a rating")
            curves.set_title(f"{title}\ndense, n = 2, noise 0.3", loc="left", fontsize=9)
            by_n.set_title("worst group minus GRPO's, by n", loc="left", fontsize=9)
            by_noise.set_title("and by noise", loc="left", fontsize=9)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(LINES), frameon=False)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _curves(axis: Any, part: Results, setting: Setting) -> None:
    for name, (color, label) in LINES.items():
        worst = 100 * part[setting][name].curves.min(-1).values.double().numpy()
        _band(axis, np.arange(worst.shape[1]), worst, color, label)
    axis.set_xlabel("step")
    axis.set_ylabel("utility of the worst group")


def _gains(axis: Any, part: Results, key: str, title: str) -> None:
    values = sorted({getattr(setting, key) for setting in part})
    for name, (color, label) in LINES.items():
        slices = [{s: o for s, o in part.items() if getattr(s, key) == value} for value in values]
        gains = np.stack([mean_gain(chosen, name)[:, 1] for chosen in slices], 1)
        _band(axis, np.arange(len(values)), gains, color, label, marker="o")
    axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axis.set_xlabel(title)


def _band(axis: Any, x: np.ndarray, values: np.ndarray, color: str, label: str, **line: Any) -> None:
    """Draw the mean over seeds (rows of `values`) and its interval."""
    mean, half = values.mean(0), half_width(values)
    axis.plot(x, mean, color=color, label=label, markersize=3, **line)
    axis.fill_between(x, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)
