# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Training: all estimators, step sizes and seeds of a setting in one loop, on the same prompts and random numbers.

The update is a plain policy gradient step: the mean over responses of `A * grad log pi`, times the step size (or Adam's
step for it). It is on-policy, so PPO's clipping would have no effect. No single step size is fair to all estimators,
because their advantages differ in size: `compare` picks each entrant's best of STEP_SIZES on TUNING seeds and reports
results on other seeds. The criterion is the area under the curve of the mean over groups, which varies less than the
end of the curve. Each entrant is also trained with the step size that was best for `grpo`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.bandit import estimators as adv
from benchmarks.bandit.task import PEOPLE, Setting, Tastes, draw, group_of
from verl_pgrpo import PGRPOConfig

STEP_SIZES = {"sgd": tuple(8.0 * 2 ** (k / 2) for k in range(10)), "adam": tuple(0.1 * 2 ** (k / 2) for k in range(6))}
# Step sizes are chosen on TUNING, extensions on SEARCH. Published results use FINAL or, for shrinkage and balance,
# FRESH, on which nothing had been run before. Equally sampled groups were added after the first table on FRESH, so they
# are judged on CONFIRMATION.
TUNING, SEARCH, FINAL, FRESH = range(1000, 1020), range(2000, 2020), range(3000, 3040), range(5000, 5040)
CONFIRMATION = range(6000, 6040)


@dataclass(frozen=True)
class Entrant:
    """An estimator by name. `make` gets the number of runs and of labels.

    How the preference groups are changed first: `mislabeled` is the share of prompts whose label is drawn at random
    (with the groups' shares); each group is split at random into `split`; `merged` groups get one label, two by two or
    all as one. `sampling` draws the prompts of a group with probability proportional to share^(1 - sampling).
    """

    name: str
    make: Callable[[int, int], adv.Estimator]
    mislabeled: float = 0.0
    split: int = 1
    merged: int = 1
    sampling: float = 0.0

    def labels(self, group: Tensor, chance: Tensor, shares: tuple[float, ...]) -> Tensor:
        """(..., prompts) labels of prompts of true `group` (..., prompts); `chance` is (..., prompts, 3) uniform."""
        label = torch.where(chance[..., 0] < self.mislabeled, group_of(chance[..., 1], shares), group) // self.merged
        return label * self.split + (chance[..., 2] * self.split).long()


def pgrpo(
    name: str, mislabeled: float = 0.0, split: int = 1, merged: int = 1, sampling: float = 0.0, **options: object
) -> Entrant:
    """P-GRPO with options of PGRPOConfig."""
    config = PGRPOConfig.from_mapping(options)
    return Entrant(name, lambda runs, groups: adv.PGRPO(config, runs, groups), mislabeled, split, merged, sampling)


