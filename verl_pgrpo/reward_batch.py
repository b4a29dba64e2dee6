# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A batch of groups and rewards, checked before it changes a history."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import NonFiniteRewardError
from verl_pgrpo.groups import check_labels, describe_row, is_missing
from verl_pgrpo.moments import MAX_MAGNITUDE, as_floats

__all__ = ["RewardBatch"]


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """A batch of N responses. M of them have a finite reward and count.

    labels: N group labels, with `default_group` where a row had none.
    finite: (N,) bool, the rows that count.
    groups: M labels of the rows that count.
    rewards: (M,) float64.
    prompts: (M,) int64, the prompt of each row as a number from 0; None without prompt ids.
    """

    labels: list[str]
    finite: NDArray[np.bool_]
    groups: list[str]
    rewards: NDArray[np.float64]
    prompts: NDArray[np.int64] | None

    def every_row(self, values: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Return (N,) the values of the M rows that count, and `fill` in the others."""
        full = np.full(len(self.finite), fill)
        full[self.finite] = values
        return full

    @classmethod
    def check(
        cls,
        groups: Sequence[Hashable],
        rewards: ArrayLike,
        prompt_ids: Sequence[Hashable] | None,
        known: Container[str],
        config: PGRPOConfig,
    ) -> RewardBatch:
        """Check a batch; labels in `known` need no check.

        Raises:
            MissingGroupError, GroupLabelError, NonFiniteRewardError, ValueError: see `GroupHistoryManager.update`.
        """
        values, prompt_ids = as_floats(rewards), _plain(prompt_ids)
        sizes = [len(groups), *([] if prompt_ids is None else [len(prompt_ids)])]
        if values.ndim != 1 or any(size != len(values) for size in sizes):
            raise ValueError(
                f"groups, rewards and prompt_ids need one entry per row (got {sizes[0]} groups, rewards of shape "
                f"{values.shape}{'' if prompt_ids is None else f', {sizes[1]} prompt_ids'})"
            )
        labels = check_labels(groups, known, config.default_group, config.group_key, prompt_ids)
        finite = np.abs(values) <= MAX_MAGNITUDE
        if config.on_nonfinite == "error" and not finite.all():
            row = int(np.argmin(finite))
            raise NonFiniteRewardError(
                f"reward {values[row]} of group {labels[row]!r} ({describe_row(row, prompt_ids)}) is not usable: "
                f"{np.count_nonzero(~finite)} of {len(values)} rewards are NaN, infinite or beyond {MAX_MAGNITUDE:g}. "
                "Fix the reward function, or set on_nonfinite=skip to drop these rows."
            )
        rows = np.flatnonzero(finite).tolist()
        if prompt_ids is not None and (missing := [row for row, one in enumerate(prompt_ids) if is_missing(one)]):
            raise ValueError(f"{len(missing)} of {len(prompt_ids)} prompt_ids are missing (first: row {missing[0]})")
        try:
            prompts = None if prompt_ids is None else _codes(prompt_ids[row] for row in rows)
        except TypeError as error:  # a row of a multi-dimensional array
            raise ValueError(f"prompt_ids need one hashable value per response: {error}") from error
        return cls(labels, finite, [labels[row] for row in rows], values[finite], prompts)


def _plain(prompt_ids: Any) -> list[Hashable] | None:
    """Return plain values: a Series would be indexed by label, and tensors are never equal keys."""
    return prompt_ids.tolist() if hasattr(prompt_ids, "tolist") else None if prompt_ids is None else list(prompt_ids)


def _codes(values: Iterable[Hashable]) -> NDArray[np.int64]:
    """Number values by their first appearance."""
    code_of: dict[Hashable, int] = {}
    return np.array([code_of.setdefault(value, len(code_of)) for value in values], dtype=np.int64)
