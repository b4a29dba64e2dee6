# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The method itself: scores and statistics to advantages (arXiv 2603.10009), and how they relate to GRPO's.

    A_i = (R_i - mu_p) / (sigma_p + epsilon)

Caveat: unlike GRPO's, these advantages need not average to zero over a prompt or a batch. That is the point: a prompt
whose responses all earn the same reward still teaches when that reward lies off its users' history.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["grpo_relation", "personalized_advantage"]


def _divisor(std: Tensor, epsilon: float) -> Tensor:
    """sigma_p + epsilon, but 1 for a group without spread: nothing is divided by nearly nothing."""
    return torch.where(std > 0, std + epsilon, 1.0)


def personalized_advantage(
    rewards: Tensor, mean: Tensor, std: Tensor, epsilon: float = 1e-6, norm_by_std: bool = True
) -> Tensor:
    """Advantage of each response against the history of its preference group.

    Args:
        rewards: (N,) scalar rewards, the sum of each response's token-level rewards.
        mean: (N,) or scalar, mean reward mu_p of the row's preference group.
        std: (N,) or scalar, standard deviation sigma_p; 0 means no spread and leaves R - mu_p unscaled.
        epsilon: added to the std, in units of the reward.
        norm_by_std: False drops the division, as verl's `norm_adv_by_std_in_grpo=False` does.

    Returns:
        (N,) advantages, in units of sigma_p (of the reward where unscaled), in the promoted dtype of the inputs.
    """
    std = torch.as_tensor(std)
    centred = rewards - mean
    return centred / _divisor(std, epsilon) if norm_by_std else centred


def grpo_relation(
    rewards: Tensor, prompt: Tensor, mean: Tensor, std: Tensor, epsilon: float = 1e-6, norm_by_std: bool = True
) -> tuple[Tensor, Tensor]:
    """Scale and shift of Corollary 3.1: A_pgrpo = scale * A_grpo + shift.

    With mu_G and sigma_G of the generation group (the responses of one prompt) as verl's `grpo` takes them, that is
    with Bessel's correction, with epsilon beside sigma_G, and 0 and 1 for a prompt with a single response:

        scale = (sigma_G + epsilon) / (sigma_p + epsilon),   shift = (mu_G - mu_p) / (sigma_p + epsilon)

    The epsilons make the identity exact for the advantages that are really computed.

    Args:
        rewards: (N,) float64.
        prompt: (N,) int64, the generation group of each response, numbered from 0.
        mean, std, epsilon, norm_by_std: as for `personalized_advantage`.

    Returns:
        scale and shift, each (N,).
    """
    count = torch.bincount(prompt).to(rewards.dtype)
    prompt_mean = torch.bincount(prompt, weights=rewards) / count
    # index_select, because indexing with a tensor starts threads, which costs milliseconds on a busy driver.
    deviation = rewards - prompt_mean.index_select(0, prompt)
    squares = torch.bincount(prompt, weights=deviation * deviation)
    single = count == 1
    prompt_std = torch.where(single, 1.0, (squares / (count - 1)).sqrt())
    prompt_mean = torch.where(single, 0.0, prompt_mean).index_select(0, prompt)
    if not norm_by_std:
        return torch.ones_like(rewards), prompt_mean - mean
    divisor = _divisor(std, epsilon)
    return (prompt_std + epsilon).index_select(0, prompt) / divisor, (prompt_mean - mean) / divisor
