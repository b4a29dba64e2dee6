# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by all commands: parsing and checks of options, and output as text, strict JSON or tables."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from verl_pgrpo.errors import DataError

__all__ = [
    "JsonOption",
    "SeedOption",
    "check_out",
    "check_unused",
    "emit",
    "format_table",
    "parse_assignments",
    "plain",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Equal arguments give equal bytes.")]


def parse_assignments(assignments: list[str] | None, option: str) -> dict[str, Any]:
    """Parse `NAME=VALUE` options; a value that is neither JSON nor True, False or None is text.

    Raises:
        DataError: no name, or no equals sign.
    """
    found = {}
    for one in assignments or []:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise DataError(f"{option} takes NAME=VALUE, not {one!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = {"True": True, "False": False, "None": None}.get(value, value)
    return found


def check_out(option: str, out: Path | None, *others: Path | None, suffixes: Sequence[str] = ()) -> None:
    """Check the name of an output file before any work is done.

    Raises:
        DataError: `out` is a folder, ends in none of the suffixes, or is one of the command's other files.
    """
    if out is None:
        return
    if out.is_dir():
        raise DataError(f"{option} {out}: is a folder; give a file name")
    if suffixes and out.suffix not in suffixes:
        raise DataError(f"{option} {out}: expected a file name that ends in {' or '.join(suffixes)}")
    for other in filter(None, others):
        if out.resolve() == other.resolve() or (out.exists() and other.exists() and out.samefile(other)):
            raise DataError(f"{option} {out} is also an input or output of this command; choose another name")


def check_unused(context: typer.Context, reason: str, *names: str) -> None:
    """Raise DataError if one of these parameters was given, because it has no effect for this `reason`."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise DataError(f"--{name.replace('_', '-')} has no effect {reason}")


def emit(text: str, data: dict[str, Any], as_json: bool) -> None:
    """Print `text`, or `data` as JSON in which NaN and infinities are null."""
    if not as_json:
        print(text, flush=True)
        return
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(plain(data), ensure_ascii=not unicode, allow_nan=False, indent=1), flush=True)


def format_table(
    rows: Sequence[dict[str, Any]] | pd.DataFrame,
    digits: int = 3,
    most: int | None = None,
    left: str = "more groups; --json has all",
) -> str:
    """Return rows as aligned plain text: numbers to `digits` significant places, missing values as "-".

    With `most`, only the first rows, and a line that counts the others: `(60 <left>)`.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if frame.empty:
        return "(none)"
    shown = frame.head(len(frame) if most is None else most)
    cells = shown.astype(object).map(lambda value: _cell(value, digits))
    numeric = {name: shown[name].map(lambda value: isinstance(value, int | float | np.number)).any() for name in shown}
    width = {name: max(len(str(name)), *map(len, cells[name])) for name in shown}

    def line(values: Sequence[str]) -> str:
        pairs = zip(shown.columns, values, strict=True)
        return "  ".join(v.rjust(width[c]) if numeric[c] else v.ljust(width[c]) for c, v in pairs).rstrip()

    lines = [line([str(name) for name in shown]), *map(line, cells.to_numpy().tolist())]
    if len(frame) > len(shown):
        lines.append(f"({len(frame) - len(shown):,} {left})")
    return "\n".join(lines)


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
    """Convert numpy scalars, and replace NaN and infinities, which JSON cannot represent, by None."""
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple | np.ndarray):
        return [plain(value) for value in data]
    if isinstance(data, np.generic):
        data = data.item()
    return None if isinstance(data, float) and not math.isfinite(data) else data
