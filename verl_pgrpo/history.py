# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The running reward history per preference group that P-GRPO normalizes against."""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from verl_pgrpo import checkpoint
from verl_pgrpo.advantage import grpo_relation, normalizer, personalized_advantage, prompt_blend
from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import ConfigError, GroupLabelError, NonFiniteRewardError
from verl_pgrpo.groups import check_labels, describe_row
from verl_pgrpo.moments import MAX_MAGNITUDE, Moments, as_floats
from verl_pgrpo.shrinkage import group_weights, prompt_weight, share_within, subtract_prompt, within_std

__all__ = ["AdvantageResult", "GroupHistoryManager", "GroupStatistics"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """History of the requested groups, each (N,) float64. Unknown groups have count 0, the others NaN.

    within_std: std of rewards around the mean of their prompt; NaN if no prompt with two responses was recorded.
    """

    count: Floats
    mean: Floats
    std: Floats
    within_std: Floats


@dataclass(frozen=True, slots=True)
class AdvantageResult:
    """Advantages of a batch of N responses and what they were computed from. Arrays are (N,).

    advantages: `(reward - mean) / (std + epsilon)`, unscaled where std is 0. With baseline=blended or shrinkage also
        minus a prompt baseline; multiplied by the group's weight with group_balance.
    mean, std: the statistics used, after `prior_strength` and `min_count`; with baseline=shrinkage, std within prompts.
    count: number of rewards of the row's own group in them.
    scale, shift: the terms of Corollary 3.1; None without prompt ids.
    cold: the group's own history was insufficient (no spread, or fewer rewards than `min_count` or `prior_strength`).
    skipped: the reward was not finite. The advantage is 0, the statistics are NaN, and the history is unchanged.
    groups: N labels, with `default_group` where a row had none.
    """

    advantages: Floats
    mean: Floats
    std: Floats
    count: Floats
    scale: Floats | None
    shift: Floats | None
    cold: Booleans
    skipped: Booleans
    groups: list[str]


class GroupHistoryManager:
    """Running reward history of every preference group: count, mean, M2 and spread within prompts, in float64.

    A batch takes time in its own size, however many groups are known (except with `prior_strength`, `min_count` or
    `group_balance`, which look at all groups). Managers can be pickled and copied. Not thread-safe: one process
    computes advantages.

    Args:
        config: the options; by default the paper's method.
    """

    def __init__(self, config: PGRPOConfig | None = None) -> None:
        self.config = config if config is not None else PGRPOConfig()
        self._row_of: dict[str, int] = {}  # label -> row in _moments
        self._moments = Moments(0, self.config.half_life)

    def __copy__(self) -> GroupHistoryManager:
        return copy.deepcopy(self)  # a copy that shares arrays would change with the original

    def __repr__(self) -> str:
        return f"GroupHistoryManager({self.num_groups} groups, {self.total_count} rewards)"

    @property
    def groups(self) -> list[str]:
        """All labels by first appearance; those that are new in a batch are sorted, so its order has no effect."""
        return list(self._row_of)

    @property
    def num_groups(self) -> int:
        """Number of groups with at least one reward."""
        return len(self._row_of)

    @property
    def total_count(self) -> int:
        """Number of rewards observed so far, over all groups."""
        return int(self._moments.count.sum())

    def update(
        self, groups: Sequence[Hashable], rewards: ArrayLike, prompt_ids: Sequence[Hashable] | None = None
    ) -> None:
        """Add a batch of rewards to the history.

        Args:
            groups: N labels (text); None where a row has no group.
            rewards: (N,) float.
            prompt_ids: N generation groups, for the spread within prompts that baseline=shrinkage uses.

        Raises:
            MissingGroupError, GroupLabelError, NonFiniteRewardError, ValueError: the history is unchanged.
        """
        _, _, kept, values, prompts = self._check_batch(groups, rewards, prompt_ids)
        self._moments.update(self._rows(kept), values, prompts)

    def compute_advantages(
        self, groups: Sequence[Hashable], rewards: ArrayLike, prompt_ids: Sequence[Hashable] | None = None
    ) -> AdvantageResult:
        """Compute the advantages of a batch and add it to the history, in the order given by `config.update_order`.

        The result and the history are bit-identical for any order of the rows.

        Args:
            groups: N labels (text); None where a row has no group.
            rewards: (N,) float, the scalar reward of each response.
            prompt_ids: N generation groups (verl's uid: the prompt of each response), for `scale` and `shift`.
                Required with baseline=blended and baseline=shrinkage.

        Raises:
            MissingGroupError, GroupLabelError, NonFiniteRewardError, ValueError: the history is unchanged.
        """
        if prompt_ids is None and self.config.baseline != "history":
            raise ValueError(f"baseline={self.config.baseline} requires prompt_ids: the prompt that each row answers")
        labels, finite, kept, values, prompts = self._check_batch(groups, rewards, prompt_ids)
        advantages, mean, std, count, scale, shift, cold = self._compute(self._rows(kept), values, prompts)

        def scatter(array: NDArray[Any] | None, fill: Any) -> Any:
            if array is None or finite.all():
                return array
            full = np.full(len(finite), fill)
            full[finite] = array
            return full

        return AdvantageResult(
            advantages=scatter(advantages, 0.0),
            mean=scatter(mean, np.nan),
            std=scatter(std, np.nan),
            count=scatter(count, 0.0),
            scale=scatter(scale, np.nan),
            shift=scatter(shift, np.nan),
            cold=scatter(cold, False),
            skipped=~finite,
            groups=labels,
        )

    def statistics(self, groups: Sequence[Hashable]) -> GroupStatistics:
        """Return count, mean and std of each requested group, without cold start. Adds nothing."""
        rows = np.array([self._row_of.get(label, -1) for label in self._labels(groups, None)], dtype=np.int64)
        known = rows >= 0
        taken = self._moments.take(np.where(known, rows, 0)) if self.num_groups else Moments(len(rows))
        return GroupStatistics(
            count=np.where(known, taken.count, 0).astype(np.float64),
            mean=np.where(known, taken.mean, np.nan),
            std=np.where(known, taken.std(), np.nan),
            within_std=np.where(known, np.sqrt(taken.variance_within()), np.nan),
        )

    def to_frame(self) -> pd.DataFrame:
        """Return group, count, mean, m2, std, within and within_dof; one row per group, as in `groups`."""
        moments = self._moments.take(np.arange(self.num_groups))
        columns = {"count": moments.count, "mean": moments.mean, "m2": moments.m2, "std": moments.std()}
        columns |= {"within": moments.within, "within_dof": moments.within_dof}
        return pd.DataFrame({"group": pd.Series(self.groups, dtype=object), **columns})

    def largest(self, k: int) -> list[str]:
        """Return the k groups with the most rewards, largest first; ties in the order of `groups`."""
        order = np.argsort(-self._moments.count[: self.num_groups], kind="stable")[:k]
        labels = self.groups
        return [labels[row] for row in order.tolist()]

    def merge(self, other: GroupHistoryManager) -> None:
        """Add another history to this one. With `half_life`, `other` is the newer of the two.

        Raises:
            ConfigError: the histories were recorded under options that give their numbers different meanings.
        """
        mine, theirs = self.config.history_options(), other.config.history_options()
        if mine != theirs:
            raise ConfigError(f"cannot merge histories with different options: {mine} and {theirs}")
        self._moments.merge(self._rows(other.groups, ordered=True), other._moments.take(np.arange(other.num_groups)))

    def save(self, path: str | os.PathLike[str], step: int | None = None) -> None:
        """Write the history to a Parquet file, atomically.

        Args:
            path: the file to write or replace.
            step: training step that the history belongs to, checked by `load`.

        Raises:
            HistoryFileError: the file cannot be written. An existing file is unchanged.
        """
        moments = self._moments.take(np.arange(self.num_groups))
        checkpoint.write(path, self.groups, moments, self.config, step)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], config: PGRPOConfig | None = None, step: int | None = None
    ) -> GroupHistoryManager:
        """Read and verify a file written by `save`. The result equals the saved history bit for bit.

        Args:
            path: the file.
            config: options of the run that continues this history. None: the options in the file.
            step: the training step that it must belong to. None: any.

        Raises:
            HistoryFileMissing, HistoryFileAltered, HistoryFileTooNew, HistoryFileWrongStep, HistoryFileOtherConfig,
            HistoryFileError: see `verl_pgrpo.errors`.
        """
        labels, moments, config = checkpoint.read(path, config, step)
        history = cls(config)
        history._row_of = {label: row for row, label in enumerate(labels)}
        history._moments = moments
        return history

    @classmethod
    def from_moments(
        cls, labels: Sequence[str], moments: Moments, config: PGRPOConfig | None = None
    ) -> GroupHistoryManager:
        """Create a history from existing statistics: `moments` has group `labels[i]` at row i.

        Raises:
            GroupLabelError: a label is not text, or not unique.
        """
        history = cls(config)
        rows = history._rows(history._labels(labels, None), ordered=True)
        if history.num_groups < len(rows):
            raise GroupLabelError(f"{len(rows)} labels, of which only {history.num_groups} are distinct")
        history._moments.merge(rows, moments)
        return history

    def _compute(self, rows: Integers, values: Floats, prompts: Integers | None) -> tuple[Any, ...]:
        if self.config.update_order == "after_normalize":
            past, pool = self._moments.take(rows), self._pool()
            self._moments.update(rows, values, prompts)
            # A group (or the pool) without a past is normalized by its first batch.
            used = past.where(past.count > 0, self._moments.take(rows))
            pool = pool or self._pool()
        else:
            self._moments.update(rows, values, prompts)
            used, pool = self._moments.take(rows), self._pool()
        mean, std, cold = normalizer(used, *(pool or (0.0, 0.0)), self.config.prior_strength, self.config.min_count)
        shrinkage = self.config.baseline == "shrinkage"
        if shrinkage:
            within = share_within(used)
            std = within_std(std, within)
        epsilon, norm_by_std = self.config.epsilon, self.config.norm_adv_by_std_in_grpo
        advantages = personalized_advantage(values, mean, std, epsilon, norm_by_std)
        scale = shift = None
        if prompts is not None:
            scale, shift = grpo_relation(values, prompts, mean, std, epsilon, norm_by_std)
            if shrinkage:
                w = prompt_weight(within, np.bincount(prompts)[prompts] - 1)
                advantages, stretch, kept = subtract_prompt(advantages, w, prompts)
                scale, shift = stretch * scale, kept * shift
            elif self.config.baseline == "blended":
                standardized = personalized_advantage(values, mean, std, epsilon)
                advantages, stretch, kept = prompt_blend(advantages, standardized, prompts)
                scale, shift = stretch * scale, kept * shift
        if self.config.group_balance > 0:
            weight = group_weights(self._moments.count[: self.num_groups], rows, self.config.group_balance)
            advantages = weight * advantages
            if scale is not None and shift is not None:
                scale, shift = weight * scale, weight * shift
        return advantages, mean, std, used.count.astype(np.float64), scale, shift, cold

    def _pool(self) -> tuple[float, float] | None:
        """Return mean and std of all groups together, if an option needs them and there are rewards."""
        needed = self.config.prior_strength > 0 or self.config.min_count > 0
        return self._moments.pooled() if needed and self.total_count else None

    def _rows(self, labels: list[str], ordered: bool = False) -> Integers:
        """Return the row of each label. Unknown labels are added: sorted, unless the order of `labels` matters."""
        row_of = self._row_of
        new = dict.fromkeys(label for label in labels if label not in row_of)
        for label in new if ordered else sorted(new):
            row_of[label] = len(row_of)
        rows = np.fromiter(map(row_of.__getitem__, labels), dtype=np.int64, count=len(labels))
        if len(row_of) > len(self._moments):
            self._moments.resize(len(row_of) + len(row_of) // 8)
        return rows

    def _check_batch(
        self, groups: Sequence[Hashable], rewards: ArrayLike, prompt_ids: Sequence[Hashable] | None
    ) -> tuple[list[str], Booleans, list[str], Floats, Integers | None]:
        """Return all labels and which rewards are finite; of these rows the labels, rewards and numbers of prompts.

        Raises before anything changes.
        """
        values, prompt_ids = as_floats(rewards), _plain(prompt_ids)
        sizes = [len(groups), *([] if prompt_ids is None else [len(prompt_ids)])]
        if values.ndim != 1 or any(size != len(values) for size in sizes):
            raise ValueError(
                f"groups, rewards and prompt_ids need one entry per row (got {sizes[0]} groups, rewards of shape "
                f"{values.shape}{'' if prompt_ids is None else f', {sizes[1]} prompt_ids'})"
            )
        labels = self._labels(groups, prompt_ids)
        finite = np.abs(values) <= MAX_MAGNITUDE
        if self.config.on_nonfinite == "error" and not finite.all():
            row = int(np.argmin(finite))
            raise NonFiniteRewardError(
                f"reward {values[row]} of group {labels[row]!r} ({describe_row(row, prompt_ids)}) is not usable: "
                f"{np.count_nonzero(~finite)} of {len(values)} rewards are NaN, infinite or beyond {MAX_MAGNITUDE:g}. "
                "Fix the reward function, or set on_nonfinite=skip to drop these rows."
            )
        rows = np.flatnonzero(finite).tolist()
        prompts = None if prompt_ids is None else _codes(prompt_ids[row] for row in rows)
        return labels, finite, [labels[row] for row in rows], values[finite], prompts

    def _labels(self, groups: Iterable[Hashable], prompt_ids: Sequence[Hashable] | None) -> list[str]:
        return check_labels(groups, self._row_of, self.config.default_group, self.config.group_key, prompt_ids)


def _plain(prompt_ids: Any) -> list[Hashable] | None:
    """Return plain values: a Series would be indexed by label, and tensors are never equal keys."""
    return prompt_ids.tolist() if hasattr(prompt_ids, "tolist") else None if prompt_ids is None else list(prompt_ids)


def _codes(values: Iterable[Hashable]) -> Integers:
    """Number values by their first appearance."""
    code_of: dict[Hashable, int] = {}
    return np.array([code_of.setdefault(value, len(code_of)) for value in values], dtype=np.int64)
