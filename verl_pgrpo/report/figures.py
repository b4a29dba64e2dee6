# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The charts of the page: which curves are in which frame, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from verl_pgrpo.moments import Floats
from verl_pgrpo.report.charts import COLORS, DASHES, Chart, Frame, Line, draw, value_range
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.curves import Curves, smooth_series
from verl_pgrpo.report.history_snapshot import history_metrics
from verl_pgrpo.report.narrative import number, percent, with_band
from verl_pgrpo.report.pooling import ConfidenceBand

SMALL = 24  # number of groups with their own chart
TABLE_ROWS = 9  # of the table behind a chart
MOST_RAW = 400  # steps; with more, the values of single steps are not drawn
MOST_DOTS = 150
PICKED_POINTS = 300_000  # in the curves of all groups


class Figures:
    """Draws one comparison. Charts of a kind share one scale."""

    def __init__(self, comparison: Comparison, curves: Curves) -> None:
        self.comparison, self.curves = comparison, curves
        x = (float(comparison.steps[0]), float(max(comparison.steps[-1], comparison.steps[0] + 1)))
        values = np.concatenate([groups.ravel() for groups in curves.groups])
        shares = np.nanmin(values, initial=0) >= 0 and np.nanmax(values, initial=1) <= 1
        self._is_share = comparison.value == "utility" and bool(shares)
        y = value_range(values, self._is_share)
        span = None if comparison.disjoint else (float(comparison.last[0]), float(comparison.last[-1]))
        self.frame = Frame(x, y, span=span)
        self.small_frame = replace(self.frame, width=300, height=180, left=38, right=16, top=8, bottom=26)
        self.picked_frame = replace(self.frame, height=260, right=14)
        roles = [arm for arm in (comparison.baseline, comparison.ours) if arm is not None]
        self._order = [*roles, *(arm for arm in range(len(comparison.arms)) if arm not in roles)]

    def color(self, arm: int) -> str:
        """Colour of an arm: blue for the baseline, red for the arm in question."""
        return COLORS[self._order.index(arm) % len(COLORS)]

    def dash(self, arm: int) -> tuple[int, ...]:
        """Dash pattern of an arm, as on and off lengths; empty for a solid line."""
        return DASHES[self._order.index(arm) % len(DASHES)]

    def main(self) -> list[Chart]:
        """The group in focus, the mean over groups, and the worst of them."""
        comparison, curves = self.comparison, self.curves
        arms, focus = range(len(comparison.arms)), comparison.focus
        summaries = [comparison.summary(arm) for arm in arms]
        tenth = comparison.by_tenths
        baseline, share = comparison.arms[comparison.baseline].title, percent(float(comparison.share[focus]))
        drawn = [
            (
                f"The group in focus: {comparison.labels[focus]}",
                f"The worst-off group with {baseline} at the end, {share} of the responses.",
                [curves.group(arm, focus) for arm in arms],
                [ConfidenceBand.over_seeds(comparison.seeds[arm][:, focus]) for arm in arms],
            ),
            (
                "Mean over groups",
                "Every group counts the same, whatever its size.",
                [curves.mean(arm) for arm in arms],
                [summary["mean"] for summary in summaries],
            ),
            (
                "Mean of the worst tenth of the groups" if tenth else "Worst group",
                "At each step, whichever groups are worst then." if tenth else "At each step, whichever is worst then.",
                [curves.worst(arm) for arm in arms],
                [summary["worst tenth" if tenth else "worst"] for summary in summaries],
            ),
        ]
        charts = []
        for place, (title, note, bands, ends) in enumerate(drawn):
            values = np.concatenate([bound for band in bands for bound in (band.mean, band.low, band.high)])
            frame = replace(self.frame, y=value_range(values, self._is_share))
            lines = [
                self._line(arm, band, focus if place == 0 else None, end=float(end.mean))
                for arm, (band, end) in enumerate(zip(bands, ends, strict=True))
            ]
            results = "; ".join(
                f"{arm.title} ends at {with_band(end)}" for arm, end in zip(comparison.arms, ends, strict=True)
            )
            charts.append(Chart(title, f"{title}. {results}.", draw(frame, lines), note, *self._table(bands)))
        return charts

    def small(self) -> list[Chart]:
        """One chart each for the group in focus, the worst of each arm, and the largest."""
        comparison = self.comparison
        arms = range(len(comparison.arms))
        charts = []
        for group in comparison.notable[:SMALL]:
            label, share = comparison.labels[group], percent(float(comparison.share[group]))
            ends = [f"{comparison.arms[arm].title} {number(float(comparison.ends[arm][group]))}" for arm in arms]
            lines = self.group_lines(group)
            summary = f"{label}, {share}: ends at {', '.join(ends)}."
            charts.append(Chart(label, summary, draw(self.small_frame, lines), share))
        return charts

    def history(self, groups: Sequence[int]) -> list[Chart]:
        """The reward history against the reward of each step, on the users' own scale: a chart per group and arm."""
        charts = []
        for i, arm in enumerate(self.comparison.arms):
            for label in (self.comparison.labels[group] for group in groups):
                metrics = history_metrics(arm.runs[0], label)
                past, rewards = metrics[["mean", "std"]].dropna(), metrics["reward"].dropna()
                if past.empty or rewards.empty:
                    continue
                mean, std = past.iloc[-1]
                past = past.iloc[:: max(1, len(past) // MOST_RAW)]
                low, high = past["mean"] - past["std"], past["mean"] + past["std"]
                y = value_range(np.concatenate([low, high, rewards]), False)
                dots = rewards.iloc[:: max(1, len(rewards) // MOST_DOTS)]
                lines = [
                    Line("#777777", (5, 3), past.index, past["mean"], low, high),
                    Line(self.color(i), (), rewards.index, smooth_series(rewards), raw=(dots.index, dots), dots=True),
                ]
                recent = rewards[rewards.index.isin(self.comparison.last)].mean()
                above = number((recent - mean) / std if std > 0 else None)
                title = label if len(self.comparison.arms) == 1 else f"{label} · {arm.title}"
                summary = f"{title}: the reward of the last fifth is {above} standard deviations above the history."
                frame = replace(self.small_frame, y=y, left=42, span=None)
                charts.append(Chart(title, summary, draw(frame, lines), f"{above} std above"))
        return charts

    def picked(self, order: Sequence[int]) -> dict[str, Any]:
        """The curves of the groups in `order`, for the page's script.

        Per group and arm a list of one curve or, with several seeds, of three (mean, low, high). A point is its height
        above the lower end of the y axis, in thousandths of the axis; None if unknown.
        """
        arms = self.comparison.arms
        bounds = [("mean", "low", "high") if len(arm.runs) > 1 else ("mean",) for arm in arms]
        points = PICKED_POINTS // (sum(map(len, bounds)) * len(order))
        places = (
            np.linspace(0, len(self.curves.at) - 1, int(np.clip(points, 8, len(self.curves.at)))).round().astype(int)
        )

        def heights(values: Floats) -> list[int | None]:
            part = 1000 * np.clip((values[places] - self.frame.y[0]) / (self.frame.y[1] - self.frame.y[0]), 0, 1)
            return [round(height) if height == height else None for height in part.tolist()]

        def curves(arm: int, group: int) -> list[list[int | None]]:
            band = self.curves.group(arm, group)
            return [heights(getattr(band, bound)) for bound in bounds[arm]]

        frame = self.picked_frame
        return {
            "x": np.round(frame.px(self.curves.at[places]), 1).tolist(),
            "top": frame.top,
            "bottom": frame.height - frame.bottom,
            "arms": [arm.title for arm in arms],
            "curves": {str(group): [curves(arm, group) for arm in range(len(arms))] for group in order},
            "focus": self.comparison.focus,
        }

    def group_lines(self, group: int) -> list[Line]:
        """One line per arm for a group."""
        return [self._line(arm, self.curves.group(arm, group), group) for arm in range(len(self.comparison.arms))]

    def _line(self, arm: int, band: ConfidenceBand, group: int | None, end: float | None = None) -> Line:
        """`group`: also draw its value in single steps, if the arm has one run."""
        raw = None
        several = len(self.comparison.arms[arm].runs) > 1
        if group is not None and not several:
            values = self.curves.raw(arm, group)
            raw = (values.index, values) if 1 < len(values) <= MOST_RAW else None
        low, high = (band.low, band.high) if several else (None, None)
        return Line(self.color(arm), self.dash(arm), self.curves.at, band.mean, low, high, raw=raw, end=end)

    def _table(self, bands: list[ConfidenceBand]) -> tuple[list[str], list[list[str]]]:
        at = self.curves.at
        rows = []
        for place in np.unique(np.linspace(0, len(at) - 1, TABLE_ROWS).round().astype(int)):
            rows.append([f"{at[place]:,}", *(with_band(band.at(place)) for band in bands)])
        return ["step", *(arm.title for arm in self.comparison.arms)], rows
