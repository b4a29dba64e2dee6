# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Compute the advantages that GRPO and P-GRPO would have given to the recorded responses of a run.

This answers, before any GPU time is spent: how many prompts have no signal under GRPO, which groups contribute
most to the gradient, and how often the two estimators disagree on the direction. It cannot show how a policy trained
with the other estimator would have responded.

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

from verl_pgrpo.advantage import GRPO_EPSILON
from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.evaluation.variance import variance_components
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.moments import Floats

MEANS = ("reward", "no signal in grpo", "grpo signal", "pgrpo signal", "opposed", "scale", "shift", "cold")


def grpo_advantages(rewards: Floats, prompt_ids: Sequence[Any], norm_by_std: bool = True) -> Floats:
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
    return deviations / (np.where(single, 1.0, prompts.transform("std")) + GRPO_EPSILON) if norm_by_std else deviations


@dataclass(frozen=True)
class Replay:
    """The result of a replay.

    Attributes:
        responses: a row per response with `step`, `group`, `prompt` (unique over steps), the advantages `grpo` and
            `pgrpo`, and a column for each name in MEANS.
        unknown, nonfinite: number of responses left out: without a known group, or (on_nonfinite=skip) a finite reward.
    """

    responses: pd.DataFrame
    unknown: int
    nonfinite: int

    @property
    def prompts(self) -> int:
        return int(self.responses["prompt"].nunique())

    @property
    def silent_prompts(self) -> int:
        """Number of prompts without signal under GRPO."""
        return int(self.responses.loc[self.responses["no signal in grpo"], "prompt"].nunique())

    @property
    def agreement(self) -> float:
        """Cosine between the two vectors of advantages; NaN without signal."""
        grpo, pgrpo = (self.responses[name].to_numpy() for name in ("grpo", "pgrpo"))
        size = np.linalg.norm(grpo) * np.linalg.norm(pgrpo)
        return float(grpo @ pgrpo / size) if size else math.nan

    @property
    def variance(self) -> pd.DataFrame:
        """Variance of each group's rewards within and between prompts, of `variance_components`."""
        return variance_components(self.responses[["group", "prompt", "reward"]])

    def by_group(self) -> pd.DataFrame:
        """A row per group, the largest first: its share of responses and of each estimator's signal, and means."""
        groups = self.responses.groupby("group")
        signals = ["grpo signal", "pgrpo signal"]
        sums, total = groups[signals].sum(), self.responses[signals].sum().replace(0.0, 1.0)
        table = groups[list(MEANS)].mean()
        for place, name in enumerate(("grpo share", "pgrpo share")):
            table.insert(place, name, sums.div(total)[signals[place]])
        table.insert(0, "share", groups.size() / len(self.responses))
        table.insert(0, "responses", groups.size())
        return table.sort_values("responses", ascending=False, kind="stable").reset_index()

    def by_step(self, parts: int | None = None) -> pd.DataFrame:
        """A row per step, or per part of the run if it is divided into `parts` of about equal length."""
        steps = self.responses["step"].unique()
        pieces = np.array_split(steps, min(parts or len(steps), len(steps)))
        names = {step: str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in pieces for step in one}
        part = self.responses["step"].map(names).rename("steps")
        return self.responses.groupby(part, sort=False)[list(MEANS)].mean().reset_index()


def replay(steps: Iterable[pd.DataFrame], config: PGRPOConfig) -> Replay:
    """Replay a run from its first step, starting from an empty history or from `initial_history`.

    Args:
        steps: one frame of `read_dump` per step, in order.
        config: how P-GRPO would have been configured.

    Raises:
        NonFiniteRewardError: a reward is not finite, and config.on_nonfinite is "error".
        HistoryFileError: `initial_history` cannot be used.
    """
    start = config.initial_history
    history = GroupHistoryManager(config) if start is None else GroupHistoryManager.load(start, config)
    columns = ["step", "group", "prompt", "grpo", "pgrpo", *MEANS]
    parts, unknown, nonfinite = [pd.DataFrame(columns=columns)], 0, 0
    for frame in steps:
        known = frame[frame["group"].notna()]
        unknown += len(frame) - len(known)
        if known.empty:
            continue
        prompts = known["prompt_id"].tolist()
        result = history.compute_advantages(known["group"].tolist(), known["score"].to_numpy(), prompts)
        part = known[["step", "group"]].assign(
            prompt=known["step"].astype(str) + "/" + known["prompt_id"].astype(str), reward=known["score"],
            pgrpo=result.advantages, scale=result.scale, shift=result.shift, cold=result.cold,
        )[~result.skipped]  # fmt: skip
        nonfinite += len(known) - len(part)
        grpo = grpo_advantages(part["reward"].to_numpy(), part["prompt"].tolist(), config.norm_adv_by_std_in_grpo)
        part["grpo"] = np.where(np.abs(grpo) > 1e-6, grpo, 0.0)  # equal rewards may differ by rounding
        part["no signal in grpo"] = part["grpo"].eq(0).groupby(part["prompt"]).transform("all")
        part["grpo signal"], part["pgrpo signal"] = part["grpo"] ** 2, part["pgrpo"] ** 2
        part["opposed"] = part["grpo"] * part["pgrpo"] < 0
        parts.append(part[columns])
    return Replay(pd.concat(parts[1:] or parts, ignore_index=True), unknown, nonfinite)
