# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Smooth every group's value over the training steps, for every run; and summarize over groups."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from verl_pgrpo.moments import Floats
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.pooling import ConfidenceBand

POINTS = 120  # per curve
_CHUNK = 256  # groups at a time: (steps, groups) in full may be gigabytes


def smooth(total: pd.DataFrame, count: pd.DataFrame, width: float) -> pd.DataFrame:
    """Compute weighted means around each step, (S, G), from each step's sum and number of values, (S, G) each.

    The kernel is a two-sided exponential, applied twice, with a standard deviation of 2 * width steps. Time and memory
    are linear in the number of steps.
    """

    def both_sides(frame: pd.DataFrame) -> pd.DataFrame:
        alpha = 1 - math.exp(-1 / width)
        return frame.ewm(alpha=alpha).sum() + frame[::-1].ewm(alpha=alpha).sum()[::-1] - frame

    return both_sides(both_sides(total)) / both_sides(both_sides(count))


def smooth_series(series: pd.Series) -> pd.Series:
    """Smooth a metric over its steps."""
    known = series.notna().to_frame().astype(float)
    return smooth(series.fillna(0.0).to_frame(), known, max(0.5, len(series) / 35)).iloc[:, 0]


class Curves:
    """Smoothed curves of a comparison at `at`, up to 120 of its steps.

    Attributes:
        groups: per arm (seeds, G, P), NaN outside the steps of a run.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison, steps = comparison, comparison.steps
        self._places = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).round().astype(int))
        self.at = steps[self._places]
        cells = comparison.cells
        runs = {key: self._smoothed(own) for key, own in cells.groupby(["arm", "seed"])}
        unknown = np.full((len(comparison.labels), len(self.at)), np.nan)
        self.groups: list[Floats] = [
            np.array([runs.get((i, seed), unknown) for seed in range(len(arm.runs))])
            for i, arm in enumerate(comparison.arms)
        ]
        self._bands = [ConfidenceBand.over_seeds(groups) for groups in self.groups]

    def group(self, arm: int, group: int) -> ConfidenceBand:
        """(P,) one group's curve."""
        return self._bands[arm].at(group)

    def mean(self, arm: int) -> ConfidenceBand:
        """(P,) mean over the ranked groups."""
        return self._over_groups(arm, len(self._comparison.labels))

    def worst(self, arm: int) -> ConfidenceBand:
        """(P,) the worst ranked group, or of many groups the mean of the worst tenth, of each step and seed."""
        ranked = int(self._comparison.ranked.sum())
        return self._over_groups(arm, math.ceil(ranked / 10) if self._comparison.by_tenths else 1)

    def _over_groups(self, arm: int, count: int) -> ConfidenceBand:
        lowest = np.sort(self.groups[arm][:, self._comparison.ranked], axis=1)[:, :count]  # NaN is sorted last
        return ConfidenceBand.over_seeds(np.array([pd.DataFrame(seed).mean().to_numpy() for seed in lowest]))

    def raw(self, arm: int, group: int) -> pd.Series:
        """A group's mean in every step of an arm's first run that has it."""
        cells = self._comparison.cells
        own = cells[(cells["arm"] == arm) & (cells["seed"] == 0) & (cells["group"] == group)]
        return own.set_index("step")["value"].sort_index()

    def _smoothed(self, cells: pd.DataFrame) -> Floats:
        """Return the smoothed curves of one run, (G, P)."""
        steps, size = self._comparison.steps, len(self._comparison.labels)
        curves = np.empty((size, len(self.at)))
        width = max(0.5, len(steps) / 35)
        cells = cells.sort_values("group", kind="stable")
        group, place = cells["group"].to_numpy(), np.searchsorted(steps, cells["step"])
        count, total = cells["count"].to_numpy(float), (cells["count"] * cells["value"]).to_numpy(float)
        for start in range(0, size, _CHUNK):
            columns = min(_CHUNK, size - start)
            some = slice(*np.searchsorted(group, [start, start + columns]))
            flat, cells_in_chunk = place[some] * columns + group[some] - start, len(steps) * columns
            sums, counts = (
                pd.DataFrame(np.bincount(flat, weights[some], cells_in_chunk).reshape(-1, columns))
                for weights in (total, count)
            )
            curves[start : start + columns] = smooth(sums, counts, width).to_numpy()[self._places].T
        own = (self.at >= cells["step"].min()) & (self.at <= cells["step"].max())
        return np.where(own, curves, np.nan)
