# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Preference groups to reward statistics: the running history that P-GRPO normalises against."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from verl_pgrpo.advantage import grpo_relation, personalized_advantage, prompt_blend
from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import ConfigError, GroupLabelError, MissingGroupError, NonFiniteRewardError
from verl_pgrpo.factor import Factor
from verl_pgrpo.labels import LabelIndex
from verl_pgrpo.moments import MAX_MAGNITUDE, Moments
from verl_pgrpo.results import AdvantageResult, GroupStatistics

__all__ = ["GroupHistoryManager"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class GroupHistoryManager:
    """Reward history of every preference group: n, mean and M2 per group, float64.

    Costs 24 bytes of statistics and about 24 of index per group beside its label; a batch costs time in its own size,
    however many groups are known. Not thread-safe: it belongs to the one process that computes advantages.

    Args:
        config: the options; the paper's method by default.
    """

    def __init__(self, config: PGRPOConfig | None = None) -> None:
        self.config = config if config is not None else PGRPOConfig()
        self._labels = LabelIndex()
        self._moments = Moments(0, self.config.half_life)
        self._pool = Moments(1, self.config.half_life)  # all groups together, for the cold start

    def __repr__(self) -> str:
        return f"GroupHistoryManager({self.num_groups} groups, {self.total_count} rewards)"

    @property
    def groups(self) -> list[str]:
        """All labels, in the order of their first appearance."""
        return list(self._labels)

    @property
    def num_groups(self) -> int:
        return len(self._labels)

    @property
    def total_count(self) -> int:
        """Rewards observed so far, over all groups."""
        return int(self._pool.count[0])

    @property
    def nbytes(self) -> int:
        """Bytes held, the labels' own text apart."""
        return 24 * len(self._moments) + self._labels.nbytes

    def prepare(self, groups: Factor[Any]) -> None:
        """Look up a batch's groups before its rewards are known; `advantages` of the same factor then need not."""
        if set(map(type, groups.levels)) <= {str}:
            with suppress(UnicodeEncodeError):  # `advantages` refuses such a label
                self._labels.prepare(groups.levels)

    def observe(self, groups: Sequence[Hashable] | Factor[Any], rewards: ArrayLike) -> None:
        """Fold a batch into the history.

        Args:
            groups: N labels, text; None where a row has no group.
            rewards: (N,) float.

        Raises:
            MissingGroupError, GroupLabelError, NonFiniteRewardError: the history is as it was before.
        """
        labels, values, finite = self._checked(groups, rewards, None)
        if not finite.all():
            labels, values = labels.take(finite), values[finite]
        self._fold(self._rows(labels), values)

    def advantages(
        self,
        groups: Sequence[Hashable] | Factor[Any],
        rewards: ArrayLike,
        index: Sequence[Hashable] | Factor[Any] | None = None,
    ) -> AdvantageResult:
        """Advantages of a batch, which is folded into the history (before or after, as `config.update` says).

        Args:
            groups: N labels, text; None where a row has no group.
            rewards: (N,) float, each response's scalar reward.
            index: N generation groups (verl's uid: which prompt a response answers), for `scale` and `shift`; with
                baseline=blended needed.

        Raises:
            MissingGroupError, GroupLabelError, NonFiniteRewardError, ValueError (sizes): the history is as it was.
        """
        if index is None and self.config.baseline == "blended":
            raise ValueError("baseline=blended needs to know which prompt each row answers: pass `index`")
        prompts = None if index is None else Factor.of(index)
        labels, values, finite = self._checked(groups, rewards, prompts)
        if finite.all():
            return self._advantages(labels, values, prompts)
        # The others are computed as if the skipped rows were not there, for the prompt's statistics as well.
        kept_prompts = None if prompts is None else prompts.take(finite)
        return self._advantages(labels.take(finite), values[finite], kept_prompts).spread(finite)

    def _advantages(self, labels: Factor[str], values: Floats, prompts: Factor[Any] | None) -> AdvantageResult:
        rows = self._rows(labels)
        if self.config.update == "after_normalize":
            past, past_pool = self._moments.take(rows), self._pool.take(np.zeros(1, dtype=np.int64))
            self._fold(rows, values)
            # A group (or a pool) without a past is normalised by its first batch itself.
            used = past.where(past.count > 0, self._moments.take(rows))
            pool = past_pool if past_pool.count[0] else self._pool
        else:
            self._fold(rows, values)
            used, pool = self._moments.take(rows), self._pool
        mean, std, cold = self._normaliser(used, pool)
        epsilon, norm = self.config.epsilon, self.config.norm_adv_by_std_in_grpo
        t_values, t_mean, t_std = map(torch.from_numpy, (values, mean, std))
        advantages, scale, shift = personalized_advantage(t_values, t_mean, t_std, epsilon, norm), None, None
        if prompts is not None:
            t_prompts = torch.from_numpy(prompts.codes)
            t_scale, t_shift = grpo_relation(t_values, t_prompts, t_mean, t_std, epsilon, norm)
            if self.config.baseline == "blended":
                standardised = personalized_advantage(t_values, t_mean, t_std, epsilon)
                advantages, stretch, kept = prompt_blend(advantages, standardised, t_prompts)
                t_scale, t_shift = stretch * t_scale, kept * t_shift
            scale, shift = t_scale.numpy(), t_shift.numpy()
        return AdvantageResult(
            advantages=advantages.numpy(),
            mean=mean,
            std=std,
            count=used.count.astype(np.float64),
            scale=scale,
            shift=shift,
            cold=cold,
            skipped=np.zeros(len(values), dtype=np.bool_),
        )

    def statistics(self, groups: Sequence[Hashable] | Factor[Any]) -> GroupStatistics:
        """History of each group asked for, without cold start; nothing is added."""
        labels = self._text(groups, None)
        rows = self._labels.find(labels.levels)[labels.codes]
        known = rows >= 0
        taken = self._moments.take(np.where(known, rows, 0)) if self.num_groups else Moments(len(rows))
        return GroupStatistics(
            count=np.where(known, taken.count, 0).astype(np.float64),
            mean=np.where(known, taken.mean, np.nan),
            std=np.where(known, self._moments.std(taken.count, taken.m2), np.nan),
        )

    def largest(self, k: int) -> list[str]:
        """The k groups with the most rewards, largest first (of equals the first known). Costs time in all groups."""
        count = self._moments.count[: self.num_groups]
        if k < len(count):
            threshold = np.partition(count, len(count) - k)[len(count) - k] if k else np.iinfo(np.int64).max
            candidates = np.flatnonzero(count >= threshold)
        else:
            candidates = np.arange(len(count))
        order = candidates[np.argsort(-count[candidates], kind="stable")][:k]
        return [self._labels.label(row) for row in order.tolist()]

    def merge(self, other: GroupHistoryManager) -> None:
        """Add another history to this one. With exponential statistics `other` is the newer of the two.

        Raises:
            ConfigError: the two were kept under options that give their numbers different meanings.
        """
        mine, theirs = self.config.history_options(), other.config.history_options()
        if mine != theirs:
            raise ConfigError(f"histories of different options cannot be merged: {mine} and {theirs}")
        rows = self._rows(Factor.of(other.groups))
        self._moments.merge(rows, other._moments.take(np.arange(other.num_groups)))
        self._pool.merge(np.zeros(1, dtype=np.int64), other._pool)

    def save(self, path: str | os.PathLike[str], step: int) -> None:
        """Write to `path` (Parquet), atomically; see `verl_pgrpo.history_file.write_history`."""
        from verl_pgrpo.history_file import write_history

        write_history(self, path, step)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], config: PGRPOConfig | None = None, step: int | None = None
    ) -> GroupHistoryManager:
        """Read what `save` wrote, checking all of it; see `verl_pgrpo.history_file.read_history`."""
        from verl_pgrpo.history_file import read_history

        return read_history(path, config, step)

    def _checked(
        self, groups: Sequence[Hashable] | Factor[Any], rewards: ArrayLike, prompts: Factor[Any] | None
    ) -> tuple[Factor[str], Floats, NDArray[np.bool_]]:
        """Labels, rewards and which of them are finite; raises before anything has changed."""
        if isinstance(rewards, torch.Tensor):  # numpy knows no bfloat16
            rewards = rewards.detach().double().cpu()
        values = np.array(rewards, dtype=np.float64)
        if values.ndim != 1 or len(values) != len(groups) or (prompts is not None and len(prompts) != len(values)):
            sizes = f"groups {len(groups)}, rewards {values.shape}"
            sizes += "" if prompts is None else f", index {len(prompts)}"
            raise ValueError(f"one group, one reward and one generation group per row are needed, not {sizes}")
        labels = self._text(groups, prompts)
        finite = np.abs(values) <= MAX_MAGNITUDE
        if self.config.nonfinite == "error" and not finite.all():
            row = int(np.argmin(finite))
            raise NonFiniteRewardError(
                f"reward {values[row]} of preference group {labels[row]!r}{_where(row, prompts)} cannot enter the "
                f"history ({np.count_nonzero(~finite)} of {len(values)} rewards are NaN, infinite or beyond "
                f"{MAX_MAGNITUDE:g}). Mend the reward function, or set nonfinite=skip to train without such rows."
            )
        return labels, values, finite

    def _text(self, groups: Sequence[Hashable] | Factor[Any], prompts: Factor[Any] | None) -> Factor[str]:
        """The groups as labels of text, `missing_group` in the place of None."""
        try:
            labels = Factor.of(groups)
        except TypeError:  # not hashable: a list, a dict
            row = next(i for i, label in enumerate(groups) if not (isinstance(label, str) or _is_missing(label)))  # type: ignore[arg-type]
            raise _not_text(groups[row], row, prompts) from None
        if set(map(type, labels.levels)) <= {str}:
            return labels
        missing = np.array([_is_missing(level) for level in labels.levels], dtype=np.bool_)
        if missing.any() and self.config.missing_group is None:
            rows = np.flatnonzero(missing[labels.codes])
            raise MissingGroupError(
                f"{len(rows)} of {len(labels)} rows have no preference group (first: row {rows[0]}"
                f"{_where(int(rows[0]), prompts)}). Fill '{self.config.group_key}' in the data, or set missing_group "
                "to the name of a group for such rows."
            )
        for code in np.flatnonzero(~missing).tolist():
            level = labels.levels[code]
            if not isinstance(level, str):
                raise _not_text(level, int(np.argmax(labels.codes == code)), prompts)
        named = zip(labels.levels, missing.tolist(), strict=True)
        return labels.relabel([str(self.config.missing_group) if gone else level for level, gone in named])

    def _rows(self, labels: Factor[str]) -> Integers:
        try:
            numbers = self._labels.add(labels.levels)
        except UnicodeEncodeError as error:
            raise GroupLabelError(f"preference group {error.object!r} is not valid text: {error.reason}") from error
        if self.num_groups > len(self._moments):
            self._moments.resize(self.num_groups + self.num_groups // 8)
        return numbers[labels.codes]

    def _fold(self, rows: Integers, values: Floats) -> None:
        order = np.argsort(values)  # once for both folds, which need it
        rows, values = rows[order], values[order]
        self._moments.fold(rows, values)
        self._pool.fold(np.zeros(len(values), dtype=np.int64), values)

    def _normaliser(self, own: Moments, pool: Moments) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Mean and std to normalise each row by, and whether its group's own history was not enough."""
        mean, std = own.mean, own.std(own.count, own.m2)
        # Equal rewards that were computed in different ways differ in their last place: that is no spread.
        std = np.where(std > 8 * np.finfo(np.float64).eps * np.abs(mean), std, 0.0)
        cold = std == 0
        start = self.config.cold_start
        pool_mean, pool_std = pool.mean[0], pool.std(pool.count, pool.m2)[0]
        if start.prior_strength > 0:
            # The prior is worth `prior` rewards with the mean and variance of all groups (normal-inverse-gamma update).
            prior, weight = start.prior_strength, own.weight(own.count)
            between = (weight * prior / (weight + prior)) * (mean - pool_mean) ** 2
            dof = own.degrees_of_freedom(own.count) + prior
            std = np.sqrt((own.m2 + prior * pool_std**2 + between) / dof)
            mean = (weight * mean + prior * pool_mean) / (weight + prior)
            cold = cold | (own.count < prior)
        if start.min_count > 0:
            few = own.count < start.min_count
            mean, std, cold = np.where(few, pool_mean, mean), np.where(few, pool_std, std), cold | few
        return mean, std, cold


def _is_missing(label: Hashable) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas.NA compares with nothing
        return True
    except ValueError:  # an array compares element by element
        return False


def _not_text(label: Any, row: int, prompts: Factor[Any] | None) -> GroupLabelError:
    return GroupLabelError(
        f"preference group {label!r}{_where(row, prompts)} is of type {type(label).__name__}, not text"
    )


def _where(row: int, prompts: Factor[Any] | None) -> str:
    return f" (row {row})" if prompts is None else f" (row {row}, uid {prompts[row]})"
