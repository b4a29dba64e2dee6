# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""How much a preference group's prompts differ, and how large the groups are: the criteria for choosing a baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd

from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.shrinkage import prompt_weight

__all__ = ["recommended_options", "variance_components"]


def variance_components(rewards: pd.DataFrame) -> pd.DataFrame:
    """Split the variance of each group's rewards into that within prompts and that between them.

    Args:
        rewards: one row per response with columns `group` (text), `prompt` (any label that distinguishes the generation
            groups, also those of different steps) and `reward` (a number).

    Returns:
        one row per group, in the order of `GroupHistoryManager.groups`, with the columns

        - `group`, `responses`, `prompts`, `share` (of all responses), `mean`, `std`;
        - `within`, `between`: variances in squared units of the reward, NaN if no prompt has two responses;
        - `between_within`: their ratio, infinite if responses to a prompt never differ;
        - `weight`: the weight of the prompt baseline with baseline=shrinkage, for the group's mean number of responses.

    Raises:
        MissingGroupError, GroupLabelError, NonFiniteRewardError: a row cannot be used.
    """
    history = GroupHistoryManager()
    history.update(rewards["group"].tolist(), rewards["reward"].to_numpy(np.float64), rewards["prompt"].tolist())
    groups = history.groups
    statistics = history.statistics(groups)
    prompts = rewards.groupby("group", sort=False)["prompt"].nunique().loc[groups].to_numpy()
    total, within = np.square(statistics.std), np.square(statistics.within_std)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.maximum(total - within, 0.0)
        share = np.where(total > 0, np.minimum(within / total, 1.0), 1.0)
        ratio = between / within
    weight = prompt_weight(np.where(np.isnan(share), 1.0, share), statistics.count / prompts - 1)
    return pd.DataFrame(
        {
            "group": groups,
            "responses": statistics.count.astype(np.int64),
            "prompts": prompts,
            "share": statistics.count / statistics.count.sum(),
            "mean": statistics.mean,
            "std": statistics.std,
            "within": within,
            "between": between,
            "between_within": ratio,
            "weight": weight,
        }
    )


def recommended_options(components: pd.DataFrame) -> dict[str, str | float]:
    """Return the options of `algorithm.pgrpo` that docs/when.md recommends for such rewards.

    Args:
        components: of `variance_components`.
    """
    options: dict[str, str | float] = {}
    if components["within"].notna().any():  # prompts have several responses
        options["baseline"] = "shrinkage"
    shares = components["share"]
    if shares.min() < 0.5 * shares.max():
        options["group_balance"] = 1.0 if shares.min() >= 0.05 else 0.5
    return options
