# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A column of repeated values as numbers, so that Python touches each distinct value once and numpy does the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Factor"]

Integers = NDArray[np.int64]
Value = TypeVar("Value", bound=Hashable)
Other = TypeVar("Other", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Factor(Generic[Value]):
    """N values as `levels[codes]` (R's factor, pandas' categorical).

    levels: the distinct values; each occurs.
    codes: (N,) int64.
    """

    levels: list[Value]
    codes: Integers

    @classmethod
    def of(cls, values: Sequence[Value] | Factor[Value]) -> Factor[Value]:
        """Levels in order of first appearance. A factor is returned as it is."""
        if isinstance(values, Factor):
            return values
        places: defaultdict[Value, int] = defaultdict()
        places.default_factory = places.__len__  # an unknown value gets the next code
        codes = np.fromiter(map(places.__getitem__, values), dtype=np.int64, count=len(values))
        places.default_factory = None  # or the cycle would keep every value until the garbage collector comes by
        return cls(list(places), codes)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> Value:
        return self.levels[self.codes[row]]

    def take(self, rows: Integers | NDArray[np.bool_]) -> Factor[Value]:
        """The values at these rows (numbers, or a bool for each row), without the levels that are then unused."""
        codes = self.codes[rows]
        used = np.zeros(len(self.levels), dtype=np.bool_)
        used[codes] = True
        if used.all():
            return Factor(self.levels, codes)
        kept = np.flatnonzero(used)
        return Factor([self.levels[code] for code in kept.tolist()], (np.cumsum(used) - 1)[codes])

    def relabel(self, levels: Sequence[Other]) -> Factor[Other]:
        """`levels[i]` in the place of level i; two of them may be the same."""
        new = Factor.of(levels)
        return Factor(new.levels, new.codes[self.codes])
