# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A table of your own to verl rows: a prompt a row, and a group column or features to cluster by.

    verl-pgrpo data table --input users.parquet --prompt-column question --group-column segment --out data/mine

Split by time where there is a time column (whatever came after one moment is for validation), else by user, so that
nobody is on both sides, else by prompt, so that no prompt is. Clusters are found on the training side alone.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.features import feature_matrix
from verl_pgrpo.data.grouping.artefact import load_groups, save_groups
from verl_pgrpo.data.grouping.fit import random_groups
from verl_pgrpo.data.grouping.model import id_hashes
from verl_pgrpo.data.options import Clustering
from verl_pgrpo.data.rows import extra_info_type, output_folder, verl_row, write_splits
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.tables import Source, read_table
from verl_pgrpo.data.time_split import Evidence, check_no_leak, cut_time

ROLES = ("system", "user", "assistant", "tool")
Labels = npt.NDArray[np.str_]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Clustering):
    """Which columns mean what. Exactly one of `group_column`, `cluster_features` and `groups_file` is given."""

    prompt_column: str
    group_column: str | None = None
    cluster_features: tuple[str, ...] = ()
    groups_file: Path | None = None
    user_column: str | None = None
    time_column: str | None = None
    truth_column: str | None = None
    # more columns that the reward function is to find in extra_info
    keep: tuple[str, ...] = ()
    # the first part of data_source; None is the name of the input
    task: str | None = None
    val_fraction: float = 0.1
    # drop rows without prompt or group instead of stopping at the first
    drop_bad_rows: bool = False
    split: str | None = None

    def check(self) -> None:
        ways = (self.group_column, self.cluster_features, self.groups_file)
        if sum(map(bool, ways)) != 1:
            raise DataError("say where groups come from: one of --group-column, --cluster-features, --groups-file")
        if not 0 < self.val_fraction < 1:
            raise DataError(f"--val-fraction must be between 0 and 1, got {self.val_fraction}")
        self.at_least(seed=0)


def prepare(path: Path, out: Path, options: Options) -> Summary:
    """Write `train.parquet` and `val.parquet` to `out`, and `groups.json` where groups were clustered.

    Raises:
        DataError: the table, a column, a row or an option is not as it should be; the message names the line.
    """
    options.check()
    source = read_table(path, options.split)
    task = options.task or source.name.partition(".")[0]
    summary = Summary(f"{path.name}, seed {options.seed}", read={"rows": len(source.frame)})
    source, prompts = _prompts(source, options, summary)
    validation = _validation_side(source, prompts, options)
    user = _users(source, options)
    source, prompts, user, validation, group = _groups(source, prompts, user, validation, options, out, summary)
    for name, empty in (("training", validation.all()), ("validation", not validation.any())):
        if empty:
            raise DataError(f"{source.name}: no {name} row is left; the table is too small for --val-fraction")
    control = random_groups(group[~validation], user[~validation].tolist(), options.seed)
    random_group = control.assign(np.empty((len(group), 0)), user.tolist())

    output_folder(out)
    kept = _kept_columns(source, options)
    fields = extra_info_type(("user", pa.string()), *((name, column.type) for name, column in kept.items()))
    values = {name: column.to_pylist() for name, column in kept.items()}
    truths = _truths(source, options)

    def rows(split: str, places: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        for index, i in enumerate(places.tolist()):
            extra_info = {
                "index": index,
                "split": split,
                "user": str(user[i]) if options.user_column else None,
                **{name: column[i] for name, column in values.items()},
                "random_group": str(random_group[i]),
                "seed": options.seed,
            }
            yield verl_row(task, group[i], prompts[i], "personalization", truths[i], extra_info)

    sides = (("train", ~validation), ("val", validation))
    write_splits(out, {split: rows(split, np.flatnonzero(side)) for split, side in sides}, fields, summary)
    for line in summary.groups:
        if not line["train"]:
            summary.notes.append(
                f"group {line['group']} has validation rows only, so nothing is learned from its users"
            )
    return summary


def _prompts(source: Source, options: Options, summary: Summary) -> tuple[Source, list[list[dict[str, str]]]]:
    """Chat messages of each row that has a prompt and, where there is a group column, a group."""
    prompts, good = [], []
    groups = source.column(options.group_column, "--group-column") if options.group_column else None
    for row, value in enumerate(source.column(options.prompt_column, "--prompt-column")):
        messages = _messages(value)
        if isinstance(messages, str) or (groups is not None and _blank(groups.iloc[row])):
            why = messages if isinstance(messages, str) else f"no group in column {options.group_column!r}"
            if not options.drop_bad_rows:
                raise DataError(f"{source.where(row)}: {why} (--bad-rows drop leaves such rows out)")
            summary.drop(f"rows with {why}", 1)
            continue
        prompts.append(messages)
        good.append(row)
    if not good:
        raise DataError(f"{source.name}: no row is left")
    return (source if len(good) == len(source.frame) else source.take(good)), prompts


def _messages(value: Any) -> list[dict[str, str]] | str:
    """Messages from text, from a list of messages, or from such a list as JSON; a reason why not."""
    if isinstance(value, str) and value.lstrip().startswith('[{"'):
        with contextlib.suppress(ValueError):  # a prompt that only looks like JSON
            value = json.loads(value)
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else "an empty prompt"
    if not isinstance(value, (list, tuple, np.ndarray)):
        return "no prompt"
    messages = []
    for message in value:
        if not (isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)):
            return "a prompt that is neither text nor a list of messages with role and content"
        messages.append({"role": message["role"], "content": message["content"]})
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        return "a prompt whose last message is not the user's, so there is nothing to answer"
    return messages


