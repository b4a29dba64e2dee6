# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""baseline=shrinkage and group_balance against exact rational arithmetic, and their state in the history."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.reference import exact_moments, exact_std
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.errors import ConfigError
from verl_pgrpo.shrinkage import group_weights

SHRINKAGE = PGRPOConfig(baseline="shrinkage")
BALANCED = PGRPOConfig(baseline="shrinkage", group_balance=0.5)
# Rows of (preference group, prompt, reward in eighths). A prompt's number implies its group, as in training.
rows = st.lists(st.tuples(st.integers(0, 5), st.integers(-80, 80)), min_size=1, max_size=24).map(
    lambda batch: [("ab"[prompt % 2], prompt, eighth / 8) for prompt, eighth in batch]
)
batches = st.lists(rows, min_size=1, max_size=4)


def columns(batch):
    groups, prompts, rewards = (list(column) for column in zip(*batch, strict=True))
    return groups, rewards, prompts


def within_exact(parts, group):
    """Sum of squares within prompts and its degrees of freedom; a prompt of another batch is another prompt."""
    squares, dof = Fraction(0), 0
    for batch in parts:
        for prompt in {p for g, p, _ in batch if g == group}:
            count, _, m2 = exact_moments([r for g, p, r in batch if (g, p) == (group, prompt)])
            squares, dof = squares + m2, dof + count - 1
    return squares, dof


def components_exact(parts, group):
    """Variance between and within prompts, as rationals: T^2 and s^2, or 0 and sigma^2 if T^2 is not known."""
    count, _, m2 = exact_moments([r for batch in parts for g, _, r in batch if g == group])
    squares, dof = within_exact(parts, group)
    total = m2 / (count - 1) if count > 1 else Fraction(0)
    within = squares / dof if dof else total
    return max(total - within, Fraction(0)), min(within, total)


@given(batches)
def test_the_spread_within_prompts_is_exact(parts):
    history = GroupHistoryManager()
    for batch in parts:
        history.update(*columns(batch))
    for group in history.groups:
        squares, dof = within_exact(parts, group)
        expected = float(squares / dof) ** 0.5 if dof else np.nan
        assert history.statistics([group]).within_std[0] == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("norm", [True, False])
@given(parts=batches)
def test_advantages_equal_the_exact_reference(norm, parts):
    history = GroupHistoryManager(PGRPOConfig(baseline="shrinkage", norm_adv_by_std_in_grpo=norm))
    for end, batch in enumerate(parts, start=1):
        result = history.compute_advantages(*columns(batch))
        for row, (group, prompt, reward) in enumerate(batch):
            kept = [r for part in parts[:end] for g, _, r in part if g == group]
            others = [r for i, (_, p, r) in enumerate(batch) if p == prompt and i != row]
            _, mean, _ = exact_moments(kept)
            between, within = components_exact(parts[:end], group)
            centred = Fraction(reward) - mean
            if others and between:
                w = min(Fraction(1), Fraction(4, 3) * between / (between + within / len(others)))
                centred -= w * (sum(map(Fraction, others)) / len(others) - mean)
            scale = float(within) ** 0.5 or exact_std(kept)
            divisor = scale + 1e-6 if norm and scale else 1.0
            assert result.advantages[row] == pytest.approx(float(centred) / divisor, rel=1e-7, abs=1e-7)
            assert result.std[row] == pytest.approx(scale, abs=1e-9)


@given(rows, rows, st.randoms(use_true_random=False))
def test_the_order_of_the_batch_changes_no_bit(first, second, random):
    one, other = GroupHistoryManager(BALANCED), GroupHistoryManager(BALANCED)
    for batch in (first, second):
        order = random.sample(range(len(batch)), len(batch))
        straight = one.compute_advantages(*columns(batch)).advantages
        shuffled = other.compute_advantages(*columns([batch[i] for i in order])).advantages
        np.testing.assert_array_equal(shuffled, straight[order])


@pytest.mark.parametrize("half_life", [None, 5.0])
@given(a=rows, b=rows, c=rows)
def test_merging_equals_observing_everything(half_life, a, b, c):
    def observed(*parts):
        history = GroupHistoryManager(PGRPOConfig(half_life=half_life))
        for part in parts:
            history.update(*columns(part))
        return history

    merged, tail = observed(a), observed(b)
    tail.merge(observed(c))
    merged.merge(tail)
    merged.merge(observed())
    everything = observed(a, b, c)
    for name in ("mean", "std", "within_std"):
        mine, theirs = (getattr(h.statistics(everything.groups), name) for h in (merged, everything))
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_forgetting_weighs_prompts_like_rewards():
    history = GroupHistoryManager(PGRPOConfig(half_life=2))
    history.update(["a"] * 2, [0.0, 2.0], ["p", "p"])  # variance 2
    history.update(["a"] * 2, [0.0, 4.0], ["p", "p"])  # variance 8, with twice the weight
    assert history.statistics(["a"]).within_std[0] ** 2 == pytest.approx((2 + 2 * 8) / 3)


