# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Compare the groups of a restored reward history with those of the training data."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from verl_pgrpo.groups import shortened

__all__ = ["GroupMismatch", "compare_groups"]


@dataclass(frozen=True, slots=True)
class GroupMismatch:
    """How the groups of a history and of the data differ.

    Attributes:
        severity: `error` if they have no group in common, `warning` if the data lack some groups of the history,
            `note` if only the data have more: the history has not seen these yet.
        message: one sentence with counts and examples.
    """

    severity: str
    message: str


def compare_groups(history: Collection[str], data: Collection[str]) -> GroupMismatch | None:
    """Return how the groups of a history and of the training data differ; None if they do not, or if one is empty."""
    old, new = set(history), set(data)
    if not old or not new or old == new:
        return None
    gone, added = sorted(old - new), sorted(new - old)
    if len(gone) == len(old):
        return GroupMismatch(
            "error",
            f"the reward history and the training data have no preference group in common: {len(old):,} in the history "
            f"({_shown(gone)}), {len(new):,} in the data ({_shown(added)})",
        )
    more = f"; {len(added):,} groups of the data are not in the history" if added else ""
    if gone:
        message = f"{len(gone):,} of {len(old):,} groups of the reward history are not in the training data"
        return GroupMismatch("warning", f"{message} ({_shown(gone)}){more}")
    message = f"{len(added):,} of {len(new):,} groups of the training data are not in the reward history yet"
    return GroupMismatch("note", f"{message} ({_shown(added)})")


def _shown(groups: Iterable[str]) -> str:
    return shortened(map(repr, groups), most=5)
