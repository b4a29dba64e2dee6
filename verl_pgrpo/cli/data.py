# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo data`: public archives, user tables and personas to `train.parquet` and `val.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from verl_pgrpo.cli.data_common import (
    AlgorithmOption,
    EncodingOption,
    GroupsOption,
    KMaxOption,
    KMinOption,
    MinSizeOption,
    SplitOption,
    clustering,
    emit_summary,
    names,
)
from verl_pgrpo.cli.output import JsonOption, SeedOption
from verl_pgrpo.data import goodreads as goodreads_data
from verl_pgrpo.data import movielens as movielens_data
from verl_pgrpo.data import personas as personas_data
from verl_pgrpo.data import table as table_data
from verl_pgrpo.data.goodreads import GoodreadsOptions
from verl_pgrpo.data.movielens_log import MovieLensOptions
from verl_pgrpo.data.table import TableOptions

app = typer.Typer(help="Build verl's train.parquet and val.parquet from archives, tables or personas.",
                  no_args_is_help=True, add_completion=False)  # fmt: skip

OutOption = Annotated[Path, typer.Option(help="Folder to write to.")]
TrainSizeOption = Annotated[int, typer.Option(help="Training rows, at most.")]
ValSizeOption = Annotated[int, typer.Option(help="Validation rows, at most; divided equally among the groups.")]


