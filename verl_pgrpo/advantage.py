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

__all__ = ["grpo_relation", "personalized_advantage", "prompt_blend"]


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


def prompt_blend(advantages: Tensor, standardised: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P-GRPO's advantages less what a prompt's responses share by its nature: `baseline=blended`. (Ours.)

    The history knows nothing of the single prompt: what all its responses share (a hard question, a bad day, a policy
    that has moved on) reads as merit. The prompt's other responses know it, but there are few of them. Let response i
    of prompt j have the standardised advantage z_ij = a_j + e_ij, with a_j of variance T^2 around the history's mean
    and e_ij of variance s^2. The best linear prediction of a_j without looking at z_ij itself (which would bias the
    gradient) is a shrunk mean of the other n - 1,

        w * mean of z_kj over k != i,   w = T^2 / (T^2 + s^2 / (n - 1)),

    and the blended advantage is z_ij less that. Written with the prompt's mean z_j,

        (1 + w / (n - 1)) * (z_ij - z_j) + (1 - w) * z_j

    so Corollary 3.1 holds with `scale` times the first factor and `shift` times the second. w = 0 is P-GRPO, w = 1 is
    RLOO over sigma_p. T^2 and s^2 are the batch's own, by moments over all its prompts: s^2 is the pooled variance
    within prompts, T^2 = max(0, mean of z_j^2 - s^2 / n_j). Nothing is kept from batch to batch.

    Caveat: with w near 1 a prompt whose responses all earn the same teaches nearly nothing, as in GRPO. And w comes
    from the batch, so here a batch's result does depend on how it was split.

    Args:
        advantages: (N,) float64, to be blended.
        standardised: (N,) the same in units of sigma_p, which w is taken from.
        prompt: (N,) int64, the generation group of each response, numbered from 0.

    Returns:
        blended advantages and the factors 1 + w / (n - 1) and 1 - w, each (N,); a prompt's only response is as it was.
    """
    count = torch.bincount(prompt).to(standardised.dtype)
    others = count - 1
    mean = torch.bincount(prompt, weights=standardised) / count
    within = (standardised - mean.index_select(0, prompt)).square().sum() / others.sum().clamp(min=1)
    between = (mean.square() - within / count).mean().clamp(min=0)
    # T^2 (n - 1) / (T^2 (n - 1) + s^2): zero for a single response, and no division by zero without any spread.
    signal = between * others
    share = torch.where(signal > 0, signal / (signal + within), 0.0)
    stretch = (1 + share / others.clamp(min=1)).index_select(0, prompt)
    kept = (1 - share).index_select(0, prompt)
    centre = (torch.bincount(prompt, weights=advantages) / count).index_select(0, prompt)
    return stretch * (advantages - centre) + kept * centre, stretch, kept
