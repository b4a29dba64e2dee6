# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The bandit study: its estimators equal the real ones, seeds reproduce, and it shows the documented effects."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.bandit import estimators as adv
from benchmarks.bandit import studies
from benchmarks.bandit.ideas import Shrinkage
from benchmarks.bandit.studies import GRPO, ORACLE, PGRPO, RANDOM
from benchmarks.bandit.task import PEOPLE, Setting, draw, group_of
from benchmarks.bandit.train import Adam, Entrant, Protocol, final_utility, pgrpo, train
from verl_pgrpo import GroupHistoryManager, PGRPOConfig

# As many responses as in the study: verl adds 1e-8 to their number, which would be visible with fewer responses.
RUNS, PROMPTS, GROUPS = 3, 32, 16


def batches(n: int, steps: int = 5):
    source = torch.Generator().manual_seed(n)
    for step in range(steps):
        rewards = torch.randn(RUNS, PROMPTS, n, dtype=torch.float64, generator=source) + 0.3 * step
        if step == 1:
            rewards[0, 0] = 0.5  # a prompt whose responses are all equal
        labels = torch.randint(GROUPS, (RUNS, PROMPTS), generator=source)
        yield adv.Batch(rewards, labels, torch.zeros(0), torch.zeros(0))


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize(
    ("mine", "theirs", "options"),
    [
        (adv.grpo, "grpo_outcome", {}),
        (adv.dr_grpo, "grpo_outcome", {"norm_adv_by_std_in_grpo": False}),
        (adv.rloo, "rloo_outcome", {}),
        (adv.batch_norm, "reinforce_plus_plus_outcome", {"config": SimpleNamespace(gamma=1.0)}),
        (adv.prompt_batch, "reinforce_plus_plus_baseline_outcome", {}),
    ],
)
def test_estimators_are_verls(n, mine, theirs, options):
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    verls = getattr(core_algos, f"compute_{theirs}_advantage")
    for batch in batches(n):
        for rewards, advantages in zip(batch.rewards, mine(batch), strict=True):
            scores = rewards.reshape(-1, 1).clone()
            uids = np.repeat(np.arange(PROMPTS), n).astype(object)
            expected, _ = verls(scores, torch.ones_like(scores), index=uids, **options)
            torch.testing.assert_close(advantages.reshape(-1, 1), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("update", ["before_normalize", "after_normalize"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"half_life": 9.0},
        {"prior_strength": 5.0, "min_count": 12, "half_life": 20.0},
        {"baseline": "blended"},
        {"baseline": "shrinkage", "group_balance": 0.5},
        {"baseline": "shrinkage", "half_life": 20.0, "norm_adv_by_std_in_grpo": False},
    ],
)
def test_pgrpo_is_the_packages(options, update):
    config = PGRPOConfig.from_mapping({**options, "update_order": update})
    mine, theirs = adv.PGRPO(config, RUNS, GROUPS), [GroupHistoryManager(config) for _ in range(RUNS)]
    for batch in batches(4):
        advantages = mine(batch)
        for run, history in enumerate(theirs):
            groups = [f"group {label}" for label in batch.labels[run].repeat_interleave(4).tolist()]
            prompts = np.repeat(np.arange(PROMPTS), 4).tolist()
            expected = history.compute_advantages(groups, batch.rewards[run].flatten(), prompts).advantages
            np.testing.assert_allclose(advantages[run].flatten(), expected, rtol=1e-9, atol=1e-9)


