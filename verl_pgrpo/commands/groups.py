# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo groups`: users into preference groups by clustering, kept in a file that assigns new users later."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_pgrpo.commands.arguments import Result, add_clustering, add_command, add_json, add_seed, number_of_groups

if TYPE_CHECKING:
    from verl_pgrpo.data.tables import Source

FIT_EXAMPLE = "verl-pgrpo groups fit --input users.parquet --id-column user --out groups.json --picture groups.png"
ASSIGN_EXAMPLE = "verl-pgrpo groups assign --groups groups.json --input new_users.csv --out assigned.parquet"
INSPECT_EXAMPLE = "verl-pgrpo groups inspect groups.json --input users.parquet --picture groups.png"


def add_parser(commands: argparse._SubParsersAction) -> None:
    groups = commands.add_parser("groups", help="cluster users into preference groups, assign new ones")
    inner = groups.add_subparsers(dest="command", required=True, metavar="fit|assign|inspect")

    fit = add_command(inner, "fit", "find groups in a feature table", FIT_EXAMPLE)
    fit.add_argument("--input", type=Path, required=True, help="a row per user: .jsonl, .csv, .parquet or a HF folder")
    fit.add_argument("--split", help="of a Hugging Face DatasetDict")
    fit.add_argument("--out", type=Path, required=True, help="the grouping (JSON)")
    fit.add_argument("--assignments", type=Path, help="also write each user's group (.parquet, .csv or .jsonl)")
    fit.add_argument("--id-column", help="the users' ids; needed for --random")
    fit.add_argument("--features", help="columns, with commas between (default: all but the id)")
    fit.add_argument("--no-scale", action="store_true", help="features as they are, for embeddings")
    fit.add_argument("--random", action="store_true", help="the control: random groups of the same sizes")
    fit.add_argument("--picture", type=Path, help="draw the groups (.png)")
    add_clustering(fit)
    add_seed(fit)
    add_json(fit)
    fit.set_defaults(run=fit_command)

    assign = add_command(inner, "assign", "groups of new users, without refitting", ASSIGN_EXAMPLE)
    assign.add_argument("--groups", type=Path, required=True, help="what `groups fit` wrote")
    assign.add_argument("--input", type=Path, required=True, help="a row per user, with the same feature columns")
    assign.add_argument("--split", help="of a Hugging Face DatasetDict")
    assign.add_argument("--out", type=Path, required=True, help=".parquet, .csv or .jsonl: id and preference_group")
    assign.add_argument("--id-column", help="default: as at the fit; without one, rows are numbered from 0")
    add_json(assign)
    assign.set_defaults(run=assign_command)

    inspect = add_command(inner, "inspect", "what is in a grouping", INSPECT_EXAMPLE)
    inspect.add_argument("groups", type=Path, help="what `groups fit` wrote")
    inspect.add_argument("--input", type=Path, help="a feature table, to see how its users fall")
    inspect.add_argument("--split", help="of a Hugging Face DatasetDict")
    inspect.add_argument("--picture", type=Path, help="draw the groups of --input (.png)")
    add_json(inspect)
    inspect.set_defaults(run=inspect_command)


def fit_command(args: argparse.Namespace) -> Result:
    from dataclasses import replace

    from verl_pgrpo.data.errors import DataError
    from verl_pgrpo.data.features import default_features, feature_matrix
    from verl_pgrpo.data.grouping.artefact import save_groups
    from verl_pgrpo.data.grouping.fit import fit_groups, randomize
    from verl_pgrpo.data.grouping.picture import draw_groups
    from verl_pgrpo.data.tables import read_table

    if args.random and not args.id_column:
        raise DataError("--random needs --id-column: random groups go by the users' ids")
    source = read_table(args.input, args.split)
    ids = _ids(source, args.id_column)
    columns = args.features.split(",") if args.features else default_features(source, [args.id_column])
    values, names = feature_matrix(source, columns)
    model = fit_groups(
        values, names, algorithm=args.algorithm, k=number_of_groups(args.groups), k_range=(args.k_min, args.k_max),
        min_size=args.min_size, scale=not args.no_scale, seed=args.seed, id_column=args.id_column,
    )  # fmt: skip
    model = replace(model, columns=tuple(columns))
    assigned = model.assign(values)
    if args.random:
        model = randomize(model, assigned, ids, args.seed)
        assigned = model.assign(values, ids)
    save_groups(model, args.out)
    if args.assignments:
        _write_assigned(args.assignments, args.id_column, ids, assigned)
    if args.picture:
        draw_groups(model, values, assigned, args.picture)
    return _result(f"{len(values):,} users in {len(model.groups)} groups: {args.out}", model, values, assigned)


