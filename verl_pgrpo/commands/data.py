# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo data`: public archives, your own tables and invented users to `train.parquet` and `val.parquet`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from verl_pgrpo.commands.arguments import Result, add_clustering, add_command, add_json, add_seed, number_of_groups

MOVIELENS_EXAMPLE = "verl-pgrpo data movielens --archive ml-1m.zip --out data/movielens --groups 8 --seed 0"
GOODREADS_EXAMPLE = (
    "verl-pgrpo data goodreads --reviews goodreads_reviews_poetry.json.gz --books goodreads_books_poetry.json.gz "
    "--out data/goodreads --seed 0"
)
PERSONAS_EXAMPLE = "verl-pgrpo data personas --out data/personas_english --surface english --train-size 16384"
TABLE_EXAMPLE = (
    "verl-pgrpo data table --input users.parquet --prompt-column question --group-column segment --out data/mine"
)

ROWS = (("--train-size", 16384, "rows, at most"), ("--val-size", 1024, "rows, at most"))

Options = TypeVar("Options")


def add_parser(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="prepare data sets: train.parquet and val.parquet with groups")
    inner = data.add_subparsers(dest="command", required=True, metavar="movielens|goodreads|personas|table")
    _add_movielens(inner)
    _add_goodreads(inner)
    _add_personas(inner)
    _add_table(inner)


def _add_movielens(inner: argparse._SubParsersAction) -> None:
    parser = add_command(inner, "movielens", "ml-1m.zip: the next film", MOVIELENS_EXAMPLE)
    parser.add_argument("--archive", type=Path, required=True, help="ml-1m.zip as its owners publish it")
    _add_out(parser)
    add_clustering(parser)
    add_seed(parser)
    parser.add_argument("--test-fraction", type=float, default=0.1, help="latest ratings (default: %(default)s)")
    films = (
        ("--history", 10, "films in a prompt"),
        ("--min-history", 5, "ratings that a user must have before the cut"),
        ("--candidates", 10, "films to choose from"),
        ("--rows-per-user", 20, "training rows of one user, at most"),
    )
    _add_numbers(parser, (*ROWS, *films))
    add_json(parser)
    parser.set_defaults(run=movielens_command)


def movielens_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.movielens import Options, prepare

    return _result(prepare(args.archive, args.out, _options(Options, args, **_clustering(args))))


def _add_goodreads(inner: argparse._SubParsersAction) -> None:
    parser = add_command(inner, "goodreads", "UCSD Book Graph: a review that fits the stars", GOODREADS_EXAMPLE)
    parser.add_argument("--reviews", type=Path, required=True, help="goodreads_reviews_*.json.gz")
    parser.add_argument("--books", type=Path, required=True, help="goodreads_books_*.json.gz")
    _add_out(parser)
    parser.add_argument("--group-by", choices=("rating", "cluster"), default="rating", help="default: %(default)s")
    add_clustering(parser)
    add_seed(parser)
    parser.add_argument("--test-fraction", type=float, default=0.1, help="latest reviews (default: %(default)s)")
    words = (
        ("--min-words", 20, "of a review"),
        ("--max-words", 120, "of a review, and what the prompt allows"),
        ("--description-words", 60, "of the book's description in the prompt"),
    )
    _add_numbers(parser, (*ROWS, *words))
    add_json(parser)
    parser.set_defaults(run=goodreads_command)


def goodreads_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.goodreads import Options, prepare

    return _result(prepare(args.reviews, args.books, args.out, _options(Options, args, **_clustering(args))))


def _add_personas(inner: argparse._SubParsersAction) -> None:
    parser = add_command(inner, "personas", "seven invented users who want different music", PERSONAS_EXAMPLE)
    _add_out(parser)
    parser.add_argument("--surface", choices=("toy", "english"), default="toy", help="default: %(default)s")
    _add_numbers(parser, (("--train-size", 4096, "rows"), ("--val-size", 70, "rows")))
    parser.add_argument("--noise", type=float, default=0.0, help="std of one rating, in units of the persona's scale")
    parser.add_argument("--mood", type=float, default=0.0, help="the same, shared by all responses to one prompt")
    add_seed(parser)
    add_json(parser)
    parser.set_defaults(run=personas_command)


def personas_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.personas import prepare

    names = ("surface", "train_size", "val_size", "seed", "noise", "mood")
    return _result(prepare(args.out, **{name: getattr(args, name) for name in names}))


def _add_table(inner: argparse._SubParsersAction) -> None:
    parser = add_command(inner, "table", "a table of your own", TABLE_EXAMPLE)
    parser.add_argument("--input", type=Path, required=True, help=".jsonl, .csv, .parquet, or a Hugging Face folder")
    parser.add_argument("--split", help="of a Hugging Face DatasetDict")
    _add_out(parser)
    parser.add_argument("--prompt-column", required=True, help="text, or chat messages")
    parser.add_argument("--group-column", help="the users' preference group")
    parser.add_argument("--cluster-features", default="", help="or: columns to cluster by, with commas between")
    parser.add_argument("--groups-file", type=Path, help="or: what `groups fit` wrote")
    parser.add_argument("--user-column", help="nobody is on both sides of the split, and one user has one group")
    parser.add_argument("--time-column", help="numbers or ISO dates: split by time")
    parser.add_argument("--truth-column", help="what the reward function gets as ground_truth")
    parser.add_argument("--keep", default="", help="more columns for extra_info, with commas between")
    parser.add_argument("--task", help="first part of data_source (default: the input's name)")
    parser.add_argument("--val-fraction", type=float, default=0.1, help="default: %(default)s")
    parser.add_argument("--bad-rows", choices=("error", "drop"), default="error", help="rows without prompt or group")
    add_clustering(parser)
    add_seed(parser)
    add_json(parser)
    parser.set_defaults(run=table_command)


def table_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.own_table import Options, prepare

    columns = {"cluster_features": _names(args.cluster_features), "keep": _names(args.keep)}
    options = _options(Options, args, **_clustering(args), **columns, drop_bad_rows=args.bad_rows == "drop")
    return _result(prepare(args.input, args.out, options))


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")


def _add_numbers(parser: argparse.ArgumentParser, numbers: Iterable[tuple[str, int, str]]) -> None:
    for name, default, help in numbers:
        parser.add_argument(name, type=int, default=default, help=f"{help} (default: %(default)s)")


def _clustering(args: argparse.Namespace) -> dict[str, Any]:
    return {"groups": number_of_groups(args.groups), "k_range": (args.k_min, args.k_max)}


def _options(kind: type[Options], args: argparse.Namespace, **given: Any) -> Options:
    """Options of this kind: what is given, the rest from the arguments of the same names."""
    names = {field.name for field in fields(kind)} - given.keys()  # type: ignore[arg-type]
    return kind(**given, **{name: getattr(args, name) for name in names})


def _result(summary: Any) -> Result:
    return Result(summary.text(), summary.as_dict())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
