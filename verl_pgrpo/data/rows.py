# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Rows in verl's layout, and the Parquet files that hold them.

A file appears under its name only when it is whole, and equal rows give equal bytes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.summary import Summary

COLUMNS = ("data_source", "prompt", "ability", "reward_model", "extra_info", "preference_group")
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
BATCH = 4096  # rows held in memory at a time, and of one row group


def schema(extra_info: pa.StructType) -> pa.Schema:
    """verl's columns and `preference_group`; `extra_info` has fields of the task's own."""
    reward_model = pa.struct([("style", pa.string()), ("ground_truth", pa.string())])
    types = (pa.string(), MESSAGES, pa.string(), reward_model, extra_info, pa.string())
    return pa.schema(list(zip(COLUMNS, types, strict=True)))


def extra_info_type(*own: tuple[str, pa.DataType]) -> pa.StructType:
    """The type of `extra_info`: what every task has there, and fields of the task's own.

    `index` and `split` name the row, `random_group` is what the control with groups that mean nothing goes by, `seed`
    is what the data was made with.
    """
    last = (("random_group", pa.string()), ("seed", pa.int64()))
    return pa.struct([("index", pa.int64()), ("split", pa.string()), *own, *last])


def verl_row(
    task: str, group: str, prompt: str | list[dict[str, str]], ability: str, truth: str | dict[str, Any],
    extra_info: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """A row that is about a user of this preference group.

    Args:
        task: first part of `data_source`; the second is the group, as verl reports validation by it.
        group: the user's preference group.
        prompt: chat messages, or the text of a user's only one.
        ability: verl's word for the kind of task; nothing depends on it.
        truth: what the reward function gets as `ground_truth`: text, or what it shall find there as JSON.
        extra_info: the fields of `extra_info_type`.
    """
    truth = truth if isinstance(truth, str) else json.dumps(truth, ensure_ascii=False, separators=(",", ":"))
    return {
        "data_source": f"{task}/{group}",
        "prompt": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": extra_info,
        "preference_group": str(group),
    }


def write_splits(
    out: Path, splits: Mapping[str, Iterable[dict[str, Any]]], extra_info: pa.StructType, summary: Summary
) -> dict[str, Counter[str]]:
    """Write `<split>.parquet` for each split; rows per split and preference group, which the summary gets too."""
    counts = {}
    for split, rows in splits.items():
        path = out / f"{split}.parquet"
        counts[split] = write_rows(path, rows, extra_info)
        summary.files[str(path)] = counts[split].total()
    groups = sorted(set().union(*counts.values()))
    summary.groups = [{"group": name, **{split: counts[split][name] for split in counts}} for name in groups]
    return counts


def write_rows(path: Path, rows: Iterable[dict[str, Any]], extra_info: pa.StructType) -> Counter[str]:
    """Write a split, a batch at a time; rows per preference group.

    Raises:
        DataError: there are no rows: verl would fail on the file, later and with less to say.
    """
    counts: Counter[str] = Counter()
    partial = path.with_name(path.name + ".partial")
    layout = schema(extra_info)
    try:
        with pq.ParquetWriter(partial, layout, compression="zstd") as writer:
            for batch in _batches(iter(rows)):
                counts.update(row["preference_group"] for row in batch)
                writer.write_table(pa.Table.from_pylist(batch, schema=layout))
        if not counts:
            raise DataError(f"no rows are left for {path.name}; the summary of a larger input says where they went")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return counts


def write_table(path: Path, table: pa.Table) -> None:
    """A whole table as Parquet, under its name only when it is whole."""
    partial = path.with_name(path.name + ".partial")
    try:
        pq.write_table(table, partial, compression="zstd")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def output_folder(path: Path) -> Path:
    """The folder to write to, made if need be.

    Raises:
        DataError: there is a file of that name.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"--out {path} is a file; name a folder")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
