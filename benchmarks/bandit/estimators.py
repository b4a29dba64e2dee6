# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Advantages of many runs at once. Run by run, they equal verl's or this package's: tests/benchmarks/test_bandit.py.

Rewards are (runs, prompts, n); verl's estimators see one run's prompts * n responses. `PGRPO` takes the package's own
`PGRPOConfig`; it keeps (runs, groups) statistics in torch where the package keeps (groups,) in numpy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verl_pgrpo import PGRPOConfig
from verl_pgrpo.moments import FIELDS
from verl_pgrpo.shrinkage import OVERSHRINK, SMALLEST_SHARE


@dataclass(frozen=True)
class Batch:
    """One step of many runs: rewards (runs, prompts, n); labels, true mean and true std, each (runs, prompts)."""

    rewards: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor


Estimator = Callable[[Batch], Tensor]


def grpo(batch: Batch) -> Tensor:
    """verl's `grpo`: mean and std of the generation group."""
    return dr_grpo(batch) / (batch.rewards.std(-1, keepdim=True) + 1e-6)


def dr_grpo(batch: Batch) -> Tensor:
    """verl's `grpo` with norm_adv_by_std_in_grpo=False."""
    return batch.rewards - batch.rewards.mean(-1, keepdim=True)


def rloo(batch: Batch) -> Tensor:
    """verl's `rloo`: minus the mean of the others. Dr. GRPO's times n / (n - 1), so only the step size differs."""
    n = batch.rewards.shape[-1]
    return dr_grpo(batch) * (n / (n - 1))


def batch_norm(batch: Batch) -> Tensor:
    """verl's `reinforce_plus_plus`: mean and variance of the whole batch."""
    return _whiten(batch.rewards)


def prompt_batch(batch: Batch) -> Tensor:
    """verl's `reinforce_plus_plus_baseline`: mean of the generation group, variance of the whole batch."""
    return _whiten(dr_grpo(batch))


def personalized(rewards: Tensor, mean: Tensor, std: Tensor, epsilon: float = 1e-6, norm_by_std: bool = True) -> Tensor:
    """`verl_pgrpo.personalized_advantage` in torch."""
    centered = rewards - mean
    return centered / torch.where(std > 0, std + epsilon, 1.0) if norm_by_std else centered


def _whiten(values: Tensor) -> Tensor:
    mean, variance = values.mean((-2, -1), keepdim=True), values.var((-2, -1), keepdim=True)
    return (values - mean) * torch.rsqrt(variance + 1e-8)


def others(values: Tensor) -> Tensor:
    """For each of a prompt's n values, the mean of the others."""
    n = values.shape[-1]
    return (values.sum(-1, keepdim=True) - values) / (n - 1)


def prompt_share(standardised: Tensor) -> Tensor:
    """w of `verl_pgrpo.advantage.prompt_blend`, one per run: (runs, 1, 1)."""
    n = standardised.shape[-1]
    within = standardised.var(-1).mean(-1)
    between = (standardised.mean(-1).square().mean(-1) - within / n).clamp(min=0.0)
    share = torch.where(between > 0, between / (between + within / (n - 1)), 0.0)
    return share[:, None, None]


def share_within(history: Moments) -> Tensor:
    """`verl_pgrpo.shrinkage.share_within`: (runs, groups)."""
    total = history.std().square()
    share = torch.where(total > 0, history.within / history.within_dof / total, 1.0)
    return torch.where(share < 1 - 1e-9, share, 1.0)


def prompt_weight(within: Tensor, n: int) -> Tensor:
    """`verl_pgrpo.shrinkage.prompt_weight` for prompts of n responses."""
    signal = (1 - within) * (n - 1)
    return (OVERSHRINK * signal / (signal + within).clamp(min=1e-300)).clamp(max=1.0)


def group_weights(count: Tensor, alpha: float) -> Tensor:
    """`verl_pgrpo.shrinkage.group_weights` of every group: (runs, groups)."""
    total = count.sum(1, keepdim=True)
    share = torch.maximum(count / total, SMALLEST_SHARE / (count > 0).sum(1, keepdim=True))
    weight = share**-alpha
    return weight / ((count * weight).sum(1, keepdim=True) / total)


