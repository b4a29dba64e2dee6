# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What commands print: text for people, strict JSON for programs, tables."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

__all__ = ["JsonOption", "SeedOption", "emit", "format_table", "plain"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Equal arguments give equal bytes.")]


def emit(text: str, data: dict[str, Any], as_json: bool) -> None:
    """Print `text`, or `data` as JSON in which NaN and infinities are null."""
    if not as_json:
        print(text, flush=True)
        return
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(plain(data), ensure_ascii=not unicode, allow_nan=False, indent=1), flush=True)


def format_table(rows: Sequence[dict[str, Any]] | pd.DataFrame, digits: int = 3) -> str:
    """Return rows as aligned plain text: numbers to `digits` significant places, missing values as "-"."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if frame.empty:
        return "(none)"
    cells = frame.astype(object).map(lambda value: _cell(value, digits))
    numeric = {
        column: frame[column].map(lambda value: isinstance(value, (int, float, np.number))).any() for column in frame
    }
    width = {column: max(len(str(column)), *map(len, cells[column])) for column in frame}

    def line(values: Sequence[str]) -> str:
        pairs = zip(frame.columns, values, strict=True)
        return "  ".join(v.rjust(width[c]) if numeric[c] else v.ljust(width[c]) for c, v in pairs).rstrip()

    return "\n".join([line([str(column) for column in frame.columns]), *map(line, cells.to_numpy().tolist())])


def _cell(value: Any, digits: int) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return f"{number:.{digits}g}" if abs(number) < 1e5 else f"{number:,.0f}"
    return " ".join(str(value).split()) if str(value).strip() else repr(value)


def plain(data: Any) -> Any:
    """Convert numpy scalars, and replace NaN and infinities, which JSON does not have, by None."""
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple | np.ndarray):
        return [plain(value) for value in data]
    if isinstance(data, np.generic):
        data = data.item()
    return None if isinstance(data, float) and not math.isfinite(data) else data