@app.command(epilog="Example: verl-pgrpo data movielens --archive ml-1m.zip --out data/movielens --groups 8 --seed 0")
def movielens(
    archive: Annotated[Path, typer.Option(help="ml-100k.zip, ml-1m.zip, ml-32m.zip, ... as GroupLens publishes them.")],
    out: OutOption,
    task: Annotated[
        Literal["next", "stars"], typer.Option(help="The next film's title, or the letter of the best rated one.")
    ] = "next",
    split: Annotated[
        Literal["last", "time"],
        typer.Option(help="Hold out each user's last ratings, or all ratings after one moment."),
    ] = "last",
    test_fraction: Annotated[float, typer.Option(help="Latest ratings that --split time holds out.")] = 0.1,
    history: Annotated[int, typer.Option(help="Films in a prompt.")] = 10,
    min_history: Annotated[int, typer.Option(help="Ratings a user must have on the training side.")] = 5,
    candidates: Annotated[
        int | None, typer.Option(help="Films to choose from; default 10 for next, 5 for stars.")
    ] = None,
    rows_per_user: Annotated[int, typer.Option(help="Training rows of one user, at most.")] = 20,
    train_size: TrainSizeOption = 16384,
    val_size: ValSizeOption = 1024,
    groups: GroupsOption = "auto",
    algorithm: AlgorithmOption = "kmeans",
    k_min: KMinOption = 2,
    k_max: KMaxOption = 10,
    min_size: MinSizeOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Build film data from a MovieLens archive; users are grouped by taste."""
    options = MovieLensOptions(
        task=task, split=split, test_fraction=test_fraction, history=history, min_history=min_history,
        candidates=candidates, rows_per_user=rows_per_user, train_size=train_size, val_size=val_size,
        **clustering(groups, algorithm, k_min, k_max, min_size, seed),
    )  # fmt: skip
    emit_summary(movielens_data.prepare(archive, out, options), as_json)


@app.command(epilog="Example: verl-pgrpo data goodreads --reviews goodreads_reviews_poetry.json.gz --books "
             "goodreads_books_poetry.json.gz --out data/goodreads --seed 0")  # fmt: skip
def goodreads(
    reviews: Annotated[Path, typer.Option(help="goodreads_reviews_*.json.gz of the UCSD Book Graph.")],
    books: Annotated[Path, typer.Option(help="goodreads_books_*.json.gz of the same genre.")],
    out: OutOption,
    group_by: Annotated[
        Literal["rating", "cluster"], typer.Option(help="The review's rating, or clusters of readers.")
    ] = "rating",
    test_fraction: Annotated[float, typer.Option(help="Latest reviews that are held out.")] = 0.1,
    min_words: Annotated[int, typer.Option(help="Words of a review.")] = 20,
    max_words: Annotated[int, typer.Option(help="Words of a review, and the limit in the prompt.")] = 120,
    description_words: Annotated[int, typer.Option(help="Words of the book's description in the prompt.")] = 60,
    train_size: TrainSizeOption = 16384,
    val_size: ValSizeOption = 1024,
    groups: GroupsOption = "auto",
    algorithm: AlgorithmOption = "kmeans",
    k_min: KMinOption = 2,
    k_max: KMaxOption = 10,
    min_size: MinSizeOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Build review-writing data from Goodreads files."""
    options = GoodreadsOptions(
        group_by=group_by, test_fraction=test_fraction, min_words=min_words, max_words=max_words,
        description_words=description_words, train_size=train_size, val_size=val_size,
        **clustering(groups, algorithm, k_min, k_max, min_size, seed),
    )  # fmt: skip
    emit_summary(goodreads_data.prepare(reviews, books, out, options), as_json)


@app.command(
    epilog="Example: verl-pgrpo data personas --out data/personas_english --surface english --train-size 16384"
)
def personas(
    out: OutOption,
    surface: Annotated[
        Literal["toy", "english"], typer.Option(help="Words for a tiny model, or English prompts.")
    ] = "toy",
    short: Annotated[bool, typer.Option("--short", help="One-line English prompts, for small models.")] = False,
    train_size: Annotated[int, typer.Option(help="Training rows.")] = 4096,
    val_size: Annotated[int, typer.Option(help="Validation rows.")] = 70,
    noise: Annotated[float, typer.Option(help="Std of one rating, in units of the persona's scale.")] = 0.0,
    mood: Annotated[float, typer.Option(help="The same, shared by all responses to one prompt.")] = 0.0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Build data of seven synthetic users who want different music."""
    summary = personas_data.prepare(out, surface=surface, train_size=train_size, val_size=val_size, seed=seed,
                                    noise=noise, mood=mood, short=short)  # fmt: skip
    emit_summary(summary, as_json)


@app.command(epilog="Example: verl-pgrpo data table --input users.parquet --prompt-column question "
             "--group-column segment --out data/mine")  # fmt: skip
def table(
    source: Annotated[
        Path, typer.Option("--input", help=".jsonl, .csv or .tsv (also .gz), .parquet, or a Hugging Face folder.")
    ],
    prompt_column: Annotated[str, typer.Option(help="Text, or chat messages.")],
    out: OutOption,
    group_column: Annotated[str | None, typer.Option(help="Preference group of the row's user.")] = None,
    cluster_features: Annotated[str, typer.Option(help="Or: columns to cluster by, separated by commas.")] = "",
    groups_file: Annotated[Path | None, typer.Option(help="Or: a file of `groups fit`.")] = None,
    user_column: Annotated[
        str | None, typer.Option(help="User of the row: one group per user, no user in both splits.")
    ] = None,
    time_column: Annotated[str | None, typer.Option(help="Numbers or ISO 8601 dates: split by time.")] = None,
    truth_column: Annotated[str | None, typer.Option(help="ground_truth of the reward function.")] = None,
    keep: Annotated[str, typer.Option(help="More columns for extra_info, separated by commas.")] = "",
    task: Annotated[str | None, typer.Option(help="First part of data_source; default the input's name.")] = None,
    val_fraction: Annotated[float, typer.Option(help="Share of the validation split.")] = 0.1,
    bad_rows: Annotated[
        Literal["error", "drop"],
        typer.Option(help="Rows with a missing value in a used column: stop, or drop and count them."),
    ] = "error",
    split: SplitOption = None,
    encoding: EncodingOption = None,
    groups: GroupsOption = "auto",
    algorithm: AlgorithmOption = "kmeans",
    k_min: KMinOption = 2,
    k_max: KMaxOption = 10,
    min_size: MinSizeOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Build data from a table with one prompt per row."""
    options = TableOptions(
        prompt_column=prompt_column, group_column=group_column, cluster_features=names(cluster_features),
        groups_file=groups_file, user_column=user_column, time_column=time_column, truth_column=truth_column,
        keep=names(keep), task=task, val_fraction=val_fraction, drop_bad_rows=bad_rows == "drop", split=split,
        encoding=encoding, **clustering(groups, algorithm, k_min, k_max, min_size, seed),
    )  # fmt: skip
    emit_summary(table_data.prepare(source, out, options), as_json)
