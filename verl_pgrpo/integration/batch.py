# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of a verl batch: which of them count, and the preference group of each.

In the V1 trainers a row's key is `{uid}_{session}_{index}` (verl/trainer/ppo/v1/agent_loop_tq.py): the prompt, which of
its n responses, and which output of that response's session (a multi-turn agent may return several).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.errors import MissingGroupError
from verl_pgrpo.groups import group_label

if TYPE_CHECKING:
    from torch import Tensor  # `verl-pgrpo data` works without

__all__ = ["BatchRows", "GroupColumn", "arrow_batches"]


def arrow_batches(table: Any, columns: list[str], size: int = 1 << 14) -> Iterator[Any]:
    """Yield the rows of a Hugging Face dataset as Arrow tables.

    The dataset's own `iter` takes five times as long if its rows are a subset, which it collects one by one.
    """
    rows, indices = table.data.table.select(columns), table._indices
    for start in range(0, len(table), size):
        part = None if indices is None else indices.column(0).slice(start, size)
        yield rows.slice(start, size) if part is None else rows.take(part)


@dataclass(frozen=True, slots=True)
class GroupColumn:
    """Where a row's preference group is stored: a column and a path into it."""

    name: str
    path: tuple[str, ...] = ()

    @classmethod
    def parse(cls, group_key: str, columns: Sequence[str] = ()) -> GroupColumn:
        """Split a `group_key` such as `extra_info.segment`. A column whose own name has dots takes precedence."""
        if group_key in columns:
            return cls(group_key)
        name, *path = group_key.split(".")
        return cls(name, tuple(path))

    def labels(self, values: Any) -> list[Any]:
        """Return the group label of each row (None where missing) from the values of the column.

        Args:
            values: N values: a tensor, an array or a list.

        Raises:
            MissingGroupError: the path leads into a value that has no fields.
        """
        return [group_label(self._field(value)) for value in (values.tolist() if hasattr(values, "tolist") else values)]

    def _field(self, value: Any) -> Any:
        for name in self.path:
            if value is None:
                return None
            if not isinstance(value, dict):
                raise MissingGroupError(
                    f"group_key={'.'.join([self.name, *self.path])}: a value of type {type(value).__name__} has no "
                    f"field {name!r}; name a column of structs, or a column itself"
                )
            value = value.get(name)
        return value


@dataclass(frozen=True, slots=True)
class BatchRows:
    """The N rows of a batch, in the order of the tensors that the estimator receives.

    uids: N generation groups (the prompt of each row).
    groups: N preference groups, None where a row has none.
    padding: (N,) bool, rows that verl added to fill up the batch: copies of a real row.
    last_output: (N,) int64, index of the last output in the row's session.
    """

    uids: list[str]
    groups: list[Any]
    padding: NDArray[np.bool_]
    last_output: NDArray[np.int64]

    @classmethod
    def from_keys(cls, keys: Sequence[str], tags: Sequence[dict[str, Any]], groups: Sequence[Any]) -> BatchRows:
        """Create from a V1 batch: keys and tags as in verl's KVBatchMeta, and the preference group of each row.

        Raises:
            ValueError: the lengths differ, or a key does not have verl's form.
        """
        if not len(keys) == len(tags) == len(groups):
            raise ValueError(f"{len(keys)} keys, {len(tags)} tags and {len(groups)} groups are not of one batch")
        parts = [key.rsplit("_", 2) for key in keys]
        for key, part in zip(keys, parts, strict=True):
            if len(part) != 3 or not part[0] or not part[2].isdigit():
                raise ValueError(f"the row key {key!r} does not have verl's form uid_session_index")
        last: dict[tuple[str, str], int] = {}
        for row, (uid, session, output) in enumerate(parts):
            best = last.setdefault((uid, session), row)
            if int(output) > int(parts[best][2]):
                last[uid, session] = row
        return cls(
            uids=[uid for uid, _, _ in parts],
            groups=list(groups),
            padding=np.array([bool(tag.get("is_padding", False)) for tag in tags], dtype=np.bool_),
            last_output=np.array([last[uid, session] for uid, session, _ in parts], dtype=np.int64),
        )

    @classmethod
    def from_sessions(cls, uids: Sequence[str], groups: Sequence[Any]) -> BatchRows:
        """Create from a batch with one row per session and no padding, as in the older trainers."""
        if len(uids) != len(groups):
            raise ValueError(f"{len(uids)} uids and {len(groups)} groups are not of one batch")
        return cls(list(uids), list(groups), np.zeros(len(uids), dtype=np.bool_), np.arange(len(uids)))

    def counted(self, response_mask: Tensor) -> NDArray[np.int64]:
        """Return the rows that enter the history. `response_mask`: (N, T)."""
        is_last = self.last_output == np.arange(len(self.uids))
        has_token = (response_mask != 0).any(dim=-1).cpu().numpy()
        return np.flatnonzero(is_last & ~self.padding & has_token)
