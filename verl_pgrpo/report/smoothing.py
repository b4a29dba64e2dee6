# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Curves over steps: every group's value, smoothed, for every run; and over groups the mean and the worst."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.report.comparison import POINTS, Comparison, Run, band, mean_over_seeds

Floats = NDArray[np.float64]
CHUNK = 256  # groups at a time: (steps, groups) in full would be gigabytes for thousands of both


@dataclass(frozen=True)
class Curve:
    """(P,) mean over seeds, and the band around it where there is more than one seed."""

    line: Floats
    low: Floats | None = None
    high: Floats | None = None

    @classmethod
    def of(cls, values: Floats) -> Curve:
        """(seeds, P)"""
        return cls(mean_over_seeds(values), *(band(values) if len(values) > 1 else ()))


class Curves:
    """Smoothed curves of a comparison, at `at`, up to 120 of its steps."""

    def __init__(self, compared: Comparison) -> None:
        self._compared = compared
        steps = compared.steps
        self.at = steps[np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).round().astype(int))]

    @cached_property
    def groups(self) -> list[Floats]:
        """Per arm: (seeds, G, P)."""
        return [np.array([self._smoothed(run) for run in arm.runs]) for arm in self._compared.arms]

    def group(self, arm: int, group: int) -> Curve:
        return Curve.of(self.groups[arm][:, group])

    def over_groups(self, arm: int, tenth: bool | None) -> Curve:
        """Of the ranked groups the mean (None), the worst (False), or the mean of the worst tenth (True), at each step.

        Who is worst may change from step to step and from seed to seed.
        """
        values = self.groups[arm][:, self._compared.ranked]
        if tenth is None:
            return Curve.of(np.array([mean_over_seeds(seed) for seed in values]))
        count = max(1, math.ceil(values.shape[1] / 10)) if tenth else 1
        lowest = np.sort(values, axis=1)[:, :count]  # NaN is sorted last
        return Curve.of(np.array([mean_over_seeds(seed) for seed in lowest]))

    def raw(self, run: Run, group: int) -> tuple[NDArray[np.int64], Floats]:
        """A group's mean in every step that has it, as it was."""
        found = run.responses
        kept = (found.groups == group) & np.isfinite(self._values(run))
        steps, place = np.unique(found.steps[kept], return_inverse=True)
        weight = found.weight[kept]
        total = np.bincount(place, weight * self._values(run)[kept], len(steps))
        mean = total / np.bincount(place, weight, len(steps))
        return steps, (mean - self._compared.center[group]) / self._compared.scale[group]

    def _values(self, run: Run) -> Floats:
        return run.responses.reward if self._compared.value == "standardized" else run.responses.value

    def _smoothed(self, run: Run) -> Floats:
        """(G, P): a Gaussian over steps (std: a 25th of the run), each step weighted by its responses; NaN outside."""
        steps, size = self._compared.steps, len(self._compared.labels)
        values = self._values(run)
        kept = np.flatnonzero(np.isfinite(values))
        kept = kept[np.argsort(run.responses.groups[kept], kind="stable")]
        groups, weight = run.responses.groups[kept], run.responses.weight[kept]
        place = np.searchsorted(steps, run.responses.steps[kept])
        position = np.searchsorted(steps, self.at)
        width = max(1.0, len(steps) / 25)
        distance = np.subtract.outer(position, np.arange(len(steps)))
        kernel = np.exp(-0.5 * (distance / width) ** 2) + 1e-30  # never 0/0, even far from a group's only prompt
        curves = np.full((size, len(self.at)), np.nan)
        for start in range(0, size, CHUNK):
            begin, end = np.searchsorted(groups, [start, start + CHUNK])
            count = min(CHUNK, size - start)
            cell = (groups[begin:end] - start) * len(steps) + place[begin:end]
            one = slice(begin, end)
            shape, cells = (count, len(steps)), count * len(steps)
            total = np.bincount(cell, weight[one] * values[kept][one], cells).reshape(shape)
            seen = np.bincount(cell, weight[one], cells).reshape(shape)
            with np.errstate(invalid="ignore"):
                curves[start : start + count] = (total @ kernel.T) / (seen @ kernel.T)
        own = run.responses.steps
        if len(own):
            curves[:, (self.at < own.min()) | (self.at > own.max())] = np.nan
        return (curves - self._compared.center[:, None]) / self._compared.scale[:, None]
