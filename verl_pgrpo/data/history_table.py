# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A history as a plain table that any tool reads; and a table of one's own as a history.

Columns: `group, count, mean, m2, std`. Floats are written so that they read back to the same bits. The way back needs
`group`, `count`, `mean`, and `m2` or `std` (of a sample): to start a run from ratings that were collected before it. A
table has no options: what comes back is a cumulative history.
"""

from __future__ import annotations

import csv
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.tables import Source, read_table
from verl_pgrpo.factor import Factor
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.moments import MAX_MAGNITUDE, Moments


def write_history_table(history: GroupHistoryManager, path: Path) -> None:
    """Write a line per group (.csv or .jsonl), in the history's order; `path` is replaced when all is written.

    Raises:
        DataError: another format.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise DataError(f"{path}: expected a name that ends in .csv or .jsonl (in .parquet for a history)")
    groups, moments = history.groups, history._moments
    columns: dict[str, Any] = {"group": groups, "count": moments.count[: len(groups)]}
    columns |= {"mean": moments.mean[: len(groups)], "m2": moments.m2[: len(groups)]}
    table = pd.DataFrame({**columns, "std": history.statistics(groups).std})
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False, quoting=csv.QUOTE_NONNUMERIC)  # a name may hold a carriage return
        else:
            with open(temporary, "x", encoding="utf-8") as file:  # pandas would round
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_dict("records"))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def history_of_table(path: Path) -> GroupHistoryManager:
    """A cumulative history from a table's counts, means and spreads.

    Raises:
        DataError: a column is missing, or a row is no statistic; the message says which.
    """
    source = read_table(path)
    labels = source.column("group", "the group's name").tolist()
    moments = Moments(len(labels))
    count, moments.mean[:] = _numbers(source, "count"), _numbers(source, "mean")
    _refuse(source, (count < 1) | (count != np.floor(count)) | (count > 2**53), "count must be a whole number from 1")
    moments.count[:] = count
    if "m2" in source.frame:
        moments.m2[:] = _numbers(source, "m2")
    else:
        std = np.where(count > 1, _numbers(source, "std", missing=0.0), 0.0)
        _refuse(source, std < 0, "std must be a number from 0")
        moments.m2[:] = std**2 * (count - 1)
    _refuse(source, ~(np.abs(moments.mean) <= MAX_MAGNITUDE), "mean must be a finite number")
    _refuse(source, ~(moments.m2 >= 0) | np.isinf(moments.m2), "m2 or std must be a number from 0")
    _refuse(source, (count == 1) & (moments.m2 > 0), "m2 must be 0, as one reward has no spread")
    _refuse(source, [not isinstance(label, str) or not label for label in labels], "group must be text")
    _refuse(source, pd.Series(labels).duplicated().to_numpy(), "the group appears a second time")

    history = GroupHistoryManager()
    history._moments.merge(history._rows(Factor.of(labels)), moments)
    pool, mean = Moments(1), np.average(moments.mean, weights=moments.count)
    pool.count[0], pool.mean[0] = moments.count.sum(), mean
    pool.m2[0] = (moments.m2 + moments.count * (moments.mean - mean) ** 2).sum()
    history._pool = pool
    return history


def _numbers(source: Source, name: str, missing: float | None = None) -> NDArray[np.float64]:
    column = source.column(name, "m2 or std is needed" if name in ("m2", "std") else f"the group's {name}")
    if missing is not None:
        column = column.replace("", None).fillna(missing)
    try:
        return np.array([float(value) for value in column])
    except (TypeError, ValueError):
        wrong = pd.to_numeric(column, errors="coerce").isna().to_numpy()
        _refuse(source, wrong, f"{name} is no number")
        raise


def _refuse(source: Source, wrong: Any, what: str) -> None:
    if np.any(wrong):
        raise DataError(f"{source.where(int(np.argmax(wrong)))}: {what}")
