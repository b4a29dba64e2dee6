# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A user table to verl rows: one prompt per row, and a group column or features to cluster by.

    verl-pgrpo data table --input users.parquet --prompt-column question --group-column segment --out data/mine

The split is by time if there is a time column (the latest rows are for validation), else by user, so that no user is on
both sides, else by prompt. Clusters are fitted on the training side alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from verl_pgrpo.data.columns import Flags, Matrix, feature_matrix, kept_values, label_values, time_ranks, truth_values
from verl_pgrpo.data.group_model import GroupModel, id_hashes, load_groups, random_groups, save_groups
from verl_pgrpo.data.options import Clustering
from verl_pgrpo.data.schema import extra_info_type, output_folder, verl_row, write_splits
from verl_pgrpo.data.splits import cut_time
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.user_table import UserTable, read_user_table
from verl_pgrpo.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
RESERVED = {"index", "split", "user", "random_group", "seed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOptions(Clustering):
    """The meaning of columns. Exactly one of `group_column`, `cluster_features` and `groups_file` is given."""

    prompt_column: str
    group_column: str | None = None
    cluster_features: tuple[str, ...] = ()
    groups_file: Path | None = None
    user_column: str | None = None
    time_column: str | None = None
    truth_column: str | None = None
    # more columns for the reward function, in extra_info
    keep: tuple[str, ...] = ()
    # first part of data_source; None: the name of the input
    task: str | None = None
    val_fraction: float = 0.1
    # drop rows with a missing value in a used column, instead of stopping at the first one
    drop_bad_rows: bool = False
    # split of a Hugging Face DatasetDict
    split: str | None = None
    # encoding of a text file; None: UTF-8, or UTF-16 with a byte order mark
    encoding: str | None = None

    def check(self) -> None:
        """Raise DataError if an option is out of range."""
        if sum(map(bool, (self.group_column, self.cluster_features, self.groups_file))) != 1:
            raise DataError("choose the source of groups: one of --group-column, --cluster-features, --groups-file")
        if not 0 < self.val_fraction < 1:
            raise DataError(f"--val-fraction must be between 0 and 1 (got {self.val_fraction})")
        self.check_minimum(seed=0)
        taken = RESERVED & set(self.keep)
        if taken:
            raise DataError(f"--keep {', '.join(sorted(taken))}: extra_info already has a field of that name")


@dataclass(frozen=True)
class Columns:
    """The used columns of a table, (N,) each; `features` is (N, D). None where no such column was named."""

    prompt: npt.NDArray[Any]
    group: npt.NDArray[Any] | None
    user: npt.NDArray[Any]
    time: npt.NDArray[np.int64] | None
    truth: npt.NDArray[Any] | None
    features: Matrix | None
    keep: dict[str, pa.Array]

    def filter(self, rows: Flags) -> Columns:
        """Return the rows where the flag is true."""
        kept = {name: column.filter(pa.array(rows)) for name, column in self.keep.items()}
        values: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "keep"
        }
        return replace(self, **{name: None if one is None else one[rows] for name, one in values.items()}, keep=kept)


