# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""baseline=blended, baseline=shrinkage and group_balance, compared with their formulas."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.reference import exact_moments, exact_std
from tests.core.test_history import computed
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.moments import Moments
from verl_pgrpo.shrinkage import group_weights, prompt_weight, share_within

# Rows of (preference group, prompt, reward in eighths). A prompt's number implies its group, as in training.
rows = st.lists(st.tuples(st.integers(0, 5), st.integers(-80, 80)), min_size=1, max_size=24).map(
    lambda batch: [("ab"[prompt % 2], prompt, eighth / 8) for prompt, eighth in batch]
)
batches = st.lists(rows, min_size=1, max_size=4)
norms = pytest.mark.parametrize("norm", [True, False])


def columns(batch):
    groups, prompts, rewards = (list(column) for column in zip(*batch, strict=True))
    return groups, rewards, prompts


def blended_by_hand(plain, standardized, prompts):
    """Each response's advantage minus w times the mean of the prompt's other responses, in plain loops."""
    of = {name: [i for i, prompt in enumerate(prompts) if prompt == name] for name in prompts}
    mean = {name: np.mean(standardized[members]) for name, members in of.items()}
    spare = sum(len(members) - 1 for members in of.values())
    within = sum((standardized[i] - mean[prompt]) ** 2 for i, prompt in enumerate(prompts)) / max(spare, 1)
    between = max(0.0, np.mean([mean[name] ** 2 - within / len(members) for name, members in of.items()]))
    out = plain.copy()
    for i, prompt in enumerate(prompts):
        others = [k for k in of[prompt] if k != i]
        if others and between > 0:
            out[i] -= between / (between + within / len(others)) * np.mean(plain[others])
    return out


@norms
@given(past=rows, batch=rows)
def test_blended_is_the_leave_one_out_formula(norm, past, batch):
    batch, past = columns(batch), [columns(past)]
    plain = computed(PGRPOConfig(norm_adv_by_std_in_grpo=norm), *batch, past=past)
    standardized = computed(None, *batch, past=past)
    result = computed(PGRPOConfig(baseline="blended", norm_adv_by_std_in_grpo=norm), *batch, past=past)
    expected = blended_by_hand(plain.advantages, standardized.advantages, batch[2])
    np.testing.assert_allclose(result.advantages, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal([result.mean, result.std], [plain.mean, plain.std])


def within_exact(parts, group):
    """Sum of squares within prompts and its degrees of freedom; prompts of different batches are different prompts."""
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


@norms
@pytest.mark.parametrize("order", ["before_normalize", "after_normalize"])
@given(parts=batches)
def test_shrinkage_equals_the_exact_reference(norm, order, parts):
    config = PGRPOConfig(baseline="shrinkage", norm_adv_by_std_in_grpo=norm, update_order=order)
    history = GroupHistoryManager(config)
    for end, batch in enumerate(parts, start=1):
        result = history.compute_advantages(*columns(batch))
        for row, (group, prompt, reward) in enumerate(batch):
            known = parts[:end]
            if order == "after_normalize":  # a group without a past is normalized by its first batch
                past = [part for part in parts[: end - 1] if group in columns(part)[0]]
                known = past or [batch]
            kept = [r for part in known for g, _, r in part if g == group]
            others = [r for i, (_, p, r) in enumerate(batch) if p == prompt and i != row]
            _, mean, _ = exact_moments(kept)
            between, within = components_exact(known, group)
            centered = Fraction(reward) - mean
            if others and between:
                w = min(Fraction(1), Fraction(4, 3) * between / (between + within / len(others)))
                centered -= w * (sum(map(Fraction, others)) / len(others) - mean)
            scale = float(within) ** 0.5 or exact_std(kept)
            divisor = scale + 1e-6 if norm and scale else 1.0
            assert result.advantages[row] == pytest.approx(float(centered) / divisor, rel=1e-7, abs=1e-7)
            assert result.std[row] == pytest.approx(scale, abs=1e-9)
    for group in history.groups:
        squares, dof = within_exact(parts, group)
        expected = float(squares / dof) ** 0.5 if dof else np.nan
        assert history.statistics([group]).within_std[0] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_forgetting_weighs_prompts_like_rewards():
    history = GroupHistoryManager(PGRPOConfig(half_life=2))
    history.update(["a"] * 2, [0.0, 2.0], ["p", "p"])  # variance 2
    history.update(["a"] * 2, [0.0, 4.0], ["p", "p"])  # variance 8, with twice the weight
    assert history.statistics(["a"]).within_std[0] ** 2 == pytest.approx((2 + 2 * 8) / 3)


@pytest.mark.parametrize("baseline", ["blended", "shrinkage"])
def test_a_run_can_switch_the_baseline(tmp_path, baseline):
    """The spread within prompts is recorded with every baseline. Only these two require prompts."""
    batch, config = (["a"] * 4, [1.0, 3.0, 4.0, 8.0], ["p", "p", "q", "q"]), PGRPOConfig(baseline=baseline)
    plain = GroupHistoryManager()
    plain.update(*batch)
    plain.save(tmp_path / "h.parquet")
    resumed = GroupHistoryManager.load(tmp_path / "h.parquet", config)
    with pytest.raises(ValueError, match="prompt_ids"):
        resumed.compute_advantages(["a"], [1.0])
    expected = computed(config, *batch, past=[batch]).advantages
    np.testing.assert_array_equal(resumed.compute_advantages(*batch).advantages, expected)


@given(rows, st.floats(0.1, 10), st.floats(-50, 50))
def test_units_of_a_preference_group_do_not_matter(batch, scale, offset):
    config = PGRPOConfig(baseline="shrinkage", group_balance=0.5, epsilon=0)
    start = [("a", 0, 1.0), ("a", 2, 2.5), ("b", 1, 1.0), ("b", 3, 2.5)]
    groups, values, prompts = columns([*start, *batch])
    units = [value * scale + offset if group == "a" else value for group, value in zip(groups, values, strict=True)]
    mine, theirs = (computed(config, groups, v, prompts) for v in (values, units))
    np.testing.assert_allclose(theirs.advantages, mine.advantages, atol=1e-6)


def test_prompts_that_differ_much_are_compared_with_themselves():
    """Above w* = 3/4 a prompt whose responses all earn the same reward has no signal at all, to the last bit."""
    past = [(["a"] * 6, [-1.0, -1.1, 0.2, 0.1, 1.0, 1.1], list("ppqqrr"))]
    result = computed(PGRPOConfig(baseline="shrinkage"), ["a"] * 4, [0.7, 0.7, 0.3, 0.9], list("ssuu"), past=past)
    assert result.advantages[:2].tolist() == [0.0, 0.0]
    assert result.advantages[2] == -result.advantages[3] != 0


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=12), st.sampled_from([0.25, 0.5, 1.0]))
def test_balance_has_mean_weight_one_and_lifts_the_few(counts, alpha):
    counts = np.array(counts)
    weights = group_weights(counts, np.arange(len(counts)), alpha)
    assert (counts * weights).sum() == pytest.approx(counts.sum())
    share = counts / counts.sum()
    total = (share * weights / share ** (1 - alpha))[share >= 0.01 / len(counts)]  # is proportional to share^(1-alpha)
    np.testing.assert_allclose(total, total[0])
    assert weights.max() <= (100 * len(counts)) ** alpha * 1.0001


