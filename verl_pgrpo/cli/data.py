# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo data`: convert archives, user tables and personas to `train.parquet` and `val.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from verl_pgrpo.cli.data_common import emit_summary, with_options
from verl_pgrpo.cli.output import JsonOption, SeedOption, check_out
from verl_pgrpo.data import equal as equal_data
from verl_pgrpo.data import goodreads as goodreads_data
from verl_pgrpo.data import movielens as movielens_data
from verl_pgrpo.data import personas as personas_data
from verl_pgrpo.data import table as table_data
from verl_pgrpo.data.goodreads import GoodreadsOptions
from verl_pgrpo.data.movielens_log import MovieLensOptions
from verl_pgrpo.data.table import TableOptions
from verl_pgrpo.evaluation.prompts import GROUP_KEY

app = typer.Typer(help="Build verl's train.parquet and val.parquet from archives, tables or personas.",
                  no_args_is_help=True, add_completion=False)  # fmt: skip

OutOption = Annotated[Path, typer.Option(help="Folder to write to.")]


@app.command(epilog="Example: verl-pgrpo data movielens --archive ml-1m.zip --out data/movielens --groups 8 --seed 0")
@with_options(MovieLensOptions)
def movielens(
    archive: Annotated[Path, typer.Option(help="ml-100k.zip, ml-1m.zip, ml-32m.zip, ... as GroupLens publishes them.")],
    out: OutOption,
    options: MovieLensOptions,
    as_json: JsonOption = False,
) -> None:
    """Build film data from a MovieLens archive; users are grouped by taste."""
    _check_out(out, archive)
    emit_summary(movielens_data.prepare(archive, out, options), as_json)


@app.command(epilog="Example: verl-pgrpo data goodreads --reviews goodreads_reviews_poetry.json.gz --books "
             "goodreads_books_poetry.json.gz --out data/goodreads --seed 0")  # fmt: skip
@with_options(GoodreadsOptions)
def goodreads(
    reviews: Annotated[Path, typer.Option(help="goodreads_reviews_*.json.gz of the UCSD Book Graph.")],
    books: Annotated[Path, typer.Option(help="goodreads_books_*.json.gz of the same genre.")],
    out: OutOption,
    options: GoodreadsOptions,
    as_json: JsonOption = False,
) -> None:
    """Build review-writing data from Goodreads files."""
    _check_out(out, reviews, books)
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
@with_options(TableOptions)
def table(
    source: Annotated[
        Path, typer.Option("--input", help=".jsonl, .csv or .tsv (also .gz), .parquet, or a Hugging Face folder.")
    ],
    out: OutOption,
    options: TableOptions,
    as_json: JsonOption = False,
) -> None:
    """Build data from a table with one prompt per row."""
    _check_out(out, source)
    emit_summary(table_data.prepare(source, out, options), as_json)


@app.command(epilog="Example: verl-pgrpo data equalize --input data/mine/train.parquet "
             "--out data/mine/train_equal.parquet")  # fmt: skip
def equalize(
    source: Annotated[Path, typer.Option("--input", help="Training data (.parquet) with a preference group per row.")],
    out: Annotated[Path, typer.Option(help="The file to write (.parquet).")],
    group_key: Annotated[str, typer.Option(help="Column of the preference group, or a dotted path.")] = GROUP_KEY,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Repeat rows of rarer groups, so that training samples all groups equally."""
    check_out("--out", out, source, suffixes=[".parquet"])
    emit_summary(equal_data.equalize(source, out, group_key, seed), as_json)


def _check_out(out: Path, *inputs: Path) -> None:
    for name in ("train.parquet", "val.parquet", "groups.json"):
        check_out("--out", out / name, *inputs)