def prepare(path: Path, out: Path, options: TableOptions) -> Summary:
    """Write `train.parquet` and `val.parquet` to `out`, and `groups.json` if groups were clustered.

    Raises:
        DataError: the table, a column, a row or an option is not usable.
    """
    options.check()
    table = read_user_table(path, options.split, options.encoding)
    summary = Summary(f"{path.name}, seed {options.seed}", read={"rows": len(table)})
    model = load_groups(options.groups_file) if options.groups_file else None
    data, feature_names = _used_columns(table, model, options, summary)
    validation = _validation_side(data, options)
    if options.group_column:
        group = data.group
    else:
        data, validation, group = _cluster(data, feature_names, validation, model, options, out, summary)
    for side, empty in (("training", validation.all()), ("validation", not validation.any())):
        if empty:
            raise DataError(f"{table.name}: the {side} split has no rows; {len(validation)} rows are too few for "
                            f"--val-fraction {options.val_fraction}")  # fmt: skip
    assert group is not None
    control = random_groups(group[~validation], data.user[~validation].tolist(), options.seed)
    chance = control.assign(np.empty((len(group), 0)), data.user.tolist())

    output_folder(out)
    kept_types = ((name, column.type) for name, column in data.keep.items())
    kept = {name: column.to_pylist() for name, column in data.keep.items()}
    task = options.task or path.name.partition(".")[0]

    def rows(split: str, places: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        for index, i in enumerate(places.tolist()):
            extra_info = {
                "index": index,
                "split": split,
                "user": data.user[i] if options.user_column else None,
                **{name: values[i] for name, values in kept.items()},
                "random_group": str(chance[i]),
                "seed": options.seed,
            }
            truth = "" if data.truth is None else data.truth[i]
            yield verl_row(task, group[i], data.prompt[i], "personalization", truth, extra_info)

    sides = {"train": np.flatnonzero(~validation), "val": np.flatnonzero(validation)}
    extra_info_fields = extra_info_type(("user", pa.string()), *kept_types)
    write_splits(out, {split: rows(split, places) for split, places in sides.items()}, extra_info_fields, summary)
    summary.warn_small_groups()
    return summary


def _used_columns(
    table: UserTable, model: GroupModel | None, options: TableOptions, summary: Summary
) -> tuple[Columns, list[str]]:
    """Read the used columns; rows with a missing or unusable value are an error, or dropped and counted."""
    bad: dict[str, Flags] = {}

    def texts(read: Any, name: str | None, option: str) -> npt.NDArray[Any] | None:
        if name is None:
            return None
        values = np.empty(len(table), object)
        values[:] = read(table, name, option)
        bad[f"no value in column {name!r} ({option})"] = np.array([value is None for value in values], bool)
        return values

    prompts = np.empty(len(table), object)
    for i, value in enumerate(_prompt_values(table, options.prompt_column)):
        prompts[i] = _messages(value)
        if isinstance(prompts[i], str):
            bad.setdefault(prompts[i], np.zeros(len(table), bool))[i] = True
    group = texts(label_values, options.group_column, "--group-column")
    user = texts(label_values, options.user_column, "--user-column")
    truth = texts(truth_values, options.truth_column, "--truth-column")
    time = None
    if options.time_column:
        time, bad[f"no time in column {options.time_column!r}"] = time_ranks(
            table, options.time_column, "--time-column"
        )
    keep: dict[str, pa.Array] = {}
    for name in options.keep:
        keep[name], bad[f"no value in column {name!r} (--keep)"] = kept_values(table, name, "--keep")
    features: Matrix | None = None
    names: list[str] = []
    if not options.group_column:
        columns = model.columns if model else options.cluster_features
        features, names = feature_matrix(table, columns, "--cluster-features")
        missing = np.isnan(features)
        for name in dict.fromkeys(np.array(names)[missing.any(0)].tolist()):
            bad[f"no finite number in column {name!r}"] = missing[:, names.index(name)]

    wrong = np.zeros(len(table), bool)
    for reason, rows in bad.items():
        if rows.any() and not options.drop_bad_rows:
            raise DataError(f"{table.where(int(rows.argmax()))}: {reason}; rows with this fault: {rows.sum():,} "
                            "(--bad-rows drop leaves them out)")  # fmt: skip
        if options.drop_bad_rows:
            summary.drop(f"rows with {reason}", (rows & ~wrong).sum())
        wrong |= rows
    if wrong.all():
        raise DataError(f"{table.name}: every row has a missing value in a used column; see the columns you named")
    users = np.arange(len(table)).astype(object) if user is None else user
    return Columns(prompts, group, users, time, truth, features, keep).filter(~wrong), names


def _prompt_values(table: UserTable, name: str) -> list[Any]:
    column = table.column(name, "--prompt-column")
    if pa.types.is_nested(column.type):
        return column.to_pylist()
    if not (pa.types.is_null(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            or pa.types.is_string_view(column.type)):  # fmt: skip
        raise DataError(
            f"{table.name}: column {name!r} (--prompt-column) holds {column.type}; expected text or messages"
        )
    return column.to_pylist()


def _messages(value: Any) -> list[dict[str, str]] | str:
    """Return messages from text, from a list of messages, or from such a list as JSON; or what is wrong."""
    if isinstance(value, str) and value.lstrip().startswith('[{"'):
        with contextlib.suppress(ValueError):  # a prompt that only looks like JSON
            value = json.loads(value)
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else "an empty prompt"
    if not isinstance(value, list):
        return "no prompt"
    messages = []
    for message in value:
        if not (isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)):
            return "a prompt that is neither text nor a list of messages with role and content"
        messages.append({"role": message["role"], "content": message["content"]})
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        return "a prompt whose last message is not from the user"
    return messages


def _validation_side(data: Columns, options: TableOptions) -> Flags:
    if data.time is not None:
        return data.time >= cut_time(data.time, options.val_fraction)
    keys = data.user if options.user_column else np.array([json.dumps(one) for one in data.prompt], object)
    codes, distinct = pd.factorize(keys, sort=True)
    order = np.argsort(id_hashes(distinct.tolist(), options.seed), kind="stable")
    chosen = np.zeros(len(distinct), bool)
    chosen[order[: max(1, round(len(distinct) * options.val_fraction))]] = True
    return chosen[codes]


def _cluster(
    data: Columns, names: list[str], validation: Flags, model: GroupModel | None, options: TableOptions, out: Path,
    summary: Summary,
) -> tuple[Columns, Flags, npt.NDArray[np.str_]]:  # fmt: skip
    """Return the rows that have a group, their side and group (N,).

    A user's features are averaged over the user's rows; in a split by time, over the user's training rows only, so that
    users without training rows have no group.
    """
    by_user_and_time = data.time is not None and options.user_column is not None
    if by_user_and_time:
        known = pd.Index(data.user).isin(set(data.user[~validation]))
        summary.drop("rows of users who have no training row", (~known).sum())
        data, validation = data.filter(known), validation[known]
    assert data.features is not None
    codes, users = pd.factorize(data.user)
    usable = ~validation if by_user_and_time else np.ones(len(codes), bool)
    of_user = pd.DataFrame(data.features[usable]).groupby(codes[usable], sort=True).mean().to_numpy()
    if model is None:
        trained = np.unique(codes[~validation])
        if not len(trained):
            raise DataError("the training split has no rows to cluster")
        model = replace(options.fit(of_user[trained], names, options.user_column), columns=options.cluster_features)
        save_groups(model, output_folder(out) / "groups.json")
        summary.notes.append(f"{len(model.groups)} groups were fitted on {len(trained):,} users of the training split")
    return data, validation, model.assign(of_user, users.tolist())[codes]