def assign_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.features import feature_matrix
    from verl_pgrpo.data.grouping.artefact import load_groups
    from verl_pgrpo.data.tables import read_table

    model = load_groups(args.groups)
    source = read_table(args.input, args.split)
    id_column = args.id_column or model.id_column
    ids = _ids(source, id_column)
    values, _ = feature_matrix(source, model.columns)
    assigned = model.assign(values, ids if id_column else None)
    _write_assigned(args.out, id_column, ids, assigned)
    return _result(f"{len(values):,} users assigned: {args.out}", model, values, assigned)


def inspect_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.errors import DataError
    from verl_pgrpo.data.features import feature_matrix
    from verl_pgrpo.data.grouping.artefact import load_groups
    from verl_pgrpo.data.grouping.picture import draw_groups
    from verl_pgrpo.data.tables import read_table

    model = load_groups(args.groups)
    if args.input is None:
        if args.picture:
            raise DataError("--picture draws users, so it needs --input, the feature table")
        return _result(f"{args.groups}: {model.algorithm}, {len(model.features)} features", model)
    source = read_table(args.input, args.split)
    values, _ = feature_matrix(source, model.columns)
    assigned = model.assign(values, _ids(source, model.id_column) if model.id_column else None)
    if args.picture:
        draw_groups(model, values, assigned, args.picture)
    return _result(f"{args.groups}: {model.algorithm}, with {len(values):,} users", model, values, assigned)


def _ids(source: Source, id_column: str | None) -> list[Any]:
    """The users' ids as the table has them; the numbers of its rows where it has none."""
    from verl_pgrpo.data.errors import DataError

    if id_column is None:
        return list(range(len(source.frame)))
    column = source.column(id_column, "--id-column")
    missing = column.isna() | (column.astype(str) == "")
    if missing.any():
        raise DataError(f"{source.where(int(missing.to_numpy().argmax()))}: no {id_column}")
    return column.tolist()


def _write_assigned(path: Path, id_column: str | None, ids: list[Any], assigned: Any) -> None:
    import pandas as pd

    from verl_pgrpo.data.errors import DataError

    table = pd.DataFrame({id_column or "row": ids, "preference_group": assigned})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        raise DataError(f"{path}: expected a name that ends in .parquet, .csv or .jsonl")


def _result(title: str, model: Any, values: Any = None, assigned: Any = None) -> Result:
    """Groups with their sizes and what sets them apart, and how K was chosen."""
    from verl_pgrpo.data.grouping.picture import profiles, telling
    from verl_pgrpo.data.summary import Summary

    words = telling(model, profiles(model, values, assigned)) if values is not None else [""] * len(model.groups)
    lines = []
    for i, name in enumerate(model.groups):
        line: dict[str, Any] = {"group": name, "fitted on": model.sizes[i]}
        if assigned is not None:
            line |= {"users": int((assigned == name).sum()), "differs in": words[i]}
        lines.append(line)
    summary = Summary(title, groups=lines)
    for tried in model.choice:
        summary.notes.append(
            f"k={tried['k']}: silhouette {tried['silhouette']:.3f}, stability {tried['stability']:.3f}, "
            f"smallest cluster {tried['smallest']} of the sample{'' if tried['large_enough'] else ', too small'}"
        )
    return Result(summary.text(), {**summary.as_dict(), "algorithm": model.algorithm, "choice": model.choice})
