# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo groups`: cluster users into preference groups, in a file that assigns new users later."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import typer

from verl_pgrpo.cli.data_common import emit_summary, with_options
from verl_pgrpo.cli.output import JsonOption, check_out, check_unused
from verl_pgrpo.data.cluster import randomize
from verl_pgrpo.data.columns import Matrix, feature_matrix, label_values
from verl_pgrpo.data.group_model import GroupModel, load_groups, save_groups
from verl_pgrpo.data.group_picture import distinctive_features, draw_groups
from verl_pgrpo.data.options import Clustering, EncodingOption, SplitOption, names
from verl_pgrpo.data.schema import write_table
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.user_table import UserTable, read_user_table
from verl_pgrpo.errors import DataError
from verl_pgrpo.files import atomic_write

app = typer.Typer(help="Cluster users into preference groups, and assign new users to them.",
                  no_args_is_help=True, add_completion=False)  # fmt: skip

InputOption = Annotated[Path, typer.Option("--input", help="One row per user: .jsonl, .csv, .parquet or a folder.")]
PictureOption = Annotated[Path | None, typer.Option(help="Draw the groups (.png, .svg or .pdf).")]
Assigned = npt.NDArray[np.str_]
TABLES, PICTURES = (".parquet", ".csv", ".jsonl"), (".png", ".svg", ".pdf")
GROUP = "preference_group"


@app.command(epilog="Example: verl-pgrpo groups fit --input users.parquet --id-column user --out groups.json "
             "--picture groups.png")  # fmt: skip
