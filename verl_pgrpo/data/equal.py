# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Training data with equally many rows for every preference group, so that the groups are sampled equally."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from verl_pgrpo.data.schema import read_parquet, write_table
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.errors import DataError, PGRPOError
from verl_pgrpo.groups import check_labels
from verl_pgrpo.integration.batch import GroupColumn

__all__ = ["equalize"]

NONE = "(no group)"


def equalize(source: Path, out: Path, group_key: str = "preference_group", seed: int = 0) -> Summary:
    """Repeat the rows of the rarer preference groups until all groups have as many as the largest, and shuffle.

    Every row is kept, and how often two rows of a group occur differs by at most one. Columns keep their types. Rows
    without a group, which training accepts only with `default_group`, are one more group.

    Args:
        source: training data of verl (.parquet).
        out: the file to write.
        group_key: column of the preference group, or a dotted path such as extra_info.segment.
        seed: equal arguments give the same rows in the same order.

    Raises:
        DataError: not a Parquet file, no rows, no such column, or a label that training would reject.
    """
    table = read_parquet(source)
    column = GroupColumn.parse(group_key, table.column_names)
    if column.name not in table.column_names:
        found = ", ".join(table.column_names[:20])
        raise DataError(f"{source}: no column {column.name!r} (--group-key); its columns are {found}")
    if not len(table):
        raise DataError(f"{source}: no rows")
    try:
        labels = column.labels(table.column(column.name).to_pylist())
        names, group = np.unique(check_labels(labels, (), NONE, group_key, None), return_inverse=True)
    except PGRPOError as error:
        raise DataError(f"{source}: {error}") from error

    rng, counts = np.random.default_rng(seed), np.bincount(group)
    most = int(counts.max())
    of_group = [rng.permutation(np.flatnonzero(group == number)) for number in range(len(names))]
    rows = rng.permutation(np.concatenate([np.resize(own, most) for own in of_group]))
    write_table(out, table.take(rows))
    title = f"every preference group has {most:,} rows"
    summary = Summary(title, read={"rows": len(table)}, files={str(out): len(rows)})
    summary.groups = [{"group": name, "read": int(n), "written": most} for name, n in zip(names, counts, strict=True)]
    return summary
