# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Ratings in order, with each user's held-out part: split at one point in time, or at each user's last ratings."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from typer import Option

from verl_pgrpo.data.movielens_archive import Films
from verl_pgrpo.data.options import Archive
from verl_pgrpo.data.splits import cut_time
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.errors import DataError

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
CANDIDATES = {"next": 10, "stars": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class MovieLensOptions(Archive):
    """Options of a MovieLens dataset."""

    task: Annotated[Literal["next", "stars"], Option(help="The next film's title, or the best rated one's letter.")] = (
        "next"
    )
    # Most people rate in one sitting, so their ratings are on one side of any point in time. "time" leaves few
    # validation rows; therefore "last" is the default.
    split: Annotated[
        Literal["last", "time"], Option(help="Hold out each user's last ratings, or all ratings after one moment.")
    ] = "last"
    # about 25 tokens each with title and genres
    history: Annotated[int, Option(min=1, help="Films in a prompt.")] = 10
    min_history: Annotated[int, Option(min=1, help="Ratings a user must have on the training side.")] = 5
    candidates: Annotated[int | None, Option(min=2, help="Films to choose from; default 10 for next, 5 for stars.")] = (
        None
    )
    # the heaviest users have rated thousands of films
    rows_per_user: Annotated[int, Option(min=1, help="Training rows of one user, at most.")] = 20

    @property
    def num_candidates(self) -> int:
        """Films to choose from."""
        return self.candidates or CANDIDATES[self.task]

    def check(self) -> None:
        Archive.check(self)
        if self.split == "last":
            self.check_unused("with --split last", "test_fraction")
        if self.task == "stars" and self.num_candidates > len(ascii_uppercase):
            raise DataError(f"--candidates must be at most {len(ascii_uppercase)}: the answer is a letter")


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


def rating_log(ratings: pd.DataFrame, films: Films, options: MovieLensOptions, summary: Summary) -> RatingLog:
    """Order ratings, hold out the test side, and drop users without enough ratings.

    The split "time" holds out the latest `test_fraction` of all ratings; "last" holds out each user's last rating, for
    the task "stars" as many as there are candidates. `summary` counts what was dropped.
    """
    at = pd.Index(films.place_of).get_indexer(pd.Index(ratings["film"]))
    summary.drop("ratings of films that the archive does not list", (at < 0).sum())
    if (at < 0).all():
        raise DataError("no rating is of a listed film; the archive's two files do not belong together")
    film = np.array(list(films.place_of.values()), np.int32)[at[at >= 0]]
    user, stars, time = (ratings[name].to_numpy()[at >= 0] for name in ("user", "stars", "time"))
    cut = cut_time(time, options.test_fraction) if options.split == "time" else None
    # Many ratings have the same time stamp. Ordered by id, the newest film would always be last; a hash has no bias.
    pair = user.astype(np.uint64) << np.uint64(32) | film.astype(np.uint64)
    order = np.lexsort((pd.util.hash_array(pair), time, user))
    again = pd.Series(pair[order]).duplicated().to_numpy()
    summary.drop("ratings of a film that the user had rated before", again.sum())
    order = order[~again]
    del pair, again

    ids, number = np.unique(user[order], return_inverse=True)
    total = np.bincount(number)
    if cut is None:
        past = total - (options.num_candidates if options.task == "stars" else 1)
    else:
        past = np.bincount(number[time[order] < cut], minlength=len(ids))
    enough = past >= options.min_history
    keep = enough[number]
    summary.drop(f"ratings by users with fewer than {options.min_history} on the training side", (~keep).sum())
    if not keep.any():
        raise DataError(f"no user has {options.min_history} ratings (--min-history) on the training side")
    order = order[keep]
    start = np.append(0, np.cumsum(total[enough])).astype(np.int64)
    return RatingLog(
        user=np.repeat(np.arange(len(start) - 1), np.diff(start)), film=film[order].astype(np.int64),
        stars=stars[order], time=time[order], user_ids=ids[enough], start=start, past_end=start[:-1] + past[enough],
        cut=cut,
    )  # fmt: skip


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
