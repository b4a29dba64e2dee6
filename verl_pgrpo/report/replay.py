# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What GRPO and what P-GRPO would have given as advantages to the responses that a run has really produced.

Answers before a GPU is spent: how many prompts teach nothing under GRPO, which groups' responses carry the gradient,
and how often the two estimators disagree on the direction. It does not answer how a policy trained with the other
estimator would have answered.

*Signal* is the advantage squared, to which a response's part of the policy gradient's second moment is proportional.
GRPO here is verl's `compute_grpo_outcome_advantage`: by the prompt's mean and standard deviation with Bessel's
correction, and the reward itself for a prompt with a single response.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.factor import Factor
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.report.dumps import Step

Floats = NDArray[np.float64]
SUMS = ("responses", "reward", "silent", "grpo_signal", "pgrpo_signal", "opposed", "scale", "shift", "cold")
"""What is added up: numbers of responses (all, without signal under GRPO, with opposite signs, cold), and values."""


def grpo_advantages(rewards: Floats, prompts: Factor[Any], epsilon: float = 1e-6, norm: bool = True) -> Floats:
    """(N,) rewards to verl's GRPO advantages; `prompts` says which prompt each response answers."""
    count = np.bincount(prompts.codes)
    mean = np.bincount(prompts.codes, weights=rewards) / count
    deviation = rewards - np.where(count == 1, 0.0, mean)[prompts.codes]
    squares = np.bincount(prompts.codes, weights=deviation**2)
    std = np.sqrt(squares / np.maximum(count - 1, 1))
    return deviation / (np.where(count == 1, 1.0, std)[prompts.codes] + epsilon) if norm else deviation


@dataclass
class Replay:
    """Sums over the responses of each preference group, and of each step."""

    groups: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    steps: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    prompts: int = 0
    silent_prompts: int = 0
    unknown: int = 0
    nonfinite: int = 0
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # of the two advantages: gg, pp, gp

    def add(self, step: Step, history: GroupHistoryManager) -> None:
        """Fold one step's responses into `history`, as training would have, and into the sums."""
        self.unknown += step.unknown
        config, rewards, finite = history.config, step.rewards, np.isfinite(step.rewards)
        prompts, groups = Factor.of(step.prompts), Factor.of(step.groups)
        if not finite.all() and config.nonfinite == "skip":  # else the history refuses them
            self.nonfinite += int((~finite).sum())
            rewards, prompts, groups = rewards[finite], prompts.take(finite), groups.take(finite)
        if not len(rewards):
            return
        result = history.advantages(groups, rewards, index=prompts)
        ours = result.advantages
        theirs = grpo_advantages(rewards, prompts, norm=config.norm_adv_by_std_in_grpo)
        # Equal rewards that were computed in different ways differ in their last place.
        theirs = np.where(np.abs(theirs) > 1e-6, theirs, 0.0)
        taught = np.bincount(prompts.codes, weights=theirs != 0) > 0
        silent = ~taught[prompts.codes]
        assert result.scale is not None
        assert result.shift is not None
        ones = np.ones(len(ours))
        values = (ones, rewards, silent, theirs**2, ours**2, theirs * ours < 0, result.scale, result.shift)
        sums = np.stack([np.bincount(groups.codes, weights=v.astype(float)) for v in (*values, result.cold)], axis=1)
        for name, row in zip(groups.levels, sums, strict=True):
            self.groups[name] = self.groups.get(name, 0.0) + row
        self.steps[step.number] = sums.sum(axis=0)
        self.products += (theirs @ theirs, ours @ ours, theirs @ ours)
        self.prompts += len(taught)
        self.silent_prompts += int((~taught).sum())

    @property
    def total(self) -> NDArray[np.float64]:
        return sum(self.steps.values(), np.zeros(len(SUMS)))

    @property
    def agreement(self) -> float:
        """Cosine between the two vectors of advantages, 1 where they differ by a factor alone; NaN without signal."""
        size = float(np.sqrt(self.products[0] * self.products[1]))
        return float(self.products[2]) / size if size else math.nan

    def by_group(self) -> list[dict[str, Any]]:
        """A line per group, the largest first: its share of the responses, and of each estimator's signal."""
        total = self.total
        lines = []
        for name, sums in sorted(self.groups.items(), key=lambda item: (-item[1][0], item[0])):
            line = _means(sums)
            responses = int(sums[0])
            shares = {key: float(_ratio(sums[i], total[i])) for key, i in (("grpo share", 3), ("pgrpo share", 4))}
            lines.append({"group": name, "responses": responses, "share": float(sums[0] / total[0]), **shares, **line})
        return lines

    def by_step(self, parts: int | None = None) -> list[dict[str, Any]]:
        """A line per step, or per part of the run of about equal length."""
        numbers = sorted(self.steps)
        pieces = (
            [[n] for n in numbers] if parts is None else [list(p) for p in np.array_split(numbers, parts) if len(p)]
        )
        lines = []
        for piece in pieces:
            name = f"{piece[0]}-{piece[-1]}" if len(piece) > 1 else str(piece[0])
            lines.append({"steps": name, **_means(sum(self.steps[n] for n in piece))})
        return lines


def replay(steps: Iterable[Step], config: PGRPOConfig) -> Replay:
    """The whole run, from its first step on, with an empty history."""
    found, history = Replay(), GroupHistoryManager(config)
    for step in steps:
        found.add(step, history)
    return found


def _means(sums: Any) -> dict[str, float]:
    values = dict(zip(SUMS, sums / sums[0], strict=True))
    return {
        "reward": float(values["reward"]),
        "no signal in grpo": float(values["silent"]),
        "grpo signal": float(values["grpo_signal"]),
        "pgrpo signal": float(values["pgrpo_signal"]),
        "opposed": float(values["opposed"]),
        "scale": float(values["scale"]),
        "shift": float(values["shift"]),
        "cold": float(values["cold"]),
    }


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0