class Moments:
    """`verl_pgrpo.moments.Moments` for many runs: its arrays, each (runs, groups) float64."""

    def __init__(self, runs: int, groups: int, half_life: float | None) -> None:
        self.log_decay = 0.0 if half_life is None else -math.log(2.0) / half_life
        self.count, self.mean, self.m2, self.within, self.within_dof = torch.zeros(
            len(FIELDS), runs, groups, dtype=torch.float64
        )

    def weight(self, count: Tensor) -> Tensor:
        return torch.expm1(count * self.log_decay) / math.expm1(self.log_decay) if self.log_decay else count

    def degrees_of_freedom(self, count: Tensor) -> Tensor:
        if not self.log_decay:
            return (count - 1.0).clamp(min=0.0)
        squares = (1.0 + torch.exp(count * self.log_decay)) / (1.0 + math.exp(self.log_decay))
        return torch.where(count > 1, self.weight(count) - squares, 0.0)

    def std(self) -> Tensor:
        dof = self.degrees_of_freedom(self.count)
        return torch.where(dof > 0, self.m2 / dof, 0.0).sqrt()

    def update(self, rewards: Tensor, prompt_labels: Tensor) -> None:
        """Add rewards (runs, prompts, n) of groups `prompt_labels` (runs, prompts)."""
        n = rewards.shape[-1]
        values, labels = rewards.flatten(1), prompt_labels.repeat_interleave(n, 1)
        zeros = torch.zeros_like(self.mean)
        count = zeros.scatter_add(1, labels, torch.ones_like(values))
        mean = zeros.scatter_add(1, labels, values) / count.clamp(min=1.0)
        squares = zeros.scatter_add(1, labels, (values - mean.gather(1, labels)).square())
        factor = self.degrees_of_freedom(count) / (count - 1.0).clamp(min=1.0)
        m2 = squares * factor

        old, total = self.count, self.count + count
        delta = torch.where(old > 0, mean - self.mean, 0.0)
        share = torch.where(total > 0, self.weight(count) / self.weight(total), 0.0)
        decay = torch.exp(count * self.log_decay)
        grown = self.m2 * decay + m2 + delta.square() * (self.weight(old) * decay * share)
        within = (rewards - rewards.mean(-1, keepdim=True)).square().sum(-1)
        dof = torch.full_like(within, n - 1.0)
        self.within = self.within * decay + factor * zeros.scatter_add(1, prompt_labels, within)
        self.within_dof = self.within_dof * decay + factor * zeros.scatter_add(1, prompt_labels, dof)
        self.mean = torch.where(old > 0, self.mean + delta * share, mean)
        self.m2 = torch.where(old > 0, grown, m2)
        self.count = total

    def pooled(self) -> tuple[Tensor, Tensor]:
        """Mean and std of all groups' rewards together, each (runs, 1)."""
        weight = self.weight(self.count)
        total = weight.sum(1, keepdim=True)
        mean = (weight * self.mean).sum(1, keepdim=True) / total
        m2 = (self.m2 + weight * (self.mean - mean).square()).sum(1, keepdim=True)
        squares = ((weight - self.degrees_of_freedom(self.count)) * weight).sum(1, keepdim=True)
        dof = total - squares / total
        return mean, torch.where(self.count.sum(1, keepdim=True) > 1, m2 / dof, 0.0).sqrt()

    def where(self, condition: Tensor, other: Moments) -> Moments:
        """A copy that has `other`'s groups wherever `condition` (runs, groups) is False."""
        made = copy.copy(self)
        for name in FIELDS:
            setattr(made, name, torch.where(condition, getattr(self, name), getattr(other, name)))
        return made


class Oracle:
    """The true mean and std of the preference group under the current policy, which no real estimator knows.

    Args:
        runs, groups: sizes of the statistics.
        lagging: which of the two, "mean" or "std", is the history's instead.
        shift: added to the mean, in true stds.
    """

    def __init__(self, runs: int, groups: int, lagging: str = "", shift: float = 0.0) -> None:
        self.lagging, self.shift = lagging, shift
        self.history = Moments(runs, groups, None)

    def __call__(self, batch: Batch) -> Tensor:
        self.history.update(batch.rewards, batch.labels)
        mean, std = batch.mean + self.shift * batch.std, batch.std
        if self.lagging == "mean":
            mean = self.history.mean.gather(1, batch.labels)
        elif self.lagging == "std":
            std = self.history.std().gather(1, batch.labels)
        return personalized(batch.rewards, mean.unsqueeze(-1), std.unsqueeze(-1))


