# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Convert MovieLens to verl rows: which film does this user watch next, or rate highest?

    verl-pgrpo data movielens --archive ml-1m.zip --out data/movielens --groups 8 --seed 0

Features, preference groups, prompts and popularity use only the training side. The same arguments give identical bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from verl_pgrpo.data import movielens_next, movielens_stars
from verl_pgrpo.data.cluster import randomize
from verl_pgrpo.data.group_model import save_groups
from verl_pgrpo.data.group_picture import distinctive_features
from verl_pgrpo.data.movielens_archive import read_archive
from verl_pgrpo.data.movielens_log import Examples, MovieLensOptions, rating_log
from verl_pgrpo.data.schema import output_folder, verl_row, write_splits, write_table
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.taste import equal_weights, genre_tastes, rating_style
from verl_pgrpo.errors import DataError


def prepare(archive: Path, out: Path, options: MovieLensOptions) -> Summary:
    """Write `train.parquet`, `val.parquet`, `groups.json`, `features.parquet` and `user_groups.parquet` to `out`."""
    options.check()
    summary = Summary(f"MovieLens, {archive.name}, task {options.task}, split {options.split}, seed {options.seed}")
    ratings, films = read_archive(archive)
    summary.read = {"ratings": len(ratings), "films": len(films.titles), "users": ratings["user"].nunique()}
    log = rating_log(ratings, films, options, summary)
    del ratings

    stars = options.task == "stars"
    middle, basis = movielens_stars.first_halves(log, options.min_history) if stars else (log.past_end, ~log.held_out)
    features = genre_tastes(log.user[basis], log.film[basis], log.stars[basis], films.genres, len(log.user_ids))
    weights = None
    if stars:
        style = rating_style(log.user[basis], log.stars[basis], len(log.user_ids))
        weights = equal_weights(features, style)
        features |= style
    values, ids = np.column_stack(list(features.values())), log.user_ids.tolist()
    model = options.fit(values, list(features), "user", weights=weights)
    group = model.assign(values)
    random_group = randomize(model, group, ids, options.seed).assign(values, ids)

    if stars:
        train = movielens_stars.training_rows(log, middle, options, summary)
        val = movielens_stars.validation_rows(log, middle, group, options, summary)
    else:
        popularity = np.bincount(log.film[basis], minlength=len(films.titles))
        train = movielens_next.training_rows(log, popularity, options, summary)
        val = movielens_next.validation_rows(log, popularity, group, options, summary)
    for name, rows in (("training", train), ("validation", val)):
        if not len(rows):
            raise DataError(
                f"the {name} split has no rows: no user has enough ratings on both sides for --min-history "
                f"{options.min_history}, --candidates {options.num_candidates} and --split {options.split}"
            )

    task, source = (movielens_stars, "movielens_stars") if stars else (movielens_next, "movielens")

    def rows_of(examples: Examples) -> Iterator[dict[str, Any]]:
        for user, (prompt, truth, own) in zip(examples.user, task.render(log, examples, films), strict=True):
            yield verl_row(source, group[user], prompt, "recommendation", truth, random_group[user], own)

    splits = {"train": rows_of(train), "val": rows_of(val)}
    counts = write_splits(output_folder(out), splits, task.OWN_FIELDS, options.seed, summary)
    users = {"user": log.user_ids, "preference_group": group, "random_group": random_group}
    write_table(out / "user_groups.parquet", pa.table(users))
    write_table(out / "features.parquet", pa.table({"user": log.user_ids, **features}))
    save_groups(model, out / "groups.json")
    differs = distinctive_features(model, values, group)
    summary.groups = [
        {"group": name, "users": size, **{split: counts[split][name] for split in counts}, "differs in": text}
        for name, size, text in zip(model.groups, model.sizes, differs, strict=True)
    ]
    summary.warn_small_groups()
    if log.cut is not None:
        summary.notes.append(f"the test side begins at {log.cut} (seconds since 1970)")
    return summary
