# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Pool values over responses, and over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from verl_pgrpo.moments import Floats

ENOUGH = 10  # minimum number of responses for a meaningful mean and standard deviation


@dataclass(frozen=True)
class ConfidenceBand:
    """Mean over seeds and a band around it, for one number or many; NaN without values.

    The band goes from the smallest to the largest value of fewer than 5 seeds, and is the 95 % interval of the mean
    (Student's t) from 5 on. Seeds without a value do not count.
    """

    mean: Floats
    low: Floats
    high: Floats

    @classmethod
    def over_seeds(cls, values: Floats) -> ConfidenceBand:
        """Return the mean and band over the first axis of `values` (seeds, ...); NaN is an unknown value."""
        frame = pd.DataFrame(np.asarray(values, dtype=np.float64).reshape(len(values), -1))
        seeds, mean = frame.count(), frame.mean()
        half = frame.std() / np.sqrt(seeds) * t.ppf(0.975, np.maximum(seeds - 1, 1))
        low, high = frame.min().where(seeds < 5, mean - half), frame.max().where(seeds < 5, mean + half)
        bounds = (mean, low.where(seeds > 1), high.where(seeds > 1))
        return cls(*(bound.to_numpy().reshape(np.shape(values)[1:]) for bound in bounds))

    def at(self, place: int) -> ConfidenceBand:
        """The band at one index of the first axis."""
        return ConfidenceBand(self.mean[place], self.low[place], self.high[place])

    def bounds(self) -> dict[str, float]:
        """A single number's mean and band by name."""
        return {"mean": float(self.mean), "low": float(self.low), "high": float(self.high)}


@dataclass(frozen=True)
class Window:
    """Pooled cells of one run or arm in some steps, per preference group, (G,) each.

    Attributes:
        count: number of responses, 0 where unknown.
        rows: number of values, which is smaller where a value is the mean of several responses.
        mean: mean over responses, NaN where unknown.
        std: standard deviation of responses (with Bessel's correction), estimated from how far the values differ.
    """

    count: Floats
    rows: Floats
    mean: Floats
    std: Floats

    @classmethod
    def pool(cls, cells: pd.DataFrame, groups: int) -> Window:
        """Pool cells as in `Run`, whose column `group` has codes below `groups`."""
        codes = cells["group"].to_numpy(dtype=np.int64)
        weight, values = cells["count"].to_numpy(float), cells["value"].to_numpy(float)
        count, rows = (np.bincount(codes, cells[name], groups).astype(float) for name in ("count", "rows"))
        with np.errstate(all="ignore"):
            mean = np.bincount(codes, weight * values, groups) / count
            m2 = np.bincount(codes, cells["m2"].to_numpy(float) + weight * (values - mean[codes]) ** 2, groups)
            return cls(count, rows, mean, np.where(rows > 1, np.sqrt(m2 / (rows - 1)), np.nan))

    @property
    def std_within(self) -> float:
        """Pooled standard deviation within all groups; NaN if none has two values."""
        freedom = np.where(np.isfinite(self.std), self.rows - 1, 0.0)
        total = float(freedom.sum())
        return math.sqrt(float(freedom @ np.nan_to_num(self.std) ** 2) / total) if total > 0 else math.nan

    @property
    def error(self) -> Floats:
        """Standard error of the mean. Few values may be close by chance, so their std is at least the pooled one."""
        std = np.where(self.rows < ENOUGH, np.fmax(self.std, self.std_within), self.std)
        with np.errstate(all="ignore"):
            return std / np.sqrt(self.count)
