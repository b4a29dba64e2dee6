# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The formulas of P-GRPO (arXiv 2603.10009), in numpy.

    A_i = (R_i - mu_p) / (sigma_p + epsilon)

Caveat: unlike GRPO's, these advantages need not average to zero over a prompt or a batch. This is intended: a prompt
whose responses all earn the same reward still gives a signal if that reward differs from its users' history.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verl_pgrpo.moments import Floats, Integers, Moments, as_floats

__all__ = ["GRPO_EPSILON", "grpo_relation", "normalizer", "personalized_advantage", "prompt_blend", "without_rounding"]

# What verl's `grpo` adds to the std over a prompt's responses, whatever `PGRPOConfig.epsilon` is.
GRPO_EPSILON = 1e-6

Booleans = NDArray[np.bool_]


def _divisor(std: ArrayLike, epsilon: float) -> Floats:
    """Return std + epsilon, but 1 for a group without spread, so that nothing is divided by almost zero."""
    std = as_floats(std)
    return np.where(std > 0, std + epsilon, 1.0)


def personalized_advantage(
    rewards: ArrayLike, mean: ArrayLike, std: ArrayLike, epsilon: float = 1e-6, norm_by_std: bool = True
) -> Floats:
    """Return the advantage of each response against the history of its preference group.

    Args:
        rewards: (N,) scalar rewards, the sum of each response's token-level rewards.
        mean: (N,) or scalar, mean reward mu_p of the row's preference group.
        std: (N,) or scalar >= 0, standard deviation sigma_p. 0 means no spread and leaves R - mu_p unscaled.
        epsilon: added to the std, in units of the reward.
        norm_by_std: False omits the division, like verl's `norm_adv_by_std_in_grpo=False`.

    Returns:
        (N,) float64 advantages, in units of sigma_p (units of the reward where unscaled).
    """
    centered = as_floats(rewards) - as_floats(mean)  # unsigned integers would wrap
    return centered / _divisor(std, epsilon) if norm_by_std else centered


def normalizer(
    own: Moments, pool_mean: float, pool_std: float, prior_strength: float, min_count: int
) -> tuple[Floats, Floats, Booleans]:
    """Return the mean and std that normalize each row, and whether its group's own history was insufficient.

    Args:
        own: the history of each row's group.
        pool_mean, pool_std: of all groups together; unused without the options.
        prior_strength, min_count: the options of `PGRPOConfig`.
    """
    mean, std = own.mean, own.std()
    std = without_rounding(std, mean)
    cold = std == 0
    if prior_strength > 0:
        # The prior is worth this many rewards with the mean and variance of all groups (normal-inverse-gamma update).
        weight, prior = own.weight(own.count), prior_strength
        between = (weight * prior / (weight + prior)) * (mean - pool_mean) ** 2
        dof = own.degrees_of_freedom(own.count) + prior
        std = np.sqrt((own.m2 + prior * pool_std**2 + between) / dof)
        mean = (weight * mean + prior * pool_mean) / (weight + prior)
        cold = cold | (own.count < prior)
    if min_count > 0:
        few = own.count < min_count
        mean, std, cold = np.where(few, pool_mean, mean), np.where(few, pool_std, std), cold | few
    return mean, without_rounding(std, mean), cold


def without_rounding(std: Floats, mean: Floats) -> Floats:
    """Replace a std that is only a rounding error by 0, as with equal rewards that were computed in different ways."""
    return np.where(std > 8 * np.finfo(np.float64).eps * np.abs(mean), std, 0.0)


