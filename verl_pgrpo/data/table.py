# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Convert a user table to verl rows: one prompt per row, and a group column or features to cluster by.

    verl-pgrpo data table --input users.parquet --prompt-column question --group-column segment --out data/mine

The split is by time if there is a time column (the latest rows are for validation), else by user, so that no user is on
both sides, else by prompt. Clusters are fitted on the training side only.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from typer import Option

from verl_pgrpo.data.columns import Flags, feature_matrix, kept_values, label_values, time_ranks, truth_values
from verl_pgrpo.data.group_model import GroupModel, id_hashes, load_groups, random_groups, save_groups
from verl_pgrpo.data.options import CLUSTERING, Clustering, EncodingOption, SplitOption, names
from verl_pgrpo.data.schema import output_folder, verl_row, write_splits
from verl_pgrpo.data.splits import cut_time
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.user_table import UserTable, read_user_table
from verl_pgrpo.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
RESERVED = {"index", "split", "user", "random_group", "seed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOptions(Clustering):
    """Which column means what. Exactly one of `group_column`, `cluster_features` and `groups_file` is given."""

    prompt_column: Annotated[str, Option(help="Text, or chat messages.")]
    group_column: Annotated[str | None, Option(help="Preference group of the row's user.")] = None
    cluster_features: Annotated[str, Option(help="Or: columns to cluster by, separated by commas.")] = ""
    groups_file: Annotated[Path | None, Option(help="Or: a file of `groups fit`.")] = None
    user_column: Annotated[str | None, Option(help="User of the row. In one split only, unless split by time.")] = None
    time_column: Annotated[str | None, Option(help="Numbers or ISO 8601 dates: split by time.")] = None
    truth_column: Annotated[str | None, Option(help="ground_truth of the reward function.")] = None
    keep: Annotated[str, Option(help="More columns for extra_info, separated by commas.")] = ""
    task: Annotated[str | None, Option(help="First part of data_source; default the input's name.")] = None
    val_fraction: Annotated[float, Option(help="Share of the validation split.")] = 0.1
    bad_rows: Annotated[
        Literal["error", "drop"],
        Option(help="Rows with a missing value in a used column: stop, or drop and count them."),
    ] = "error"
    split: SplitOption = None
    encoding: EncodingOption = None

    def check(self) -> None:
        Clustering.check(self)
        if sum(map(bool, (self.group_column, self.cluster_features, self.groups_file))) != 1:
            raise DataError("choose the source of groups: one of --group-column, --cluster-features, --groups-file")
        if not self.cluster_features:
            self.check_unused("without --cluster-features", *CLUSTERING)
        if not 0 < self.val_fraction < 1:
            raise DataError(f"--val-fraction must be between 0 and 1 (got {self.val_fraction})")
        taken = RESERVED & set(names(self.keep))
        if taken:
            raise DataError(f"--keep {', '.join(sorted(taken))}: extra_info already has a field of that name")


def prepare(path: Path, out: Path, options: TableOptions) -> Summary:
    """Write `train.parquet` and `val.parquet` to `out`, and `groups.json` if groups were clustered."""
    options.check()
    table = read_user_table(path, options.split, options.encoding)
    summary = Summary(f"{path.name}, seed {options.seed}", read={"rows": len(table)})
    model = load_groups(options.groups_file) if options.groups_file else None
    data, features, kept_types = _used_columns(table, model, options, summary)
    data["val"] = _validation_side(data, options)
    if not options.group_column:
        data, model = _with_clusters(data, features, model, options, summary)
    for side, places in (("training", ~data["val"]), ("validation", data["val"])):
        if not places.any():
            raise DataError(f"{table.name}: the {side} split has no rows; {len(data)} rows are too few for "
                            f"--val-fraction {options.val_fraction}")  # fmt: skip
    if model is not None and not options.groups_file:
        save_groups(model, output_folder(out) / "groups.json")
    train = data[~data["val"]]
    control = random_groups(train["group"].to_numpy(), train["user"].tolist(), options.seed)
    data["random_group"] = control.assign(np.empty((len(data), 0)), data["user"].tolist())

    task = options.task or path.name.partition(".")[0]

    def rows(part: pd.DataFrame) -> Iterator[dict[str, Any]]:
        for row in part.to_dict("records"):
            own = {"user": row["user"] if options.user_column else None}
            own |= {name: row[f"keep {name}"] for name in names(options.keep)}
            truth = row.get("truth", "")
            yield verl_row(task, row["group"], row["prompt"], "personalization", truth, row["random_group"], own)

    splits = {split: rows(data[data["val"] == (split == "val")]) for split in ("train", "val")}
    write_splits(output_folder(out), splits, [("user", pa.string()), *kept_types], options.seed, summary)
    summary.warn_small_groups()
    return summary


def _used_columns(
    table: UserTable, model: GroupModel | None, options: TableOptions, summary: Summary
) -> tuple[pd.DataFrame, pd.DataFrame, list[tuple[str, pa.DataType]]]:
    """Read the used columns; rows with a missing or unusable value are an error, or dropped and counted.

    Returns:
        The columns prompt, group, user, truth, time and `keep <name>`; features to cluster by, with the same index;
        names and types of the kept columns.
    """
    data: dict[str, list[Any]] = {"prompt": _prompts(table, options.prompt_column)}
    reasons = dict.fromkeys(prompt for prompt in data["prompt"] if isinstance(prompt, str))
    bad = {reason: np.array([prompt == reason for prompt in data["prompt"]]) for reason in reasons}
    labels = partial(label_values, notes=summary.notes)
    for name, column, read in (
        ("group", options.group_column, labels),
        ("user", options.user_column, labels),
        ("truth", options.truth_column, truth_values),
    ):
        if column:
            option = f"--{name}-column"
            data[name] = read(table, column, option)
            bad[f"no value in column {column!r} ({option})"] = np.array([value is None for value in data[name]])
    if options.time_column:
        time, missing = time_ranks(table, options.time_column, "--time-column")
        data["time"], bad[f"no time in column {options.time_column!r}"] = time.tolist(), missing
    kept_types = []
    for name in names(options.keep):
        array, missing = kept_values(table, name, "--keep")
        data[f"keep {name}"], bad[f"no value in column {name!r} (--keep)"] = array.to_pylist(), missing
        kept_types.append((name, array.type))
    features, feature_names = np.empty((len(table), 0)), list[str]()
    if not options.group_column:
        columns = model.columns if model else names(options.cluster_features)
        features, feature_names = feature_matrix(table, columns, "--groups-file" if model else "--cluster-features")
        for i in np.flatnonzero(np.isnan(features).any(0)):
            bad[f"no finite number in column {feature_names[i]!r}"] = np.isnan(features[:, i])

    wrong = np.zeros(len(table), bool)
    for reason, rows in bad.items():
        if rows.any() and options.bad_rows == "error":
            raise DataError(f"{table.where(int(rows.argmax()))}: {reason}; rows with this fault: {rows.sum():,} "
                            "(--bad-rows drop leaves them out)")  # fmt: skip
        if options.bad_rows == "drop":
            summary.drop(f"rows with {reason}", (rows & ~wrong).sum())
        wrong |= rows
    if wrong.all():
        raise DataError(f"{table.name}: every row has a missing value in a used column; see the columns you named")
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in data.items()})
    if not options.user_column:
        frame["user"] = frame.index.astype(str)
    return frame[~wrong].copy(), pd.DataFrame(features, columns=feature_names)[~wrong], kept_types


