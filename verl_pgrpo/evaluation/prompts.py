# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The prompts of a validation parquet, each with its preference group and what the reward function needs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation.samples import messages_text
from verl_pgrpo.integration.rows import group_label, nested_value

GROUP_KEY = "preference_group"


@dataclass(frozen=True)
class Prompt:
    """A row of the data. `id` is the same in every evaluation of the same file, whatever its `--limit`."""

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
    """The rows of a parquet in verl's layout, in its order; with `limit` so many, even over the groups.

    Raises:
        DataError: no such file, a column is missing, or a row has no preference group or no messages; it is named.
    """
    try:
        rows = pq.read_table(path).to_pylist()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file, or a damaged one ({error})") from error
    if not rows:
        raise DataError(f"{path}: has no rows")
    for column in ("prompt", "data_source"):
        if column not in rows[0]:
            raise DataError(f"{path}: no column {column!r}; it has {', '.join(rows[0])}")
    numbered = enumerate(zip(rows, _ids(rows), strict=True), 1)
    prompts = [_prompt(row, name, group_key, f"{path}, row {number}") for number, (row, name) in numbered]
    return prompts if limit is None else _evenly(prompts, limit)


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    """`<split>/<index>` of `extra_info` where that names each row, else the row's number."""
    named = []
    for row in rows:
        info = _fields(row, "extra_info")
        parts = (info.get("split"), info["index"]) if info.get("index") is not None else ()
        named.append("/".join(str(part) for part in parts if part is not None))
    if "" in named or max(Counter(named).values()) > 1:
        return [f"row/{number}" for number in range(len(rows))]
    return named


def _fields(row: dict[str, Any], column: str) -> dict[str, Any]:
    value = row.get(column)
    return value if isinstance(value, dict) else {}


def _prompt(row: dict[str, Any], name: str, group_key: str, where: str) -> Prompt:
    messages = row["prompt"]
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not messages or not all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in messages):
        raise DataError(f"{where}: the prompt is no list of chat messages with role and content")
    return Prompt(
        id=name,
        group=_group(row, group_key, where),
        messages=[{"role": str(one.get("role", "user")), "content": one["content"]} for one in messages],
        data_source=str(row["data_source"]),
        ground_truth=_fields(row, "reward_model").get("ground_truth"),
        extra_info=_fields(row, "extra_info"),
    )


def _group(row: dict[str, Any], key: str, where: str) -> str:
    """The row's preference group; without the usual column, what `data_source` has behind its slash."""
    column, *path = [key] if key in row else key.split(".")
    if column in row:
        label = group_label(nested_value(row[column], path, key))
    elif key == GROUP_KEY:
        label = str(row["data_source"] or "").partition("/")[2] or None
    else:
        raise DataError(f"{where}: no column {column!r} (--group-key); it has {', '.join(row)}")
    if not isinstance(label, str):
        raise DataError(f"{where}: no preference group in {key!r}; --group-key names another column")
    return label


def _evenly(prompts: list[Prompt], limit: int) -> list[Prompt]:
    """The first of each group, then the second of each, and so on, `limit` in all; in the data's order."""
    if limit < 1:
        raise DataError(f"--limit must be at least 1, got {limit}")
    by_group: defaultdict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        by_group[prompt.group].append(place)
    turns: Iterable[tuple[int | None, ...]] = zip_longest(*by_group.values())
    places = [place for turn in turns for place in turn if place is not None]
    return [prompts[place] for place in sorted(places[:limit])]
