# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Running count, mean and M2 (sum of squared deviations) of many groups, as arrays.

Welford's recurrence, applied to a batch at a time with the pairwise merge of Chan, Golub and LeVeque (1979):

    n = n_a + n_b,   delta = mean_b - mean_a
    mean = mean_a + delta * n_b / n,   M2 = M2_a + M2_b + delta^2 * n_a * n_b / n

With exponential forgetting, every reward of a group multiplies the weight of the older ones by `decay`. The weight of
k rewards is then W(k) = (1 - decay^k) / (1 - decay), a function of the count alone, so the same three numbers suffice.
The rewards of one batch have no order: they share W(k) equally. `decay = 1` is the plain recurrence with W(k) = k.

Caveat: the mean is one float64, so an update smaller than half its last place is lost. This matters only if rewards
arrive one at a time and their mean is a billion times their spread: near 1e9 with a spread of 1, after a million single
updates, the mean is off by about 1e-4 of the spread.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_MAGNITUDE", "Moments"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The sum of squares of larger values may overflow a float64.
MAX_MAGNITUDE = 1e140


class Moments:
    """Arrays with one element per group: `count` (int64), `mean` and `m2` (float64).

    Args:
        size: number of groups, all empty.
        half_life: a reward weighs half after this many newer rewards of its group. None: no forgetting.
    """

    __slots__ = ("count", "log_decay", "m2", "mean")

    def __init__(self, size: int = 0, half_life: float | None = None) -> None:
        self.log_decay = 0.0 if half_life is None else max(-math.log(2.0) / half_life, -1e3)  # exp(-1e3) is 0
        self.count: Integers = np.zeros(size, dtype=np.int64)
        self.mean: Floats = np.zeros(size, dtype=np.float64)
        self.m2: Floats = np.zeros(size, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.count)

    def resize(self, size: int) -> None:
        """Grow or shrink to `size` groups. New groups are empty."""
        for name in ("count", "mean", "m2"):
            old = getattr(self, name)
            new = np.zeros(size, dtype=old.dtype)
            new[: len(old)] = old[:size]
            setattr(self, name, new)

    def take(self, rows: Integers) -> Moments:
        """Return a copy in which group i is group `rows[i]` of this one."""
        return self._like(self.count[rows], self.mean[rows], self.m2[rows])

    def where(self, condition: NDArray[np.bool_], other: Moments) -> Moments:
        """Return a copy that has `other`'s group i wherever `condition[i]` is False."""
        names = ("count", "mean", "m2")
        return self._like(*(np.where(condition, getattr(self, name), getattr(other, name)) for name in names))

    def _like(self, count: Integers, mean: Floats, m2: Floats) -> Moments:
        made = Moments()
        made.log_decay, made.count, made.mean, made.m2 = self.log_decay, count, mean, m2
        return made

    def weight(self, count: Integers | Floats) -> Floats:
        """Return the total weight W of `count` rewards. Without forgetting, this is `count`."""
        if self.log_decay == 0.0:
            return count.astype(np.float64)
        return np.expm1(count * self.log_decay) / math.expm1(self.log_decay)

    def degrees_of_freedom(self, count: Integers) -> Floats:
        """Return W minus (sum of squared weights) / W, Bessel's correction. Without forgetting: `count - 1`."""
        if self.log_decay == 0.0:
            return np.maximum(count - 1.0, 0.0)
        squares = (1.0 + np.exp(count * self.log_decay)) / (1.0 + math.exp(self.log_decay))
        return np.where(count > 1, self.weight(count) - squares, 0.0)

    def std(self) -> Floats:
        """Return the sample standard deviation per group; 0 for a single reward or equal rewards."""
        dof = self.degrees_of_freedom(self.count)
        return np.sqrt(np.divide(self.m2, dof, out=np.zeros_like(self.m2), where=dof > 0))

    def pooled(self) -> tuple[float, float]:
        """Return mean and std of all groups' rewards together, each with the weight it has in its group.

        With forgetting, the pool therefore forgets at the rate of its groups. 0 and 0 without rewards. The order of the
        groups does not matter, to the last bit, because `math.fsum` rounds only once.
        """
        known = self.take(np.flatnonzero(self.count))
        if len(known) == 0:
            return 0.0, 0.0
        weight, origin = self.weight(known.count), known.mean.min()
        deviation = known.mean - origin  # not from zero: see `update`
        total = math.fsum(weight)
        shift = math.fsum(weight * deviation) / total
        m2 = math.fsum(known.m2 + weight * np.square(deviation - shift))
        # Bessel's correction as in `degrees_of_freedom`: W - dof is a group's (sum of squared weights) / W.
        squares = math.fsum((weight - self.degrees_of_freedom(known.count)) * weight)
        dof = total - squares / total
        return float(origin + shift), math.sqrt(m2 / dof) if dof > 0 else 0.0

    def update(self, rows: Integers, values: Floats) -> None:
        """Add `values[i]` to group `rows[i]`, both (N,). Takes time in N only.

        The batch is sorted first, so the result does not depend on its order, to the last bit. Deviations are taken
        from the group's mean so far (or its smallest value), not from zero: with values near 1e9 and a spread of 1,
        sums of the values themselves would lose the spread.
        """
        if len(rows) == 0:
            return
        order = np.lexsort((values, rows))  # by group, then by value
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
        """Add `other`'s group i to group `rows[i]` (distinct rows). With forgetting, `other` is the newer history."""
        delta = np.where(self.count[rows] > 0, other.mean - self.mean[rows], 0.0)
        self._merge(rows, other.count, other.mean, other.m2, delta)

    def _merge(self, rows: Integers, count: Integers, mean: Floats, m2: Floats, delta: Floats) -> None:
        """Merge with Chan's formula. The caller gives `delta` (mean minus the mean so far), which it knows exactly."""
        old = self.count[rows]
        total = old + count
        empty = old == 0
        # Of the total weight, W(old) * decay^count belongs to the history and W(count) to the new rewards.
        share = np.divide(self.weight(count), self.weight(total), out=np.zeros(len(rows)), where=total > 0)
        decay = 1.0 if self.log_decay == 0.0 else np.exp(count * self.log_decay)
        self.mean[rows] = np.where(empty, mean, self.mean[rows] + delta * share)
        self.m2[rows] = np.where(
            empty, m2, self.m2[rows] * decay + m2 + delta * delta * (self.weight(old) * decay * share)
        )
        self.count[rows] = total
