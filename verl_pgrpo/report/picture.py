# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison as one table and one picture: mean and worst group large, every group small, on one scale."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from verl_pgrpo.report.charts import Line, plot
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.curves import Curves
from verl_pgrpo.report.figures import SMALL, Figures
from verl_pgrpo.report.narrative import number, percent, value_name

_STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "lines.scale_dashes": False}


def fifths_table(comparison: Comparison) -> pd.DataFrame:
    """Return each group's value in the first, the central and the last fifth of the common steps of each arm, as text.

    The last two rows summarize the ranked groups' means over seeds.
    """
    steps, size = comparison.steps, len(comparison.last)
    steps = steps[(steps >= comparison.first[0]) & (steps <= comparison.last[-1])]
    middle = (len(steps) - size) // 2
    parts = {"early": comparison.first, "middle": steps[middle : middle + size], "end": comparison.last}
    arms = list(enumerate(arm.title for arm in comparison.arms))
    columns = {f"{title} {part}": comparison.means(i, at) for i, title in arms for part, at in parts.items()}
    table = pd.DataFrame(columns, index=comparison.labels)
    ranked = table[comparison.ranked]
    summary = pd.DataFrame({"mean over groups": ranked.mean(), "worst group": ranked.min()}).T
    table.insert(0, "share", [percent(float(share)) for share in comparison.share])
    order = np.argsort(-comparison.share, kind="stable")
    table = pd.concat([table.iloc[order], summary]).map(lambda cell: number(cell) if isinstance(cell, float) else cell)
    return table.rename_axis("group").reset_index()


def draw_picture(comparison: Comparison, out: Path, subtitle: str = "") -> None:
    """Write the picture as PNG. It shows up to 24 groups, the largest first.

    Thick lines are smoothed means over seeds. Small charts also show the band over seeds or, with one seed, the single
    steps. Numbers are means of the last fifth of the steps, which is shaded.
    """
    figures = Figures(comparison, Curves(comparison))
    groups = np.argsort(-comparison.share, kind="stable")[:SMALL].tolist()
    columns = math.ceil(len(groups) / 2)
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.2 + 2.35 * columns, 6.4), dpi=150)
        frame = {"top": 0.81, "bottom": 0.09}
        longest = max(len(arm.title) for arm in comparison.arms)
        left = min(0.4 + 0.0055 * longest, 0.6)  # the names are written to the left of it
        grid = figure.add_gridspec(2, columns, left=left, right=0.985, wspace=0.14, hspace=0.36, **frame)
        _plot_overview(figure.add_subplot(figure.add_gridspec(1, 1, left=0.045, right=0.315, **frame)[0]), figures)
        for place, group in enumerate(groups):
            axes = figure.add_subplot(grid[place // columns, place % columns])
            plot(axes, figures.frame, [replace(line, dash=()) for line in figures.group_lines(group)])
            label = " ".join(comparison.labels[group].split()).replace("$", r"\$")  # no mathematics
            axes.set_title(f"{label} · {percent(float(comparison.share[group]))}", fontsize=9.5, loc="left", pad=4)
            axes.tick_params(labelleft=place % columns == 0)
        *others, last = [arm.title for arm in comparison.arms]
        titles = f"{', '.join(others)} and {last}" if others else last
        figure.text(0.045, 0.935, f"What each group got from {titles}", fontsize=16, weight="bold")
        figure.text(0.045, 0.888, subtitle or _describe(comparison), fontsize=10, color="#777777")
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, metadata={"Software": None})


def _describe(comparison: Comparison) -> str:
    """The steps and how many runs each arm has."""
    runs = [f"{arm.title}: {len(arm.runs)} run{'s' * (len(arm.runs) > 1)}" for arm in comparison.arms]
    return "; ".join([f"{len(comparison.steps):,} steps", *runs])


def _plot_overview(axes: Axes, figures: Figures) -> None:
    """Mean over groups (solid) and worst group (dashed), labeled at their ends."""
    comparison, curves = figures.comparison, figures.curves
    worst = "worst tenth" if comparison.by_tenths else "worst"
    lines, ends = [], []
    for i, arm in enumerate(comparison.arms):
        summary, color = comparison.summary(i), figures.color(i)
        for band, dash, what in ((curves.mean(i), (), "mean"), (curves.worst(i), (8, 4), worst)):
            lines.append(Line(color, dash, curves.at, band.mean))
            ends.append((float(summary[what].mean), f"{arm.title} {what} {number(float(summary[what].mean))}", color))
    plot(axes, figures.frame, lines)
    height, gap = -math.inf, 0.045 * (figures.frame.y[1] - figures.frame.y[0])
    for end, label, color in sorted(ends):
        height = max(end, height + gap)  # keep labels apart
        at: dict[str, Any] = {"xy": (1.015, height), "xycoords": ("axes fraction", "data"), "annotation_clip": False}
        axes.annotate(label, color=color, va="center", weight="bold", **at)
    axes.set_title(f"Mean over groups (solid) and {worst} group (dashed)", fontsize=11, loc="left", pad=8)
    axes.set(xlabel="step", ylabel=value_name(comparison))
