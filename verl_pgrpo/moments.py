# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Running count, mean, M2 (sum of squared deviations) and spread within prompts of many groups, as arrays.

Welford's recurrence, applied to a batch at a time with the pairwise merge of Chan, Golub and LeVeque (1979):

    n = n_a + n_b,   delta = mean_b - mean_a
    mean = mean_a + delta * n_b / n,   M2 = M2_a + M2_b + delta^2 * n_a * n_b / n

With exponential forgetting, every reward of a group multiplies the weight of the older ones by `decay`. The weight of
k rewards is then W(k) = (1 - decay^k) / (1 - decay), a function of the count alone, so the same three numbers suffice.
The rewards of one batch have no order: they share W(k) equally, and their sums of squared deviations are scaled to the
degrees of freedom that k rewards with these weights have. `decay = 1` is the plain recurrence with W(k) = k.

Rewards that come with their prompts also add to `within`, the sum of squared deviations from the prompt's own mean, and
to `within_dof`, its degrees of freedom: the number of responses minus the number of prompts. Both are plain sums with
the same forgetting as M2. within / within_dof is the variance within prompts, pooled over all prompts of the group.

Caveat: the mean is one float64, so an update smaller than half its last place is lost. This matters only if rewards
arrive one at a time and their mean is a billion times their spread: near 1e9 with a spread of 1, after a million single
updates, the mean is off by about 1e-4 of the spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["FIELDS", "MAX_MAGNITUDE", "Floats", "Integers", "Moments", "as_floats"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The sum of squares of larger values may overflow a float64.
MAX_MAGNITUDE = 1e140
FIELDS = ("count", "mean", "m2", "within", "within_dof")


def as_floats(values: ArrayLike) -> Floats:
    """Return any sequence of numbers as float64; a number that no float64 can hold becomes infinite."""
    if hasattr(values, "detach"):  # a torch tensor, whose bfloat16 numpy does not know
        values = values.detach().double().cpu()
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return np.array([x if abs(x) <= MAX_MAGNITUDE else np.inf for x in values], dtype=np.float64)  # type: ignore


class Moments:
    """Arrays with one element per group: `count` (int64), `mean`, `m2`, `within` and `within_dof` (float64).

    Args:
        size: number of groups, all empty.
        half_life: a reward's weight halves after this many newer rewards of its group. None: no forgetting.
    """

    def __init__(self, size: int = 0, half_life: float | None = None) -> None:
        self.log_decay = 0.0 if half_life is None else max(-math.log(2.0) / half_life, -1e3)  # exp(-1e3) is 0
        self.count: Integers = np.zeros(size, dtype=np.int64)
        self.mean: Floats = np.zeros(size, dtype=np.float64)
        self.m2: Floats = np.zeros(size, dtype=np.float64)
        self.within: Floats = np.zeros(size, dtype=np.float64)
        self.within_dof: Floats = np.zeros(size, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.count)

    def resize(self, size: int) -> None:
        """Grow or shrink to `size` groups. New groups are empty."""
        for name in FIELDS:
            old = getattr(self, name)
            new = np.zeros(size, dtype=old.dtype)
            new[: len(old)] = old[:size]
            setattr(self, name, new)

    def take(self, rows: Integers) -> Moments:
        """Return a copy in which group i is group `rows[i]` of this one."""
        return self._like(getattr(self, name)[rows] for name in FIELDS)

    def where(self, condition: NDArray[np.bool_], other: Moments) -> Moments:
        """Return a copy that has `other`'s group i wherever `condition[i]` is False."""
        return self._like(np.where(condition, getattr(self, name), getattr(other, name)) for name in FIELDS)

    def _like(self, arrays: Iterable[NDArray[Any]]) -> Moments:
        made = Moments()
        made.log_decay = self.log_decay
        for name, array in zip(FIELDS, arrays, strict=True):
            setattr(made, name, array)
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

    def variance_within(self) -> Floats:
        """Return the variance of rewards around the mean of their prompt; NaN without a prompt of two responses."""
        return np.divide(self.within, self.within_dof, out=np.full(len(self), np.nan), where=self.within_dof > 0)

    def pooled(self) -> tuple[float, float]:
        """Return mean and std of all groups' rewards together, each with the weight it has in its group.

        With forgetting, the pool therefore forgets at the rate of its groups. 0 and 0 without rewards. The result is
        bit-identical for any order of the groups, because `math.fsum` rounds only once.
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

    def update(self, rows: Integers, values: Floats, prompts: Integers | None = None) -> None:
        """Add `values[i]` of prompt `prompts[i]` to group `rows[i]`, each (N,). The time depends on N only.

        The batch is sorted first, so the result is bit-identical for any order. Deviations are taken
        from the group's mean so far (or its smallest value), not from zero: with values near 1e9 and a spread of 1,
        sums of the values themselves would lose the spread.
        """
        if len(rows) == 0:
            return
        groups, first, sorted_values, local = _runs(values, rows)
        count = np.diff(first, append=len(rows))
        origin = np.where(self.count[groups] > 0, self.mean[groups], sorted_values[first])
        deviation = sorted_values - origin[local]
        shift = np.bincount(local, weights=deviation) / count
        deviation -= shift[local]
        # Not W / count, which has more degrees of freedom: `degrees_of_freedom` does not know the sizes of batches.
        factor = self.degrees_of_freedom(count) / np.maximum(count - 1, 1)
        m2 = np.bincount(local, weights=deviation * deviation) * factor
        within = dof = np.zeros(len(groups))
        if prompts is not None:
            within, dof = _within_prompts(rows, values, prompts)
            within, dof = within * factor, dof * factor
        self._merge(groups, count, origin + shift, m2, within, dof, shift)

    def merge(self, rows: Integers, other: Moments) -> None:
        """Add `other`'s group i to group `rows[i]` (distinct rows). With forgetting, `other` is the newer history."""
        delta = np.where(self.count[rows] > 0, other.mean - self.mean[rows], 0.0)
        self._merge(rows, other.count, other.mean, other.m2, other.within, other.within_dof, delta)

    def _merge(
        self,
        rows: Integers,
        count: Integers,
        mean: Floats,
        m2: Floats,
        within: Floats,
        within_dof: Floats,
        delta: Floats,
    ) -> None:
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
        self.within[rows] = self.within[rows] * decay + within
        self.within_dof[rows] = self.within_dof[rows] * decay + within_dof
        self.count[rows] = total


def _runs(values: Floats, *keys: Integers) -> tuple[Integers, Integers, Floats, Integers]:
    """Sort `values` within each distinct combination of keys (the first key is the most significant).

    Returns:
        the first key of each combination, the position of its first value, the sorted values, and the combination that
        each of these belongs to.
    """
    order = np.lexsort((values, *reversed(keys)))
    begins = np.zeros(len(values), dtype=np.bool_)
    begins[0] = True
    for key in keys:
        begins[1:] |= key[order[1:]] != key[order[:-1]]
    first = np.flatnonzero(begins)
    return keys[0][order[first]], first.astype(np.int64), values[order], np.cumsum(begins, dtype=np.int64) - 1


def _within_prompts(rows: Integers, values: Floats, prompts: Integers) -> tuple[Floats, Floats]:
    """Return sum of squares within prompts and its degrees of freedom, for each distinct row in ascending order."""
    row, first, sorted_values, local = _runs(values, rows, prompts)
    size = np.diff(first, append=len(rows))
    deviation = sorted_values - sorted_values[first][local]
    deviation -= (np.bincount(local, weights=deviation) / size)[local]
    squares = np.bincount(local, weights=deviation * deviation).astype(np.float64, copy=False)
    # The numbers of prompts depend on the order of the batch. The sizes of their sums do not.
    _, first, sorted_squares, local = _runs(squares, row)
    sums = np.bincount(local, weights=sorted_squares).astype(np.float64, copy=False)
    return sums, np.add.reduceat(size - 1.0, first)
