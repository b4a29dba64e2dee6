# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Readers in numbers, from what they wrote before the cut: how they rate and how much they write."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.goodreads_files import read_reviews


@dataclass(frozen=True)
class ReaderFeatures:
    """Sums over each reader's reviews of the past; `until` is the newest review in any of them."""

    sums: dict[str, list[float]]
    until: int
    names: tuple[str, ...] = ("mean_rating", "std_rating", "log_reviews", "mean_log_words")

    def has(self, user: str) -> bool:
        return user in self.sums

    def matrix(self, users: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, D) features of these readers."""
        rows = []
        for user in users:
            count, rating, square, words = self.sums[user]
            mean = rating / count
            rows.append([mean, math.sqrt(max(square / count - mean**2, 0.0)), math.log(count), words / count])
        return np.array(rows).reshape(len(users), len(self.names))


def reader_features(reviews: Path, cut: int, users: set[str]) -> ReaderFeatures:
    """One pass over the reviews; only these readers are counted, and only what they wrote before the cut."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    until = 0
    for review in read_reviews(reviews):
        if review.time < cut and review.rating and review.user in users:
            here = sums[review.user]
            here[0] += 1
            here[1] += review.rating
            here[2] += review.rating**2
            here[3] += math.log1p(len(review.text.split()))
            until = max(until, review.time)
    return ReaderFeatures(dict(sums), until)
