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


def folded(parts: list[list[float]], half_life: float | None = None) -> Moments:
    moments = Moments(1, half_life)
    for part in parts:
        moments.update(np.zeros(len(part), dtype=np.int64), np.array(part, dtype=np.float64))
    return moments


def assert_exact(moments: Moments, kept: list[float], rel: float = 1e-12) -> None:
    count, mean, m2 = exact_moments(kept)
    scale = max(map(abs, kept))
    assert moments.count[0] == count
    assert moments.mean[0] == pytest.approx(float(mean), abs=rel * scale)
    assert moments.m2[0] == pytest.approx(float(m2), rel=1e-9, abs=(rel * scale) ** 2 * count)


@given(batches)
def test_batches_equal_the_exact_moments(parts):
    assert_exact(folded(parts), [value for part in parts for value in part])


@given(batches, st.randoms(use_true_random=False))
def test_order_and_split_do_not_matter(parts, random):
    kept = [value for part in parts for value in part]
    shuffled = random.sample(kept, len(kept))
    cut = random.randint(0, len(kept))
    assert_exact(folded([shuffled[:cut], shuffled[cut:]]), kept)
    assert_exact(folded([[value] for value in shuffled]), kept)


@given(batches, batches, batches)
def test_merge_is_associative_commutative_and_has_an_identity(a, b, c):
    def merged(*histories: Moments) -> Moments:
        total = Moments(1)
        for history in histories:
            total.merge(np.zeros(1, dtype=np.int64), history)
        return total

    kept = [value for parts in (a, b, c) for part in parts for value in part]
    left = merged(merged(folded(a), folded(b)), folded(c))
    right = merged(folded(a), merged(folded(b), folded(c)))
    for history in (left, right, merged(folded(c), folded(a), folded(b)), merged(left, Moments(1))):
        assert_exact(history, kept)
    alone = merged(Moments(1), folded(a))
    assert (alone.count[0], alone.mean[0], alone.m2[0]) == tuple(
        getattr(folded(a), name)[0] for name in ("count", "mean", "m2")
    )


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("offset", "spread"),
    [(1e9, 1.0), (99.9999999, 3.2e-8), (-1e12, 1e-3), (0.0, 1e-160), (0.0, 1e130), (1e-300, 1e-301)],
)
def test_offsets_do_not_drown_the_spread(offset, spread, batch_size):
    kept = (offset + spread * np.random.default_rng(0).standard_normal(3000)).tolist()
    parts = [kept[i : i + batch_size] for i in range(0, len(kept), batch_size)]
    moments = folded(parts)
    count, mean, _ = exact_moments(kept)
    std = moments.std()[0]
    assert moments.count[0] == count
    # Within a few units in the last place of the mean, which may be a visible part of the spread itself.
    ulp = float(np.spacing(abs(offset) + spread))
    assert moments.mean[0] == pytest.approx(float(mean), abs=60 * ulp)
    if spread**2 * count > 1e-300:  # below, squares underflow: the spread counts as none
        assert std == pytest.approx(exact_std(kept), rel=1e-6 + (60 * ulp / spread) ** 2)
    else:
        assert std <= exact_std(kept) * (1 + 1e-6)


def test_a_million_updates_near_a_billion():
    """A thousand groups get a thousand rewards each, one at a time; then one group gets all the million in batches."""
    kept = 1e9 + np.random.default_rng(1).standard_normal((1000, 1000))
    singles, rows = Moments(1000), np.arange(1000)
    for rewards in kept:
        singles.update(rows, rewards)
    std = singles.std()
    for group in range(0, 1000, 50):
        values = kept[:, group].tolist()
        assert singles.mean[group] == pytest.approx(float(exact_moments(values)[1]), abs=1e-5)
        assert std[group] == pytest.approx(exact_std(values), rel=1e-7)

    one = folded(kept.tolist())
    count, mean, m2 = exact_moments(kept.ravel().tolist())
    assert one.count[0] == count == 1_000_000
    assert one.mean[0] == pytest.approx(float(mean), abs=1e-5)  # the last place of 1e9 is 1.2e-7
    assert one.m2[0] == pytest.approx(float(m2), rel=1e-8)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1, 5e-324, -1e139])
def test_equal_values_have_no_spread_at_all(value):
    moments = folded([[value] * 3, [value], [value] * 500])
    assert moments.mean[0] == value
    assert moments.m2[0] == 0.0
    assert moments.std()[0] == 0.0


def test_one_value_and_none():
    moments = Moments(2)
    moments.update(np.array([1]), np.array([4.0]))
    assert moments.std().tolist() == [0.0, 0.0]
    moments.update(np.array([], dtype=np.int64), np.array([]))
    assert moments.count.tolist() == [0, 1]


@given(batches, st.sampled_from([0.5, 1.0, 3.0, 100.0, 1e6]))
def test_exponential_equals_weights_written_out(parts, half_life):
    moments = folded(parts, half_life=half_life)
    total, mean, m2 = exponential_moments(parts, half_life)
    scale = max(abs(value) for part in parts for value in part)
    assert moments.weight(moments.count)[0] == pytest.approx(total)
    assert moments.mean[0] == pytest.approx(mean, abs=1e-9 * scale)
    assert moments.m2[0] == pytest.approx(m2, rel=1e-7, abs=1e-12 * scale**2)


def test_half_life_is_the_age_at_which_a_reward_weighs_half():
    moments = Moments(1, half_life=8)
    moments.update(np.zeros(4000, dtype=np.int64), np.zeros(4000))
    moments.update(np.zeros(8, dtype=np.int64), np.ones(8))  # half of all weight is younger than 8 rewards
    assert moments.mean[0] == pytest.approx(0.5)


def test_a_long_half_life_is_the_cumulative_history():
    parts = np.random.default_rng(2).standard_normal((5, 20)).tolist()
    slow, plain = folded(parts, half_life=1e9), folded(parts)
    assert slow.mean[0] == pytest.approx(plain.mean[0], abs=1e-6)
    assert slow.std(slow.count, slow.m2)[0] == pytest.approx(plain.std(plain.count, plain.m2)[0], rel=1e-6)


def test_batches_of_many_groups_stay_apart():
    rng = np.random.default_rng(3)
    moments = Moments(50)
    kept: dict[int, list[float]] = {}
    for _ in range(20):
        rows, rewards = rng.integers(0, 50, 64), rng.standard_normal(64)
        moments.update(rows, rewards)
        for row, reward in zip(rows.tolist(), rewards.tolist(), strict=True):
            kept.setdefault(row, []).append(reward)
    std = moments.std()
    for row, rewards in kept.items():
        assert moments.count[row] == len(rewards)
        assert moments.mean[row] == pytest.approx(np.mean(rewards))
        assert std[row] == pytest.approx(np.std(rewards, ddof=1) if len(rewards) > 1 else 0.0)
