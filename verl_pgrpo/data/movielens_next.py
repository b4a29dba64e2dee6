# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The task "next": which of these films does the user rate next? The answer is a title."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verl_pgrpo.data.movielens_archive import Films
from verl_pgrpo.data.movielens_log import Examples, Indices, MovieLensOptions, RatingLog
from verl_pgrpo.data.splits import sample_evenly
from verl_pgrpo.data.summary import Summary

OVERSAMPLING = 8  # films drawn per required candidate; some are known to the user or drawn twice
OWN_FIELDS = (("user", pa.int64()), ("prompt_until", pa.int64()), ("answer_time", pa.int64()))


def training_rows(log: RatingLog, popularity: Indices, options: MovieLensOptions, summary: Summary) -> Examples:
    """Draw some of each user's latest training-side ratings as answers, each with the ratings before it."""
    place, start, end = np.arange(len(log.user)), log.start[log.user], log.past_end[log.user]
    eligible = (place - start >= options.min_history) & (place < end) & (place >= end - options.rows_per_user)
    summary.drop("training rows beyond --train-size", max(eligible.sum() - options.train_size, 0))
    asked = np.random.default_rng([options.seed, 20]).permutation(np.flatnonzero(eligible))[: options.train_size]
    return _with_candidates(log, asked, asked, popularity, options, 10, summary)


def validation_rows(
    log: RatingLog, popularity: Indices, group: npt.NDArray[np.str_], options: MovieLensOptions, summary: Summary
) -> Examples:
    """Take each user's first held-out rating of a film that has a rating on the training side."""
    held_out = np.flatnonzero(log.held_out)
    known = popularity[log.film[held_out]] > 0
    summary.drop("held-out ratings of films without a rating on the training side", (~known).sum())
    users, first = np.unique(log.user[held_out[known]], return_index=True)
    summary.drop("held-out ratings after the one that is asked for", known.sum() - len(users))
    chosen = sample_evenly(group[users], options.val_size, np.random.default_rng([options.seed, 21]))
    asked = held_out[known][first][chosen]
    summary.drop("users beyond --val-size", len(users) - len(asked))
    return _with_candidates(log, asked, log.past_end[log.user[asked]], popularity, options, 11, summary)


def _with_candidates(
    log: RatingLog, asked: Indices, shown_until: Indices, popularity: Indices, options: MovieLensOptions, stream: int,
    summary: Summary,
) -> Examples:  # fmt: skip
    """Add the ratings in the prompt and the candidates: the answer in a random place, and films new to the user.

    The other candidates are drawn by popularity: with uniform draws, popularity alone would reveal the answer. Held-out
    ratings are not used: excluding those films would reveal that no candidate is among them.

    `asked` (R,) are the ratings to predict, `shown_until` (R,) the ratings after the last ones in the prompts.
    `popularity` (F,) counts each film's training-side ratings; a film without any is not drawn. A user who has rated
    nearly every film gets fewer candidates (-1), and rows without a choice are dropped. `stream` seeds the draws.
    """
    rng, user, count = np.random.default_rng([options.seed, stream]), log.user[asked], options.num_candidates
    shown = shown_until[:, None] - np.arange(options.history, 0, -1)
    shown = np.where(shown >= log.start[user][:, None], shown, -1)
    candidates = np.full((len(asked), count), -1)
    cumulative = np.cumsum(popularity)
    for row, answer in enumerate(log.film[asked]):
        known = np.append(log.film[log.start[user[row]] : log.past_end[user[row]]], answer)
        drawn = np.searchsorted(cumulative, rng.integers(cumulative[-1], size=OVERSAMPLING * count), side="right")
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        others = drawn[~np.isin(drawn, known)]
        if len(others) < count - 1:  # the user has rated nearly every popular film
            others = rng.permutation(np.setdiff1d(np.flatnonzero(popularity), known))
        candidates[row, : min(count, len(others) + 1)] = rng.permutation(np.append(others[: count - 1], answer))
    choice = (candidates >= 0).sum(1) >= 2
    summary.drop("rows of users who have rated every other film", (~choice).sum())
    return Examples(user[choice], shown[choice], asked[choice, None], candidates[choice])


def render(log: RatingLog, rows: Examples, films: Films) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield prompt, ground truth and the task's part of `extra_info` of each row."""
    for row in range(len(rows)):
        shown, asked = rows.shown[row][rows.shown[row] >= 0], int(rows.asked[row, 0])
        offered = [int(film) for film in rows.candidates[row] if film >= 0]
        lines = ["Films that I rated, the latest at the end:"]
        lines += [f"- {films.describe(log.film[i])}: {log.stars[i]:g} of 5 stars" for i in shown]
        lines += ["", "Which one of these do I watch next?"]
        lines += [f"- {films.describe(film)}" for film in offered]
        lines += ["", "Answer with its title alone, written as above."]
        genres = {films.titles[film]: list(films.genres[film]) for film in offered}
        truth = {"answer": films.titles[log.film[asked]], "candidates": genres}
        times = {"prompt_until": int(log.time[shown[-1]]), "answer_time": int(log.time[asked])}
        yield "\n".join(lines), truth, {"user": int(log.user_ids[rows.user[row]]), **times}
