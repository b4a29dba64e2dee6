# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A run's responses as columns: step, preference group, reward, and the value that is compared.

They come from the rollout dumps; of a run without dumps, from P-GRPO's metrics, where a group's mean reward in a step
stands for its responses, or from the validation of every `<task>/<group>`.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.report.dumps import GroupsOfData, GroupsOfField, Step, dump_files
from verl_pgrpo.report.run_folder import RunFolder, Series

Groups = GroupsOfData | GroupsOfField

FIELDS = ("preference_group", "gts.preference_group", "gts.persona", "gts.group")
"""Where dumps may name the preference group; tried in this order."""


@dataclass(frozen=True)
class Responses:
    """N responses, or means of several. `groups` are codes into the labels of all runs, `weight` says how many each is.

    `reward` is what training saw, `value` what is compared; both (N,) float64, NaN where unknown. `unknown` responses
    have no known preference group and are left out.
    """

    steps: NDArray[np.int64]
    groups: NDArray[np.int64]
    reward: NDArray[np.float64]
    value: NDArray[np.float64]
    weight: NDArray[np.float64]
    source: str
    unknown: int = 0


def find_groups(run: RunFolder, data: Sequence[Path], field: str | None, key: str) -> Groups | None:
    """Where the preference groups of a run's responses stand; None if nothing tells.

    What the user named comes first, then the dumps themselves, then the training data that the configuration names or
    that lies beside the run.
    """
    if data:
        return GroupsOfData.of(data, key)
    if field:
        return GroupsOfField(field)
    assert run.rollouts is not None
    some = [row for file in dump_files(run.rollouts)[:2] for row in _first_rows(file, 20)]
    if key == "preference_group":
        for name in FIELDS:
            groups = GroupsOfField(name)
            if some and all(groups.group(row) is not None for row in some):
                return groups
    named = run.option("data.train_files", [])
    files = [Path(str(file)) for file in (named if isinstance(named, list) else [named])]
    beside = [run.path / "train.parquet", run.path / "data/train.parquet", run.path.parent / "data/train.parquet"]
    for choice in (files, *([file] for file in beside)):
        if choice and all(file.is_file() for file in choice):
            try:
                return GroupsOfData.of(choice, key)
            except DataError:  # a run without P-GRPO may have had data without groups
                continue
    return None


def has_utility(run: RunFolder) -> bool:
    """Can the users' utility be told from a run's dumps?"""
    if run.rollouts is None:
        return False
    # A first dump may be empty, and a response or another without one: of those the page says that they are left out.
    rows = next(filter(None, (_first_rows(file, 20) for file in dump_files(run.rollouts))), [])
    return any(not math.isnan(value_of(row, "utility")) for row in rows)


def value_of(row: Mapping[str, Any], name: str) -> float:
    """A number of a dumped response: a field of it, or `utility`, which for personas is read from the text.

    NaN where the response has none.
    """
    found = row.get(name)
    if isinstance(found, int | float):
        try:
            return float(found)
        except OverflowError:  # an integer of hundreds of digits
            return math.nan
    if name == "utility" and '"persona"' in str(row.get("gts")):
        from verl_pgrpo.rewards.personas import utility

        try:
            return utility(str(row["output"]), str(row["gts"]))
        except (KeyError, TypeError, ValueError, RecursionError):
            return math.nan
    return math.nan


class Collector:
    """Reads runs one after the other; `labels` are the preference groups of all, in the order of their appearance."""

    def __init__(self, value: str) -> None:
        self._value = value
        self._codes: dict[str, int] = {}

    @property
    def labels(self) -> list[str]:
        return list(self._codes)

    def dumps(self, steps: Iterable[Step]) -> Responses:
        """Of a run's dumps, read step by step."""
        number, group, reward, value = array("q"), array("q"), array("d"), array("d")
        unknown = 0
        for step in steps:
            unknown += step.unknown
            number.extend([step.number] * len(step.groups))
            group.extend(self._code(label) for label in step.groups)
            reward.extend(step.rewards.tolist())
            if self._value == "score":
                value.extend(step.rewards.tolist())
            else:
                value.extend(value_of(row, self._value) for row in step.rows)
        values = np.array(value)
        values[~np.isfinite(values)] = np.nan
        return Responses(
            np.array(number), np.array(group), np.array(reward), values, np.ones(len(values)), "rollouts", unknown
        )

    def metrics(self, series: Mapping[str, Series], names: Mapping[str, str]) -> Responses:
        """Of P-GRPO's metrics, `names` giving the group of each name that was logged; else of validations."""
        parts = [
            (names.get(label, label), at, values, _new_rewards(series.get(f"pgrpo/{label}/count"), at))
            for label, (at, values) in by_group(series, "reward").items()
            if label != "other_groups"
        ]
        source = "metrics"
        if not parts:
            source = "validation"
            parts = [(group, at, values, np.ones(len(at))) for group, (at, values) in _validations(series)]
        codes = [np.full(len(at), self._code(label)) for label, at, _, _ in parts]
        columns = [
            np.concatenate(column) if parts else np.zeros(0) for column in ([p[i] for p in parts] for i in (1, 2, 3))
        ]
        where = np.concatenate(codes) if parts else np.zeros(0, dtype=np.int64)
        steps, values, weight = columns
        return Responses(steps.astype(np.int64), where, values, values, weight, source)

    def _code(self, label: str) -> int:
        return self._codes.setdefault(label, len(self._codes))


def by_group(series: Mapping[str, Series], what: str) -> dict[str, Series]:
    """The series `pgrpo/<group>/<what>`, by the name that the group was logged under."""
    found = {}
    for name, values in series.items():
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == "pgrpo" and parts[2] == what and parts[1] != "worst_group":
            found[parts[1]] = values
    return found


def _new_rewards(count: Series | None, at: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many rewards a group got in each step, from the size of its history.

    Where the log begins later, with a resumed run or a group that was too small to be logged, the first size may be
    that of a long past: then it counts for as much as a usual step.
    """
    if count is None or not np.array_equal(np.intersect1d(count[0], at), at):
        return np.ones(len(at))
    grown = np.diff(count[1], prepend=0.0)
    if count[0][0] > 1:
        grown[0] = min(grown[0], np.median(grown[1:]) if len(grown) > 1 else 1.0)
    grown = grown[np.isin(count[0], at)]
    return np.where(grown > 0, grown, 1.0)


def _validations(series: Mapping[str, Series]) -> list[tuple[str, Series]]:
    """`val-core/<task>/<group>/reward/mean@n`: the group's mean reward in each validation."""
    found = []
    for name, values in series.items():
        parts = name.split("/")
        if parts[0] == "val-core" and len(parts) >= 5 and parts[-1].startswith("mean@"):
            found.append(("/".join(parts[2:-2]), values))
    return found


def _first_rows(file: Path, count: int) -> list[dict[str, Any]]:
    rows = []
    with open(file, encoding="utf-8", errors="replace") as lines:
        for _, line in zip(range(count), lines, strict=False):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if isinstance(row, dict):
                rows.append(row)
    return rows
