# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`baseline=shrinkage` and `group_balance`, in numpy. Ours; docs/shrinkage.md derives both.

*Shrinkage.* The weight of the prompt baseline comes from the group's history instead of one noisy batch. With the
group's total variance sigma_p^2 and its variance within prompts s^2, both pooled over all past batches,

    T^2 = max(0, sigma_p^2 - s^2)                 variance between prompts (one-way analysis of variance)
    w*  = T^2 / (T^2 + s^2 / (n - 1))             weight of the n - 1 other responses with the least squared error
    w   = min(1, 4/3 w*)

*Balance.* Advantages of group p are multiplied by share_p^-alpha, scaled so that the mean weight of a response is 1.

Caveat: w is 0, which is the paper's method, until the group has a prompt with two responses and another prompt.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.advantage import prompt_share
from verl_pgrpo.moments import Moments

__all__ = ["OVERSHRINK", "SMALLEST_SHARE", "group_weights", "history_prompt_share"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A prompt whose responses all earn the same reward keeps (1 - w) of its difference from the history. Adam scales up
# whatever is left, however small, so a w near 1 is rounded to 1. This costs at most 1/7 more variance (n = 2).
OVERSHRINK = 4 / 3
# The smallest share that counts, relative to an equal one: a group's first batch must not outweigh all others.
SMALLEST_SHARE = 0.01


def history_prompt_share(history: Moments, others: Integers) -> Floats:
    """Return the weight w of the mean of a prompt's other responses, from the history of the row's group.

    Args:
        history: N rows, the history of each response's group.
        others: (N,) number of other responses to the same prompt.
    """
    within = history.variance_within()
    # Total and within are rounded separately, so a difference in the last places is no variance between prompts.
    total = np.square(history.std())
    between = np.where(total - within > 1e-9 * total, total - within, 0.0)
    return np.minimum(1.0, OVERSHRINK * prompt_share(between, within, others))


def group_weights(counts: Integers, rows: Integers, alpha: float) -> Floats:
    """Return share^-alpha of each row's group, scaled to a mean of 1 over all rewards so far.

    Args:
        counts: (G,) number of rewards of every group so far.
        rows: (N,) the group of each row.
        alpha: 0 weighs all responses alike, 1 all groups alike.
    """
    total = math.fsum(counts)
    share = np.maximum(counts / max(total, 1.0), SMALLEST_SHARE / max(int(np.count_nonzero(counts)), 1))
    weight = share**-alpha
    # fsum rounds only once, so the order of the groups does not matter.
    return weight[rows] / (math.fsum(counts * weight) / total) if len(rows) else np.ones(0)
