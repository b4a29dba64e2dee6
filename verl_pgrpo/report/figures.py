# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The page's charts: which curves stand in which frame, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.report.charts import COLORS, DASHES, Chart, Frame, Mark, spread_labels, value_range
from verl_pgrpo.report.comparison import FEW_GROUPS, Comparison, Spread
from verl_pgrpo.report.past import logged
from verl_pgrpo.report.smoothing import Curve, Curves
from verl_pgrpo.report.words import number, percent, spread_text

SMALL = 24  # groups that get a chart of their own
ROWS = 9  # of the table behind a chart
DOTS = 400  # raw values that are drawn


class Figures:
    """Draws one comparison; all charts of a kind share one scale."""

    def __init__(self, compared: Comparison, curves: Curves) -> None:
        self.compared, self.curves = compared, curves
        arms = range(len(compared.arms))
        lines = [curves.groups[arm] for arm in arms]
        self.y = value_range(np.concatenate([line.ravel() for line in lines]), compared.value == "utility")
        self.span = None if compared.disjoint else (float(compared.last[0]), float(compared.last[-1]))
        self.x = (float(compared.steps[0]), float(max(compared.steps[-1], compared.steps[0] + 1)))

        roles = [compared.baseline, *([] if compared.ours is None else [compared.ours])]
        self._style = [*roles, *(arm for arm in arms if arm not in roles)]

    def color(self, arm: int) -> str:
        return COLORS[self._style.index(arm) % len(COLORS)]

    def dash(self, arm: int) -> str:
        return DASHES[self._style.index(arm) % len(DASHES)]

    def main(self) -> list[Chart]:
        """The group in focus, the mean over groups, the worst of them."""
        compared, curves = self.compared, self.curves
        arms = range(len(compared.arms))
        tenth = compared.ranked.sum() > FEW_GROUPS
        focus = compared.labels[compared.focus]
        worst = "worst tenth" if tenth else "worst"
        summaries = [compared.summary(arm) for arm in arms]
        drawn = [
            (
                "focus",
                f"The group in focus: {focus}",
                f"The group that {compared.arms[compared.baseline].title} serves worst at the end, "
                f"{percent(float(compared.share[compared.focus]))} of the responses.",
                [curves.group(arm, compared.focus) for arm in arms],
                [Spread.of(compared.seeds[arm][:, compared.focus]) for arm in arms],
            ),
            (
                "mean",
                "Mean over groups",
                "Every group counts the same, whatever its size.",
                [curves.over_groups(arm, None) for arm in arms],
                [summary["mean"] for summary in summaries],
            ),
            (
                "worst",
                "Mean of the worst tenth of the groups" if tenth else "Worst group",
                "At each step whichever groups are worst then.",
                [curves.over_groups(arm, bool(tenth)) for arm in arms],
                [summary[worst] for summary in summaries],
            ),
        ]
        charts = []
        for name, title, note, lines, ends in drawn:
            every = np.concatenate([np.concatenate(_known(line)) for line in lines])
            shares = compared.value == "utility"
            frame = Frame(self.x, value_range(every, shares), span=self.span)
            marks = self._marks(frame, lines, compared.focus if name == "focus" else None)
            marks = [
                replace(mark, end=(mark.end[0], float(frame.py(end.mean)) + 4), end_text=number(end.mean))
                if mark.end and np.isfinite(end.mean)
                else replace(mark, end=None)
                for mark, end in zip(marks, ends, strict=True)
            ]
            said = "; ".join(
                f"{arm.title} ends at {spread_text(end)}" for arm, end in zip(compared.arms, ends, strict=True)
            )
            charts.append(
                Chart(name, title, f"{title}. {said}.", frame, spread_labels(marks, frame), note, *self._table(lines))
            )
        return charts

    def small_groups(self) -> list[int]:
        """The group in focus, then the largest."""
        order = np.argsort(-self.compared.share, kind="stable").tolist()
        worst = [self.compared.worst(arm) for arm in range(len(self.compared.arms))]
        return list(dict.fromkeys([self.compared.focus, *worst, *order]))[: max(SMALL, 1)]

    def small(self) -> list[Chart]:
        """A chart per group, in one scale."""
        compared, charts = self.compared, []
        for group in self.small_groups():
            frame = self.small_frame()
            lines = [self.curves.group(arm, group) for arm in range(len(compared.arms))]
            ends = [
                f"{arm.title} {number(float(end[group]))}"
                for arm, end in zip(compared.arms, compared.ends, strict=True)
            ]
            label = compared.labels[group]
            share = percent(float(compared.share[group]))
            marks = self._marks(frame, lines, group)
            charts.append(
                Chart(f"small-{group}", label, f"{label}, {share}: ends at {', '.join(ends)}.", frame, marks, share)
            )
        return charts

    def small_frame(self) -> Frame:
        return Frame(self.x, self.y, width=300, height=180, left=38, right=16, top=8, bottom=26, span=self.span)

    def picked_frame(self) -> Frame:
        return Frame(self.x, self.y, width=520, height=260, right=14, span=self.span)

    def past(self, groups: Iterable[int]) -> list[Chart]:
        """History against the reward of the moment, on the users' own scale: a chart per group and arm."""
        charts = []
        for number_, arm in enumerate(self.compared.arms):
            run = arm.runs[0]
            for group in groups:
                label = self.compared.labels[group]
                found = logged(run, label)
                if found is None:
                    continue
                (at, mean), (_, std), (now_at, now) = found
                every = np.concatenate([mean - std, mean + std, now])
                frame = replace(self.small_frame(), y=value_range(every, False), left=42, span=None)
                smooth = _smooth(now_at, now)
                marks = [
                    Mark("history", "#555555", "5 3", frame.path(at, mean), frame.area(at, mean - std, mean + std)),
                    Mark(
                        "reward now",
                        self.color(number_),
                        "",
                        frame.path(now_at, smooth),
                        dots=_dots(frame, now_at, now),
                    ),
                ]
                title = label if len(self.compared.arms) == 1 else f"{label} · {arm.title}"
                said = f"{title}: the history's mean ends at {number(float(mean[-1]))} with a standard deviation of "
                said += f"{number(float(std[-1]))}; smoothed, the reward of a step ends at {number(float(smooth[-1]))}."
                charts.append(Chart(f"past-{number_}-{group}", title, said, frame, marks))
        return charts

    def cold(self) -> Chart | None:
        """The share of responses that were normalised with too little history."""
        series = [
            (number_, arm, found)
            for number_, arm in enumerate(self.compared.arms)
            if (found := arm.runs[0].series.get("pgrpo/cold_fraction")) is not None
        ]
        if not series:
            return None
        top = max(float(np.nanmax(values)) for _, _, (_, values) in series)
        frame = Frame(self.x, (0.0, min(1.0, max(0.05, top * 1.1))), height=200)
        marks = [
            Mark(arm.title, self.color(i), self.dash(i), frame.path(at, values)) for i, arm, (at, values) in series
        ]
        said = ", ".join(f"{arm.title} {percent(float(values[-1]))}" for _, arm, (_, values) in series)
        title = "Responses normalised with too little history"
        return Chart("cold", title, f"{title}, in the last step: {said}.", frame, marks)

    def _marks(self, frame: Frame, lines: list[Curve], group: int | None) -> list[Mark]:
        marks = []
        for arm, line in enumerate(lines):
            runs = self.compared.arms[arm].runs
            raw = ""
            if group is not None and len(runs) == 1:
                at, values = self.curves.raw(runs[0], group)
                raw = frame.path(at, values) if 1 < len(at) <= DOTS else ""
            band = (
                frame.area(self.curves.at, line.low, line.high)
                if line.low is not None and line.high is not None
                else ""
            )
            known = np.flatnonzero(np.isfinite(line.line) & (self.curves.at <= self.compared.last[-1]))
            end = None
            if len(known):
                at_end = self.curves.at[known[-1]]
                end = (float(frame.px(at_end)) + 5, float(frame.py(line.line[known[-1]])))
            path = frame.path(self.curves.at, line.line)
            marks.append(Mark(self.compared.arms[arm].title, self.color(arm), self.dash(arm), path, band, raw, end=end))
        return marks

    def _table(self, lines: list[Curve]) -> tuple[list[str], list[list[str]]]:
        at = self.curves.at
        places = np.unique(np.linspace(0, len(at) - 1, ROWS).round().astype(int))
        rows = []
        for place in places:
            cells = []
            for line in lines:
                low, high = (None if v is None else float(v[place]) for v in (line.low, line.high))
                cells.append(spread_text(Spread(float(line.line[place]), low, high)))
            rows.append([f"{at[place]:,}", *cells])
        return ["step", *(arm.title for arm in self.compared.arms)], rows


def _known(line: Curve) -> list[NDArray[np.float64]]:
    return [values for values in (line.line, line.low, line.high) if values is not None]


def _smooth(steps: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    width = max(1.0, (steps[-1] - steps[0]) / 25)
    kernel = np.exp(-0.5 * (np.subtract.outer(steps, steps) / width) ** 2)
    known = np.isfinite(values)
    return (kernel @ np.where(known, values, 0.0)) / np.maximum(kernel @ known, 1e-30)


def _dots(frame: Frame, steps: NDArray[np.int64], values: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    every = max(1, len(steps) // 150)
    places = zip(frame.px(steps[::every]).tolist(), frame.py(values[::every]).tolist(), strict=True)
    return tuple((round(x, 1), round(y, 1)) for x, y in places if y == y)
