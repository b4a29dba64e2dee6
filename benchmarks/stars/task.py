# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The candidate sets of `movielens_stars.py`, with each seed's held-out users and clusters; and how ratings vary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.bandit.measures import half_width
from benchmarks.bandit.tables import table
from verl_pgrpo.data.cluster import fit_groups
from verl_pgrpo.data.movielens_archive import Films
from verl_pgrpo.data.movielens_log import MovieLensOptions, rating_log
from verl_pgrpo.data.movielens_stars import first_halves, training_rows
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.taste import equal_weights, genre_tastes, rating_style

CANDIDATES, HELD_OUT = 5, 0.2
GROUPS, SMALLEST = 6, 0.08  # clusters at first; those with a smaller share of the users are merged
TYPES = {"user": np.int32, "film": np.int32, "stars": np.float32, "time": np.int64}


@dataclass(frozen=True)
class Task:
    """R candidate sets for S seeds. `film`, `stars` (R, C); `genres` (F, G); `liking` (U, G); `user` (R,); of each seed
    `group` (S, R), the group that a shuffle over users gives `random` (S, R), and `held_out` (S, R) bool."""

    film: Tensor
    stars: Tensor
    genres: Tensor
    liking: Tensor
    user: Tensor
    group: Tensor
    random: Tensor
    held_out: Tensor

    @property
    def utility(self) -> Tensor:
        """(R, C) from 0, the candidate with the fewest stars, to 1."""
        low, high = self.stars.amin(1, keepdim=True), self.stars.amax(1, keepdim=True)
        return (self.stars - low) / (high - low)

    def features(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C, G) genres of the candidates of these rows, and the user's liking of each."""
        genres = self.genres[self.film[rows]]
        return genres, genres * self.liking[self.user[rows]].unsqueeze(-2)


def generated(users: int = 600, films: int = 400, each: int = 80) -> tuple[pd.DataFrame, Films]:
    """Generate ratings of three kinds of users, who like different genres and use the stars differently."""
    rng = np.random.default_rng(0)
    kinds = [tuple(f"genre {k}" for k in rng.choice(8, 2, replace=False)) for _ in range(films)]
    of_genre = np.array([[f"genre {k}" in own for k in range(8)] for own in kinds], float)
    camp, quality = rng.integers(0, 3, users), rng.normal(0, 0.5, films)
    taste = rng.normal(0, 1, (3, 8))[camp] + rng.normal(0, 0.3, (users, 8))
    film = np.stack([rng.choice(films, each, replace=False) for _ in range(users)])
    score = (taste @ of_genre.T)[np.arange(users)[:, None], film] + quality[film] + rng.normal(0, 0.8, film.shape)
    stars = np.clip(
        np.round(np.array([3.0, 4.0, 3.5])[camp][:, None] + np.array([1.2, 0.5, 0.8])[camp][:, None] * score), 1, 5
    )
    columns = np.repeat(np.arange(1, users + 1), each), film.ravel() + 1, stars.ravel(), np.tile(np.arange(each), users)
    ratings = pd.DataFrame(dict(zip(TYPES, columns, strict=True))).astype(TYPES)
    ids = tuple(range(1, films + 1))
    return ratings, Films(ids, tuple(f"Film {i} (2000)" for i in ids), tuple(kinds), {i: i - 1 for i in ids})


def make_task(ratings: pd.DataFrame, films: Films, seeds: range) -> tuple[Task, Summary]:
    """Candidate sets, and for each seed the held-out users and the clusters of the others.

    Raises:
        DataError: the archive has too few users for the clusters.
    """
    summary = Summary("stars")
    log = rating_log(ratings, films, MovieLensOptions(), summary)
    middle, known = first_halves(log, 5)
    users = len(log.user_ids)
    names = sorted({genre for kinds in films.genres for genre in kinds})
    features = genre_tastes(log.user[known], log.film[known], log.stars[known], films.genres, users)
    liking = np.column_stack([features[f"liking_{name}"] for name in names])
    style = rating_style(log.user[known], log.stars[known], users)
    weights = equal_weights(features, style)
    features |= style
    values = np.column_stack(list(features.values()))
    options = MovieLensOptions(task="stars", candidates=CANDIDATES, train_size=len(log.user))
    rows = training_rows(log, middle, options, summary)
    groups, randoms, held_outs = [], [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        held_out = rng.permutation(users) < HELD_OUT * users
        model = fit_groups(values[~held_out], list(features), k=GROUPS, min_size=max(2, round(SMALLEST * users)),
                           weights=weights, seed=seed)  # fmt: skip
        group = np.searchsorted(model.groups, model.assign(values))
        random = group.copy()
        for part in (held_out, ~held_out):
            random[part] = rng.permutation(group[part])
        for found, of_user in ((groups, group), (randoms, random), (held_outs, held_out)):
            found.append(of_user[rows.user])
    genres = np.array([[name in kinds for name in names] for kinds in films.genres], np.float32)
    stars, liking = log.stars[rows.asked].astype(np.float64), liking.astype(np.float32)
    arrays = rows.candidates, stars, genres, liking, rows.user, *map(np.stack, (groups, randoms, held_outs))
    return Task(*map(torch.from_numpy, arrays)), summary


def variances(task: Task) -> str:
    """Mean, std and between / within of the stars for a policy that chooses at random.

    These are exact: the stars of a row's candidates are all that such a policy gets there. Groups of different seeds
    have nothing in common but their numbers, so only their smallest and largest values and the difference of these are
    averaged over seeds, with intervals.
    """
    stars = task.stars.numpy()
    rows = pd.DataFrame({"mean": stars.mean(1), "within": stars.var(1)})

    def components(of_row: Tensor) -> np.ndarray:
        by_label = rows.groupby(of_row.numpy())
        between, within = by_label["mean"].var(ddof=0), by_label["within"].mean()
        return np.column_stack([by_label["mean"].mean(), np.sqrt(between + within), between / within])

    [everyone], single = components(torch.zeros_like(task.user)), np.median(components(task.user), axis=0)
    lines = [[name, *(f"{x:.2f}" for x in row)] for name, row in (("all", everyone), ("single user, median", single))]
    groups = [components(group) for group in task.group]
    for name, of in (("group, smallest", np.min), ("group, largest", np.max), ("largest minus smallest", np.ptp)):
        values = np.stack([of(group, axis=0) for group in groups])
        lines.append([name, *(f"{m:.2f} ± {h:.2f}" for m, h in zip(values.mean(0), half_width(values), strict=True))])
    return table(["users", "mean", "std", "between / within"], lines)
