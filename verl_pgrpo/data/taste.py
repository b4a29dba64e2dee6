# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A user's taste in numbers: per genre, how much of it they watch and how much they like it beyond their own average.

Both are needed. Shares alone cannot tell who watches horror and hates it; stars alone are mostly about how generous
somebody is, which is why each user's mean is subtracted (as recommenders do since Resnick et al. 1994).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SHRINKAGE = 5.0  # ratings of a genre at which its liking counts half: one lucky film is no taste


def genre_tastes(
    user: npt.NDArray[np.int64],
    film: npt.NDArray[np.int64],
    stars: npt.NDArray[np.int8],
    genres: Sequence[Sequence[str]],
    num_users: int,
) -> dict[str, npt.NDArray[np.float64]]:
    """Feature columns, each (num_users,): `share_<genre>`, 0 to 1, and `liking_<genre>`, in stars.

    Args:
        user: (N,) number of each rating's user.
        film: (N,) place of each rating's film.
        stars: (N,) 1 to 5.
        genres: of each film.
        num_users: U; every user has a rating.
    """
    total = np.bincount(user, minlength=num_users)
    mean = np.bincount(user, weights=stars, minlength=num_users) / total
    above = stars - mean[user].astype(np.float32)
    features = {}
    for genre in sorted({genre for kinds in genres for genre in kinds}):
        of_genre = np.array([genre in kinds for kinds in genres])[film]
        who = user[of_genre]
        watched = np.bincount(who, minlength=num_users)
        liked = np.bincount(who, weights=above[of_genre], minlength=num_users)
        features[f"share_{genre}"] = watched / total
        features[f"liking_{genre}"] = liked / (watched + SHRINKAGE)
    return features