def grpo_relation(
    rewards: Floats, prompt: Integers, mean: Floats, std: Floats, epsilon: float = 1e-6, norm_by_std: bool = True
) -> tuple[Floats, Floats]:
    """Return scale and shift of Corollary 3.1: A_pgrpo = scale * A_grpo + shift.

    mu_G and sigma_G are mean and std over the generation group (the responses to one prompt) as verl's `grpo` computes
    them: with Bessel's correction, 1e-6 added to sigma_G, and 0 and 1 for a prompt with a single response.

        scale = (sigma_G + 1e-6) / (sigma_p + epsilon),   shift = (mu_G - mu_p) / (sigma_p + epsilon)

    Args:
        rewards: (N,) float64.
        prompt: (N,) int64, the generation group of each response, numbered from 0.
        mean, std, epsilon, norm_by_std: as for `personalized_advantage`.

    Returns:
        scale and shift, each (N,). They do not depend on the order of the rows.
    """
    order = np.lexsort((rewards, prompt))  # the order of rows affects how sums are rounded
    values, of = rewards[order], prompt[order]
    count = np.bincount(of)
    prompt_mean = np.bincount(of, weights=values) / count
    squares = np.bincount(of, weights=np.square(values - prompt_mean[of]))
    single = count == 1
    prompt_std = np.where(single, 1.0, np.sqrt(squares / np.maximum(count - 1, 1)))[prompt]
    prompt_mean = np.where(single, 0.0, prompt_mean)[prompt]
    if not norm_by_std:
        return np.ones_like(rewards), prompt_mean - mean
    divisor = _divisor(std, epsilon)
    return (prompt_std + GRPO_EPSILON) / divisor, (prompt_mean - mean) / divisor


def prompt_blend(advantages: Floats, standardized: Floats, prompt: Integers) -> tuple[Floats, Floats, Floats]:
    """Subtract a shrunken leave-one-out prompt baseline from P-GRPO's advantages: `baseline=blended`. Ours.

    The history knows nothing about a single prompt, so whatever all its responses share (a hard question, a policy that
    has changed) looks like quality. The other responses to the prompt measure it, but they are few. Let response i of
    prompt j have the standardized advantage z_ij = a_j + e_ij, where a_j has variance T^2 around the history's mean and
    e_ij has variance s^2. The best linear prediction of a_j that does not use z_ij itself (which would bias the
    gradient) is a shrunken mean of the other n - 1:

        w * mean of z_kj over k != i,   w = T^2 / (T^2 + s^2 / (n - 1))

    The blended advantage is z_ij minus that. In terms of the prompt's mean z_j it is

        (1 + w / (n - 1)) * (z_ij - z_j) + (1 - w) * z_j

    so Corollary 3.1 holds with `scale` times the first factor and `shift` times the second. w = 0 is P-GRPO, and w = 1
    is RLOO divided by sigma_p. T^2 and s^2 are estimated from the batch by moments over all its prompts: s^2 is the
    pooled variance within prompts, T^2 = max(0, mean of z_j^2 - s^2 / n_j). No state is kept between batches.

    Caveat: with w near 1, a prompt whose responses all earn the same reward gives almost no signal, as in GRPO. Since w
    comes from the batch, the result depends on how rewards are split into batches.

    Args:
        advantages: (N,) float64, to be blended.
        standardized: (N,) the same in units of sigma_p, from which w is estimated.
        prompt: (N,) int64, the generation group of each response, numbered from 0.

    Returns:
        the blended advantages and the factors 1 + w / (n - 1) and 1 - w, each (N,). The advantage of a prompt's only
        response is unchanged. None of them depends on the order of the rows.
    """
    order = np.lexsort((advantages, standardized, prompt))  # as in `grpo_relation`; prompts have no order: `_sum`
    of = prompt[order]
    count = np.bincount(of)
    others = count - 1
    mean = np.bincount(of, weights=standardized[order]) / count
    within = _sum(np.square(standardized - mean[prompt])) / max(others.sum(), 1)
    between = max(_sum(np.square(mean) - within / count) / len(count), 0.0) if len(count) else 0.0
    # T^2 (n - 1) / (T^2 (n - 1) + s^2): 0 for a single response, and no division by zero without any spread.
    signal = between * others
    w = np.divide(signal, signal + within, out=np.zeros(len(count)), where=signal > 0)
    stretch = (1 + w / np.maximum(others, 1))[prompt]
    kept = (1 - w)[prompt]
    centre = (np.bincount(of, weights=advantages[order]) / count)[prompt]
    return stretch * (advantages - centre) + kept * centre, stretch, kept


def _sum(values: Floats) -> float:
    """Return the sum, which does not depend on the order of the values."""
    return float(np.sort(values).sum())
