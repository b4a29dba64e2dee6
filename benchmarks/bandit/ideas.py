# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Ideas that were tried and not adopted: baseline=shrinkage with one part replaced (docs/shrinkage.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.bandit.estimators import Batch, Moments, others, prompt_weight, share_within

RECENT = 128.0  # half-life of the recent mean, in rewards of the group


class Shrinkage:
    """baseline=shrinkage for many runs, with at most one part replaced.

    Args:
        runs, groups: sizes of the statistics.
        part: what is replaced. `sigma_p`: the divisor is the std of all rewards. `moderated`: it is the prompt's own
            variance, moderated by the history as in limma's squeezeVar (Smyth 2004), with d0 from the first two moments
            of the variances. `lag`: only differences from the group's recent mean are subtracted. `unrounded`: w = w*.
            Empty: nothing.
    """

    def __init__(self, runs: int, groups: int, part: str = "") -> None:
        self.part = part
        self.own, self.recent = Moments(runs, groups, None), Moments(runs, groups, RECENT)
        self.variances = torch.zeros(3, runs, groups, dtype=torch.float64)  # sums of 1, s_j^2 and s_j^4 over prompts

    def __call__(self, batch: Batch) -> Tensor:
        rewards, n = batch.rewards, batch.rewards.shape[-1]
        self.own.update(rewards, batch.labels)
        share, total = share_within(self.own), self.own.std().square()
        within, center = share * total, self.own.mean
        if self.part == "lag":
            self.recent.update(rewards, batch.labels)
            center, total = self.recent.mean, self.recent.std().square()
            share = torch.where(total > within, within / total, 1.0)
        signal = (1 - share) * (n - 1)
        w = signal / (signal + share).clamp(min=1e-300) if self.part == "unrounded" else prompt_weight(share, n)

        def of_prompt(values: Tensor) -> Tensor:
            return values.gather(1, batch.labels).unsqueeze(-1)

        variance = of_prompt(self.own.std().square() if self.part == "sigma_p" else within)
        if self.part == "moderated":
            variance = self._moderated(batch, variance)
        residual = rewards - of_prompt(self.own.mean) - of_prompt(w) * (others(rewards) - of_prompt(center))
        return residual / torch.where(variance > 0, variance.sqrt() + 1e-6, 1.0)

    def _moderated(self, batch: Batch, pooled: Tensor) -> Tensor:
        """(runs, prompts, 1): (d0 s0^2 + d s_j^2) / (d0 + d), with d = n - 1; `pooled` where d0 is infinite."""
        own, d = batch.rewards.var(-1), batch.rewards.shape[-1] - 1
        for total, values in zip(self.variances, (torch.ones_like(own), own, own.square()), strict=True):
            total.scatter_add_(1, batch.labels, values)
        count, first, second = (total.gather(1, batch.labels).unsqueeze(-1) for total in self.variances)
        mean = first / count
        # For a scaled inverse chi^2 of the variances: E[s_j^4] / E[s_j^2]^2 = (1 + 2 / d) (d0 - 2) / (d0 - 4)
        ratio = second / count / mean.square().clamp(min=1e-300) / (1 + 2 / d)
        d0 = (4 * ratio - 2) / (ratio - 1)
        prior = mean * (d0 - 2) / d0
        return torch.where((ratio > 1) & (mean > 0), (d0 * prior + d * own.unsqueeze(-1)) / (d0 + d), pooled)
