# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The result of a data command: counts of rows read, dropped and written, and warnings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from verl_pgrpo.groups import describe_code_points, look_alikes, shortened, spells_missing

FEW_ROWS = 30  # with fewer, the standard error of a rate near 0.5 exceeds 0.09


@dataclass
class Summary:
    """Counts in the order in which they were made.

    `read` and `dropped` map a description to a count, `files` a path to its rows. `groups` has one row per preference
    group. `notes` explain the result; `warnings` describe likely mistakes.
    """

    title: str
    read: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def drop(self, reason: str, count: int) -> None:
        """Count dropped rows. A reason with count 0 is also listed, to show that it was checked."""
        self.dropped[reason] = self.dropped.get(reason, 0) + int(count)

    def warn_small_groups(self) -> None:
        """Warn about groups with too few validation rows to measure, or with no training rows."""
        few = [f"{row['group']} ({row['val']})" for row in self.groups if row["val"] < FEW_ROWS]
        if few:
            total = sum(row["val"] for row in self.groups)
            self.warnings.append(
                f"the validation split has {total:,} rows; {len(few)} of {len(self.groups)} groups have fewer than "
                f"{FEW_ROWS}, too few to compare groups: {shortened(few, 10)}"
            )
        untrained = [row["group"] for row in self.groups if not row["train"]]
        if untrained:
            self.warnings.append(f"groups with validation rows but no training rows: {shortened(untrained, 10)}")

    def warn_labels(self, labels: Iterable[str]) -> None:
        """Warn about labels that look the same to a reader, and about labels that spell a missing value."""
        labels = sorted(labels)
        for alike in look_alikes(labels):
            shown = "; ".join(describe_code_points(label) for label in alike)
            self.warnings.append(f"group labels that look alike but differ: {shown}")
        words = list(filter(spells_missing, labels))
        if words:
            self.warnings.append(f"group labels that usually mean a missing value: {', '.join(map(repr, words))}")
