# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Which ratings become rows: some of each user's latest for training, the first one after the cut for validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.candidates import draw_candidates
from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.movielens_archive import Ratings
from verl_pgrpo.data.options import Archive
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.time_split import Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Archive):
    """What a data set is made by."""

    # films in a prompt: with titles and genres some 25 tokens each
    history: int = 10
    # ratings of the past without which a user has no taste to know
    min_history: int = 5
    # films to choose from, the answer among them; chance is one in ten
    candidates: int = 10
    # training rows of one user, at most: the heaviest have rated two thousand films
    rows_per_user: int = 20

    def check(self) -> None:
        self.at_least(groups=2, seed=0, train_size=1, val_size=1)
        self.at_least(history=1, min_history=1, candidates=2, rows_per_user=1)


@dataclass(frozen=True)
class Past:
    """Everything before the cut, ordered by user and time; users are numbered from 0.

    `user` (N,) numbers, `film` (N,) places in `Films`, `user_ids` (U,) of the archive, `start` (U + 1,) first rating.
    """

    user: npt.NDArray[np.int64]
    film: npt.NDArray[np.int64]
    stars: npt.NDArray[np.int8]
    time: npt.NDArray[np.int64]
    user_ids: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Rows to be written: prompt = ratings `first` to `last` (exclusive) of the past, all (R,); lists (R, C)."""

    user: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    answer: npt.NDArray[np.int64]
    answer_time: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int64]

    def take(self, which: npt.NDArray[Any]) -> Examples:
        return Examples(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def past_of(ratings: Ratings, options: Options, summary: Summary) -> Past:
    """The training part in order, without users of too few ratings and without second ratings of a film."""
    ratings = ratings.take(np.lexsort((ratings.film, ratings.time, ratings.user)))
    new = np.append(True, ratings.user[1:] != ratings.user[:-1])
    number = np.cumsum(new) - 1
    key = number * (int(ratings.film.max()) + 1) + ratings.film
    order = np.argsort(key, kind="stable")  # stable: of two ratings the earlier comes first
    again = np.zeros(len(key), bool)
    again[order[1:]] = key[order[1:]] == key[order[:-1]]
    del key, order
    enough = np.bincount(number[~again], minlength=number[-1] + 1) >= options.min_history
    keep = enough[number] & ~again
    summary.drop("ratings of a film that the user had rated before", again.sum())
    summary.drop(f"ratings by users with fewer than {options.min_history} before the cut", (~enough[number]).sum())
    if not keep.any():
        raise DataError(f"no user has --min-history {options.min_history} ratings before the cut")
    kept = ratings.take(keep)
    first = np.flatnonzero(np.append(True, kept.user[1:] != kept.user[:-1]))
    start = np.append(first, len(kept)).astype(np.int64)
    user = np.repeat(np.arange(len(first)), np.diff(start))
    return Past(user, kept.film.astype(np.int64), kept.stars, kept.time, kept.user[first], start)


def evidence(rows: Examples, past: Past) -> Evidence:
    """What the split is held against: read from the finished rows, not from how they were chosen."""
    given_away = np.zeros(len(rows.user), bool)
    for back in range(1, int((rows.last - rows.first).max(initial=0)) + 1):
        place = rows.last - back
        given_away |= (place >= rows.first) & (past.film[place] == rows.answer)
    return Evidence(past.time[rows.last - 1], rows.answer_time, given_away)


def training_rows(past: Past, options: Options) -> Examples:
    """Some of each user's latest ratings, each with what the user had rated before it."""
    end = past.start[1:][past.user]
    place = np.arange(len(past.user))
    eligible = (place - past.start[past.user] >= options.min_history) & (place >= end - options.rows_per_user)
    chosen = np.flatnonzero(eligible)
    rng = np.random.default_rng([options.seed, 20])
    chosen = rng.permutation(chosen)[: options.train_size]
    user = past.user[chosen]
    first = np.maximum(past.start[user], chosen - options.history)
    return Examples(user, first, chosen, past.film[chosen], past.time[chosen], np.empty((len(chosen), 0), np.int64))


def validation_rows(
    past: Past, future: Ratings, popularity: npt.NDArray[np.int64], group: npt.NDArray[np.str_], options: Options,
    summary: Summary,
) -> Examples:  # fmt: skip
    """The first new film after the cut of each user with a past."""
    future = future.take(np.lexsort((future.film, future.time, future.user)))
    number = np.minimum(np.searchsorted(past.user_ids, future.user), len(past.user_ids) - 1)
    with_past = past.user_ids[number] == future.user
    summary.drop("test-side ratings by users without a past", (~with_past).sum())
    user, future = number[with_past], future.take(with_past)
    films = len(popularity)
    seen = np.sort(past.user * films + past.film)
    key = user * films + future.film
    again = seen[np.minimum(np.searchsorted(seen, key), len(seen) - 1)] == key
    unknown = popularity[future.film] == 0
    summary.drop("test-side ratings of a film that the user had rated before", again.sum())
    summary.drop("test-side ratings of films that nobody had rated before the cut", (unknown & ~again).sum())
    user, future = user[~again & ~unknown], future.take(~again & ~unknown)
    first_of_user = np.append(True, user[1:] != user[:-1])[: len(user)]
    summary.drop("test-side ratings after the first that is asked about", (~first_of_user).sum())
    user, future = user[first_of_user], future.take(first_of_user)
    chosen = _even_sample(group[user], options.val_size, np.random.default_rng([options.seed, 21]))
    user, last = user[chosen], past.start[1:][user[chosen]]
    first = np.maximum(past.start[user], last - options.history)
    lists = np.empty((len(chosen), 0), np.int64)
    return Examples(user, first, last, future.film[chosen].astype(np.int64), future.time[chosen], lists)


def _even_sample(labels: npt.NDArray[np.str_], size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Up to `size` places, as equally many of each label as there are, in random order."""
    shuffled = rng.permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        of_label = shuffled[labels[shuffled] == label]
        turn[of_label] = np.arange(len(of_label))
    return shuffled[np.argsort(turn[shuffled], kind="stable")[:size]]


def with_candidates(
    rows: Examples, seen: npt.NDArray[np.int64], popularity: npt.NDArray[np.int64], options: Options, stream: int,
    summary: Summary,
) -> Examples:  # fmt: skip
    rng = np.random.default_rng([options.seed, stream])
    lists = draw_candidates(rng, rows.user, rows.answer, seen, popularity, options.candidates)
    choice = (lists >= 0).sum(1) >= 2
    summary.drop("rows of users who have seen every other film", (~choice).sum())
    return Examples(rows.user, rows.first, rows.last, rows.answer, rows.answer_time, lists).take(choice)
