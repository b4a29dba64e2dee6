# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Draw a comparison as one picture for a README: mean and worst group large, every group small, all on one scale."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.curves import Curves
from verl_pgrpo.report.figures import SMALL, Figures
from verl_pgrpo.report.narrative import number, percent, value_name

INK, MUTED = "#222222", "#777777"
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#BBBBBB", "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.grid": True, "grid.color": "#EEEEEE",
}  # fmt: skip


def draw_picture(comparison: Comparison, out: Path, subtitle: str = "") -> None:
    """Write the picture as PNG. It shows up to 24 groups, the largest first.

    Thick lines are smoothed means over seeds; faint ones are single steps; numbers are means of the last fifth.
    """
    curves = Curves(comparison)
    figures = Figures(comparison, curves)
    groups = np.argsort(-comparison.share, kind="stable")[:SMALL].tolist()
    columns = math.ceil(len(groups) / 2)
    titles = " and ".join(arm.title for arm in comparison.arms)
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.2 + 2.35 * columns, 6.4), dpi=150)
        frame = {"top": 0.81, "bottom": 0.09}
        large = figure.add_subplot(figure.add_gridspec(1, 1, left=0.045, right=0.315, **frame)[0])
        grid = figure.add_gridspec(2, columns, left=0.435, right=0.985, wspace=0.14, hspace=0.36, **frame)
        for place, group in enumerate(groups):
            axes = figure.add_subplot(grid[place // columns, place % columns])
            for arm in range(len(comparison.arms)):
                raw = curves.raw(arm, group)
                axes.plot(raw.index, raw, color=figures.color(arm), lw=0.8, alpha=0.22)
                axes.plot(curves.at, curves.group(arm, group).mean, color=figures.color(arm), lw=1.9)
            label = comparison.labels[group].replace("$", r"\$")
            axes.set_title(f"{label} · {percent(float(comparison.share[group]))}", fontsize=9.5, loc="left", pad=4)
            axes.tick_params(labelleft=place % columns == 0)
            if place + columns >= len(groups):
                axes.set_xlabel("step")
        _draw_overview(large, comparison, curves, figures)
        for axes in figure.axes:
            axes.set_ylim(*figures.frame.y)
            axes.tick_params(length=0)
            axes.margins(x=0.01)
        figure.text(0.045, 0.935, f"What each group got from {titles}", fontsize=16, weight="bold")
        figure.text(0.045, 0.888, subtitle, fontsize=10, color=MUTED)
        figure.savefig(out, metadata={"Software": None})


def _draw_overview(axes: Axes, comparison: Comparison, curves: Curves, figures: Figures) -> None:
    """Mean over groups (solid) and worst group (dashed), labelled at their ends."""
    ends = []
    for arm, title in enumerate(arm.title for arm in comparison.arms):
        summary, color = comparison.summary(arm), figures.color(arm)
        worst = "worst tenth" if comparison.by_tenths else "worst"
        for line, dashes, what in ((curves.mean(arm), "-", "mean"), (curves.worst(arm), (0, (4, 1.6)), worst)):
            axes.plot(curves.at, line.mean, color=color, lw=2.6, ls=dashes)
            ends.append(
                [line.mean[np.isfinite(line.mean)][-1], f"{title} {what} {number(float(summary[what].mean))}", color]
            )
    gap = 0.045 * (figures.frame.y[1] - figures.frame.y[0])
    height = -math.inf
    for end, label, color in sorted(ends):
        height = max(end, height + gap)  # keep labels apart
        axes.annotate(
            label, (1.015, height), xycoords=("axes fraction", "data"), color=color, va="center", weight="bold",
            annotation_clip=False,
        )  # fmt: skip
    axes.set_title("Mean over groups (solid) and worst group (dashed)", fontsize=11, loc="left", pad=8)
    axes.set_xlabel("step")
    axes.set_ylabel(value_name(comparison))
