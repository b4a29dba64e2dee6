# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""How much a preference group's prompts differ, and how large the groups are: the criteria for choosing a baseline."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from verl_pgrpo.advantage import without_rounding
from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import DataError
from verl_pgrpo.groups import group_label, is_missing
from verl_pgrpo.moments import MAX_MAGNITUDE, Floats, Moments
from verl_pgrpo.reward_batch import RewardBatch
from verl_pgrpo.shrinkage import UNTESTED_SHARE, prompt_weight, share_within

# With this many groups and fewer responses in most of them, shrinkage cannot estimate how much prompts differ.
MANY_GROUPS, FEW_RESPONSES = 32, 100

__all__ = ["recommended_options", "variance_components"]


def variance_components(rewards: pd.DataFrame) -> pd.DataFrame:
    """Split the variance of each group's rewards into that within prompts and that between them.

    Args:
        rewards: one row per response with columns `group` (text or integer), `prompt` (any label that distinguishes the
            generation groups, also those of different steps) and `reward` (a number).

    Returns:
        one row per group, sorted by name, with the columns

        - `group`, `responses`, `prompts`, `share` (of all responses), `mean`, `std`;
        - `within`, `between`: variances in squared units of the reward, NaN if no prompt has two responses; `between`
          also if the group has only one prompt;
        - `between_within`: their ratio, infinite if responses to a prompt never differ;
        - `weight`: the weight of the prompt baseline with baseline=shrinkage, for the group's mean number of responses.

    Raises:
        DataError: a row has no group, prompt or finite reward.
        GroupLabelError: a group is neither text nor an integer.
    """
    labels = [group_label(group) for group in rewards["group"]]
    prompts, values = rewards["prompt"].tolist(), rewards["reward"].to_numpy(np.float64, na_value=np.nan)
    unusable = {
        "group": np.array([label is None for label in labels], dtype=np.bool_),
        "prompt": np.array([is_missing(prompt) for prompt in prompts], dtype=np.bool_),
        "reward": ~(np.abs(values) <= MAX_MAGNITUDE),
    }
    for column, bad in unusable.items():
        if bad.any():
            raise DataError(
                f"column {column!r} has no usable value in {bad.sum():,} of {len(bad):,} rows (first: row "
                f"{bad.argmax()}). Drop or correct these rows."
            )
    batch = RewardBatch.check(labels, values, prompts, (), PGRPOConfig())
    groups, rows = np.unique(np.array(batch.groups, dtype=object), return_inverse=True)
    moments = Moments(len(groups))
    moments.update(rows, batch.rewards, batch.prompts)
    number = pd.Series(batch.prompts).groupby(rows).nunique().to_numpy()
    std = without_rounding(moments.std(), moments.mean)
    share = np.where(std > 0, share_within(moments), 1.0)
    within = moments.variance_within()
    between = np.where(np.isnan(within) | (number < 2), np.nan, np.square(std) * (1 - share))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(between == 0, 0.0, between / within)
    return pd.DataFrame(
        {
            "group": groups,
            "responses": moments.count,
            "prompts": number,
            "share": moments.count / moments.count.sum(),
            "mean": moments.mean,
            "std": std,
            "within": within,
            "between": between,
            "between_within": ratio,
            "weight": prompt_weight(share, moments.count / number - 1),
        }
    )


def recommended_options(components: pd.DataFrame) -> dict[str, str | float]:
    """Return options of `algorithm.pgrpo` that are safe for such rewards (docs/when.md).

    baseline=shrinkage if responses to a prompt differ, unless groups are many and small: it estimates itself how much
    prompts differ, so the recommendation does not depend on `between_within`. With it, group_balance if the smallest
    group has less than half as many prompts as the largest, and by more than chance. Sampling the groups equally is
    better than group_balance; these numbers do not show whether that is possible. Otherwise empty: the defaults.

    Args:
        components: of `variance_components`, for a whole run. A part of it makes groups look small.
    """
    few = len(components) >= MANY_GROUPS and components["responses"].median() < FEW_RESPONSES
    if few or not (components["within"] > 0).any():
        return {}
    options: dict[str, str | float] = {"baseline": "shrinkage"}
    prompts = components["prompts"].to_numpy(np.float64)
    if _sampled_unequally(prompts):
        options["group_balance"] = 1.0 if prompts.min() >= UNTESTED_SHARE * prompts.mean() else 0.5
    return options


def _sampled_unequally(prompts: Floats) -> bool:
    """Whether numbers of prompts differ by a factor of two, and by more than chance (by the chi-squared statistic)."""
    expected, freedom = prompts.mean(), len(prompts) - 1
    statistic = float(np.square(prompts - expected).sum() / expected)
    return prompts.min() < 0.5 * prompts.max() and statistic > freedom + 3 * math.sqrt(2 * freedom)