@given(batches, rows)
def test_copies_and_files_continue_bit_for_bit(tmp_path_factory, parts, last):
    history = GroupHistoryManager(BALANCED)
    for batch in parts:
        history.compute_advantages(*columns(batch))
    path = tmp_path_factory.mktemp("history") / "h.parquet"
    history.save(path, step=3)
    copies = [pickle.loads(pickle.dumps(history)), copy.deepcopy(history), GroupHistoryManager.load(path, BALANCED, 3)]
    expected = history.compute_advantages(*columns(last))
    for other in copies:
        result = other.compute_advantages(*columns(last))
        for name in ("advantages", "scale", "shift"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


def test_a_run_can_switch_the_baseline(tmp_path):
    """The spread within prompts is recorded with every baseline."""
    batch = ["a"] * 4, [1.0, 3.0, 4.0, 8.0], ["p", "p", "q", "q"]
    plain, shrinkage = GroupHistoryManager(), GroupHistoryManager(SHRINKAGE)
    for history in (plain, shrinkage):
        history.compute_advantages(*batch)
    plain.save(tmp_path / "h.parquet")
    resumed = GroupHistoryManager.load(tmp_path / "h.parquet", SHRINKAGE)
    np.testing.assert_array_equal(
        resumed.compute_advantages(*batch).advantages, shrinkage.compute_advantages(*batch).advantages
    )


@given(rows, st.floats(0.1, 10), st.floats(-50, 50))
def test_units_of_a_preference_group_do_not_matter(batch, scale, offset):
    config = PGRPOConfig(baseline="shrinkage", group_balance=0.5, epsilon=0)
    history, other = GroupHistoryManager(config), GroupHistoryManager(config)
    start = [("a", 0, 1.0), ("a", 2, 2.5), ("b", 1, 1.0), ("b", 3, 2.5)]
    groups, values, prompts = columns([*start, *batch])
    units = [value * scale + offset if group == "a" else value for group, value in zip(groups, values, strict=True)]
    mine = history.compute_advantages(groups, values, prompts).advantages
    np.testing.assert_allclose(other.compute_advantages(groups, units, prompts).advantages, mine, atol=1e-6)


@given(rows)
def test_the_corollary_holds(batch):
    groups, values, prompts = columns(batch)
    result = GroupHistoryManager(BALANCED).compute_advantages(groups, values, prompts)
    for prompt in set(prompts):
        members = [i for i, name in enumerate(prompts) if name == prompt]
        if len(members) > 1:
            own = np.array(values)[members]
            grpo = (own - own.mean()) / (own.std(ddof=1) + 1e-6)
            rebuilt = result.scale[members] * grpo + result.shift[members]
            np.testing.assert_allclose(result.advantages[members], rebuilt, rtol=1e-7, atol=1e-7)


def test_without_spread_between_prompts_it_is_the_papers_method():
    batch = ["a"] * 6, [1.0, 2.0, 4.0, 1.0, 2.0, 4.0], [0, 0, 0, 1, 1, 1]
    result, plain = (GroupHistoryManager(c).compute_advantages(*batch) for c in (SHRINKAGE, PGRPOConfig()))
    np.testing.assert_allclose(result.advantages, plain.advantages, rtol=1e-12)
    unknown = GroupHistoryManager(SHRINKAGE)
    unknown.update(["a"] * 3, [1.0, 2.0, 9.0])  # no prompts
    single = unknown.compute_advantages(["a", "a"], [3.0, 5.0], ["p", "q"])
    assert single.advantages.tolist() == pytest.approx([(3 - 4) / 10**0.5, (5 - 4) / 10**0.5], rel=1e-5)


def test_prompts_that_differ_much_are_compared_with_themselves():
    """Above w* = 3/4 a prompt whose responses all earn the same reward has no signal at all, to the last bit."""
    rng = np.random.default_rng(0)
    moods = np.repeat(rng.standard_normal(200), 2)
    history, prompts = GroupHistoryManager(SHRINKAGE), np.repeat(np.arange(200), 2).tolist()
    history.update(["a"] * 400, moods + 0.1 * rng.standard_normal(400), prompts)
    result = history.compute_advantages(["a"] * 4, [0.7, 0.7, 0.3, 0.9], [0, 0, 1, 1])
    assert result.advantages[:2].tolist() == [0.0, 0.0]
    assert result.advantages[2] == -result.advantages[3] != 0


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=12), st.sampled_from([0.25, 0.5, 1.0]))
def test_balance_has_mean_weight_one_and_lifts_the_few(counts, alpha):
    counts = np.array(counts)
    weights = group_weights(counts, np.arange(len(counts)), alpha)
    assert (counts * weights).sum() == pytest.approx(counts.sum())
    share = counts / counts.sum()
    large = share >= 0.01 / len(counts)
    power = (share * weights / share ** (1 - alpha))[
        large
    ]  # a group's total weight is proportional to share^(1 - alpha)
    np.testing.assert_allclose(power, power[0])
    assert weights.max() <= (100 * len(counts)) ** alpha * 1.0001


def test_balance_multiplies_the_advantages():
    groups = ["big"] * 12 + ["small"] * 3
    values = np.arange(15.0)
    plain = GroupHistoryManager().compute_advantages(groups, values, range(15))
    result = GroupHistoryManager(PGRPOConfig(group_balance=1.0)).compute_advantages(groups, values, range(15))
    weight = np.where(np.array(groups) == "big", 15 / 24, 15 / 6)
    for name in ("advantages", "scale", "shift"):
        np.testing.assert_allclose(getattr(result, name), weight * getattr(plain, name))
    np.testing.assert_array_equal(result.mean, plain.mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"baseline": "prompt"}, "shrinkage"), ({"group_balance": 1.5}, "0 to 1"), ({"group_balance": -0.1}, "0 to 1")],
)
def test_invalid_options(options, message):
    with pytest.raises(ConfigError, match=message):
        PGRPOConfig(**options)


def test_shrinkage_needs_the_prompts():
    history = GroupHistoryManager(SHRINKAGE)
    with pytest.raises(ValueError, match="requires prompt_ids"):
        history.compute_advantages(["a"], [1.0])
    assert history.total_count == 0