@with_options(Clustering)
def fit(
    source: InputOption,
    out: Annotated[Path, typer.Option(help="The grouping (JSON).")],
    options: Clustering,
    assignments: Annotated[Path | None, typer.Option(help="Also write the users' groups, as `assign --out`.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Ids of the users; needed for --random.")] = None,
    features: Annotated[str, typer.Option(help="Columns, separated by commas; default all but the id.")] = "",
    no_scale: Annotated[bool, typer.Option("--no-scale", help="Do not standardize features; for embeddings.")] = False,
    random: Annotated[bool, typer.Option("--random", help="The control: random groups of the same sizes.")] = False,
    picture: PictureOption = None,
    split: SplitOption = None,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find groups in a table of features."""
    check_out("--out", out, source)
    check_out("--assignments", assignments, source, out, suffixes=TABLES)
    check_out("--picture", picture, source, out, suffixes=PICTURES)
    options.check()
    if random and not id_column:
        raise DataError("--random needs --id-column: random groups are assigned by user id")
    users = _read_users(source, split, encoding, names(features), id_column)
    model = replace(options.fit(users.values, users.features, id_column, not no_scale), columns=users.columns)
    if random:
        model = randomize(model, model.assign(users.values), users.ids or [], options.seed)
    save_groups(model, out)
    assigned = model.assign(users.values, users.ids)
    if assignments:
        _write_assigned(assignments, users, id_column, assigned)
    _show(f"{len(assigned):,} users in {len(model.groups)} groups: {out}", model, as_json, users, picture)


@app.command(
    epilog="Example: verl-pgrpo groups assign --groups groups.json --input new_users.csv --out assigned.parquet"
)
def assign(
    groups: Annotated[Path, typer.Option("--groups", help="A file of `groups fit`.")],
    source: InputOption,
    out: Annotated[Path, typer.Option(help=".parquet, .csv or .jsonl with id and preference_group.")],
    id_column: Annotated[str | None, typer.Option(help="Default: as in the fit; without one, the row number.")] = None,
    split: SplitOption = None,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Assign new users to the groups of a fit."""
    check_out("--out", out, groups, source, suffixes=TABLES)
    model = load_groups(groups)
    id_column = id_column or model.id_column
    users = _read_users(source, split, encoding, model.columns, id_column)
    _write_assigned(out, users, id_column, model.assign(users.values, users.ids))
    # Only a fit records how K was chosen.
    _show(f"{len(users.values):,} users assigned: {out}", replace(model, choice=[]), as_json, users)


@app.command(epilog="Example: verl-pgrpo groups inspect groups.json --input users.parquet --picture groups.png")
def inspect(
    context: typer.Context,
    groups: Annotated[Path, typer.Argument(help="A file of `groups fit`.")],
    source: Annotated[Path | None, typer.Option("--input", help="A table of features, to assign its users.")] = None,
    picture: PictureOption = None,
    split: SplitOption = None,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the groups of a fit."""
    check_out("--picture", picture, groups, source, suffixes=PICTURES)
    if source is None:
        check_unused(context, "without --input, a table of features", "picture", "split", "encoding")
    model = load_groups(groups)
    if source is not None:
        users = _read_users(source, split, encoding, model.columns, model.id_column)
        title = f"{groups}: {model.algorithm}, with {len(users.values):,} users"
        _show(title, model, as_json, users, picture)
    else:
        _show(f"{groups}: {model.algorithm}, {len(model.features)} features", model, as_json)


class _Users(NamedTuple):
    """N users: the table, the used columns, (N, D) features and their names, the ids, if any, and notes."""

    table: UserTable
    columns: tuple[str, ...]
    values: Matrix
    features: list[str]
    ids: list[str] | None
    notes: list[str]


def _read_users(
    source: Path, split: str | None, encoding: str | None, columns: tuple[str, ...], id_column: str | None
) -> _Users:
    """Read features and ids, neither of which may be missing. Without `columns`, all but the id are features."""
    if id_column == GROUP:
        raise DataError(f"--id-column {GROUP}: this is a column of the result; rename it in {source}")
    table = read_user_table(source, split, encoding)
    ids, notes = None, list[str]()
    if id_column:
        labels = label_values(table, id_column, "--id-column", notes)
        if None in labels:
            raise DataError(f"{table.where(labels.index(None))}: no id in column {id_column!r}")
        ids = [str(label) for label in labels]
    if not columns:
        own = table.data.column_names
        columns = tuple(name for name in own if name != id_column and not name.startswith("__index_level_"))
    values, features = feature_matrix(table, columns, "--features")
    for row, place in np.argwhere(np.isnan(values))[:1].tolist():
        raise DataError(f"{table.where(row)}: {features[place]!r} is missing or not finite")
    return _Users(table, columns, values, features, ids, notes)


def _write_assigned(path: Path, users: _Users, id_column: str | None, assigned: Assigned) -> None:
    """Write the ids, in their own type, and the groups."""
    ids = users.table.column(id_column, "--id-column") if id_column else pa.array(range(len(assigned)))
    result = pa.table({id_column or "row": ids, GROUP: pa.array(assigned.tolist())})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        write_table(path, result)
    elif path.suffix == ".csv":
        with atomic_write(path, "wb") as file:
            pa.csv.write_csv(result, file)
    else:
        with atomic_write(path) as file:
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in result.to_pylist())


def _show(
    title: str, model: GroupModel, as_json: bool, users: _Users | None = None, picture: Path | None = None
) -> None:
    """Print the groups, their sizes and distinguishing features, and how K was chosen."""
    rows: list[dict[str, Any]] = [
        {"group": name, "fitted on": size} for name, size in zip(model.groups, model.sizes, strict=True)
    ]
    if users is not None:
        assigned = model.assign(users.values, users.ids)
        for row, differs in zip(rows, distinctive_features(model, users.values, assigned), strict=True):
            row |= {"users": int((assigned == row["group"]).sum()), "differs in": differs}
        if picture:
            draw_groups(model, users.values, assigned, picture)
    notes = [
        f"k={one['k']}: silhouette {one['silhouette']:.3f}, stability {one['stability']:.3f}, smallest cluster "
        f"{one['smallest']} users of the sample{'' if one['large_enough'] else ', too small'}"
        for one in model.choice
    ] + (users.notes if users else [])
    emit_summary(Summary(title, groups=rows, notes=notes), as_json, algorithm=model.algorithm, choice=model.choice)
