# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The task: groups of users who ask the same questions, want different answers, and share one softmax policy.

A prompt is a group and a question; an answer is one of `arms`. In `dense` tasks each group ranks the answers to a
question in its own order, from 0 to 1 in equal steps; in `sparse` tasks the best answer is worth 1 and all others 0.
That is the *utility*, which is reported. Training sees the *reward*

    R = offset_g + scale_g * (utility + mood of the prompt + noise_g * noise of this response)

in the group's own units. The policy is linear and shared:

    logits = sqrt(overlap) * shared[question] + sqrt(1 - overlap) * own[group, question]

so a step for one group moves every other group's logits for the same question by `overlap` times as much. Groups
compete for the shared part, and most gradients come from the majority. The own parts can represent every group's best
answers: the task measures which groups get there within the given steps, not which are lost forever.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class People:
    """Per group: share of the prompts, scale and offset of the ratings, noise in units of the setting's noise."""

    shares: tuple[float, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    noises: tuple[float, ...]


_SHARES, _ONES, _ZEROS = (0.5, 0.25, 0.15, 0.1), (1.0,) * 4, (0.0,) * 4
PEOPLE = {
    "equal": People((0.25,) * 4, _ONES, _ZEROS, _ONES),
    "shares": People(_SHARES, _ONES, _ZEROS, _ONES),
    "rare": People((0.6, 0.3, 0.08, 0.02), _ONES, _ZEROS, _ONES),
    "unequal": People(_SHARES, (1.0, 0.5, 2.0, 0.25), (0.0, 2.0, -1.0, 1.0), (1.0, 0.5, 1.0, 1.5)),
}


@dataclass(frozen=True)
class Setting:
    """One task. `noise` and `mood`: standard deviations in units of utility; `responses` per step, `n` per prompt."""

    reward: str = "dense"
    n: int = 4
    noise: float = 0.3
    mood: float = 0.0
    people: str = "unequal"
    overlap: float = 0.5
    responses: int = 64
    steps: int = 200
    questions: int = 8
    arms: int = 8
    optimizer: str = "sgd"  # or "adam"

    @property
    def prompt_variance(self) -> float:
        """Variance between prompts over variance within, for a random policy and a user with noise 1."""
        worth = torch.linspace(0, 1, self.arms) if self.reward == "dense" else torch.eye(self.arms)[0]
        return self.mood**2 / (worth.var(correction=0).item() + self.noise**2)

    def __str__(self) -> str:
        return f"{self.reward}, n={self.n}, noise {self.noise:g}, mood {self.mood:g}, {self.people}"


@dataclass(frozen=True)
class Draws:
    """All random numbers, the same for every estimator and step size: first dimensions (seeds, steps).

    `user` (uniform, decides the group), `question`, `mood`: (..., prompts). `label`: (..., prompts, 3) uniform, to
    corrupt labels with. `choice` (uniform) and `noise` (normal): (..., prompts, n). `tastes`: (seeds, groups,
    questions, arms).
    """

    user: Tensor
    question: Tensor
    mood: Tensor
    label: Tensor
    choice: Tensor
    noise: Tensor
    tastes: Tensor


def draw(setting: Setting, seeds: range) -> Draws:
    """Use one generator per seed, so that a seed's run does not depend on which other seeds run."""
    groups, per_step = len(PEOPLE[setting.people].shares), (setting.steps, setting.responses // setting.n)
    drawn = []
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)
        user = torch.rand(*per_step, dtype=torch.float64, generator=source)
        question = torch.randint(setting.questions, per_step, generator=source)
        mood = setting.mood * torch.randn(*per_step, dtype=torch.float64, generator=source)
        label = torch.rand(*per_step, 3, dtype=torch.float64, generator=source)
        choice = torch.rand(*per_step, setting.n, generator=source)
        noise = setting.noise * torch.randn(*per_step, setting.n, dtype=torch.float64, generator=source)
        order = torch.rand(groups, setting.questions, setting.arms, generator=source).argsort(-1)
        tastes = order / (setting.arms - 1)
        drawn.append((user, question, mood, label, choice, noise, tastes))
    draws = Draws(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))
    if setting.reward == "sparse":
        draws.tastes.copy_(draws.tastes == 1)
    return draws


def group_of(uniform: Tensor, shares: tuple[float, ...], sampling: float = 0.0) -> Tensor:
    """Groups, drawn with probabilities proportional to share^(1 - sampling), from uniform numbers of any shape."""
    weight = torch.tensor(shares, dtype=torch.float64) ** (1.0 - sampling)
    edges = (weight / weight.sum()).cumsum(0)[:-1]
    return torch.bucketize(uniform.contiguous(), edges, right=True)


class Tastes:
    """The utility and the reward of each answer for each group, and the utility of a policy."""

    def __init__(self, setting: Setting, draws: Draws) -> None:
        people = PEOPLE[setting.people]
        self.setting = setting
        self.table = draws.tastes.flatten(1, 2)  # (seeds, groups * questions, arms)
        self.scale, self.offset, self.noise = (
            torch.tensor(values, dtype=torch.float64) for values in (people.scales, people.offsets, people.noises)
        )

    def rewards(self, utility: Tensor, group: Tensor, mood: Tensor, noise: Tensor) -> Tensor:
        """(..., seeds, prompts, n) rewards of answers of that utility; `group` and `mood` are (..., seeds, prompts)."""
        rated = utility + mood.unsqueeze(-1) + noise * self.noise[group].unsqueeze(-1)
        return self.offset[group].unsqueeze(-1) + self.scale[group].unsqueeze(-1) * rated

    def utility(self, policy: Tensor) -> Tensor:
        """(runs, seeds, groups) expected utility under a policy (runs, seeds, groups * questions, arms)."""
        return (policy * self.table).sum(-1).unflatten(-1, (len(self.scale), -1)).mean(-1)

    def truth(self, policy: Tensor) -> tuple[Tensor, Tensor]:
        """True mean and std of each group's rewards under a policy, each (runs, seeds, groups) float64."""
        mean = self.utility(policy).double()
        square = (policy * self.table.square()).sum(-1).unflatten(-1, (len(self.scale), -1)).mean(-1).double()
        chance = self.setting.mood**2 + (self.setting.noise * self.noise) ** 2
        std = (square - mean.square() + chance).clamp(min=0.0).sqrt()
        return self.offset + self.scale * mean, self.scale * std
