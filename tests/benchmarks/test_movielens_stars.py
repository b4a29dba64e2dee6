# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark on film ratings: its gradient equals autograd's, held-out users are not trained on, and it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn")
from benchmarks import movielens_stars as stars
from benchmarks.bandit.studies import GRPO
from verl_pgrpo.evaluation.variance import variance_components


@pytest.fixture(scope="module")
def task():
    return stars.make_task(*stars.generated(users=150, films=120, each=40), range(2))[0]


def test_the_gradient_is_autograds(task):
    policy = stars.Policy(task, [0.1, 0.2])
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name in ("film", "liking", "shared", "own"):
        weights[name] = torch.randn(getattr(policy, name).shape, generator=generator).requires_grad_()
        setattr(policy, name, weights[name])
    rows = torch.randint(len(task.film), (2, 6), generator=generator)
    probability = policy(rows)
    advantage = torch.randn(probability.shape, generator=generator)
    (advantage * probability.log()).sum().backward()
    found = {}
    for name, value in weights.items():
        setattr(policy, name, value.detach())
        policy.steps[name] = lambda gradient, name=name: found.setdefault(name, gradient.clone())
    policy.learn(rows, advantage - probability.detach() * advantage.sum(-1, keepdim=True))
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-4, atol=1e-4)


def test_users_are_held_out_whole_and_random_groups_have_the_same_sizes(task):
    for held_out, group, random in zip(task.held_out, task.group, task.random, strict=True):
        for values in (held_out, group, random):
            of_user = {(int(u), int(v)) for u, v in zip(task.user, values, strict=True)}
            assert len(of_user) == len(task.user.unique())
        assert 0.1 < held_out.double().mean() < 0.3
        assert (group != random).any()
    assert (task.stars.amax(1) > task.stars.amin(1)).all()
    assert not torch.equal(task.held_out[0], task.held_out[1])


def test_ranges_of_the_groups_do_not_depend_on_their_numbers_in_each_seed(task):
    other = replace(task, group=torch.stack([task.group[0], stars.GROUPS - 1 - task.group[1]]))
    assert stars.variances(other) == stars.variances(task)


def test_between_and_within_are_those_of_a_random_policys_rewards(task):
    rows = torch.arange(len(task.film)).repeat_interleave(50)
    taken = torch.randint(task.film.shape[1], rows.shape, generator=torch.Generator().manual_seed(0))
    rewards = pd.DataFrame({"group": "all", "prompt": rows, "reward": task.stars[rows, taken]})
    [expected] = variance_components(rewards)["between_within"]
    [line] = [line for line in stars.variances(task).splitlines() if line.startswith("| all")]
    assert float(line.split("|")[4]) == pytest.approx(expected, rel=0.05)


def test_it_learns(task, monkeypatch):
    monkeypatch.setattr(stars, "STEPS", 100)
    [values] = stars.train(task, GRPO, 4, [0.15], range(2))
    chance = 100 * task.utility.mean().item()
    assert np.all(values[:, 0] > chance + 5)


def test_groups_can_be_sampled_equally(task):
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    rows = torch.nonzero(~task.held_out[0]).flatten()
    group = task.group[0, rows]
    drawn = stars._sampler(rows, group, 1.0)(uniform)
    counts = task.group[0, drawn].bincount()
    counts = counts[group.unique()].double() / len(uniform)
    torch.testing.assert_close(counts, torch.full_like(counts, 1 / len(counts)), atol=0.02, rtol=0)
    assert set(drawn.tolist()) <= set(rows.tolist())
