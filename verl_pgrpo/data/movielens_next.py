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
from verl_pgrpo.data.movielens_log import Examples, Indices, RatingLog
from verl_pgrpo.data.splits import sample_evenly
from verl_pgrpo.data.summary import Summary

OVERSAMPLING = 8  # films drawn per wanted candidate; some are known to the user or drawn twice
OWN_FIELDS = (("user", pa.int64()), ("prompt_until", pa.int64()), ("answer_time", pa.int64()))


def training_rows(log: RatingLog, history: int, min_history: int, per_user: int, size: int, seed: int) -> Examples:
    """Draw some of each user's latest training-side ratings as answers, each with the ratings before it."""
    place = np.arange(len(log.user))
    end = log.past_end[log.user]
    eligible = (place - log.start[log.user] >= min_history) & (place < end) & (place >= end - per_user)
    asked = np.random.default_rng([seed, 20]).permutation(np.flatnonzero(eligible))[:size]
    return _examples(log, asked, asked, history)


def validation_rows(
    log: RatingLog,
    popularity: Indices,
    group: npt.NDArray[np.str_],
    history: int,
    size: int,
    seed: int,
    summary: Summary,
) -> Examples:
    """Take each user's first held-out rating of a film that somebody rated on the training side."""
    held_out = np.flatnonzero(log.held_out)
    known = popularity[log.film[held_out]] > 0
    summary.drop("held-out ratings of films without a rating on the training side", (~known).sum())
    users, first = np.unique(log.user[held_out[known]], return_index=True)
    summary.drop("held-out ratings after the one that is asked for", known.sum() - len(users))
    asked = held_out[known][first]
    asked = asked[sample_evenly(group[users], size, np.random.default_rng([seed, 21]))]
    summary.drop("users beyond --val-size", len(users) - len(asked))
    return _examples(log, asked, log.past_end[log.user[asked]], history)


def _examples(log: RatingLog, asked: Indices, shown_until: Indices, history: int) -> Examples:
    user = log.user[asked]
    shown = shown_until[:, None] - np.arange(history, 0, -1)
    shown = np.where(shown >= log.start[user][:, None], shown, -1)
    return Examples(user, shown, asked[:, None], np.empty((len(asked), 0), np.int64))


def with_candidates(
    log: RatingLog, rows: Examples, popularity: Indices, count: int, rng: np.random.Generator, summary: Summary
) -> Examples:
    """Add candidate films: the answer in a random place, the others drawn by popularity from films new to the user.

    Drawn uniformly, popularity alone would give the answer away. Held-out ratings are not looked at: leaving those
    films out would tell that a candidate is not among them.

    Args:
        log: the ratings.
        rows: rows without candidates.
        popularity: (F,) training-side ratings of each film; a film without any is not drawn.
        count: candidates per row. Fewer (-1) where the user has rated nearly every film.
        rng: generator of the draws.
        summary: counts rows without a choice.
    """
    candidates = np.full((len(rows), count), -1)
    cumulative = np.cumsum(popularity)
    for row, user in enumerate(rows.user):
        answer = log.film[rows.asked[row, 0]]
        known = np.append(log.film[log.start[user] : log.past_end[user]], answer)
        drawn = np.searchsorted(cumulative, rng.integers(cumulative[-1], size=OVERSAMPLING * count), side="right")
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        others = drawn[~np.isin(drawn, known)]
        if len(others) < count - 1:  # the user has rated nearly every popular film
            others = rng.permutation(np.setdiff1d(np.flatnonzero(popularity), known))
        candidates[row, : min(count, len(others) + 1)] = rng.permutation(np.append(others[: count - 1], answer))
    choice = (candidates >= 0).sum(1) >= 2
    summary.drop("rows of users who have rated every other film", (~choice).sum())
    return Examples(rows.user, rows.shown, rows.asked, candidates).take(choice)


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
        truth = {
            "answer": films.titles[log.film[asked]],
            "candidates": {films.titles[film]: list(films.genres[film]) for film in offered},
        }
        times = {"prompt_until": int(log.time[shown[-1]]), "answer_time": int(log.time[asked])}
        yield "\n".join(lines), truth, {"user": int(log.user_ids[rows.user[row]]), **times}
