# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`baseline=shrinkage` and `group_balance`, in numpy. Ours; docs/shrinkage.md derives both.

*Shrinkage.* The history of a group has its total variance sigma_p^2 and the variance within prompts s^2, both pooled
over all past batches. Their difference T^2 is the variance between prompts. Response i to prompt j gets

    A_ij = (R_ij - mu_p - w (mean of the prompt's other responses - mu_p)) / (s + epsilon)
    w = min(1, 4/3 w*),   w* = T^2 / (T^2 + s^2 / (n - 1)),   T^2 = max(0, sigma_p^2 - s^2)

w* has the least squared error. Where prompts do not differ, T = 0, this is the paper's method: w = 0 and s = sigma_p.

*Balance.* Advantages of group p are multiplied by share_p^-alpha, scaled so that the mean weight of a response is 1.

Caveats: T is 0 until the group has a prompt with two responses and another prompt. Rewards that were recorded without
prompts are in sigma_p, but not in s, so T^2 also holds their difference in spread. Drift of the policy counts as a
difference between prompts. All prompts of a group share one s: a prompt that varies more gets larger advantages.
"""

from __future__ import annotations

import math

import numpy as np

from verl_pgrpo.advantage import without_rounding
from verl_pgrpo.moments import Floats, Integers, Moments

__all__ = ["OVERSHRINK", "SMALLEST_SHARE", "UNTESTED_SHARE", "group_weights", "prompt_weight", "share_within"]
__all__ += ["subtract_prompt", "within_std"]


# A prompt whose responses all earn the same reward keeps (1 - w) of its difference from the history. Adam scales up
# whatever is left, however small, so a w near 1 is rounded to 1. This costs at most 1/7 more variance (n = 2).
OVERSHRINK = 4 / 3
# Relative to an equal share. Smaller than any share that group_balance=1 was tested with (0.08, docs/benchmarks.md).
UNTESTED_SHARE = 0.05
# Lower bound of a share, relative to an equal share. It bounds the weight of a group that the history hardly knows.
SMALLEST_SHARE = 0.01


def share_within(history: Moments) -> Floats:
    """Return s^2 / sigma_p^2, the part of each group's variance that lies within prompts; 1 where it is unknown."""
    total = np.square(history.std())
    share = np.divide(history.variance_within(), total, out=np.ones(len(total)), where=total > 0)
    # The two are rounded separately, so a difference in their last digits does not mean variance between prompts.
    return np.where(share < 1 - 1e-9, share, 1.0)  # also for NaN


def prompt_weight(within: Floats, others: Integers | Floats) -> Floats:
    """Return the weight w of the mean of a prompt's other responses.

    Args:
        within: (N,) `share_within` of the row's group.
        others: (N,) number of other responses to the same prompt.
    """
    signal = (1 - within) * others
    return np.minimum(1.0, OVERSHRINK * signal / np.maximum(signal + within, np.finfo(np.float64).tiny))


def within_std(std: Floats, within: Floats, mean: Floats) -> Floats:
    """Return s from sigma_p (N,), `share_within` and mu_p. Without any spread within prompts, the scale is sigma_p."""
    s = without_rounding(std * np.sqrt(np.where(within > 1e-24, within, 0.0)), mean)
    return np.where(s > 0, s, std)


def subtract_prompt(advantages: Floats, w: Floats, prompt: Integers) -> tuple[Floats, Floats, Floats]:
    """Subtract w times the mean of the other responses to the prompt.

    The result does not depend on the order of the rows, and is exactly 0 for equal responses and w = 1.

    Args:
        advantages, w: (N,) float64.
        prompt: (N,) int64, the generation group of each response, numbered from 0.

    Returns:
        the advantages, and the factors 1 + w / (n - 1) and 1 - w of the terms of Corollary 3.1, each (N,).
    """
    order = np.lexsort((advantages, prompt))
    count = np.bincount(prompt)
    origin = advantages[order[np.cumsum(count) - count]]  # of each prompt the smallest
    deviation = advantages - origin[prompt]
    mean = np.bincount(prompt[order], weights=deviation[order]) / count
    stretch, kept = 1 + w / np.maximum(count - 1, 1)[prompt], 1 - w
    return stretch * (deviation - mean[prompt]) + kept * (origin + mean)[prompt], stretch, kept


def group_weights(counts: Integers, rows: Integers, alpha: float) -> Floats:
    """Return share^-alpha of each row's group, scaled to a mean of 1 over all rewards so far.

    Args:
        counts: (G,) number of rewards of every group so far.
        rows: (N,) the group of each row.
        alpha: 0 weights all responses equally, 1 all groups equally.
    """
    total = math.fsum(counts)
    share = np.maximum(counts / max(total, 1.0), SMALLEST_SHARE / max(int(np.count_nonzero(counts)), 1))
    weight = share**-alpha
    # fsum rounds only once, so the order of the groups does not matter.
    return weight[rows] / (math.fsum(counts * weight) / total) if len(rows) else np.ones(0)
