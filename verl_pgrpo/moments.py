# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Running count, mean and M2 (sum of squared deviations) of many groups, as arrays.

Welford's recurrence, folded a batch at a time by the pairwise merge of Chan, Golub and LeVeque (1979):

    n = n_a + n_b,   delta = mean_b - mean_a
    mean = mean_a + delta * n_b / n,   M2 = M2_a + M2_b + delta^2 * n_a * n_b / n

With exponential forgetting every reward of a group multiplies the weight of the older ones by `decay`, so the weight of
k rewards is W(k) = (1 - decay^k) / (1 - decay), a function of the count alone: the same three numbers suffice. The
rewards of one batch have no order; they share W(k) equally. `decay=1` is the plain recurrence with W(k) = k.

Caveat: the mean is one float64, so an update smaller than half its last place is lost. That shows only where rewards
are folded one at a time *and* their mean is a billion times their spread: near 1e9 with a spread of 1, after a million
single updates, the mean is off by some 1e-4 of the spread (by a tenth of it if rare large rewards carry the mean); in
batches of 16 by about a thousandth.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_MAGNITUDE", "Moments"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The sum of squares of larger values may not fit a float64.
MAX_MAGNITUDE = 1e140


class Moments:
    """Struct of arrays, one element a group: `count` (int64), `mean` and `m2` (float64). 24 bytes a group.

    Args:
        size: number of groups, all empty.
        half_life: after so many more rewards of its group a reward weighs half; None forgets nothing.
    """

    __slots__ = ("count", "log_decay", "m2", "mean")

    def __init__(self, size: int = 0, half_life: float | None = None) -> None:
        self.log_decay = 0.0 if half_life is None else -math.log(2.0) / half_life
        self.count: Integers = np.zeros(size, dtype=np.int64)
        self.mean: Floats = np.zeros(size, dtype=np.float64)
        self.m2: Floats = np.zeros(size, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.count)

    def resize(self, size: int) -> None:
        """Make room for `size` groups; new ones are empty."""
        old = len(self)
        for name in ("count", "mean", "m2"):
            array = getattr(self, name)
            grown = np.zeros(size, dtype=array.dtype)
            grown[:old] = array[:size]
            setattr(self, name, grown)

    def take(self, rows: Integers) -> Moments:
        """A copy with group `rows[i]` as its group i."""
        return self._like(self.count[rows], self.mean[rows], self.m2[rows])

    def where(self, condition: NDArray[np.bool_], other: Moments) -> Moments:
        """A copy with `other`'s group i where `condition[i]` is False."""
        names = ("count", "mean", "m2")
        return self._like(*(np.where(condition, getattr(self, name), getattr(other, name)) for name in names))

    def _like(self, count: Integers, mean: Floats, m2: Floats) -> Moments:
        made = Moments()
        made.log_decay, made.count, made.mean, made.m2 = self.log_decay, count, mean, m2
        return made

    def weight(self, count: Integers) -> Floats:
        """Total weight of `count` rewards: `count` itself without forgetting."""
        if self.log_decay == 0.0:
            return count.astype(np.float64)
        return np.expm1(count * self.log_decay) / math.expm1(self.log_decay)

    def degrees_of_freedom(self, count: Integers) -> Floats:
        """Bessel's correction: W - (sum of squared weights) / W, which is `count - 1` without forgetting."""
        if self.log_decay == 0.0:
            return np.maximum(count - 1.0, 0.0)
        squares = (1.0 + np.exp(count * self.log_decay)) / (1.0 + math.exp(self.log_decay))
        return np.where(count > 1, self.weight(count) - squares, 0.0)

    def std(self, count: Integers, m2: Floats) -> Floats:
        """Sample standard deviation. Zero where there is no spread: one value, or all equal."""
        dof = self.degrees_of_freedom(count)
        return np.sqrt(np.divide(m2, dof, out=np.zeros_like(m2), where=dof > 0))

    def fold(self, rows: Integers, values: Floats) -> None:
        """Add a batch: `values[i]` (N,) to group `rows[i]` (N,). Costs time in N alone.

        The batch is sorted first, so that its order does not change a single bit of the result. Deviations are taken
        from the group's mean so far (or its smallest value), not from zero: with values near 1e9 and a spread of one,
        sums of the values themselves would have lost it.
        """
        if len(rows) == 0:
            return
        if not (values[1:] >= values[:-1]).all():
            order = np.argsort(values)
            rows, values = rows[order], values[order]
        order = np.argsort(rows, kind="stable")  # by group, then by value
        rows, values = rows[order], values[order]
        begins = np.concatenate(([True], rows[1:] != rows[:-1]))
        first = np.flatnonzero(begins)
        groups, local = rows[first], np.cumsum(begins) - 1
        count = np.diff(first, append=len(rows))
        origin = np.where(self.count[groups] > 0, self.mean[groups], values[first])
        deviation = values - origin[local]
        shift = np.bincount(local, weights=deviation) / count
        deviation -= shift[local]
        m2 = np.bincount(local, weights=deviation * deviation)
        # Within a batch the weights are equal and sum to W(count), hence the factor W / count on the plain M2.
        self._merge(groups, count, origin + shift, m2 * (self.weight(count) / count), shift)

    def merge(self, rows: Integers, other: Moments) -> None:
        """Add `other`'s group i to group `rows[i]` (distinct rows); with forgetting, `other` is the newer history."""
        delta = np.where(self.count[rows] > 0, other.mean - self.mean[rows], 0.0)
        self._merge(rows, other.count, other.mean, other.m2, delta)

    def _merge(self, rows: Integers, count: Integers, mean: Floats, m2: Floats, delta: Floats) -> None:
        """Chan's merge. `delta` (mean minus the mean so far) comes from the caller, who knows it more exactly."""
        old = self.count[rows]
        total = old + count
        fresh = old == 0
        # Of the total weight, W(old) * decay^count belongs to the history and W(count) to the newcomers.
        share = np.divide(self.weight(count), self.weight(total), out=np.zeros(len(rows)), where=total > 0)
        decay = 1.0 if self.log_decay == 0.0 else np.exp(count * self.log_decay)
        self.mean[rows] = np.where(fresh, mean, self.mean[rows] + delta * share)
        self.m2[rows] = np.where(
            fresh, m2, self.m2[rows] * decay + m2 + delta * delta * (self.weight(old) * decay * share)
        )
        self.count[rows] = total
