# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Running moments against exact rational arithmetic, in cases where such code usually fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.reference import exact_moments, exact_std, exponential_moments
from verl_pgrpo.moments import Moments

values = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False, width=32)
batches = st.lists(st.lists(values, min_size=1, max_size=12), min_size=1, max_size=5)


def updated(parts: list[list[float]], half_life: float | None = None) -> Moments:
    return grouped([parts], half_life)


def grouped(groups: list[list[list[float]]], half_life: float | None = None) -> Moments:
    """The batches of each group."""
    moments = Moments(len(groups), half_life)
    for row, parts in enumerate(groups):
        for part in parts:
            moments.update(np.full(len(part), row), np.array(part, dtype=np.float64))
    return moments


def merged(*histories: Moments) -> Moments:
    total = Moments(1)
    for history in histories:
        total.merge(np.array([0]), history)
    return total


def assert_exact(moments: Moments, rewards: list[float], rel: float = 1e-12) -> None:
    count, mean, m2 = exact_moments(rewards)
    scale = max(map(abs, rewards))
    assert moments.count[0] == count
    assert moments.mean[0] == pytest.approx(float(mean), abs=rel * scale)
    assert moments.m2[0] == pytest.approx(float(m2), rel=1e-9, abs=(rel * scale) ** 2 * count)


@given(batches, st.randoms(use_true_random=False))
def test_any_order_any_split_and_any_merge_equal_the_exact_moments(parts, random):
    rewards = [value for part in parts for value in part]
    shuffled = random.sample(rewards, len(rewards))
    cut, single = random.randint(0, len(rewards)), [[value] for value in shuffled]
    for split in (parts, [shuffled[:cut], shuffled[cut:]], single):
        assert_exact(updated(split), rewards)
    one, other = updated([rewards]), updated([shuffled])  # one batch in another order: equal to the last bit
    assert (one.mean[0], one.m2[0]) == (other.mean[0], other.m2[0])
    a, b, c = (updated(part) for part in (single[:cut], single[cut:], parts))
    for history in (merged(merged(a, b), c), merged(c, merged(b, a)), merged(Moments(1), b, a, Moments(1), c)):
        assert_exact(history, rewards * 2)


@pytest.mark.parametrize(
    ("offset", "spread"),
    [(1e9, 1.0), (99.9999999, 3.2e-8), (-1e12, 1e-3), (0.0, 1e-160), (0.0, 1e130), (1e-300, 1e-301)],
)
def test_a_large_offset_does_not_drown_the_spread(offset, spread):
    rewards = (offset + spread * np.random.default_rng(0).standard_normal(3000)).tolist()
    (count, mean, _), std = exact_moments(rewards), exact_std(rewards)
    # Within a few units in the last place of the mean, which may be large relative to the spread.
    ulp = float(np.spacing(abs(offset) + spread))
    for batch_size in (1, 7, 1000):
        moments = updated([rewards[i : i + batch_size] for i in range(0, len(rewards), batch_size)])
        assert moments.count[0] == count
        assert moments.mean[0] == pytest.approx(float(mean), abs=60 * ulp)
        if spread**2 * count > 1e-300:  # below this, squares underflow: the spread counts as zero
            assert moments.std()[0] == pytest.approx(std, rel=1e-6 + (60 * ulp / spread) ** 2)
        else:
            assert moments.std()[0] <= std * (1 + 1e-6)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1, 5e-324, -1e139])
def test_equal_values_have_no_spread_at_all(value):
    moments = updated([[value] * 3, [value], [value] * 500])
    assert (moments.mean[0], moments.m2[0], moments.std()[0]) == (value, 0.0, 0.0)


@given(batches, st.sampled_from([5e-324, 0.5, 1.0, 3.0, 100.0, 1e6, 1e15]))
def test_forgetting_equals_weights_written_out(parts, half_life):
    total, mean, m2 = exponential_moments(parts, half_life)
    scale = max(abs(value) for part in parts for value in part)
    with np.errstate(all="raise", under="ignore"):
        moments = updated(parts, half_life)
        assert moments.weight(moments.count)[0] == pytest.approx(total)
        assert moments.mean[0] == pytest.approx(mean, abs=1e-9 * scale)
        assert moments.m2[0] == pytest.approx(m2, rel=1e-7, abs=1e-12 * scale**2)
        assert np.isfinite([*moments.std(), *moments.pooled()]).all()


@given(batches)
def test_pooled_is_the_exact_moments_of_all_groups(groups):
    rewards = [value for group in groups for value in group]
    mean, std = grouped([[group] for group in groups]).pooled()
    scale = max(map(abs, rewards))
    assert mean == pytest.approx(float(exact_moments(rewards)[1]), abs=1e-12 * scale)
    assert std == pytest.approx(exact_std(rewards), rel=1e-6, abs=1e-9 * scale)


def test_the_pool_weighs_each_reward_as_its_group_does():
    """So it forgets at the rate of its groups, and not within one step in which each of many groups gets a reward."""
    half_life, groups = 8, [[[0.0] * 50, [1.0, 2.0, 4.0]], [[5.0] * 4], [[7.0], [8.0]]]
    weights, means, m2s = np.transpose([exponential_moments(parts, half_life) for parts in groups])
    mean, std = grouped(groups, half_life).pooled()
    assert mean == pytest.approx(np.average(means, weights=weights))
    # The weights of single rewards are below 1, so Bessel's correction takes less than 1 from the sum of weights.
    biased = np.sum(m2s + weights * (means - mean) ** 2) / weights.sum()
    assert biased < std**2 < biased * weights.sum() / (weights.sum() - 1)
