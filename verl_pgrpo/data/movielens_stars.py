# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The task "stars": which of these films does the user give the most stars? The answer is a letter.

The candidates are films that the user has rated, and the reward is the user's own stars
(`verl_pgrpo.rewards.movielens_stars`): a real rating, with the noise and the personal scale of real ratings.

Each user's ratings are divided into three parts, in the order of time: a first half, which prompts show and features
use; a second half, whose ratings are candidates of training rows; and the held-out ratings, which are candidates of the
validation row. So no candidate's stars are in any prompt, feature or cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verl_pgrpo.data.movielens_archive import Films
from verl_pgrpo.data.movielens_log import Examples, Flags, Indices, MovieLensOptions, RatingLog
from verl_pgrpo.data.splits import sample_evenly
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.errors import DataError

OWN_FIELDS = (("user", pa.int64()), ("shown", pa.list_(pa.int64())), ("candidates", pa.list_(pa.int64())))


def first_halves(log: RatingLog, min_history: int) -> tuple[Indices, Flags]:
    """Return where each user's candidates begin (U,), and which ratings prompts and features may use (N,)."""
    past = log.past_end - log.start[:-1]
    middle = np.minimum(log.start[:-1] + np.maximum(min_history, -(-past // 2)), log.past_end)
    return middle, np.arange(len(log.user)) < middle[log.user]


def training_rows(log: RatingLog, middle: Indices, options: MovieLensOptions, summary: Summary) -> Examples:
    """Divide the second half of each user's training-side ratings into candidate sets, at random."""
    rng, count = np.random.default_rng([options.seed, 30]), options.num_candidates
    place = np.arange(len(log.user))
    usable = np.flatnonzero((place >= middle[log.user]) & (place < log.past_end[log.user]))
    usable = usable[np.lexsort((rng.random(len(usable)), log.user[usable]))]
    sizes = np.bincount(log.user[usable], minlength=len(middle))
    number = np.arange(len(usable)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    sets = np.minimum(sizes // count, options.rows_per_user)
    summary.drop(f"ratings left over from training candidate sets of {count}", (sizes % count).sum())
    summary.drop("training candidate sets beyond --rows-per-user", (sizes // count - sets).sum())
    summary.drop("users without a training candidate set", (sets == 0).sum())
    asked = usable[number < (sets * count)[log.user[usable]]].reshape(-1, count)
    asked = _with_a_choice(log, asked, "training", summary)
    summary.drop("training candidate sets beyond --train-size", max(len(asked) - options.train_size, 0))
    asked = asked[rng.permutation(len(asked))[: options.train_size]]
    return _examples(log, asked, middle, options.history, rng)


def validation_rows(
    log: RatingLog, middle: Indices, group: npt.NDArray[np.str_], options: MovieLensOptions, summary: Summary
) -> Examples:
    """Take each user's first held-out ratings as candidates."""
    rng, count = np.random.default_rng([options.seed, 31]), options.num_candidates
    held_out = log.start[1:] - log.past_end
    users = np.flatnonzero(held_out >= count)
    summary.drop(f"users with fewer than {count} held-out ratings", len(middle) - len(users))
    summary.drop("held-out ratings after those that are asked for", (held_out[users] - count).sum())
    asked = rng.permuted(log.past_end[users][:, None] + np.arange(count), axis=1)
    asked = _with_a_choice(log, asked, "validation", summary)
    chosen = sample_evenly(group[log.user[asked[:, 0]]], options.val_size, rng)
    summary.drop("users beyond --val-size", len(asked) - len(chosen))
    return _examples(log, asked[chosen], middle, options.history, rng)


def _with_a_choice(log: RatingLog, asked: Indices, split: str, summary: Summary) -> Indices:
    differ = np.ptp(log.stars[asked], axis=1) > 0
    if len(asked) and not differ.any():
        raise DataError(f"the {split} split has no rows: in each of {len(asked)} candidate sets all stars are equal")
    summary.drop(f"{split} candidate sets in which all stars are equal", (~differ).sum())
    return asked[differ]


def _examples(log: RatingLog, asked: Indices, middle: Indices, history: int, rng: np.random.Generator) -> Examples:
    """Show a random part of the user's first half, in the order of time."""
    user = log.user[asked[:, 0]]
    shown = np.full((len(asked), history), -1)
    for row, one in enumerate(user):
        start, end = log.start[one], middle[one]
        chosen = np.sort(rng.choice(end - start, min(history, end - start), replace=False)) + start
        shown[row, history - len(chosen) :] = chosen
    return Examples(user, shown, asked, log.film[asked])


def render(log: RatingLog, rows: Examples, films: Films) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield prompt, ground truth and the task's part of `extra_info` of each row."""
    for row in range(len(rows)):
        shown, asked = rows.shown[row][rows.shown[row] >= 0], rows.asked[row]
        letters = ascii_uppercase[: len(asked)]
        lines = ["Films that I rated, with my stars (of 5):"]
        lines += [f"- {films.describe(log.film[i])}: {log.stars[i]:g}" for i in shown]
        lines += ["", "To which of these films do I give the most stars?"]
        lines += [f"{letter}. {films.describe(log.film[i])}" for letter, i in zip(letters, asked, strict=True)]
        lines += ["", "Answer with one letter."]
        truth = {"stars": {letter: float(log.stars[i]) for letter, i in zip(letters, asked, strict=True)}}
        own = {
            "user": int(log.user_ids[rows.user[row]]),
            "shown": [films.ids[log.film[i]] for i in shown],
            "candidates": [films.ids[log.film[i]] for i in asked],
        }
        yield "\n".join(lines), truth, own
