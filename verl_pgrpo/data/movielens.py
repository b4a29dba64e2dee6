# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""MovieLens-1M to verl rows: which of these films does this user watch next?

    verl-pgrpo data movielens --archive ml-1m.zip --out data/movielens --groups 8 --seed 0

One moment divides the archive (`time_split`). From the past come tastes, preference groups, prompts, popularity and the
training answers; a validation row asks for the first film that a user rated after it, knowing nothing but the past.
Rows of one user are its latest, since tastes move. Films rated in the same second, as many are in this archive, are
ordered by their id. Equal arguments give equal bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.grouping.artefact import save_groups
from verl_pgrpo.data.grouping.fit import randomize
from verl_pgrpo.data.grouping.model import GroupModel
from verl_pgrpo.data.grouping.picture import profiles, telling
from verl_pgrpo.data.movielens_archive import Films, Ratings, read_archive
from verl_pgrpo.data.movielens_prompt import EXTRA_INFO, render
from verl_pgrpo.data.movielens_rows import Options, evidence, past_of, training_rows, validation_rows, with_candidates
from verl_pgrpo.data.rows import output_folder, write_splits, write_table
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.taste import genre_tastes
from verl_pgrpo.data.time_split import check_no_leak, cut_time


def prepare(archive: Path, out: Path, options: Options) -> Summary:
    """Write `train.parquet`, `val.parquet`, `groups.json`, `features.parquet` and `user_groups.parquet` to `out`.

    Raises:
        DataError: the archive or an option is not as it should be.
        LeakError: the finished rows do not hold to the cut.
    """
    options.check()
    summary = Summary(f"MovieLens, {archive.name}, seed {options.seed}")
    ratings, films = read_archive(archive)
    summary.read = {"ratings": len(ratings), "films": len(films.titles)}
    ratings = _known_films(ratings, films, summary)
    cut = cut_time(ratings.time, options.test_fraction)
    before = ratings.time < cut
    past, future = past_of(ratings.take(before), options, summary), ratings.take(~before)
    del ratings, before

    features = genre_tastes(past.user, past.film, past.stars, films.genres, len(past.user_ids))
    values = np.column_stack(list(features.values()))
    model = options.fit(values, list(features), "user")
    group = model.assign(values)
    ids = past.user_ids.tolist()
    random_group = randomize(model, group, ids, options.seed).assign(values, ids)

    popularity = np.bincount(past.film, minlength=len(films.titles))
    seen = np.sort(past.user * len(films.titles) + past.film)
    train = with_candidates(training_rows(past, options), seen, popularity, options, 10, summary)
    val = validation_rows(past, future, popularity, group, options, summary)
    val = with_candidates(val, seen, popularity, options, 11, summary)
    for split, rows in (("training", train), ("validation", val)):
        if not len(rows.user):
            raise DataError(f"no {split} row: nobody has --min-history {options.min_history} ratings before the cut "
                            f"and a film after; try another --test-fraction or --min-history")  # fmt: skip
    check_no_leak(cut, int(past.time.max()), evidence(train, past), evidence(val, past))

    output_folder(out)
    splits = {
        split: render(split, rows, past, films, group, random_group, options)
        for split, rows in (("train", train), ("val", val))
    }
    counts = write_splits(out, splits, EXTRA_INFO, summary)
    users = {"user": past.user_ids, "preference_group": group, "random_group": random_group}
    write_table(out / "user_groups.parquet", pa.table(users))
    write_table(out / "features.parquet", pa.table({"user": past.user_ids, **features}))
    save_groups(model, out / "groups.json")
    summary.groups = _describe(model, values, group, counts)
    summary.notes.append(f"the test side begins at {cut} (seconds since 1970); nothing of it is in prompts or groups")
    return summary


def _known_films(ratings: Ratings, films: Films, summary: Summary) -> Ratings:
    """Ratings with places of films for their ids."""
    ids = np.array(sorted(films.place_of), dtype=np.int32)
    places = np.array([films.place_of[int(one)] for one in ids], dtype=np.int32)
    at = np.minimum(np.searchsorted(ids, ratings.film), len(ids) - 1)
    known = ids[at] == ratings.film
    summary.drop("ratings of films that movies.dat does not list", (~known).sum())
    if not known.any():
        raise DataError("no rating is of a film in movies.dat; the two files do not belong together")
    return Ratings(ratings.user, places[at], ratings.stars, ratings.time).take(known)


def _describe(
    model: GroupModel, values: npt.NDArray[np.float64], group: npt.NDArray[np.str_], counts: dict[str, Any]
) -> list[dict[str, Any]]:
    words = telling(model, profiles(model, values, group))
    return [
        {
            "group": name,
            "users": model.sizes[i],
            "train": counts["train"][name],
            "val": counts["val"][name],
            "differs in": words[i],
        }
        for i, name in enumerate(model.groups)
    ]