class EBPO:
    """EBPO (arXiv 2602.05165) as its abstract describes it: no preference groups, one history of all rewards.

    The baseline is the prompt's mean, shrunk toward the mean of all rewards so far. The shrinkage grows with the ratio
    of the variance within prompts to that between them. The abstract does not state the divisor: here the std of all
    rewards.
    """

    def __init__(self, runs: int) -> None:
        self.all = Moments(runs, 1, None)

    def __call__(self, batch: Batch) -> Tensor:
        n, nobody = batch.rewards.shape[-1], torch.zeros_like(batch.labels)
        self.all.update(batch.rewards, nobody)
        within = self.all.within / self.all.within_dof
        between = (self.all.std().square() - within).clamp(min=0.0)
        toward_all = torch.where(within > 0, within / n / (within / n + between), 0.0).unsqueeze(-1)
        prompt = batch.rewards.mean(-1, keepdim=True)
        baseline = toward_all * self.all.mean.unsqueeze(-1) + (1 - toward_all) * prompt
        return (batch.rewards - baseline) / (self.all.std().unsqueeze(-1) + 1e-6)


class PGRPO:
    """`verl_pgrpo.GroupHistoryManager` for many runs."""

    def __init__(self, config: PGRPOConfig, runs: int, groups: int) -> None:
        self.config = config
        self.own = Moments(runs, groups, config.half_life)

    def __call__(self, batch: Batch) -> Tensor:
        past = copy.copy(self.own)  # an update replaces its tensors
        self.own.update(batch.rewards, batch.labels)
        own, pool = self.own, self.own
        if self.config.update_order == "after_normalize":
            pool = past if past.count.any() else pool
            own = past.where(past.count > 0, own)
        mean, std = self._normalizer(own, pool)
        shrinkage = self.config.baseline == "shrinkage"
        if shrinkage:
            within = share_within(own)
            std = std * torch.where(within > 1e-24, within.sqrt(), 1.0)
        mean, std = self._of_prompt(mean, batch), self._of_prompt(std, batch)
        epsilon = self.config.epsilon
        advantages = personalized(batch.rewards, mean, std, epsilon, self.config.norm_adv_by_std_in_grpo)
        if shrinkage:
            w = prompt_weight(within, batch.rewards.shape[-1])
            advantages = advantages - self._of_prompt(w, batch) * others(advantages)
        elif self.config.baseline == "blended":
            standardized = personalized(batch.rewards, mean, std, epsilon)
            advantages = advantages - prompt_share(standardized) * others(advantages)
        if self.config.group_balance:
            weight = group_weights(self.own.count, self.config.group_balance)
            advantages = self._of_prompt(weight, batch) * advantages
        return advantages

    @staticmethod
    def _of_prompt(values: Tensor, batch: Batch) -> Tensor:
        """(runs, prompts, 1) of values (runs, groups)."""
        return values.expand(len(batch.labels), -1).gather(1, batch.labels).unsqueeze(-1)

    def _normalizer(self, own: Moments, pool: Moments) -> tuple[Tensor, Tensor]:
        mean, std = own.mean, own.std()
        std = torch.where(std > 8 * torch.finfo(torch.float64).eps * mean.abs(), std, 0.0)
        prior, least = self.config.prior_strength, self.config.min_count
        if not prior and not least:
            return mean, std
        pool_mean, pool_std = pool.pooled()
        if prior > 0:
            weight = own.weight(own.count)
            between = (weight * prior / (weight + prior)) * (mean - pool_mean).square()
            dof = own.degrees_of_freedom(own.count) + prior
            std = ((own.m2 + prior * pool_std.square() + between) / dof).sqrt()
            mean = (weight * mean + prior * pool_mean) / (weight + prior)
        if least > 0:
            few = own.count < least
            mean, std = torch.where(few, pool_mean, mean), torch.where(few, pool_std, std)
        return mean, std
