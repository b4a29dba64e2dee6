# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Running moments against exact rational arithmetic, at the places where such code usually breaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.reference import exact_moments, exact_std, exponential_moments
from verl_pgrpo.moments import Moments

values = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False, width=32)
batches = st.lists(st.lists(values, min_size=1, max_size=12), min_size=1, max_size=8)
ZERO = np.zeros(1, dtype=np.int64)


def updated(parts: list[list[float]], half_life: float | None = None) -> Moments:
    moments = Moments(1, half_life)
    for part in parts:
        moments.update(np.zeros(len(part), dtype=np.int64), np.array(part, dtype=np.float64))
    return moments


def merged(*histories: Moments) -> Moments:
    total = Moments(1)
    for history in histories:
        total.merge(ZERO, history)
    return total


def assert_exact(moments: Moments, rewards: list[float], rel: float = 1e-12) -> None:
    count, mean, m2 = exact_moments(rewards)
    scale = max(map(abs, rewards))
    assert moments.count[0] == count
    assert moments.mean[0] == pytest.approx(float(mean), abs=rel * scale)
    assert moments.m2[0] == pytest.approx(float(m2), rel=1e-9, abs=(rel * scale) ** 2 * count)


@given(batches, st.randoms(use_true_random=False))
def test_any_order_and_any_split_equal_the_exact_moments(parts, random):
    rewards = [value for part in parts for value in part]
    shuffled = random.sample(rewards, len(rewards))
    cut = random.randint(0, len(rewards))
    for split in (parts, [shuffled[:cut], shuffled[cut:]], [[value] for value in shuffled]):
        assert_exact(updated(split), rewards)
    one, other = updated([rewards]), updated([shuffled])  # one batch in another order: equal to the last bit
    assert (one.mean[0], one.m2[0]) == (other.mean[0], other.m2[0])


@given(batches, batches, batches)
def test_merge_is_associative_commutative_and_has_an_identity(a, b, c):
    rewards = [value for parts in (a, b, c) for part in parts for value in part]
    left = merged(merged(updated(a), updated(b)), updated(c))
    right = merged(updated(a), merged(updated(b), updated(c)))
    for history in (left, right, merged(updated(c), updated(a), updated(b)), merged(left, Moments(1))):
        assert_exact(history, rewards)
    alone = merged(Moments(1), updated(a))
    assert all(getattr(alone, name) == getattr(updated(a), name) for name in ("count", "mean", "m2"))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("offset", "spread"),
    [(1e9, 1.0), (99.9999999, 3.2e-8), (-1e12, 1e-3), (0.0, 1e-160), (0.0, 1e130), (1e-300, 1e-301)],
)
def test_a_large_offset_does_not_drown_the_spread(offset, spread, batch_size):
    rewards = (offset + spread * np.random.default_rng(0).standard_normal(3000)).tolist()
    moments = updated([rewards[i : i + batch_size] for i in range(0, len(rewards), batch_size)])
    count, mean, _ = exact_moments(rewards)
    # Within a few units in the last place of the mean, which may be a visible part of the spread itself.
    ulp = float(np.spacing(abs(offset) + spread))
    assert moments.count[0] == count
    assert moments.mean[0] == pytest.approx(float(mean), abs=60 * ulp)
    if spread**2 * count > 1e-300:  # below, squares underflow: the spread counts as none
        assert moments.std()[0] == pytest.approx(exact_std(rewards), rel=1e-6 + (60 * ulp / spread) ** 2)
    else:
        assert moments.std()[0] <= exact_std(rewards) * (1 + 1e-6)


