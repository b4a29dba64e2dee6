# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Read the metrics of verl's `file` logger: one JSON object per line, `{"step": ..., "data": {name: value}}`.

verl truncates its log file whenever it starts, so a run that was resumed usually has several files. A run that is
killed at step 10 and resumed from the checkpoint of step 5 logs steps 6 to 10 twice, or never reaches 10 again. Lines
that were written later win: as soon as a log goes back to a step, the lines that were written earlier for this step
and for all later ones belong to an abandoned branch and are dropped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from verl_pgrpo.errors import DataError

STEP = "training/global_step"  # verl writes it with every training step; dumps are numbered by it


@dataclass(frozen=True)
class MetricsLog:
    """Metrics of one run.

    Attributes:
        frame: float64, one row per step (the index, ascending) and one column per metric; NaN where not logged.
        abandoned: steps that only an abandoned branch reached.
    """

    frame: pd.DataFrame
    abandoned: tuple[int, ...] = ()

    @property
    def training_steps(self) -> tuple[int, int] | None:
        """First and last training step of the log, or None if it is empty."""
        steps = self.frame[STEP].dropna() if STEP in self.frame else self.frame.index
        return (int(min(steps)), int(max(steps))) if len(steps) else None

    def series(self, name: str) -> pd.Series:
        """A metric over the steps that logged it; empty if none did."""
        return self.frame[name].dropna() if name in self.frame else pd.Series(dtype=float)


def find_logs(folder: Path) -> list[Path]:
    """Metrics files (`*.jsonl`) in a folder, in the order in which they were written.

    A resumed run starts at a later step than the run it resumes. Modification times only break ties, because they do
    not survive every copy.
    """
    files = [file for file in folder.glob("*.jsonl") if not file.stem.isdecimal() and is_log(file)]
    return sorted(files, key=lambda file: (_first_step(file) or 0, file.stat().st_mtime, file.name))


def is_log(file: Path) -> bool:
    """Whether a file is one of verl's `file` logger, by its first line or, if that is damaged, its name."""
    return _first_step(file) is not None or file.name.startswith("metrics")


def read_log(files: Sequence[Path], prefixes: tuple[str, ...] = ()) -> MetricsLog:
    """Read the metrics whose names start with one of `prefixes`, without those of abandoned branches.

    A validation before or after training has a separate line; it adds to the metrics of its step. A cut-off last
    line, which a killed run leaves behind, is skipped.

    Raises:
        DataError: another line is damaged. The message names file and line.
    """
    rows: dict[int, dict[str, float]] = {}
    abandoned: set[int] = set()
    for file in files:
        previous = None
        for step, data in _entries(file):
            if previous is None or step < previous:
                validation_only = STEP not in data and any(name.startswith("val-") for name in data)
                dropped = {old for old in rows if old > step or (old == step and not validation_only)}
                rows = {old: row for old, row in rows.items() if old not in dropped}
                abandoned |= dropped
            previous = step
            rows.setdefault(step, {}).update(
                (sys.intern(name), float(value))
                for name, value in data.items()
                if isinstance(value, int | float) and (name == STEP or name.startswith(prefixes))
            )
    frame = pd.DataFrame.from_dict(rows, orient="index", dtype="float64").sort_index()
    return MetricsLog(frame, tuple(sorted(abandoned - rows.keys())))


def _entries(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line, parse_int=float)  # an integer of 400 digits becomes infinite
                yield int(entry["step"]), dict(entry["data"])
            except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return
                raise DataError(f"{file}, line {number}: not an entry of verl's file logger ({error!r})") from error


def _first_step(file: Path) -> int | None:
    try:
        return next(_entries(file))[0]
    except (DataError, StopIteration):
        return None
