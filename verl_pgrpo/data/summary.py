# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a command has read, kept and dropped, for people (`text`) and for programs (`as_dict`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Summary:
    """Counts in the order in which they were made.

    `read` and `dropped` map what was counted to how many; `groups` has a line per preference group; `files` maps
    the files written to their rows; `notes` are sentences that the reader should not miss.
    """

    title: str
    read: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, why: str, count: int) -> None:
        """Count rows that were left out; a reason that never applied is shown too, as zero."""
        self.dropped[why] = self.dropped.get(why, 0) + int(count)

    def as_dict(self) -> dict[str, Any]:
        names = ("title", "read", "dropped", "groups", "files", "notes")
        return {name: getattr(self, name) for name in names}

    def text(self) -> str:
        lines = [self.title]
        for heading, counts in (("read", self.read), ("dropped", self.dropped), ("written", self.files)):
            lines += [f"  {heading:<8}{count:>12,}  {what}" for what, count in counts.items()]
        lines += [f"  {line}" for line in aligned(self.groups)]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def aligned(rows: list[dict[str, Any]], digits: int = 3) -> list[str]:
    """A heading and a line per row, in columns; numbers end, text begins at one place. None is a dash."""
    if not rows:
        return []
    columns = list(rows[0])
    cells = [columns, *([_cell(row[column], digits) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    left = [any(isinstance(row[column], str) for row in rows) for column in columns]
    return [
        "  ".join(
            c.ljust(w) if at_left else c.rjust(w) for c, w, at_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in cells
    ]


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
