# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Ratings in order, with the held-out part of each user: a split at one moment, or at each user's last ratings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.movielens_archive import Films, Ratings
from verl_pgrpo.data.splits import LeakError, cut_time
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.errors import DataError

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RatingLog:
    """N ratings by U users, ordered by user and time.

    `user` (N,) user numbers from 0, `film` (N,) places in `Films`, `stars` (N,), `time` (N,) in seconds since 1970,
    `user_ids` (U,) as in the archive. User u has the ratings `start[u]` to `start[u + 1]`; those from `past_end[u]` on
    are held out. `cut` is the first held-out second of a split in time, None for a split at the last ratings.
    """

    user: Indices
    film: Indices
    stars: npt.NDArray[np.float32]
    time: npt.NDArray[np.int64]
    user_ids: npt.NDArray[np.int32]
    start: Indices
    past_end: Indices
    cut: int | None

    @property
    def held_out(self) -> Flags:
        """(N,) whether a rating belongs to the test side."""
        return np.arange(len(self.user)) >= self.past_end[self.user]


def known_films(ratings: Ratings, films: Films, summary: Summary) -> Ratings:
    """Return ratings with places of films instead of ids; drop ratings of unlisted films."""
    ids = np.array(sorted(films.place_of), dtype=np.int32)
    places = np.array([films.place_of[int(one)] for one in ids], dtype=np.int32)
    at = np.minimum(np.searchsorted(ids, ratings.film), len(ids) - 1)
    known = ids[at] == ratings.film
    summary.drop("ratings of films that the archive does not list", (~known).sum())
    if not known.any():
        raise DataError("no rating is of a listed film; the archive's two files do not belong together")
    return Ratings(ratings.user, places[at], ratings.stars, ratings.time).take(known)


def rating_log(
    ratings: Ratings, split: str, hold: int, min_history: int, test_fraction: float, summary: Summary
) -> RatingLog:
    """Order ratings, hold out the test side, and drop users without enough ratings.

    Args:
        ratings: with places of films.
        split: "time" holds out the latest `test_fraction` of all ratings, "last" each user's last `hold` ratings.
        hold: see `split`.
        min_history: ratings that a user must have on the training side.
        test_fraction: see `split`.
        summary: counts what was dropped.

    Raises:
        DataError: no user is left.
    """
    cut = cut_time(ratings.time, test_fraction) if split == "time" else None
    # Many ratings have the same second. By id, the newest film would always be the last one; a hash has no bias.
    mixed = ratings.user.astype(np.uint64) << np.uint64(32) | ratings.film.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # SplitMix64's finalizer
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    ratings = ratings.take(np.lexsort((mixed, ratings.time, ratings.user)))
    del mixed

    ids, user = np.unique(ratings.user, return_inverse=True)
    key = user * (int(ratings.film.max()) + 1) + ratings.film
    order = np.argsort(key, kind="stable")  # stable: of two ratings the earlier one comes first
    again = np.zeros(len(key), bool)
    again[order[1:]] = key[order[1:]] == key[order[:-1]]
    del key, order
    summary.drop("ratings of a film that the user had rated before", again.sum())
    ratings, user = ratings.take(~again), user[~again]

    total = np.bincount(user, minlength=len(ids))
    past = total - hold if cut is None else np.bincount(user[ratings.time < cut], minlength=len(ids))
    enough = past >= min_history
    keep = enough[user]
    summary.drop(f"ratings by users with fewer than {min_history} on the training side", (~keep).sum())
    if not keep.any():
        raise DataError(f"no user has {min_history} ratings (--min-history) on the training side")
    ratings = ratings.take(keep)
    start = np.append(0, np.cumsum(total[enough])).astype(np.int64)
    user = np.repeat(np.arange(len(start) - 1), np.diff(start))
    return RatingLog(user, ratings.film.astype(np.int64), ratings.stars, ratings.time, ids[enough], start,
                     start[:-1] + past[enough], cut)  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """R rows to be written. Indices into a `RatingLog`, -1 where a row has fewer.

    `user` (R,); `shown` (R, H) ratings in the prompt, in order; `asked` (R, A) ratings that decide the reward;
    `candidates` (R, C) places of films to choose from.
    """

    user: Indices
    shown: Indices
    asked: Indices
    candidates: Indices

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: npt.NDArray[np.generic]) -> Examples:
        """Return the rows at these indices, or where a mask is true."""
        return Examples(self.user[which], self.shown[which], self.asked[which], self.candidates[which])


def check_no_leak(log: RatingLog, features: Flags, train: Examples, val: Examples, in_order: bool) -> None:
    """Check finished rows against the split.

    Args:
        log: the ratings.
        features: (N,) the ratings that features, clusters and popularity were computed from.
        train: training rows.
        val: validation rows.
        in_order: whether nothing in a prompt may be later than what it asks for.

    Raises:
        LeakError: what leaks, and in how many rows.
    """
    held_out = log.held_out
    wrong = {
        "held-out ratings in features": (features & held_out).sum(),
        "held-out ratings as training answers": held_out[train.asked].sum(),
        "training-side ratings as validation answers": (~held_out[val.asked]).sum(),
    }
    if log.cut is not None:
        late = log.time >= log.cut
        wrong["ratings on the wrong side of the cut"] = (late != held_out).sum()
    for name, rows in (("training", train), ("validation", val)):
        shown = rows.shown >= 0
        wrong[f"{name} prompts with held-out ratings"] = (held_out[rows.shown] & shown).any(1).sum()
        same = (log.film[rows.shown][:, :, None] == log.film[rows.asked][:, None, :]).any(2)
        wrong[f"{name} prompts that show what they ask for"] = (same & shown).any(1).sum()
        if in_order:
            later = log.time[rows.shown] > log.time[rows.asked].min(1, keepdims=True)
            wrong[f"{name} prompts that know what came after the answer"] = (later & shown).any(1).sum()
        else:
            wrong[f"{name} candidates in features"] = features[rows.asked].any(1).sum()
    found = [f"{what} ({count})" for what, count in wrong.items() if count]
    if found:
        raise LeakError(f"the split leaks: {'; '.join(found)}; nothing was written")