def _prompts(table: UserTable, name: str) -> list[list[dict[str, str]] | str]:
    """Return each row's messages, or a text that describes what is wrong with its prompt."""
    column = table.column(name, "--prompt-column")
    is_text = (pa.types.is_null, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not (pa.types.is_nested(column.type) or any(check(column.type) for check in is_text)):
        reason = f"holds {column.type}; expected text or messages"
        raise DataError(f"{table.name}: column {name!r} (--prompt-column) {reason}")
    return [_messages(value) for value in column.to_pylist()]


def _messages(value: Any) -> list[dict[str, str]] | str:
    """Return messages from text, from a list of messages, or from such a list as JSON; or an error text."""
    if isinstance(value, str) and re.match(r'\s*\[\s*\{\s*"', value):
        with contextlib.suppress(ValueError):  # a prompt that merely looks like JSON
            value = json.loads(value)
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else "an empty prompt"
    if not isinstance(value, list):
        return "no prompt"
    for one in value:
        if not (isinstance(one, dict) and one.get("role") in ROLES and isinstance(one.get("content"), str)):
            return "a prompt that is neither text nor a list of messages with role and content"
    if not value or value[-1]["role"] not in ("user", "tool"):
        return "a prompt whose last message is not from the user"
    if not value[-1]["content"].strip():
        return "an empty prompt"
    return [{"role": one["role"], "content": one["content"]} for one in value]


def _validation_side(data: pd.DataFrame, options: TableOptions) -> Flags:
    """Return which rows are for validation, (N,)."""
    if options.time_column:
        time = data["time"].to_numpy(np.int64)
        return time >= cut_time(time, options.val_fraction)
    keys = data["user"] if options.user_column else data["prompt"].map(json.dumps)
    codes, distinct = pd.factorize(keys, sort=True)
    order = np.argsort(id_hashes(distinct.tolist(), options.seed), kind="stable")
    return np.isin(codes, order[: max(1, round(len(distinct) * options.val_fraction))])


def _with_clusters(
    data: pd.DataFrame, features: pd.DataFrame, model: GroupModel | None, options: TableOptions, summary: Summary
) -> tuple[pd.DataFrame, GroupModel]:
    """Return the rows whose user can be assigned to a group, with the column group; and the model, fitted if not given.

    A user's features are averaged over the user's rows; in a split by time, over the user's training rows only, so that
    users without training rows have no group.
    """
    usable = pd.Series(True, data.index)
    if options.time_column and options.user_column:
        usable = ~data["val"]
        known = data["user"].isin(set(data["user"][usable]))
        summary.drop("rows of users who have no training row", (~known).sum())
        data = data[known].copy()
    of_user = features[usable].groupby(data["user"][usable].astype(str), sort=True).mean()
    if model is None:
        trained = of_user.loc[sorted(set(data["user"][~data["val"]]))]
        if not len(trained):
            raise DataError("the training split has no rows to cluster")
        fitted = options.fit(trained.to_numpy(), list(features.columns), options.user_column)
        model = replace(fitted, columns=names(options.cluster_features))
        summary.notes.append(f"{len(model.groups)} groups were fitted on {len(trained):,} users of the training split")
    assigned = model.assign(of_user.to_numpy(), of_user.index.tolist())
    data["group"] = data["user"].map(dict(zip(of_user.index, assigned.tolist(), strict=True)))
    return data, model