def test_ideas_replace_one_part_of_shrinkage():
    """Without a change the same as shrinkage. Between prompts that are all alike, moderation changes nothing."""
    own = adv.PGRPO(PGRPOConfig(baseline="shrinkage"), RUNS, GROUPS)
    made = {part: Shrinkage(RUNS, GROUPS, part) for part in ("", "sigma_p", "moderated", "lag", "unrounded")}
    for batch in batches(4):
        expected = own(batch)
        found = {part: estimator(batch) for part, estimator in made.items()}
    torch.testing.assert_close(found.pop(""), expected)
    for advantages in found.values():
        assert advantages.isfinite().all()
        assert not torch.allclose(advantages, expected)
    # 4000 prompts of one variance: the estimate of d0 is large, so each prompt is divided by the pooled std.
    rewards = torch.randn(1, 4000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alike = adv.Batch(rewards, torch.zeros(1, 4000, dtype=torch.long), rewards, rewards)
    moderated, pooled = Shrinkage(1, 1, "moderated")(alike), Shrinkage(1, 1)(alike)
    assert ((moderated / pooled - 1).abs() < 0.25).double().mean() > 0.95


def test_an_oracle_may_lag_or_be_shifted():
    batch = next(iter(batches(4)))
    batch = replace(batch, mean=torch.ones(RUNS, PROMPTS), std=torch.full((RUNS, PROMPTS), 2.0))
    standardized = (batch.rewards - 1) / 2
    torch.testing.assert_close(adv.Oracle(RUNS, GROUPS)(batch), standardized, rtol=1e-5, atol=1e-5)
    lowered = adv.Oracle(RUNS, GROUPS, shift=-0.5)(batch)
    torch.testing.assert_close(lowered, standardized + 0.5, rtol=1e-5, atol=1e-5)
    history = adv.PGRPO(PGRPOConfig(), RUNS, GROUPS)(batch)
    lagging = [adv.Oracle(RUNS, GROUPS, part)(batch) for part in ("mean", "std")]
    slope = lagging[1] / standardized  # 2 / std of the history
    torch.testing.assert_close(lagging[0] * slope, history, rtol=1e-4, atol=1e-4)


SHORT = Setting(n=2, steps=40)


def test_seeds_reproduce_bit_for_bit_regardless_of_other_seeds():
    several = train(SHORT, [GRPO, PGRPO], [[16.0], [8.0, 32.0]], range(3))
    torch.testing.assert_close(several, train(SHORT, [GRPO, PGRPO], [[16.0], [8.0, 32.0]], range(3)), rtol=0, atol=0)
    alone = train(SHORT, [PGRPO], [[32.0]], range(2, 3))
    torch.testing.assert_close(several[2, 2], alone[0, 0], rtol=0, atol=0)


def test_labels_are_split_merged_and_spoiled():
    setting = Setting(responses=20_000, steps=1)
    draws, shares = draw(setting, range(1)), PEOPLE[setting.people].shares
    group = group_of(draws.user, shares)

    def labels(**how):
        return Entrant("", lambda runs, groups: adv.grpo, **how).labels(group, draws.label, shares)

    assert (labels() == group).all()
    assert (labels(split=3) // 3 == group).all()
    assert labels(split=3).unique().tolist() == list(range(12))
    assert (labels(merged=2) == group // 2).all()
    # A label drawn at random is the right one by chance.
    spoiled, by_chance = labels(mislabeled=0.5), sum(share**2 for share in shares)
    assert (spoiled == group).double().mean() == pytest.approx(0.5 + 0.5 * by_chance, abs=0.02)
    assert torch.bincount(group_of(draws.user, shares, 1.0).flatten()) / 5000 == pytest.approx([0.25] * 4, abs=0.03)
    assert torch.bincount(labels(mislabeled=1.0).flatten()) / 5000 == pytest.approx(shares, abs=0.03)


def test_preference_groups_help_or_hurt_as_documented():
    """Preference groups help if ratings are noisy and on different scales; they hurt if prompts differ."""

    def utility(*entrants, **setting):
        setting = replace(SHORT, steps=100, **setting)
        return final_utility(train(setting, entrants, [[22.6]] * len(entrants), range(12))).mean((1, 2))

    grpo, ours, random, oracle = utility(GRPO, PGRPO, RANDOM, ORACLE, noise=1.0)
    assert min(ours, oracle) > grpo + 0.02 > random
    grpo, ours, blended = utility(GRPO, PGRPO, pgrpo("", baseline="blended"), noise=0.0, mood=1.0)
    assert grpo - 0.02 > ours < blended - 0.02


def test_adam_is_torchs():
    mine, theirs = Adam(), torch.nn.Parameter(torch.zeros(5))
    optimizer, position = torch.optim.Adam([theirs], lr=0.1, maximize=True), torch.zeros(5)
    for step in range(6):
        gradient = torch.sin(torch.arange(5.0) + step)
        theirs.grad = gradient
        optimizer.step()
        position += 0.1 * mine(gradient)
    torch.testing.assert_close(position, theirs.detach())


def test_ebpo_lies_between_the_prompts_mean_and_that_of_all_rewards():
    rewards = torch.tensor([[[0.0, 2.0], [10.0, 12.0]]], dtype=torch.float64)  # within 2, total 36
    batch = adv.Batch(rewards, torch.zeros(1, 2, dtype=torch.int64), rewards, rewards)
    toward_all = (2 / 2) / (2 / 2 + (104 / 3 - 2))
    baseline = toward_all * 6 + (1 - toward_all) * torch.tensor([1.0, 11.0])[:, None]
    torch.testing.assert_close(adv.EBPO(1)(batch)[0], (rewards[0] - baseline) / ((104 / 3) ** 0.5 + 1e-6))


def test_a_kept_setting_is_read_back(tmp_path):
    protocol, setting = Protocol(range(2), range(2, 4), smooth=True, at_grpos=False), replace(SHORT, steps=10)
    ran, read = (studies.run(setting, "MOOD_ENTRANTS", protocol, tmp_path) for _ in range(2))
    assert list(read) == list(ran)
    assert read["pgrpo"].step_size == ran["pgrpo"].step_size
    assert torch.equal(read["pgrpo"].curves, ran["pgrpo"].curves)
