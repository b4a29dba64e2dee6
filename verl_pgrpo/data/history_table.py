# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Convert history files to plain tables and back. Columns: `group, count, mean, m2, std, within, within_dof`.

Tables are CSV or JSON Lines. Floats round-trip bit for bit. Reading needs `group`, `count`, `mean`, and `m2` or `std`
(of a sample). It lets a run start from ratings that were collected earlier (`initial_history`).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.data.columns import EXACT, feature_matrix, text_values
from verl_pgrpo.data.user_table import read_user_table
from verl_pgrpo.errors import DataError
from verl_pgrpo.files import atomic_write
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.moments import MAX_MAGNITUDE, Moments

__all__ = ["read_history_table", "write_history_table"]

_WITHIN = ("within", "within_dof")  # optional: the spread within prompts, which baseline=shrinkage uses
_ROUNDING = 0.01  # relative; people round the numbers of a table


def write_history_table(history: GroupHistoryManager, path: Path) -> None:
    """Write one line per group, in the history's order. `path`, a .csv or .jsonl, is replaced atomically."""
    table = history.to_frame()
    if path.suffix == ".csv":
        with atomic_write(path, newline="") as file:  # quoted, because a label may contain a carriage return
            table.to_csv(file, index=False, quoting=csv.QUOTE_NONNUMERIC)
    else:
        with atomic_write(path) as file:  # pandas would round
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_dict("records"))


def read_history_table(path: Path, config: PGRPOConfig) -> GroupHistoryManager:
    """Create a history from a .csv or .jsonl table of counts, means and spreads, with the options of the next run.

    The spreads (`std` or `m2`; `within` with `within_dof`) are of the plain sample or, from `write_history_table`, with
    the forgetting of the same options. `m2` without `std` is of the plain sample.

    Raises:
        DataError: a column is missing, or a value is invalid. The message names file, group and column.
    """
    table = read_user_table(path)
    names = table.data.column_names
    missing = [name for name in ("group", "count", "mean") if name not in names]
    missing += ["m2 or std"] if not {"m2", "std"} & set(names) else []
    within = [name for name in _WITHIN if name in names]
    missing += [name for name in _WITHIN if within and name not in within]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)} (found: {', '.join(names)})")
    group = text_values(table, "group", "history table")
    numbers = [name for name in ("count", "mean", "m2", "std", *_WITHIN) if name in names]
    values = dict(zip(numbers, feature_matrix(table, numbers, "history table")[0].T, strict=True))  # NaN where missing
    unknown = np.full(len(table), np.nan)
    count, mean, m2 = values["count"], values["mean"], values.get("m2", unknown)

    def check(column: str, valid: NDArray[np.bool_], reason: str) -> None:
        if not valid.all():
            row = int(valid.argmin())
            raise DataError(f"{path}, row {row + 1}, group {group[row]!r}, column {column}: {reason}")

    check("group", np.array([label is not None for label in group]), "must be text")
    check("group", ~pd.Series(group).duplicated().to_numpy(), "appears twice")
    check("count", (count >= 1) & (count < EXACT) & (count % 1 == 0), "must be an integer >= 1 and < 2**53")
    check("mean", np.abs(mean) <= MAX_MAGNITUDE, "must be a finite number")
    std = values.get("std", np.sqrt(np.where(m2 >= 0, m2, np.nan) / np.maximum(count - 1, 1)))
    std = np.where((count == 1) & np.isnan(std), 0.0, std)
    spread = "std" if "std" in names else "m2"
    check(spread, (std >= 0) & (std <= MAX_MAGNITUDE), "must be a finite number >= 0")
    check(spread, (count > 1) | (std == 0), "must be 0 for a single reward")
    moments = Moments(len(table), config.half_life)
    moments.count[:], moments.mean[:] = count.astype(np.int64), mean
    moments.m2[:] = std**2 * moments.degrees_of_freedom(moments.count)
    plain = std**2 * (count - 1)
    m2 = np.where(np.isnan(m2), plain, m2)
    same = np.isclose(m2, plain, _ROUNDING, atol=0) | np.isclose(m2, moments.m2, _ROUNDING, atol=0)
    check("m2", same, "contradicts std; leave out one of them, or pass the --half-life of the history")
    if np.allclose(m2, moments.m2, rtol=1e-9, atol=0):
        moments.m2[:] = m2  # exact, whereas m2 computed from std is subject to rounding
    if within:
        moments.within[:], moments.within_dof[:] = (values[name] for name in _WITHIN)
        check("within", moments.within >= 0, "must be a finite number >= 0")
        check("within", moments.within <= m2 * (1 + _ROUNDING), "must not exceed m2")
        valid = (moments.within_dof >= 0) & (moments.within_dof <= count - 1)
        check("within_dof", valid, "must be a number from 0 to count - 1")
        check("within_dof", (moments.within == 0) | (moments.within_dof > 0), "must be > 0 where within is")
        # Of the plain sample, like std: with forgetting they weigh as much as the rewards that they are from.
        weighted = moments.degrees_of_freedom(moments.count)
        plain_sums = moments.within_dof > weighted * (1 + _ROUNDING)
        factor = np.where(plain_sums, weighted / np.maximum(count - 1, 1), 1.0)
        moments.within *= factor
        moments.within_dof *= factor
    return GroupHistoryManager.from_moments([str(label) for label in group], moments, config)
