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
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from verl_pgrpo.errors import DataError

STEP = "training/global_step"  # verl writes it with every training step; dumps are numbered by it
START_SECONDS = 10.0  # verl takes longer to start; files that are copied together are written at shorter intervals


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
    """Metrics files (`*.jsonl`) in a folder, in the order in which they were written."""
    files = [file for file in folder.glob("*.jsonl") if not file.stem.isdecimal() and is_log(file)]
    return _in_order_of_writing(files) if len(files) > 1 else files


def _in_order_of_writing(files: Sequence[Path]) -> list[Path]:
    # A start of verl overwrites its log file, so users name a new one for each; the recipes number them. Modification
    # times are lost in copies and change if a file is edited. So the first of these orders counts in which each file
    # continues steps of earlier ones: by the recipes' numbers; by time, where files of nearly equal times, as in a
    # copied folder, count as one and are sorted by step; by first step, because a resumed run usually starts later.
    spans = {file: _span(file) for file in files}
    times = {file: file.stat().st_mtime for file in files}
    by_step = sorted(files, key=lambda file: (spans[file][0], times[file], file.name))
    starts = [later for earlier, later in pairwise(sorted(times.values())) if later - earlier > START_SECONDS]
    by_time = sorted(by_step, key=lambda file: bisect_right(starts, times[file]))
    by_number = sorted(files, key=lambda file: (len(file.name), file.name))
    numbers = ["metrics.jsonl", *(f"metrics_{number}.jsonl" for number in range(2, len(files) + 1))]
    orders = [by_time] if [file.name for file in by_number] != numbers else [by_number, by_time]
    return next((order for order in orders if _is_continuous([spans[file] for file in order])), by_step)


def _is_continuous(spans: Sequence[tuple[int, int]]) -> bool:
    reached = min(first for first, _ in spans) - 2
    for first, last in spans:
        if first > reached + 2:  # a killed run may not have logged the step of its last checkpoint
            return False
        reached = max(reached, last)
    return True


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


def _span(file: Path) -> tuple[int, int]:
    """First and last step; 0 and 0 for a file without steps, or a damaged one, which `read_log` reports."""
    try:
        steps = [step for step, _ in _entries(file)]
    except DataError:
        steps = []
    return (steps[0], max(steps)) if steps else (0, 0)
