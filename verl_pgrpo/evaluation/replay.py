# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Compute the advantages that GRPO and P-GRPO would have given to the recorded responses of a run.

This answers, before any GPU time is spent: how many prompts have no signal under GRPO, which groups' responses carry
the gradient, and how often the two estimators disagree on the direction. It cannot answer how a policy that was
trained with the other estimator would have responded.

The *signal* of a response is its squared advantage, to which its part of the policy gradient's second moment is
proportional. GRPO here is verl's `compute_grpo_outcome_advantage`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.evaluation.variance import variance_components
from verl_pgrpo.history import GroupHistoryManager

Floats = NDArray[np.float64]
MEANS = ("reward", "no signal in grpo", "grpo signal", "pgrpo signal", "opposed", "scale", "shift", "cold")


def grpo_advantages(
    rewards: Floats, prompt_ids: Sequence[Any], norm_by_std: bool = True, epsilon: float = 1e-6
) -> Floats:
    """Compute verl's GRPO advantages.

    Normalizes by the mean and the standard deviation (ddof=1) of the responses to the same prompt. A prompt with a
    single response keeps its reward, as in verl.

    Args:
        rewards: (N,) scalar rewards.
        prompt_ids: N hashable values, equal for responses to the same prompt.

    Returns: (N,) float64 advantages.
    """
    prompts = pd.Series(rewards, dtype="float64").groupby(pd.Series(list(prompt_ids), dtype=object).to_numpy())
    single = prompts.transform("size").to_numpy() == 1
    deviations = rewards - np.where(single, 0.0, prompts.transform("mean"))
    return deviations / (np.where(single, 1.0, prompts.transform("std")) + epsilon) if norm_by_std else deviations


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Attributes:
        sums: a row per step and group with `responses` and, over these responses, the sum of each name in MEANS.
        prompts, silent_prompts: number of prompts, and of those without signal under GRPO.
        unknown, nonfinite: number of responses left out: without a known group, or (on_nonfinite=skip) a finite reward.
        agreement: cosine between the two vectors of advantages; NaN without signal.
        variance: variance of each group's rewards within and between prompts, of `variance_components`.
    """

    sums: pd.DataFrame
    prompts: int
    silent_prompts: int
    unknown: int
    nonfinite: int
    agreement: float
    variance: pd.DataFrame

    @property
    def total(self) -> pd.Series:
        """Sums over all responses."""
        return self.sums.drop(columns=["step", "group"]).sum()

    def by_group(self) -> pd.DataFrame:
        """A row per group, the largest first: its share of responses and of each estimator's signal, and means."""
        sums = self.sums.drop(columns="step").groupby("group").sum()
        sums = sums.sort_values("responses", ascending=False, kind="stable")
        total = self.total
        shares = {
            "share": sums["responses"] / total["responses"],
            "grpo share": sums["grpo signal"] / (total["grpo signal"] or 1.0),
            "pgrpo share": sums["pgrpo signal"] / (total["pgrpo signal"] or 1.0),
        }
        counts = sums["responses"].astype(int)
        return pd.DataFrame({"responses": counts, **shares, **_means(sums)}).rename_axis("group").reset_index()

    def by_step(self, parts: int | None = None) -> pd.DataFrame:
        """A row per step, or per part of the run if it is divided into `parts` of about equal length."""
        sums = self.sums.drop(columns="group").groupby("step").sum()
        steps = sums.index.to_numpy()
        pieces = [piece for piece in np.array_split(steps, min(parts or len(steps), len(steps))) if len(piece)]
        names = [f"{piece[0]}-{piece[-1]}" if len(piece) > 1 else str(piece[0]) for piece in pieces]
        piece_of = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
        means = _means(sums.groupby(piece_of).sum())
        means.insert(0, "steps", names)
        return means


def replay(steps: Iterable[pd.DataFrame], config: PGRPOConfig) -> Replay:
    """Replay a run from its first step, starting from an empty history.

    Args:
        steps: one frame of `read_dump` per step, in order.
        config: how P-GRPO would have been configured.

    Raises:
        NonFiniteRewardError: a reward is not finite, and config.on_nonfinite is "error".
    """
    history = GroupHistoryManager(config)
    parts, products, rewarded = [], np.zeros(3), []
    prompts = silent_prompts = unknown = nonfinite = 0
    for frame in steps:
        known = frame["group"].notna()
        unknown += int((~known).sum())
        frame = frame[known]
        if frame.empty:
            continue
        prompt_ids = frame["prompt_id"].tolist()
        result = history.compute_advantages(frame["group"].tolist(), frame["score"].to_numpy(), prompt_ids)
        kept = ~result.skipped
        nonfinite += int((~kept).sum())
        frame, pgrpo = frame[kept], result.advantages[kept]
        rewards = frame["score"].to_numpy()
        grpo = grpo_advantages(rewards, frame["prompt_id"].tolist(), config.norm_adv_by_std_in_grpo)
        grpo = np.where(np.abs(grpo) > 1e-6, grpo, 0.0)  # equal rewards may differ by rounding
        has_signal = pd.Series(grpo != 0).groupby(frame["prompt_id"].to_numpy())
        assert result.scale is not None
        assert result.shift is not None
        values = (
            rewards, ~has_signal.transform("any"), grpo**2, pgrpo**2, grpo * pgrpo < 0, result.scale[kept],
            result.shift[kept], result.cold[kept],
        )  # fmt: skip
        columns = {name: np.asarray(value, dtype=float) for name, value in zip(MEANS, values, strict=True)}
        keys = {"step": frame["step"].to_numpy(), "group": frame["group"].to_numpy()}
        parts.append(pd.DataFrame({**keys, "responses": 1.0, **columns}).groupby(["step", "group"]).sum().reset_index())
        products += (grpo @ grpo, pgrpo @ pgrpo, grpo @ pgrpo)
        prompt = frame["step"].astype(str) + "/" + frame["prompt_id"].astype(str)
        rewarded.append(pd.DataFrame({"group": frame["group"], "prompt": prompt, "reward": rewards}))
        prompts += has_signal.ngroups
        silent_prompts += int((~has_signal.any()).sum())
    size = math.sqrt(products[0] * products[1])
    sums = pd.concat(parts) if parts else pd.DataFrame(columns=["step", "group", "responses", *MEANS])
    rewards_of_all = pd.concat(rewarded) if rewarded else pd.DataFrame(columns=["group", "prompt", "reward"])
    variance = variance_components(rewards_of_all)
    return Replay(sums, prompts, silent_prompts, unknown, nonfinite, products[2] / size if size else math.nan, variance)


def _means(sums: pd.DataFrame) -> pd.DataFrame:
    return sums[list(MEANS)].div(sums["responses"], axis=0)
