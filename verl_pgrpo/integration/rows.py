# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Of a verl batch: which rows count, which preference group each belongs to, and whose advantage it gets.

A row's key is `{uid}_{session}_{index}` (verl/trainer/ppo/v1/agent_loop_tq.py): the prompt, which of its n responses,
and which output of that response's session (a multi-turn agent may put several).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from verl_pgrpo.errors import GroupLabelError, MissingGroupError
from verl_pgrpo.factor import Factor

__all__ = ["Column", "Rows", "group_label", "nested_value", "no_such_field", "raw_groups"]

Column = tuple[str, list[str]]  # the name of a group column, and the path into it


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch's N rows, in the order of the tensors that the estimator sees.

    uids: N generation groups (the prompt of each row), as verl hands them to an estimator.
    prompts: the same as a factor.
    groups: the preference group of each row, None where there is none.
    padding: (N,) bool, rows that verl added to fill up the batch (tag `is_padding`): copies of a real row.
    last: (N,) int64, for each row the one that speaks for its session: the session's last output.
    """

    uids: NDArray[np.object_]
    prompts: Factor[str]
    groups: Factor[Any]
    padding: NDArray[np.bool_]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, keys: Sequence[str], tags: Sequence[dict[str, Any]], groups: Sequence[Any]) -> Rows:
        """From a batch's keys, tags (both as in verl's KVBatchMeta) and the raw values of its group column.

        Raises:
            ValueError: these are not of one batch, or the keys are not verl's.
        """
        if not len(keys) == len(tags) == len(groups):
            raise ValueError(f"{len(keys)} keys, {len(tags)} tags and {len(groups)} groups do not belong to one batch")
        if all(key.endswith("_0") for key in keys):  # one output each; keys are distinct, so sessions are as well
            sessions = Factor([key[:-2] for key in keys], np.arange(len(keys)))
        else:
            sessions = Factor.of([key.rpartition("_")[0] for key in keys])
        uids = [session.rpartition("_")[0] for session in sessions.levels]
        if not all(uids):
            bad = keys[int(np.argmin(np.array(list(map(bool, uids)))[sessions.codes]))]
            raise ValueError(f"the row key {bad!r} is not of verl's form uid_session_index")
        last = np.arange(len(keys))
        if len(sessions.levels) < len(keys):  # sessions of several outputs
            output = np.array([int(key.rpartition("_")[2]) for key in keys])
            order = np.argsort(-output, kind="stable")
            last = order[np.unique(sessions.codes[order], return_index=True)[1]][sessions.codes]
        prompts = Factor.of(uids)
        return cls(
            uids=np.array(uids, dtype=object)[sessions.codes],
            prompts=Factor(prompts.levels, prompts.codes[sessions.codes]),
            groups=_labels(groups),
            padding=np.fromiter((bool(tag.get("is_padding", False)) for tag in tags), dtype=np.bool_, count=len(keys)),
            last=last,
        )

    @classmethod
    def of_sessions(cls, uids: Sequence[str], groups: Sequence[Any]) -> Rows:
        """From the uids and raw groups of a batch that has one row a session and no padding."""
        if len(uids) != len(groups):
            raise ValueError(f"{len(uids)} uids and {len(groups)} groups do not belong to one batch")
        return cls(
            uids=np.array(uids, dtype=object),
            prompts=Factor.of(uids),
            groups=_labels(groups),
            padding=np.zeros(len(uids), dtype=np.bool_),
            last=np.arange(len(uids)),
        )

    def with_groups(self, groups: Sequence[Any]) -> Rows:
        """The same rows with these raw values of their group column."""
        return replace(self, groups=_labels(groups))

    def counted(self, response_mask: Tensor) -> NDArray[np.bool_]:
        """(N,) bool: the rows that enter the history, once each. `response_mask`: (N, T)."""
        speaks = self.last == np.arange(len(self.last))
        return speaks & ~self.padding & has_token(response_mask)


def has_token(response_mask: Tensor) -> NDArray[np.bool_]:
    """(N,) bool: rows of `response_mask` (N, T) with a token that is trained."""
    if response_mask.shape[1] == 0:
        return np.zeros(response_mask.shape[0], dtype=np.bool_)
    # Nearly every row starts with such a token; only the others are read to their end.
    found = (response_mask[:, 0] != 0).cpu().numpy().copy()
    if not found.all():
        late = np.flatnonzero(~found)
        found[late] = (response_mask[late] != 0).any(dim=1).cpu().numpy()
    return found


def _labels(values: Sequence[Any]) -> Factor[Any]:
    """The labels of a group column's values."""
    if set(map(type, values)) <= {str}:
        texts = Factor.of(values)
        return texts.relabel([group_label(text) for text in texts.levels])
    try:
        return Factor.of([group_label(value) for value in values])
    except TypeError:
        row = next(row for row, value in enumerate(values) if not isinstance(value, Hashable))
        raise GroupLabelError(
            f"row {row} of the batch has the preference group {values[row]!r}, a {type(values[row]).__name__}: it must "
            "be text or a whole number; group_key may be a dotted path into the column (extra_info.segment)"
        ) from None


def group_label(value: Any) -> Any:
    """A group column's value as a label: text as it is, whole numbers as text, null and blank text as None.

    Anything else comes back unchanged, for the history to refuse by name.
    """
    if isinstance(value, str):
        return value if value.strip() else None
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    return value


def no_such_field(name: str, why: object) -> MissingGroupError:
    """That the rollouts do not carry the group column."""
    return MissingGroupError(
        f"the rollouts carry no field {name!r}: {why}. The training data, or the agent loop in use, must put the "
        "preference group beside each prompt; algorithm.pgrpo.group_key names another field."
    )


def raw_groups(values: Any, column: Column) -> list[Any]:
    """The raw group of each row, from the values of its column: a tensor, an array or a list, as verl has them."""
    name, path = column
    return [nested_value(value, path, name) for value in (values.tolist() if hasattr(values, "tolist") else values)]


def nested_value(value: Any, path: Sequence[str], key: str) -> Any:
    """`value[path[0]][path[1]]...`, None where a step is null or missing.

    Raises:
        MissingGroupError: a step leads into something that has no fields; `key` is named.
    """
    for name in path:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise MissingGroupError(f"group_key={key}: {name!r} leads into {value!r}, which has no fields")
        value = value.get(name)
    return value
