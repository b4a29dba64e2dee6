# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""MovieLens to verl rows: which film does this user watch next, or rate highest?

    verl-pgrpo data movielens --archive ml-1m.zip --out data/movielens --groups 8 --seed 0

Features, preference groups, prompts and popularity know the training side alone. Equal arguments give equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verl_pgrpo.data import movielens_next, movielens_stars
from verl_pgrpo.data.cluster import randomize
from verl_pgrpo.data.group_model import GroupModel, save_groups
from verl_pgrpo.data.group_picture import distinctive_features, profiles
from verl_pgrpo.data.movielens_archive import Films, read_archive
from verl_pgrpo.data.movielens_log import Examples, RatingLog, check_no_leak, known_films, rating_log
from verl_pgrpo.data.options import Archive
from verl_pgrpo.data.schema import output_folder, verl_row, write_splits, write_table
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.taste import genre_tastes, rating_style
from verl_pgrpo.errors import DataError

CANDIDATES = {"next": 10, "stars": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class MovieLensOptions(Archive):
    """How a MovieLens archive becomes a dataset."""

    # next: the answer is the title of the film that the user rates next; stars: the letter of the best rated one
    task: str = "next"
    # "last" holds out each user's last ratings, "time" the latest ratings of all. People rate in one sitting: most
    # users have ratings on only one side of any moment, so "time" leaves few validation rows, and "last" is the default
    split: str = "last"
    # films in a prompt; about 25 tokens each with title and genres
    history: int = 10
    # ratings on the training side without which a user's taste is unknown
    min_history: int = 5
    # films to choose from; None: 10 for "next", where chance is 0.1, and 5 for "stars"
    candidates: int | None = None
    # training rows of one user, at most: the heaviest users have rated thousands of films
    rows_per_user: int = 20

    def check(self) -> None:
        """Raise DataError if an option is out of range."""
        Archive.check(self)
        self.check_minimum(history=1, min_history=1, candidates=2, rows_per_user=1)
        for name, value, choices in (("task", self.task, ("next", "stars")), ("split", self.split, ("last", "time"))):
            if value not in choices:
                raise DataError(f"--{name} must be one of {', '.join(choices)} (got {value!r})")
        if self.task == "stars" and (self.candidates or 0) > movielens_stars.MOST_CANDIDATES:
            raise DataError(f"--candidates must be at most {movielens_stars.MOST_CANDIDATES}: the answer is a letter")


def prepare(archive: Path, out: Path, options: MovieLensOptions) -> Summary:
    """Write `train.parquet`, `val.parquet`, `groups.json`, `features.parquet` and `user_groups.parquet` to `out`.

    Raises:
        DataError: the archive or an option is not usable.
        LeakError: the finished rows do not respect the split; a fault of this program.
    """
    options.check()
    count = options.candidates or CANDIDATES[options.task]
    title = f"MovieLens, {archive.name}, task {options.task}, split {options.split}, seed {options.seed}"
    summary = Summary(title)
    ratings, films = read_archive(archive)
    summary.read = {"ratings": len(ratings), "films": len(films.titles), "users": len(np.unique(ratings.user))}
    stars = options.task == "stars"
    log = rating_log(known_films(ratings, films, summary), options.split, count if stars else 1, options.min_history,
                     options.test_fraction, summary)  # fmt: skip
    del ratings

    middle, basis = movielens_stars.first_halves(log, options.min_history) if stars else (log.past_end, ~log.held_out)
    features = genre_tastes(log.user[basis], log.film[basis], log.stars[basis], films.genres, len(log.user_ids))
    if stars:
        features |= rating_style(log.user[basis], log.stars[basis], len(log.user_ids))
    values = np.column_stack(list(features.values()))
    model = options.fit(values, list(features), "user")
    group = model.assign(values)
    ids = log.user_ids.tolist()
    random_group = randomize(model, group, ids, options.seed).assign(values, ids)

    size, seed = options.train_size, options.seed
    if stars:
        train = movielens_stars.training_rows(
            log, middle, options.history, count, options.rows_per_user, size, seed, summary
        )
        val = movielens_stars.validation_rows(
            log, middle, group, options.history, count, options.val_size, seed, summary
        )
    else:
        popularity = np.bincount(log.film[basis], minlength=len(films.titles))
        train = movielens_next.training_rows(
            log, options.history, options.min_history, options.rows_per_user, size, seed
        )
        val = movielens_next.validation_rows(log, popularity, group, options.history, options.val_size, seed, summary)
        train, val = (
            movielens_next.with_candidates(log, rows, popularity, count, np.random.default_rng([seed, stream]), summary)
            for rows, stream in ((train, 10), (val, 11))
        )
    for name, rows in (("training", train), ("validation", val)):
        if not len(rows):
            raise DataError(f"the {name} split has no rows: no user has enough ratings on both sides for --min-history "
                            f"{options.min_history}, --candidates {count} and --split {options.split}")  # fmt: skip
    check_no_leak(log, basis, train, val, in_order=not stars)

    output_folder(out)
    splits = {
        split: _verl_rows(rows, log, films, group, random_group, options)
        for split, rows in (("train", train), ("val", val))
    }
    own = (movielens_stars if stars else movielens_next).OWN_FIELDS
    counts = write_splits(out, splits, own, seed, summary)
    write_table(
        out / "user_groups.parquet",
        pa.table({"user": log.user_ids, "preference_group": group, "random_group": random_group}),
    )
    write_table(out / "features.parquet", pa.table({"user": log.user_ids, **features}))
    save_groups(model, out / "groups.json")
    summary.groups = _describe_groups(model, values, group, counts)
    summary.warn_small_groups()
    if log.cut is not None:
        summary.notes.append(f"the test side begins at {log.cut} (seconds since 1970)")
    return summary


def _verl_rows(
    rows: Examples, log: RatingLog, films: Films, group: npt.NDArray[np.str_],
    random_group: npt.NDArray[np.str_], options: MovieLensOptions,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    stars = options.task == "stars"
    task, render = ("movielens_stars", movielens_stars.render) if stars else ("movielens", movielens_next.render)
    for index, (prompt, truth, own) in enumerate(render(log, rows, films)):
        user = rows.user[index]
        yield verl_row(task, group[user], prompt, "recommendation", truth, random_group[user], own)


def _describe_groups(
    model: GroupModel, values: npt.NDArray[np.float64], group: npt.NDArray[np.str_], counts: dict[str, Counter[str]]
) -> list[dict[str, Any]]:
    differs = distinctive_features(model, profiles(model, values, group))
    return [
        {
            "group": name,
            "users": model.sizes[i],
            **{split: counts[split][name] for split in counts},
            "differs in": differs[i],
        }
        for i, name in enumerate(model.groups)
    ]
