# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The running reward history per preference group that P-GRPO normalizes against."""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from verl_pgrpo import checkpoint
from verl_pgrpo.advantage import grpo_relation, normalizer, personalized_advantage, prompt_blend
from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import ConfigError, GroupLabelError
from verl_pgrpo.groups import check_labels
from verl_pgrpo.moments import Floats, Integers, Moments
from verl_pgrpo.reward_batch import RewardBatch
from verl_pgrpo.shrinkage import group_weights, prompt_weight, share_within, subtract_prompt, within_std

__all__ = ["AdvantageResult", "GroupHistoryManager", "GroupStatistics"]


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """History of the requested groups, each (N,) float64. An unknown group has count 0 and NaN in the other fields.

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
    mean, std: the statistics used, after `prior_strength` and `min_count`; with baseline=shrinkage, std within prompts
        where the group has such a spread.
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
    cold: NDArray[np.bool_]
    skipped: NDArray[np.bool_]
    groups: list[str]


class GroupHistoryManager:
    """Running reward history of every preference group: count, mean, M2 and spread within prompts, in float64.

    The time for a batch depends on its size, not on the number of known groups (except with `prior_strength`,
    `min_count` or `group_balance`, which use all groups). Managers can be copied. Not thread-safe: one process computes
    advantages.

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
        """All labels in order of first appearance. Labels that are new in the same batch are sorted."""
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
            groups: N labels (text); None or blank text where a row has no group.
            rewards: (N,) float.
            prompt_ids: N hashable generation groups, for the spread within prompts that baseline=shrinkage uses.

        Raises:
            MissingGroupError, GroupLabelError, NonFiniteRewardError, ValueError: the history is unchanged.
        """
        batch = RewardBatch.check(groups, rewards, prompt_ids, self._row_of, self.config)
        self._moments.update(self._rows(batch.groups), batch.rewards, batch.prompts)

    def compute_advantages(
        self, groups: Sequence[Hashable], rewards: ArrayLike, prompt_ids: Sequence[Hashable] | None = None
    ) -> AdvantageResult:
        """Compute the advantages of a batch and add it to the history, in the order given by `config.update_order`.

        The result and the history are bit-identical for any order of the rows.

        Args:
            groups: N labels (text); None or blank text where a row has no group.
            rewards: (N,) float, the scalar reward of each response.
            prompt_ids: N hashable generation groups (verl's uid: the prompt of each response), for `scale` and `shift`.
                Required with baseline=blended and baseline=shrinkage.

        Raises:
            MissingGroupError, GroupLabelError, NonFiniteRewardError, ValueError: the history is unchanged.
        """
        if prompt_ids is None and self.config.baseline != "history":
            raise ValueError(f"baseline={self.config.baseline} requires prompt_ids: the prompt that each row answers")
        batch = RewardBatch.check(groups, rewards, prompt_ids, self._row_of, self.config)
        return self._compute(batch, self._rows(batch.groups))

    def statistics(self, groups: Sequence[Hashable]) -> GroupStatistics:
        """Return the history of each requested group as recorded: `prior_strength` and `min_count` are not applied.

        Raises:
            MissingGroupError, GroupLabelError: a label is missing or not text.
        """
        rows = np.array([self._row_of.get(label, -1) for label in self._labels(groups)], dtype=np.int64)
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
        order, labels = np.argsort(-self._moments.count[: self.num_groups], kind="stable"), self.groups
        return [labels[row] for row in order[:k]]

    def merge(self, other: GroupHistoryManager) -> None:
        """Add another history to this one. With `half_life`, `other` is the newer of the two.

        Raises:
            ConfigError: the histories were recorded under options that give their numbers different meanings.
        """
        mine, theirs = self.config.history_options(), other.config.history_options()
        if mine != theirs:
            raise ConfigError(f"cannot merge histories with different options, {mine} and {theirs}; record both alike")
        self._moments.merge(self._rows(other.groups, ordered=True), other._moments.take(np.arange(other.num_groups)))

    def save(self, path: str | os.PathLike[str], step: int | None = None) -> None:
        """Write the history to a Parquet file, atomically.

        Args:
            path: the file to write or replace. Its folder must exist.
            step: training step that the history belongs to, checked by `load`.

        Raises:
            HistoryFileError: the file cannot be written. An existing file is unchanged.
        """
        checkpoint.write(path, self.groups, self._moments.take(np.arange(self.num_groups)), self.config, step)

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
            HistoryFileError: a subclass tells the cause; see `verl_pgrpo.errors`.
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
            MissingGroupError, GroupLabelError, ValueError: a label is missing, not text, not unique, or has count 0.
        """
        if not moments.count.all():
            raise ValueError("a history holds only groups with rewards: leave out those with count 0")
        history = cls(config)
        rows = history._rows(history._labels(labels), ordered=True)
        if history.num_groups < len(rows):
            raise GroupLabelError(f"{len(rows)} labels, of which only {history.num_groups} are distinct")
        history._moments.merge(rows, moments)
        return history

    def _compute(self, batch: RewardBatch, rows: Integers) -> AdvantageResult:
        config, values, prompts = self.config, batch.rewards, batch.prompts
        used, pool = self._update(rows, values, prompts)
        mean, std, cold = normalizer(used, *(pool or (0.0, 0.0)), config.prior_strength, config.min_count)
        shrinkage = config.baseline == "shrinkage"
        if shrinkage:
            # A cold group has the statistics of all groups, or none. Its own share says nothing about them.
            within = np.where(cold, 1.0, share_within(used))
            std = within_std(std, within, mean)
        epsilon, norm_by_std = config.epsilon, config.norm_adv_by_std_in_grpo
        advantages = personalized_advantage(values, mean, std, epsilon, norm_by_std)
        scale = shift = None
        if prompts is not None:
            scale, shift = grpo_relation(values, prompts, mean, std, epsilon, norm_by_std)
            if shrinkage:
                w = prompt_weight(within, np.bincount(prompts)[prompts] - 1)
                advantages, stretch, kept = subtract_prompt(advantages, w, prompts)
                scale, shift = stretch * scale, kept * shift
            elif config.baseline == "blended":
                standardized = personalized_advantage(values, mean, std, epsilon)
                advantages, stretch, kept = prompt_blend(advantages, standardized, prompts)
                scale, shift = stretch * scale, kept * shift
        if config.group_balance > 0:
            weight = group_weights(self._moments.count[: self.num_groups], rows, config.group_balance)
            advantages = weight * advantages
            if scale is not None and shift is not None:
                scale, shift = weight * scale, weight * shift

        every_row = batch.every_row
        return AdvantageResult(
            advantages=every_row(advantages, 0.0),
            mean=every_row(mean, np.nan),
            std=every_row(std, np.nan),
            count=every_row(used.count, 0.0),
            scale=None if scale is None else every_row(scale, np.nan),
            shift=None if shift is None else every_row(shift, np.nan),
            cold=every_row(cold, False),
            skipped=~batch.finite,
            groups=batch.labels,
        )

    def _update(
        self, rows: Integers, values: Floats, prompts: Integers | None
    ) -> tuple[Moments, tuple[float, float] | None]:
        """Add a batch; return the statistics that normalize it: of each row's group, and of all groups together."""
        if self.config.update_order == "before_normalize":
            self._moments.update(rows, values, prompts)
            return self._moments.take(rows), self._pool()
        past, pool = self._moments.take(rows), self._pool()
        self._moments.update(rows, values, prompts)
        # A group (or the pool) without a past is normalized by its first batch.
        return past.where(past.count > 0, self._moments.take(rows)), pool or self._pool()

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

    def _labels(self, groups: Iterable[Hashable]) -> list[str]:
        return check_labels(groups, self._row_of, self.config.default_group, self.config.group_key, None)
