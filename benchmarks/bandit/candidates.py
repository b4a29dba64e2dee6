# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Extensions of P-GRPO that were tried. One is shipped, as baseline=blended; docs/benchmarks.md has the figures.

All work on P-GRPO's own standardised advantages z, and keep nothing from batch to batch.

*Blend*: take off w times the mean of the prompt's other responses; w fixed, or by moments over the batch or over each
group's part of it (`verl_pgrpo.advantage.prompt_blend` has the derivation).

*Staleness*: a history that lags gives a group's prompts of this batch a common mean m_g, which is 0 otherwise. Take off
the mean over the group's other prompts, shrunk by max(0, 1 - v_g / m_g^2), where v_g is the squared standard error of
m_g (the positive-part James-Stein estimator).
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.bandit import estimators as adv
from benchmarks.bandit.train import Entrant
from verl_pgrpo import PGRPOConfig

__all__ = ["candidate"]


def candidate(name: str, blend: float | str = 0.0, stale: bool = False, **options: object) -> Entrant:
    """P-GRPO with `options` of PGRPOConfig, extended. `blend`: w, or "batch" or "group" for where it is taken from."""
    config = PGRPOConfig.from_mapping(options)
    return Entrant(name, lambda runs, groups: _Extended(adv.PGRPO(config, runs, groups), groups, blend, stale))


class _Extended:
    def __init__(self, plain: adv.PGRPO, groups: int, blend: float | str, stale: bool) -> None:
        self.plain, self.groups, self.blend, self.stale = plain, groups, blend, stale

    def __call__(self, batch: adv.Batch) -> Tensor:
        z = self.plain(batch)
        if self.stale:
            z = z - self._lag(z, batch.labels).unsqueeze(-1)
        if self.blend == "batch":
            return z - adv.prompt_share(z) * adv.others(z)
        if self.blend == "group":
            return z - self._share(z, batch.labels).unsqueeze(-1) * adv.others(z)
        return z - self.blend * adv.others(z)

    def _sum(self, values: Tensor, labels: Tensor) -> Tensor:
        """(runs, prompts) sums over the prompts of the same group."""
        zeros = values.new_zeros(len(values), self.groups)
        return zeros.scatter_add(1, labels, values).gather(1, labels)

    def _share(self, z: Tensor, labels: Tensor) -> Tensor:
        n, within = z.shape[-1], z.var(-1)
        within, between = self._sum(within, labels), self._sum(z.mean(-1).square() - within / n, labels).clamp(min=0.0)
        return torch.where(between > 0, between / (between + within / (n - 1)), 0.0)

    def _lag(self, z: Tensor, labels: Tensor) -> Tensor:
        prompt = z.mean(-1)
        count, total = self._sum(torch.ones_like(prompt), labels), self._sum(prompt, labels)
        mean = total / count
        error = self._sum((prompt - mean).square(), labels) / (count - 1) / count
        trust = torch.where(count > 2, (1 - error / mean.square().clamp(min=1e-30)).clamp(min=0.0), 0.0)
        return trust * (total - prompt) / (count - 1).clamp(min=1.0)