def test_balance_multiplies_the_advantages():
    batch = ["big"] * 12 + ["small"] * 3, np.arange(15.0), range(15)
    plain, result = (computed(PGRPOConfig(group_balance=alpha), *batch) for alpha in (0.0, 1.0))
    weight = np.where(np.array(batch[0]) == "big", 15 / 24, 15 / 6)
    for name in ("advantages", "scale", "shift"):
        np.testing.assert_allclose(getattr(result, name), weight * getattr(plain, name))
    np.testing.assert_array_equal(result.mean, plain.mean)


def test_the_balance_counts_all_batches_and_groups_that_this_one_lacks():
    history = GroupHistoryManager(PGRPOConfig(group_balance=1.0))
    plain = GroupHistoryManager()
    for groups in (["a"] * 6 + ["b"] * 2, ["a"] * 4):
        rewards = np.arange(float(len(groups)))
        balanced, usual = (each.compute_advantages(groups, rewards) for each in (history, plain))
    np.testing.assert_allclose(balanced.advantages, 12 / 2 / 10 * usual.advantages)  # a: 10 of 12 rewards, two groups


def test_the_weight_of_a_group_whose_prompts_do_not_differ_falls_as_docs_shrinkage_says():
    rewards = np.random.default_rng(0).normal(size=(1000, 200, 2))
    for prompts, expected in ((5, 0.2), (20, 0.11), (200, 0.04)):
        part = rewards[:, :prompts].reshape(1000, -1)
        moments = Moments(1000)
        of_group = np.arange(1000).repeat(2 * prompts)
        moments.update(of_group, part.ravel(), np.arange(1000 * prompts).repeat(2))
        assert prompt_weight(share_within(moments), 1.0).mean() == pytest.approx(expected, abs=0.015)


def test_a_prompt_without_an_id_is_an_error():
    """Rows without a prompt would otherwise be responses to one prompt."""
    for missing in (None, float("nan")):
        with pytest.raises(ValueError, match=r"1 of 2 prompt_ids are missing \(first: row 1\)"):
            computed(PGRPOConfig(baseline="shrinkage"), ["a", "a"], [0.0, 1.0], ["x", missing])


def test_a_cold_group_takes_no_variance_components_from_its_own_few_rewards():
    past = [(["b"] * 400, np.linspace(0, 1, 400), [i // 2 for i in range(400)])]
    config = PGRPOConfig(baseline="shrinkage", min_count=32)
    result = computed(config, ["a"] * 5, [1.0, 1.001, 0.0, 0.001, 1.0], list("ppqqz"), past=past)
    assert result.cold.all()
    assert np.abs(result.advantages).max() < 3
    assert result.advantages[0] == pytest.approx(result.advantages[4])  # the paper's method: prompts play no part


def test_rounding_is_not_a_spread_within_prompts():
    values = [1e6 + 0.1, np.nextafter(1e6 + 0.1, 2e6), 1e6 + 0.3, np.nextafter(1e6 + 0.3, 2e6)]
    result = computed(PGRPOConfig(baseline="shrinkage", epsilon=0), ["a"] * 4, values, list("ppqq"))
    assert np.abs(result.advantages).max() < 1e-6
