# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Labels of preference groups: conversion of column values to labels, and detection of labels that look alike."""

from __future__ import annotations

import numbers
import unicodedata
from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Sequence
from typing import Any

from verl_pgrpo.errors import GroupLabelError, MissingGroupError

__all__ = [
    "check_labels",
    "describe_code_points",
    "describe_row",
    "group_label",
    "is_missing",
    "look_alikes",
    "shortened",
    "spells_missing",
]

_MISSING_WORDS = frozenset({"none", "nan", "null", "nat", "<na>", "n/a"})


def is_missing(value: Any) -> bool:
    """Return whether a value means "missing": None, NaN, NaT or pandas.NA."""
    if hasattr(value, "__len__"):  # text; an array, even one that holds a single NaN
        return False
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA has no truth value
        return True
    except Exception:  # values that cannot be compared
        return False


def spells_missing(label: str) -> bool:
    """Return whether a label is what a missing value becomes when it is cast to text."""
    return label.strip().casefold() in _MISSING_WORDS


def group_label(value: Any) -> Any:
    """Return a group column's value as a label.

    Text stays as it is, integers become decimal text, missing values and blank text become None. Any other value is
    returned unchanged, and `GroupHistoryManager` rejects it with its type.
    """
    if isinstance(value, str):
        return str(value) if value.strip() else None
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return str(int(value))
    return None if is_missing(value) else value


def check_labels(
    groups: Iterable[Hashable],
    known: Container[str],
    default_group: str | None,
    group_key: str,
    prompt_ids: Sequence[Hashable] | None,
) -> list[str]:
    """Return the groups of a batch as text, with `default_group` in place of missing ones and of blank text.

    Args:
        groups: N labels.
        known: labels that need no check.
        default_group, group_key: the options of `PGRPOConfig`.
        prompt_ids: N prompts, for messages.

    Raises:
        MissingGroupError: a row has no group or blank text, and there is no `default_group`.
        GroupLabelError: a label is not text.
    """
    labels = list(groups)
    try:
        unknown = {label for label in labels if label not in known}
    except TypeError:  # unhashable: a list, a dict
        unknown = labels  # type: ignore[assignment]
    if all(type(label) is str and label.isascii() and label.strip() for label in unknown):
        return list(map(str, labels))
    missing = [row for row, label in enumerate(labels) if group_label(label) is None]
    if missing and default_group is None:
        raise MissingGroupError(
            f"{len(missing)} of {len(labels)} rows have no preference group (first: "
            f"{describe_row(missing[0], prompt_ids)}). Fill {group_key!r} in the data, or set default_group to the "
            "name of a group for such rows."
        )
    for row in missing:
        labels[row] = default_group
    for row, label in enumerate(labels):
        problem = None if isinstance(label, str) else f"has type {type(label).__name__}, not text; cast it to text"
        try:
            str(label).encode()
        except UnicodeEncodeError as error:
            problem = problem or f"is not valid text: {error.reason}"
        if problem is not None:
            raise GroupLabelError(f"preference group {label!r} ({describe_row(row, prompt_ids)}) {problem}")
    return [str(label) for label in labels]


def describe_row(row: int, prompt_ids: Sequence[Hashable] | None) -> str:
    """Return a row of a batch for a message, with its prompt if that is known."""
    return f"row {row}" if prompt_ids is None else f"row {row}, uid {prompt_ids[row]}"


def look_alikes(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return sets of distinct labels that look the same on a screen.

    Two labels look alike if they are equal after Unicode compatibility normalization (NFKC), case folding, and removal
    of invisible characters and of white space at the ends or repeated inside.
    """
    by_look: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for label in labels:
        by_look[_look(label)][label] = None
    return [tuple(same) for same in by_look.values() if len(same) > 1]


# Cyrillic and Greek letters that look like Latin ones.
_HOMOGLYPHS = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u051b\u051d\u03bf\u03bd\u03b1\u03b9\u043a\u043c\u0442\u043d\u0432",
    "aeopcyxsijdqwovaikmthb",
)


def _look(label: str) -> str:
    if not label.isascii():
        label = unicodedata.normalize("NFKC", label)
        # Format characters (zero-width spaces, joiners, direction marks) and variation selectors are invisible.
        label = "".join(c for c in label if unicodedata.category(c) != "Cf" and not 0xFE00 <= ord(c) <= 0xFE0F)
    return " ".join(label.casefold().translate(_HOMOGLYPHS).split())


def shortened(names: Iterable[str], most: int = 8) -> str:
    """Return the first `most` names separated by commas, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def describe_code_points(label: str) -> str:
    """Return a label in quotes, followed by its characters that are not printable ASCII as code points.

    >>> describe_code_points("jazz\\u200b")
    "'jazz\\\\u200b' (U+200B ZERO WIDTH SPACE)"
    """
    odd = [f"U+{ord(c):04X} {unicodedata.name(c, 'unnamed')}" for c in label if not 32 <= ord(c) < 127]
    return f"{label!r}" + (f" ({', '.join(odd[:4])}{', ...' if len(odd) > 4 else ''})" if odd else "")
