# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Columns of a user table as text, numbers or times. Integers never become floats, and missing values stay missing."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from verl_pgrpo.data.user_table import UserTable
from verl_pgrpo.errors import DataError
from verl_pgrpo.groups import describe_code_points

Matrix = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MOST_NAMED = 5  # labels with several spellings
EXACT = 2.0**53  # from here on, a float no longer holds every integer


def text_values(table: UserTable, name: str, option: str) -> list[str | None]:
    """Return a column of text, numbers or dates as text; None where the value is missing, not finite or blank.

    Whole floats are written as integers, because pandas stores integers as floats if some are missing. Any other type,
    and floats too large to be exact, raise DataError.
    """
    column = table.column(name, option)
    if isinstance(column, pa.ExtensionArray):
        column = pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    if pa.types.is_floating(column.type):
        column = _finite(column.cast(pa.float64()) if column.type == pa.float16() else column)
        largest = pc.max(pc.abs(column)).as_py()
        if largest is not None and largest >= EXACT:
            raise DataError(
                f"{table.name}: column {name!r} ({option}) holds floats of 2**53 or more, or integers stored as "
                "floats, which are not exact; store them as integers or as text"
            )
    try:
        texts = column.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        reason = f"holds {column.type}; expected text, numbers or dates"
        raise DataError(f"{table.name}: column {name!r} ({option}) {reason}") from error
    return [text if text is not None and text.strip() else None for text in texts]


def label_values(table: UserTable, name: str, option: str, notes: list[str]) -> list[str | None]:
    """Return `text_values` as labels: without white space at the ends, in Unicode's NFC.

    `notes` gets a line with counts for each label that has several spellings in the column.
    """
    texts = text_values(table, name, option)
    rows = Counter(text for text in texts if text is not None)
    label_of = {text: unicodedata.normalize("NFC", text.strip()) for text in rows}
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for text, label in label_of.items():
        spellings[label].append(text)
    merged = [same for same in spellings.values() if len(same) > 1]
    for same in merged[:MOST_NAMED]:
        counts = "; ".join(f"{describe_code_points(text)} {rows[text]:,} rows" for text in same)
        notes.append(f"column {name!r} ({option}): {len(same)} spellings are one label: {counts}")
    if len(merged) > MOST_NAMED:
        notes.append(f"column {name!r} ({option}): {len(merged) - MOST_NAMED:,} more labels have several spellings")
    return [text if text is None else label_of[text] for text in texts]


def truth_values(table: UserTable, name: str, option: str) -> list[str | None]:
    """Return `text_values`; lists and structs become JSON, without members that are null."""
    if not pa.types.is_nested(table.column(name, option).type):
        return text_values(table, name, option)
    return [None if value is None else _json(value) for value in table.column(name, option).to_pylist()]


def kept_values(table: UserTable, name: str, option: str) -> tuple[pa.Array, Flags]:
    """Return a column in its own type, and where it is missing."""
    column = table.column(name, option)
    if pa.types.is_floating(column.type):
        column = _finite(column)
    return column, column.is_null().to_numpy(zero_copy_only=False)


def time_ranks(table: UserTable, name: str, option: str) -> tuple[npt.NDArray[np.int64], Flags]:
    """Return the dense rank of each row's time (N,), and where it is missing.

    Only the order of times matters, and ranks have no unit and no rounding. Text must hold numbers or ISO 8601
    dates; anything else is a DataError.
    """
    column = table.column(name, option)
    if pa.types.is_floating(column.type):
        column = _finite(column.cast(pa.float64()))
    if not (_is_number(column.type) or pa.types.is_temporal(column.type)) or pa.types.is_interval(column.type):
        texts = pa.array(text_values(table, name, option), pa.string())
        column = _parsed_times(table, name, texts)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    ranks = pc.rank(column, sort_keys="ascending", tiebreaker="dense")
    return ranks.to_numpy().astype(np.int64), missing


def feature_matrix(table: UserTable, columns: Sequence[str], option: str) -> tuple[Matrix, list[str]]:
    """Return number columns, and columns of equally long lists such as embeddings, as one matrix.

    Returns (N, D) values, NaN where missing or not finite, and D names: `x[0]`, `x[1]`, ... for lists in column `x`. A
    column that is missing or holds something else raises DataError.
    """
    parts: list[Matrix] = []
    names: list[str] = []
    for name in columns:
        column = table.column(name, option)
        if any(check(column.type) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
            parts.append(_lists(table, name, column))
            names += [f"{name}[{i}]" for i in range(parts[-1].shape[1])]
        else:
            parts.append(_numbers(table, name, column, option)[:, None])
            names.append(name)
    if not parts:
        raise DataError(f"{table.name}: no columns to cluster by ({option})")
    matrix = np.concatenate(parts, axis=1)
    return np.where(np.isfinite(matrix), matrix, np.nan), names


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _finite(column: pa.Array) -> pa.Array:
    """Return floats with null for NaN and infinities."""
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))


def _json(value: Any) -> str | None:
    """Return JSON, or None if there is a NaN inside."""
    try:
        return json.dumps(without_nulls(value), ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return None


def without_nulls(value: Any) -> Any:
    """Arrow gives every struct the members of all structs in its column; the members a row does not have are null."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def _parsed_times(table: UserTable, name: str, texts: pa.Array) -> pa.Array:
    for kind in (pa.int64(), pa.float64()):
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    series = pd.Series(texts.to_pylist(), dtype=object)
    times = pd.to_datetime(series, errors="coerce", utc=True, format="ISO8601")
    wrong = (times.isna() & series.notna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        reason = f"is neither a number nor an ISO 8601 date: {series[row][:40]!r}"
        raise DataError(f"{table.where(row)}: column {name!r} {reason}")
    return pa.array(times)


def _numbers(table: UserTable, name: str, column: pa.Array, option: str) -> Matrix:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if table.text_only:
        try:
            column = pc.utf8_trim_whitespace(column).cast(pa.float64())
        except pa.ArrowInvalid as error:
            texts = pd.Series(column.to_pylist(), dtype=object)
            row = int((pd.to_numeric(texts, errors="coerce").isna() & texts.notna()).argmax())
            reason = f"column {name!r} is not a number ({option}): {str(texts[row])[:40]!r}"
            raise DataError(f"{table.where(row)}: {reason}") from error
    if not (_is_number(column.type) or pa.types.is_null(column.type)):
        raise DataError(f"{table.name}: column {name!r} is not a number ({option}), it holds {column.type}")
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _lists(table: UserTable, name: str, column: pa.Array) -> Matrix:
    kind = column.type.value_type
    if not (_is_number(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{table.name}: column {name!r} holds lists of {kind}; expected lists of numbers")
    present = column.drop_null()
    lengths = pc.list_value_length(present).to_numpy(zero_copy_only=False)
    if not len(lengths):
        return np.full((len(column), 1), np.nan)
    if lengths.min() != lengths.max() or not lengths[0]:
        raise DataError(f"{table.name}: the lists in column {name!r} have {lengths.min()} to {lengths.max()} numbers; "
                        "all must have the same number, at least 1")  # fmt: skip
    values = np.full((len(column), int(lengths[0])), np.nan)
    flat = present.flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    values[column.is_valid().to_numpy(zero_copy_only=False)] = flat.reshape(-1, int(lengths[0]))
    return values
