# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The prompts of a validation Parquet file, with their preference groups and the reward function's inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from verl_pgrpo.data.schema import read_parquet
from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.samples import messages_text
from verl_pgrpo.groups import group_label

GROUP_KEY = "preference_group"


@dataclass(frozen=True)
class Prompt:
    """A row of the data. `id` depends on the file only, not on `--limit`."""

    id: str
    group: str
    messages: list[dict[str, str]]
    data_source: str
    ground_truth: Any
    extra_info: dict[str, Any]

    @property
    def text(self) -> str:
        """The messages as one text."""
        return messages_text(self.messages)


def read_prompts(path: Path, group_key: str = GROUP_KEY, limit: int | None = None) -> list[Prompt]:
    """Return the rows of a Parquet file in verl's layout, in its order.

    Args:
        group_key: Column of the preference group, or a dotted path such as extra_info.segment.
        limit: Return this many rows only, spread evenly over the groups.

    Raises:
        DataError: The file is missing, a column is missing, or a row has no preference group or no messages.
    """
    rows = read_parquet(path).to_pylist()
    if not rows:
        raise DataError(f"{path}: has no rows")
    group_column = group_key if group_key in rows[0] else group_key.partition(".")[0]
    for column in ("prompt", "data_source", group_column):
        if column not in rows[0] and column != GROUP_KEY:
            raise DataError(f"{path}: no column {column!r}; it has {', '.join(rows[0])}")
    names = _ids(rows)
    prompts = [_prompt(row, names[i], group_key, f"{path}, row {i + 1}") for i, row in enumerate(rows)]
    return prompts if limit is None else _spread_evenly(prompts, limit)


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """Return a field of a row by its name or dotted path, also into JSON text; None if there is none."""
    value: Any = row
    for name in [path] if path in row else path.split("."):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    """`<split>/<index>` of `extra_info` if that is unique, else the row's number."""
    names = []
    for row in rows:
        parts = look_up(row, "extra_info.split"), look_up(row, "extra_info.index")
        names.append("/".join(str(part) for part in parts if part is not None) if parts[1] is not None else "")
    if "" in names or len(set(names)) < len(names):
        return [f"row/{number}" for number in range(len(rows))]
    return names


def _prompt(row: dict[str, Any], name: str, group_key: str, where: str) -> Prompt:
    messages, info = row["prompt"], row.get("extra_info")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not messages or not all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in messages):
        raise DataError(f"{where}: the prompt is not a list of chat messages with role and content")
    group = group_label(look_up(row, group_key))
    if group_key == GROUP_KEY and GROUP_KEY not in row:  # the part of `data_source` after its slash
        group = str(row["data_source"] or "").partition("/")[2]
    if row["data_source"] is None:
        raise DataError(f"{where}: no data_source, by which the reward function is chosen; fill it or drop the row")
    if not isinstance(group, str) or not group:
        raise DataError(f"{where}: no preference group in {group_key!r}; --group-key names another column")
    return Prompt(
        id=name,
        group=group,
        messages=[{"role": str(one.get("role", "user")), "content": one["content"]} for one in messages],
        data_source=str(row["data_source"]),
        ground_truth=look_up(row, "reward_model.ground_truth"),
        extra_info=info if isinstance(info, dict) else {},
    )


def _spread_evenly(prompts: list[Prompt], limit: int) -> list[Prompt]:
    """The first prompt of each group, then the second of each, and so on, `limit` in all, in the data's order."""
    if limit < 1:
        raise DataError(f"--limit must be at least 1, got {limit}")
    groups = pd.Series([prompt.group for prompt in prompts])
    turns = groups.groupby(groups).cumcount().sort_values(kind="stable")
    return [prompts[place] for place in sorted(turns.index[:limit])]