def _blank(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()


def _users(source: Source, options: Options) -> npt.NDArray[Any]:
    """Who each row is of; without a user column every row is somebody of its own."""
    if not options.user_column:
        return np.arange(len(source.frame))
    column = source.column(options.user_column, "--user-column")
    for row, value in enumerate(column):
        if _blank(value):
            raise DataError(f"{source.where(row)}: no user in column {options.user_column!r}")
    return column.astype(str).to_numpy(dtype=object)


def _validation_side(source: Source, prompts: list[list[dict[str, str]]], options: Options) -> Flags:
    if options.time_column:
        time = _times(source, options.time_column)
        cut = cut_time(time, options.val_fraction)
        late = time >= cut
        check_no_leak(cut, int(time[~late].max()), *(Evidence(time[~late], time[side]) for side in (~late, late)))
        return late
    keys = _users(source, options) if options.user_column else np.array([json.dumps(one) for one in prompts], object)
    different, place = np.unique(keys.astype(str), return_inverse=True)
    order = np.argsort(id_hashes(different.tolist(), options.seed), kind="stable")
    chosen = np.zeros(len(different), bool)
    chosen[order[: max(1, round(len(different) * options.val_fraction))]] = True
    return chosen[place]


def _times(source: Source, name: str) -> npt.NDArray[np.int64]:
    """The rank of each row's time: only order matters, and ranks know no unit, overflow or rounding."""
    column = source.column(name, "--time-column")
    times: pd.Series = pd.to_numeric(column, errors="coerce")
    if times.isna().any():
        dates = pd.api.types.is_datetime64_any_dtype(column)
        times = column if dates else pd.to_datetime(column.astype(str), errors="coerce", utc=True, format="ISO8601")
    wrong = times.isna().to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{source.where(row)}: {name} is neither a number nor a date: {str(column.iloc[row])[:40]!r}")
    return np.unique(times.to_numpy(), return_inverse=True)[1]


def _groups(
    source: Source, prompts: list, user: npt.NDArray[Any], validation: Flags, options: Options, out: Path,
    summary: Summary,
) -> tuple[Source, list, npt.NDArray[Any], Flags, Labels]:  # fmt: skip
    """The group of each row; in a split by time, users without a past have no features to be grouped by."""
    if options.group_column:
        column = source.column(options.group_column, "--group-column")
        return source, prompts, user, validation, np.array([str(value).strip() for value in column])
    model = load_groups(options.groups_file) if options.groups_file else None
    values, names = feature_matrix(source, model.columns if model else options.cluster_features, "--cluster-features")
    if options.user_column and options.time_column:
        past = pd.Index(pd.unique(user[~validation]))
        known = past.get_indexer(user) >= 0
        summary.drop("rows of users who have none on the training side", (~known).sum())
        rows = np.flatnonzero(known)
        source, prompts = source.take(rows), [prompts[i] for i in rows]
        user, validation, values = user[rows], validation[rows], values[rows]
    codes, different = pd.factorize(user)
    usable = ~validation if options.time_column and options.user_column else np.ones(len(user), bool)
    count = np.bincount(codes[usable], minlength=len(different))
    sums = [np.bincount(codes[usable], weights=x[usable], minlength=len(different)) for x in values.T]
    of_user = np.stack(sums, axis=1) / count[:, None]
    if model is None:
        trained = np.unique(codes[~validation])
        model = replace(options.fit(of_user[trained], names, options.user_column), columns=options.cluster_features)
        save_groups(model, output_folder(out) / "groups.json")
        summary.notes.append(f"{len(model.groups)} groups were found among {len(trained):,} users of the training side")
    return source, prompts, user, validation, model.assign(of_user, different.tolist())[codes]


def _kept_columns(source: Source, options: Options) -> dict[str, pa.Array]:
    taken = {"index", "split", "user", "random_group", "seed"} & set(options.keep)
    if taken:
        raise DataError(f"--keep {', '.join(sorted(taken))}: extra_info has fields of that name already; rename them")
    try:
        return {name: pa.array(source.column(name, "--keep"), from_pandas=True) for name in options.keep}
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{source.name}: a column of --keep mixes types ({str(error)[:120]})") from error


def _truths(source: Source, options: Options) -> list[str]:
    if not options.truth_column:
        return [""] * len(source.frame)
    column = source.column(options.truth_column, "--truth-column")
    return [value if isinstance(value, str) else json.dumps(value, default=_plain) for value in column]


def _plain(value: Any) -> Any:
    """numpy's and pandas' values for JSON."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return None if value is pd.NA else str(value)