def test_a_million_updates_near_a_billion():
    """A thousand groups get a thousand rewards each, one at a time; then one group gets all the million in batches."""
    rewards = 1e9 + np.random.default_rng(1).standard_normal((1000, 1000))
    singles, rows = Moments(1000), np.arange(1000)
    for batch in rewards:
        singles.update(rows, batch)
    for group in range(0, 1000, 50):
        column = rewards[:, group].tolist()
        assert singles.mean[group] == pytest.approx(float(exact_moments(column)[1]), abs=1e-5)
        assert singles.std()[group] == pytest.approx(exact_std(column), rel=1e-7)
    one = updated(rewards.tolist())
    count, mean, m2 = exact_moments(rewards.ravel().tolist())
    assert one.count[0] == count == 1_000_000
    assert one.mean[0] == pytest.approx(float(mean), abs=1e-5)  # the last place of 1e9 is 1.2e-7
    assert one.m2[0] == pytest.approx(float(m2), rel=1e-8)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1, 5e-324, -1e139])
def test_equal_values_have_no_spread_at_all(value):
    moments = updated([[value] * 3, [value], [value] * 500])
    assert (moments.mean[0], moments.m2[0], moments.std()[0]) == (value, 0.0, 0.0)


@given(batches, st.sampled_from([0.5, 1.0, 3.0, 100.0, 1e6]))
def test_forgetting_equals_weights_written_out(parts, half_life):
    moments = updated(parts, half_life)
    total, mean, m2 = exponential_moments(parts, half_life)
    scale = max(abs(value) for part in parts for value in part)
    assert moments.weight(moments.count)[0] == pytest.approx(total)
    assert moments.mean[0] == pytest.approx(mean, abs=1e-9 * scale)
    assert moments.m2[0] == pytest.approx(m2, rel=1e-7, abs=1e-12 * scale**2)


def test_half_life_is_the_age_at_which_a_reward_weighs_half():
    moments = updated([[0.0] * 4000, [1.0] * 8], half_life=8)  # half of all weight is younger than 8 rewards
    assert moments.mean[0] == pytest.approx(0.5)
    slow, plain = (updated(np.arange(100.0).reshape(5, 20).tolist(), h) for h in (1e9, None))
    assert (slow.mean[0], slow.std()[0]) == pytest.approx((plain.mean[0], plain.std()[0]), rel=1e-6)


@pytest.mark.parametrize("half_life", [5e-324, 1e-3, 1e15])
def test_extreme_half_lives_stay_finite(half_life):
    with np.errstate(all="raise", under="ignore"):
        moments = updated([[1.0, 2.0, 5.0], [3.0], [4.0, 4.0]], half_life)
        for number in (*moments.mean, *moments.m2, *moments.std(), *moments.pooled()):
            assert np.isfinite(number)


@given(st.lists(st.lists(values, min_size=1, max_size=6), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_pooled_is_the_exact_moments_of_all_groups(groups, random):
    """Without forgetting; each group's rewards arrive as one batch."""

    def pooled(order):
        moments = Moments(len(groups))
        for row, group in enumerate(order):
            moments.update(np.full(len(group), row), np.array(group))
        return moments.pooled()

    rewards = [value for group in groups for value in group]
    scale = max(map(abs, rewards))
    mean, std = pooled(groups)
    assert mean == pytest.approx(float(exact_moments(rewards)[1]), abs=1e-12 * scale)
    assert std == pytest.approx(exact_std(rewards), rel=1e-6, abs=1e-9 * scale)


def test_the_pool_weighs_each_reward_as_its_group_does():
    """So it forgets at the rate of its groups: not within one step in which each of many groups gets a reward."""
    half_life, batches = 8, [[[0.0] * 50, [1.0, 2.0, 4.0]], [[5.0] * 4], [[7.0], [8.0]]]
    moments = Moments(3, half_life)
    for row, parts in enumerate(batches):
        for part in parts:
            moments.update(np.full(len(part), row), np.array(part))
    weights, means, m2s = np.transpose([exponential_moments(parts, half_life) for parts in batches])
    mean, std = moments.pooled()
    assert mean == pytest.approx(np.average(means, weights=weights))
    between = weights * (means - mean) ** 2
    # The weights of single rewards are below 1, so Bessel's correction takes less than 1 from the sum of weights.
    biased = np.sum(m2s + between) / weights.sum()
    assert biased < std**2 < biased * weights.sum() / (weights.sum() - 1)
