# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Columns of a table as a matrix to cluster by: numbers, truth values, and lists of numbers such as embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.tables import Source

Matrix = npt.NDArray[np.float64]


def feature_matrix(source: Source, columns: Sequence[str], option: str = "--features") -> tuple[Matrix, list[str]]:
    """The (N, D) matrix of these columns and a name for each of its columns; `x[0]`, `x[1]`, ... for a list in `x`.

    Raises:
        DataError: a column is missing, or a value is missing, infinite or no number; the message names its line.
    """
    parts: list[Matrix] = []
    names: list[str] = []
    for name in columns:
        column = source.column(name, option)
        first = next((value for value in column if value is not None), None)
        if isinstance(first, (list, tuple, np.ndarray)):
            parts.append(_lists(source, name, column))
            names += [f"{name}[{i}]" for i in range(parts[-1].shape[1])]
        else:
            parts.append(_numbers(source, name, column)[:, None])
            names.append(name)
    if not parts:
        raise DataError(f"{source.name}: no columns to cluster by; name them with {option}")
    matrix = np.concatenate(parts, axis=1)
    wrong = np.argwhere(~np.isfinite(matrix))
    if len(wrong):
        row, place = wrong[0]
        raise DataError(f"{source.where(int(row))}: {names[place]} is missing or not finite")
    return matrix, names


def default_features(source: Source, leave_out: Sequence[str | None]) -> list[str]:
    """All columns but those named; which of them are no numbers is said when they are read."""
    return [str(name) for name in source.frame.columns if name not in leave_out]


def _numbers(source: Source, name: str, column: pd.Series) -> Matrix:
    try:
        if source.text_only or pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        pass
    values = np.empty(len(column))
    for row, value in enumerate(column):
        try:
            if isinstance(value, str) and not source.text_only:
                raise ValueError
            values[row] = float(value)
        except (ValueError, TypeError) as error:
            shown = "missing" if value is None or value == "" else f"not a number: {str(value)[:40]!r}"
            raise DataError(
                f"{source.where(row)}: column {name!r} is {shown}; name the columns to cluster by with --features, "
                "and encode text as numbers first"
            ) from error
    return values


def _lists(source: Source, name: str, column: pd.Series) -> Matrix:
    width = None
    rows = []
    for row, value in enumerate(column):
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise DataError(f"{source.where(row)}: column {name!r} is not a list of numbers") from error
        width = numbers.shape if width is None else width
        if numbers.ndim != 1 or numbers.shape != width or not numbers.size:
            raise DataError(f"{source.where(row)}: column {name!r} is not a list of {width[0] if width else 0} numbers")
        rows.append(numbers)
    return np.stack(rows)
