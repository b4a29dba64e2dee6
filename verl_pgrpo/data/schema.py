# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Rows in verl's layout, and the Parquet files that contain them. The same rows give identical bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_pgrpo.data.summary import Summary
from verl_pgrpo.errors import DataError
from verl_pgrpo.files import atomic_write

COLUMNS = ("data_source", "prompt", "ability", "reward_model", "extra_info", "preference_group")
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
ROW_GROUP = 4096  # rows per Parquet row group, and rows in memory at a time


@contextmanager
def reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, to read it in parts.

    Raises:
        DataError: it is missing or damaged, which may show only while it is read or its values are converted.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: missing, not a Parquet file, or a damaged one ({error})") from error


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        DataError: it is missing or damaged.
    """
    with reading(path) as file:
        table = file.read()
        table.validate(full=True)  # text is UTF-8, so converting it cannot fail
        return table


def verl_row(
    task: str, group: str, prompt: str | list[dict[str, str]], ability: str, truth: Any, random_group: str,
    own: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return one row in verl's layout; `write_splits` adds index, split and seed.

    `data_source` is `<task>/<group>`, because verl reports validation per `data_source`. Nothing depends on `ability`.

    Args:
        prompt: chat messages, or the text of one user message.
        truth: for the reward function: text, or an object that is stored as JSON.
        random_group: the group in the control run.
        own: the task's own fields of `extra_info`.
    """
    truth = truth if isinstance(truth, str) else json.dumps(truth, ensure_ascii=False, separators=(",", ":"))
    return {
        "data_source": f"{task}/{group}",
        "prompt": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {**own, "random_group": str(random_group)},
        "preference_group": str(group),
    }


def write_splits(
    out: Path, splits: Mapping[str, Iterable[dict[str, Any]]], own: Iterable[tuple[str, pa.DataType]], seed: int,
    summary: Summary,
) -> dict[str, Counter[str]]:  # fmt: skip
    """Write rows of `verl_row` to `<split>.parquet` in an existing folder; return the rows per split and group.

    `own` has names and types of the task's own fields of `extra_info`. The summary gets files, groups and warnings.
    """
    counts: dict[str, Counter[str]] = {}
    common = [("index", pa.int64()), ("split", pa.string()), ("random_group", pa.string()), ("seed", pa.int64())]
    extra_info = pa.struct([*common[:2], *own, *common[2:]])
    reward_model = pa.struct([("style", pa.string()), ("ground_truth", pa.string())])
    types = (pa.string(), MESSAGES, pa.string(), reward_model, extra_info, pa.string())
    layout = pa.schema(list(zip(COLUMNS, types, strict=True)))
    for split, rows in splits.items():
        path, numbered = out / f"{split}.parquet", enumerate(rows)
        counts[split] = Counter()
        with atomic_write(path, "wb") as file, pq.ParquetWriter(file, layout, compression="zstd") as writer:
            while batch := list(islice(numbered, ROW_GROUP)):
                for index, row in batch:
                    row["extra_info"] |= {"index": index, "split": split, "seed": seed}
                    counts[split][row["preference_group"]] += 1
                writer.write_table(pa.Table.from_pylist([row for _, row in batch], schema=layout))
            if not counts[split]:
                raise DataError(f"{path.name} would have no rows: the input is too small for these options")
        summary.files[str(path)] = counts[split].total()
    groups = sorted(set().union(*counts.values()))
    summary.groups = [{"group": name, **{split: counts[split][name] for split in counts}} for name in groups]
    summary.warn_labels(groups)
    return counts


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, atomically."""
    with atomic_write(path, "wb") as file:
        pq.write_table(table, file, compression="zstd")


def output_folder(path: Path) -> Path:
    """Create the output folder if needed and return it. Raise DataError if there is a file with that name."""
    if path.exists() and not path.is_dir():
        raise DataError(f"--out {path} is a file, not a folder")
    path.mkdir(parents=True, exist_ok=True)
    return path
