# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""History files to and from plain tables (CSV or JSON Lines) with the columns `group, count, mean, m2, std, within,
within_dof`.

Floats are written so that they read back to the same bits. The way back needs `group`, `count`, `mean`, and `m2` or
`std` (of a sample). It lets a run start from ratings that were collected before it (`initial_history`).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import DataError
from verl_pgrpo.files import atomic_write
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.moments import MAX_MAGNITUDE, Moments

__all__ = ["read_history_table", "write_history_table"]

_WITHIN = ["within", "within_dof"]  # optional: the spread within prompts, which baseline=shrinkage uses
_FLOATS = ["mean", "m2", "std", *_WITHIN]
_TYPES = {"group": pa.string(), "count": pa.int64(), **dict.fromkeys(_FLOATS, pa.float64())}


def write_history_table(history: GroupHistoryManager, path: Path) -> None:
    """Write one line per group, in the history's order. `path` is replaced atomically."""
    table = history.to_frame()
    if path.suffix == ".csv":
        with atomic_write(path, newline="") as file:  # a label may hold a carriage return, hence the quotes
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
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    table = _read(path)
    if table.columns.has_duplicates:
        raise DataError(f"{path}: a column appears twice ({', '.join(map(str, table.columns))})")
    missing = [name for name in ("group", "count", "mean") if name not in table]
    missing += ["m2 or std"] if "m2" not in table and "std" not in table else []
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)} (found: {', '.join(map(str, table))})")
    count, mean = table["count"].to_numpy(np.float64), table["mean"].to_numpy(np.float64)
    if "std" in table:
        std = np.where(count > 1, table["std"].to_numpy(np.float64), 0.0)
    else:
        m2 = table["m2"].to_numpy(np.float64)
        std = np.sqrt(np.where(m2 >= 0, m2, np.nan) / np.maximum(count - 1, 1))
    within = [name for name in _WITHIN if name in table]
    for wrong, reason in (
        (table["group"].isna() | (table["group"] == ""), "group must be text"),
        (table["group"].duplicated(), "the group appears twice"),
        (~(count >= 1), "count must be an integer >= 1"),
        (~(np.abs(mean) <= MAX_MAGNITUDE), "mean must be a finite number"),
        (~((std >= 0) & (std <= MAX_MAGNITUDE)), "m2 or std must be a finite number >= 0"),
        ((count == 1) & (std > 0), "m2 must be 0 for a single reward"),
        *((~((table[name] >= 0) & (table[name] < np.inf)), f"{name} must be a finite number >= 0") for name in within),
    ):
        if np.any(wrong):
            raise DataError(f"{path}, row {int(np.argmax(wrong)) + 1}: {reason}")
    config = config or PGRPOConfig()
    moments = Moments(len(table), config.half_life)
    moments.count[:], moments.mean[:] = count.astype(np.int64), mean
    moments.m2[:] = std**2 * moments.degrees_of_freedom(moments.count)
    if "m2" in table and np.allclose(table["m2"], moments.m2, rtol=1e-9, atol=0):
        moments.m2[:] = table["m2"]  # the value of a history file, which std gives back to the last place only
    if within == _WITHIN:
        moments.within[:], moments.within_dof[:] = table["within"], table["within_dof"]
    return GroupHistoryManager.from_moments(table["group"].tolist(), moments, config)


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            options = pyarrow.csv.ConvertOptions(column_types=_TYPES, strings_can_be_null=False)
            parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
            table = pyarrow.csv.read_csv(path, convert_options=options, parse_options=parse)
        elif path.suffix == ".jsonl":
            schema = pyarrow.json.ParseOptions(explicit_schema=pa.schema(list(_TYPES.items())))
            table = pyarrow.json.read_json(path, parse_options=schema)
            empty = [name for name in table.column_names if table[name].null_count == len(table)]
            table = table.drop_columns(empty)  # columns of the schema that the file does not have
        else:
            raise DataError(f"{path}: the name must end in .csv or .jsonl")
    except pa.ArrowException as error:
        raise DataError(f"{path}: {error}") from error
    return table.to_pandas(integer_object_nulls=True)
