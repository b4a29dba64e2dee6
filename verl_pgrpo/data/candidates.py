# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Candidate lists: the film that was watched next among others, drawn so that neither fame nor place gives it away.

The others are drawn by how often they were rated in the training part, as the answer was in effect, from the films
that the user has not rated there. What the user rates on the test side is not looked at: leaving those films out would
tell that a candidate is not among them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CHUNK = 4096  # rows at a time, which bounds the memory
OVERSAMPLING = 4  # drawn at once; most are neither known to the user nor drawn before

Places = npt.NDArray[np.int64]


def draw_candidates(
    rng: np.random.Generator, user: Places, answer: Places, seen: Places, popularity: Places, count: int
) -> Places:
    """Candidate lists with the answer in a random place.

    Args:
        rng: of the draws.
        user: (R,) number of each row's user, from 0.
        answer: (R,) place of each row's film.
        seen: sorted `user * F + film` of all ratings of the training part.
        popularity: (F,) ratings of each film in the training part; a film without any is never drawn.
        count: films in a list, the answer among them.

    Returns:
        (R, count) films; -1 where a user has seen so much that fewer are left.
    """
    chunks = [
        _draw(rng, user[start : start + CHUNK], answer[start : start + CHUNK], seen, popularity, count)
        for start in range(0, len(user), CHUNK)
    ]
    return np.concatenate(chunks) if chunks else np.empty((0, count), np.int64)


def _draw(
    rng: np.random.Generator, user: Places, answer: Places, seen: Places, popularity: Places, count: int
) -> Places:
    films = len(popularity)
    cumulative = np.cumsum(popularity)
    ticket = rng.integers(cumulative[-1], size=(len(user), OVERSAMPLING * count))
    drawn = np.searchsorted(cumulative, ticket, side="right")
    good = ~_contains(seen, user[:, None] * films + drawn) & (drawn != answer[:, None]) & _first_of_its_kind(drawn)
    order = np.argsort(~good, axis=1, kind="stable")[:, : count - 1]
    lists = np.take_along_axis(np.where(good, drawn, -1), order, axis=1)
    for row in np.flatnonzero((lists == -1).any(axis=1)):  # users who have seen nearly everything
        others = rng.permutation(films)
        unknown = ~_contains(seen, user[row] * films + others) & (others != answer[row]) & (popularity[others] > 0)
        others = others[unknown][: count - 1]
        lists[row] = -1
        lists[row, : len(others)] = others
    return rng.permuted(np.concatenate([answer[:, None], lists], axis=1), axis=1)


def _contains(ascending: Places, wanted: Places) -> npt.NDArray[np.bool_]:
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return ascending[place] == wanted


def _first_of_its_kind(rows: Places) -> npt.NDArray[np.bool_]:
    order = np.argsort(rows, axis=1, kind="stable")
    ascending = np.take_along_axis(rows, order, axis=1)
    repeated = np.zeros(rows.shape, bool)
    repeated[:, 1:] = ascending[:, 1:] == ascending[:, :-1]
    first = np.empty(rows.shape, bool)
    np.put_along_axis(first, order, ~repeated, axis=1)
    return first
