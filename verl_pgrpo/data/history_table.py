# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""History files to and from plain tables (CSV or JSON Lines) with the columns `group, count, mean, m2, std, within,
within_dof`.

Floats round-trip bit for bit. Reading needs `group`, `count`, `mean`, and `m2` or `std` (of a sample). It lets a run
start from ratings that were collected earlier (`initial_history`).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.data.columns import feature_matrix, text_values
from verl_pgrpo.data.user_table import read_user_table
from verl_pgrpo.errors import DataError
from verl_pgrpo.files import atomic_write
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.moments import MAX_MAGNITUDE, Moments

__all__ = ["read_history_table", "write_history_table"]

_WITHIN = ("within", "within_dof")  # optional: the spread within prompts, which baseline=shrinkage uses


def write_history_table(history: GroupHistoryManager, path: Path) -> None:
    """Write one line per group, in the history's order. `path`, a .csv or .jsonl, is replaced atomically."""
    table = history.to_frame()
    if path.suffix == ".csv":
        with atomic_write(path, newline="") as file:  # quoted, because a label may contain a carriage return
            table.to_csv(file, index=False, quoting=csv.QUOTE_NONNUMERIC)
    elif path.suffix == ".jsonl":
        with atomic_write(path) as file:  # pandas would round
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_dict("records"))
    else:
        raise DataError(f"{path}: the name must end in .csv or .jsonl (or in .parquet for a history file)")


def read_history_table(path: Path, config: PGRPOConfig | None = None) -> GroupHistoryManager:
    """Create a history from a .csv or .jsonl table of counts, means and spreads, with the options of the next run.

    `std` (or `m2`) are of the plain sample, without forgetting.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise DataError(f"{path}: the name must end in .csv or .jsonl")
    table = read_user_table(path)
    names = table.data.column_names
    missing = [name for name in ("group", "count", "mean") if name not in names]
    missing += ["m2 or std"] if not {"m2", "std"} & set(names) else []
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)} (found: {', '.join(names)})")
    group = text_values(table, "group", "history table")
    numbers = [name for name in ("count", "mean", "m2", "std", *_WITHIN) if name in names]
    values = dict(zip(numbers, feature_matrix(table, numbers, "history table")[0].T, strict=True))  # NaN where missing
    count, mean, m2 = values["count"], values["mean"], values.get("m2", np.zeros(len(table)))
    std = values.get("std", np.sqrt(np.where(m2 >= 0, m2, np.nan) / np.maximum(count - 1, 1)))
    std = np.where((count == 1) & np.isnan(std), 0.0, std)
    within = [name for name in _WITHIN if name in names]
    for wrong, reason in (
        (np.array([label is None for label in group]), "group must be text"),
        (pd.Series(group).duplicated().to_numpy(), "the group appears twice"),
        (~((count >= 1) & (count % 1 == 0)), "count must be an integer >= 1"),
        (~(np.abs(mean) <= MAX_MAGNITUDE), "mean must be a finite number"),
        (~((std >= 0) & (std <= MAX_MAGNITUDE)), "m2 or std must be a finite number >= 0"),
        ((count == 1) & (std > 0), "m2 must be 0 for a single reward"),
        *((~(values[name] >= 0), f"{name} must be a finite number >= 0") for name in within),
    ):
        if wrong.any():
            raise DataError(f"{path}, row {int(wrong.argmax()) + 1}: {reason}")
    config = config or PGRPOConfig()
    moments = Moments(len(table), config.half_life)
    moments.count[:], moments.mean[:] = count.astype(np.int64), mean
    moments.m2[:] = std**2 * moments.degrees_of_freedom(moments.count)
    if "m2" in values and np.allclose(m2, moments.m2, rtol=1e-9, atol=0):
        moments.m2[:] = m2  # exact, whereas m2 computed from std is subject to rounding
    if len(within) == 2:
        moments.within[:], moments.within_dof[:] = values["within"], values["within_dof"]
    return GroupHistoryManager.from_moments([str(label) for label in group], moments, config)