def train(setting: Setting, entrants: list[Entrant], step_sizes: list[list[float]], seeds: range) -> Tensor:
    """Expected utility of each group before every step: (runs, seeds, steps, groups), runs in order of `step_sizes`.

    Entrant i trains with each of `step_sizes[i]`.
    """
    draws = draw(setting, seeds)
    tastes, shares = Tastes(setting, draws), PEOPLE[setting.people].shares
    groups, questions, arms = len(shares), setting.questions, setting.arms
    lr = torch.tensor([size for sizes in step_sizes for size in sizes])[:, None, None, None]
    size = (len(lr), len(seeds))
    shared = torch.zeros(*size, 1, questions, arms)
    own = torch.zeros(*size, groups, questions, arms)
    own_step, shared_step = (Adam(), Adam()) if setting.optimizer == "adam" else (_sgd, _sgd)
    to_shared, to_own = setting.overlap**0.5, (1.0 - setting.overlap) ** 0.5
    group_by_entrant = [group_of(draws.user, shares, entrant.sampling) for entrant in entrants]
    labels = [
        entrant.labels(group, draws.label, shares) for entrant, group in zip(entrants, group_by_entrant, strict=True)
    ]
    made = [
        entrant.make(len(sizes) * len(seeds), groups * entrant.split)
        for entrant, sizes in zip(entrants, step_sizes, strict=True)
    ]
    curve = torch.empty(*size, setting.steps, groups)
    for step in range(setting.steps):
        # Written out, because torch's softmax is slow over a short last dimension: (runs, seeds, contexts, arms).
        policy = torch.add(to_shared * shared, own, alpha=to_own).flatten(2, 3)
        policy = policy.sub_(policy.amax(-1, keepdim=True)).exp_()
        policy /= policy.sum(-1, keepdim=True)
        curve[:, :, step] = tastes.utility(policy)
        group = torch.cat(
            [g[:, step].expand(len(sizes), -1, -1) for g, sizes in zip(group_by_entrant, step_sizes, strict=True)]
        )  # (runs, seeds, prompts)

        rows = group * questions + draws.question[:, step]
        cdf = policy.cumsum(-1).gather(2, rows.unsqueeze(-1).expand(-1, -1, -1, arms))
        choice = draws.choice[:, step].expand(*rows.shape, -1).contiguous()
        arm = torch.searchsorted(cdf, choice, right=True).clamp(max=arms - 1)  # (runs, seeds, prompts, n)
        cell = (rows.unsqueeze(-1) * arms + arm).flatten(2)
        utility = tastes.table.flatten(1).expand(len(lr), -1, -1).gather(2, cell).view_as(arm)
        rewards = tastes.rewards(utility.double(), group, draws.mood[:, step], draws.noise[:, step])

        if any(isinstance(make, adv.Oracle) for make in made):
            true_mean, true_std = (value.gather(2, group) for value in tastes.truth(policy))
        else:
            true_mean = true_std = rewards
        advantages, first = [], 0
        for make, sizes, label in zip(made, step_sizes, labels, strict=True):
            part = slice(first, first + len(sizes))
            first += len(sizes)
            batch = adv.Batch(
                rewards[part].flatten(0, 1),
                label[:, step].expand(len(sizes), -1, -1).flatten(0, 1),
                true_mean[part].flatten(0, 1),
                true_std[part].flatten(0, 1),
            )
            advantages.append(make(batch).unflatten(0, (len(sizes), -1)))
        weight = torch.cat(advantages).float().flatten(2) / setting.responses

        # Sum over responses of A * grad log pi: +A at the arm taken, -A * policy at all of its context.
        taken = torch.zeros(*size, groups * questions * arms).scatter_add(2, cell, weight).view_as(policy)
        gradient = torch.addcmul(taken, policy, taken.sum(-1, keepdim=True), value=-1).view_as(own)
        shared.addcmul_(lr[..., None], shared_step(to_shared * gradient.sum(2, keepdim=True)))
        own.addcmul_(lr[..., None], own_step(gradient.mul_(to_own)))
    return curve


class Adam:
    """Adam's direction (betas 0.9 and 0.999, epsilon 1e-8) for one parameter of all runs."""

    def __init__(self) -> None:
        self.steps, self.mean, self.square = 0, torch.zeros(()), torch.zeros(())

    def __call__(self, gradient: Tensor) -> Tensor:
        if not self.steps:
            self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self.steps += 1
        self.mean.lerp_(gradient, 0.1)
        self.square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = (self.square / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
        return torch.div(self.mean, scale.mul_(1 - 0.9**self.steps))


def _sgd(gradient: Tensor) -> Tensor:
    return gradient


def final_utility(curves: Tensor) -> Tensor:
    """(..., groups) mean over the last tenth of the steps of curves (..., steps, groups)."""
    return curves[..., -max(1, curves.shape[-2] // 10) :, :].mean(-2)


@dataclass(frozen=True)
class Outcome:
    """One entrant in one setting: its step size, and utility (seeds, steps, groups) with it and with `grpo`'s."""

    step_size: float
    curves: Tensor
    curves_at_grpos: Tensor | None
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Protocol:
    """How entrants are compared.

    With `smooth`, the score of a step size is averaged with its two neighbors (weights 1, 2, 1) before the best is
    chosen. Otherwise chance decides between the best one and the next larger one, where training often collapses.
    `at_grpos`: also train with the step size that was best for `grpo`.
    """

    tuning: range = TUNING
    final: range = FINAL
    smooth: bool = False
    at_grpos: bool = True


def with_neighbors(scores: Tensor) -> Tensor:
    """Average the score of each step size with its two neighbors, weights 1, 2, 1."""
    padded = torch.cat([scores[:1], scores, scores[-1:]])
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


def compare(
    setting: Setting, entrants: list[Entrant], protocol: Protocol, known: dict[str, Outcome] | None = None
) -> dict[str, Outcome]:
    """Return the outcomes of all entrants by name; the first is `grpo`. Those in `known` are not run again."""
    sizes, found = STEP_SIZES[setting.optimizer], dict(known or {})
    for entrant in entrants:
        if entrant.name in found:
            continue
        score = train(setting, [entrant], [list(sizes)], protocol.tuning).mean((1, 2, 3))
        if protocol.smooth:
            score = with_neighbors(score)
        best = sizes[int(score.argmax())]
        chosen = [best, found["grpo"].step_size if found else best] if protocol.at_grpos else [best]
        curves = train(setting, [entrant], [chosen], protocol.final)
        at_grpos = curves[1] if protocol.at_grpos else None
        found[entrant.name] = Outcome(best, curves[0], at_grpos, PEOPLE[setting.people].shares)
    return found
