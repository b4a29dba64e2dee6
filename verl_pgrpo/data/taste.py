# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Features of users who rate films: what they watch, what they like, and how they use the stars.

Shares of genres alone cannot show who watches horror but dislikes it. Stars alone mostly show how generous a user is,
so the user's mean is subtracted (as recommenders do since Resnick et al. 1994).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

SHRINKAGE = 5.0  # number of ratings at which a genre's liking counts half: one liked film is not a taste
Floats = npt.NDArray[np.floating]
Places = npt.NDArray[np.integer]


def genre_tastes(
    user: Places, film: Places, stars: Floats, genres: Sequence[Sequence[str]], num_users: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Return per genre `share_<genre>` (0 to 1) and `liking_<genre>` (stars above the user's mean), (U,) each.

    `user` (N,) numbers the users from 0, `film` (N,) has places in `genres` (F,). Each of the U users has a rating.
    """
    total = np.bincount(user, minlength=num_users)
    mean = np.bincount(user, weights=stars, minlength=num_users) / total
    above = stars - mean[user].astype(np.float32)
    features = {}
    for genre in sorted({genre for kinds in genres for genre in kinds}):
        of_genre = np.array([genre in kinds for kinds in genres])[film]
        watched = np.bincount(user[of_genre], minlength=num_users)
        liked = np.bincount(user[of_genre], weights=above[of_genre], minlength=num_users)
        features[f"share_{genre}"] = watched / total
        features[f"liking_{genre}"] = liked / (watched + SHRINKAGE)
    return features


def rating_style(user: Places, stars: Floats, num_users: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return `mean_stars` and `std_stars` of each user, (U,) each. Arguments as for `genre_tastes`."""
    total = np.bincount(user, minlength=num_users)
    mean = np.bincount(user, weights=stars, minlength=num_users) / total
    square = np.bincount(user, weights=stars.astype(np.float64) ** 2, minlength=num_users) / total
    return {"mean_stars": mean, "std_stars": np.sqrt(np.maximum(square - mean**2, 0.0))}


def equal_weights(*kinds: Collection[str]) -> list[float]:
    """Return a weight per feature with which all kinds of features (such as taste and style) count alike in distances.

    The weights have mean 1. Without them, the two features of rating style would hardly count among those of 18 genres.
    """
    total = sum(map(len, kinds))
    return [total / len(kinds) / len(kind) for kind in kinds for _ in kind]
