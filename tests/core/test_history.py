# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The manager and the method: every option, exactness, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.core import reference
from verl_pgrpo import GroupHistoryManager, PGRPOConfig, personalized_advantage
from verl_pgrpo.advantage import grpo_relation
from verl_pgrpo.errors import ConfigError, GroupLabelError, MissingGroupError, NonFiniteRewardError


rewards = st.floats(min_value=-100, max_value=100, width=32)
batch = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "é\n", ""]), rewards), min_size=1, max_size=16)


def unzip(rows):
    return [group for group, _ in rows], [reward for _, reward in rows]


@given(st.lists(batch, min_size=1, max_size=5))
def test_the_method_equals_its_slow_reference(batches):
    parts = [unzip(rows) for rows in batches]
    history = GroupHistoryManager()
    for (groups, values), expected in zip(parts, reference.advantages(parts), strict=True):
        result = history.compute_advantages(groups, values)
        # Where a spread is as small as a rounding error of the rewards, so is the advantage's accuracy.
        tiny = np.where(result.std > 1e-9, 0, np.inf)
        assert np.all(np.abs(result.advantages - expected) <= 1e-6 * (1 + np.abs(expected)) + tiny)
    assert history.total_count == sum(len(rows) for rows in batches)
    assert sorted(history.groups) == sorted({group for rows in batches for group, _ in rows})


def test_the_result_is_the_formula_on_its_own_statistics():
    history = GroupHistoryManager()
    history.update(["a", "b"] * 20, np.arange(40.0))
    groups, values = ["a", "b", "b", "new"], np.array([3.0, -1.0, 8.0, 5.0])
    result = history.compute_advantages(groups, values)
    by_hand = np.where(result.std > 0, (values - result.mean) / (result.std + 1e-6), values - result.mean)
    np.testing.assert_allclose(result.advantages, by_hand, rtol=1e-12)
    alone = personalized_advantage(values, result.mean, result.std, 1e-6)
    np.testing.assert_array_equal(result.advantages, alone)
    statistics = history.statistics(groups)
    np.testing.assert_array_equal(result.mean, statistics.mean)
    np.testing.assert_array_equal(result.std, statistics.std)
    np.testing.assert_array_equal(result.count, statistics.count)
    assert result.cold.tolist() == [False, False, False, True]


def test_equal_input_gives_equal_bits_in_any_order():
    rng = np.random.default_rng(0)
    groups, values = rng.choice(["x", "y", "z"], 300).tolist(), rng.standard_normal(300)
    first, again = (GroupHistoryManager().compute_advantages(groups, values) for _ in range(2))
    np.testing.assert_array_equal(first.advantages, again.advantages)
    order = rng.permutation(300)
    shuffled = GroupHistoryManager().compute_advantages([groups[i] for i in order], values[order])
    np.testing.assert_array_equal(shuffled.advantages, first.advantages[order])


def test_unknown_groups_have_no_statistics_and_are_not_added():
    history = GroupHistoryManager()
    for known in (0, 1):
        statistics = history.statistics(["nobody"])
        assert statistics.count.tolist() == [0.0]
        assert np.isnan(statistics.mean).all()
        assert np.isnan(statistics.std).all()
        assert history.num_groups == known
        history.update(["somebody"], [1.0])


def test_after_normalize_uses_the_past_and_the_first_batch_itself():
    history = GroupHistoryManager(PGRPOConfig(update_order="after_normalize"))
    first = history.compute_advantages(["a"] * 3, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(first.advantages, [-1, 0, 1], atol=1e-5)
    second = history.compute_advantages(["a", "b"], [4.0, 7.0])
    np.testing.assert_allclose(second.advantages, [2.0, 0.0], atol=1e-5)
    assert second.count.tolist() == [3.0, 1.0]
    before = GroupHistoryManager()
    before.update(["a"] * 3, [1.0, 2.0, 3.0])
    assert before.compute_advantages(["a"], [4.0]).advantages[0] == pytest.approx(1.5 / np.std([1, 2, 3, 4], ddof=1), rel=1e-5)


def test_exponential_follows_a_moving_reward_where_cumulative_lags():
    lagging, following = GroupHistoryManager(), GroupHistoryManager(PGRPOConfig(half_life=32))
    for level in np.linspace(0, 10, 50):
        values = level + np.tile([-0.1, 0.1], 8)
        slow, fast = (history.compute_advantages(["a"] * 16, values) for history in (lagging, following))
    assert abs(fast.mean[0] - 10) < 1 < abs(slow.mean[0] - 10)
    assert fast.std[0] < slow.std[0]


def test_norm_by_std_off_drops_the_division():
    history = GroupHistoryManager(PGRPOConfig(norm_adv_by_std_in_grpo=False))
    result = history.compute_advantages(["a"] * 4, [1.0, 2.0, 3.0, 6.0], prompt_ids=[0, 0, 1, 1])
    np.testing.assert_allclose(result.advantages, [-2, -1, 0, 3])
    np.testing.assert_array_equal(result.scale, np.ones(4))
    np.testing.assert_allclose(result.shift, [-1.5, -1.5, 1.5, 1.5])


def test_epsilon_is_added_to_the_std():
    result = GroupHistoryManager(PGRPOConfig(epsilon=1.0)).compute_advantages(["a"] * 3, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(result.advantages, [-0.5, 0.0, 0.5])


def test_a_group_without_spread_is_not_scaled():
    history = GroupHistoryManager(PGRPOConfig(update_order="after_normalize"))
    history.update(["a"] * 5, [0.3] * 5)
    result = history.compute_advantages(["a"], [0.8])
    assert result.advantages.tolist() == [0.5]
    assert result.cold.tolist() == [True]


def test_min_count_normalises_the_few_by_all():
    history = GroupHistoryManager(PGRPOConfig(min_count=4))
    result = history.compute_advantages(["big"] * 5 + ["small"] * 2, [0, 1, 2, 3, 4, 10.0, 20.0])
    everyone = [0, 1, 2, 3, 4, 10.0, 20.0]
    assert result.mean[-1] == pytest.approx(np.mean(everyone))
    assert result.std[-1] == pytest.approx(np.std(everyone, ddof=1))
    assert result.mean[0] == pytest.approx(2.0)
    assert result.cold.tolist() == [False] * 5 + [True] * 2


def test_prior_strength_shrinks_toward_all_groups():
    data = ["big"] * 50 + ["small"] * 2, np.r_[np.arange(50.0), 100.0, 102.0]
    plain = GroupHistoryManager().compute_advantages(*data)
    weak, strong = (
        GroupHistoryManager(PGRPOConfig(prior_strength=k)).compute_advantages(*data) for k in (1e-9, 1e9)
    )
    np.testing.assert_allclose(weak.mean, plain.mean)
    np.testing.assert_allclose(weak.std, plain.std, rtol=1e-4)
    np.testing.assert_allclose(strong.mean, np.mean(data[1]))
    np.testing.assert_allclose(strong.std, np.std(data[1], ddof=1), rtol=1e-4)
    between = GroupHistoryManager(PGRPOConfig(prior_strength=4)).compute_advantages(*data)
    assert plain.mean[-1] > between.mean[-1] > strong.mean[-1]
    assert between.mean[-1] == pytest.approx((2 * 101 + 4 * np.mean(data[1])) / 6)
    assert between.cold.tolist() == [False] * 50 + [True] * 2


def test_cold_start_is_off_by_default():
    result = GroupHistoryManager().compute_advantages(["big"] * 5 + ["small"], [0, 1, 2, 3, 4, 10.0])
    assert result.advantages[-1] == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_nonfinite_rewards(bad):
    history = GroupHistoryManager()
    history.update(["a", "a"], [1.0, 2.0])
    with pytest.raises(NonFiniteRewardError, match=r"'new'.*uid u2.*nonfinite=skip"):
        history.compute_advantages(["a", "new"], [1.0, bad], prompt_ids=["u1", "u2"])
    assert (history.groups, history.total_count) == (["a"], 2)

    history = GroupHistoryManager(PGRPOConfig(on_nonfinite="skip"))
    history.update(["a", "a"], [1.0, 2.0])
    result = history.compute_advantages(["a", "new", "a"], [3.0, bad, bad])
    assert result.advantages.tolist() == [pytest.approx(1.0, abs=1e-5), 0.0, 0.0]
    assert result.skipped.tolist() == [False, True, True]
    assert np.isnan(result.mean[1:]).all()
    assert (history.groups, history.total_count) == (["a"], 3)
    empty = GroupHistoryManager(PGRPOConfig(on_nonfinite="skip")).compute_advantages(["a"], [bad], prompt_ids=["u"])
    assert empty.advantages.tolist() == [0.0]


def test_skipped_rows_do_not_enter_their_prompts_statistics():
    config = PGRPOConfig(on_nonfinite="skip")
    with_nan = GroupHistoryManager(config).compute_advantages(["a"] * 4, [5.0, np.nan, 7.0, 1.0], prompt_ids=["u", "u", "u", "v"])
    without = GroupHistoryManager(config).compute_advantages(["a"] * 3, [5.0, 7.0, 1.0], prompt_ids=["u", "u", "v"])
    for name in ("advantages", "scale", "shift", "mean", "std", "count"):
        np.testing.assert_array_equal(getattr(with_nan, name)[[0, 2, 3]], getattr(without, name))


def test_any_kind_of_array_will_do():
    expected = GroupHistoryManager().compute_advantages(["a", "b", "a"], [1.0, 2.0, 3.0], prompt_ids=["u", "v", "u"])
    frame = pd.DataFrame({"g": ["a", "b", "a"], "r": [1.0, 2.0, 3.0], "u": ["u", "v", "u"]}, prompt_ids=[7, 8, 9])
    for groups, rewards, index in [
        (frame["g"], frame["r"], frame["u"]),
        (frame["g"].to_numpy(), frame["r"].to_numpy(), frame["u"].to_numpy()),
        (np.array(["a", "b", "a"]), torch.tensor([1, 2, 3], dtype=torch.bfloat16), torch.tensor([4, 5, 4]).tolist()),
        (("a", "b", "a"), torch.tensor([1.0, 2.0, 3.0], requires_grad=True), ("u", "v", "u")),
    ]:
        result = GroupHistoryManager().compute_advantages(groups, rewards, prompt_ids=index)
        np.testing.assert_array_equal(result.advantages, expected.advantages)
        np.testing.assert_array_equal(result.scale, expected.scale)
    with pytest.raises(MissingGroupError, match="row 1, uid v"):
        GroupHistoryManager().compute_advantages(pd.Series(["a", None, "b"], dtype="string"), frame["r"], prompt_ids=frame["u"])


def test_a_spread_of_rounding_errors_is_none():
    history = GroupHistoryManager(PGRPOConfig(update_order="after_normalize"))
    history.update(["a"] * 3, [0.3, 0.3, 0.1 + 0.2])
    assert history.compute_advantages(["a"], [1.0]).advantages[0] == pytest.approx(0.7)


@pytest.mark.parametrize("update", ["before_normalize", "after_normalize"])
def test_the_pool_of_all_groups_follows_merges_and_the_update_order(update):
    """With min_count beyond reach every row is normalised by all groups together."""
    config = PGRPOConfig(update=update, min_count=10**6)
    history, other = GroupHistoryManager(config), GroupHistoryManager(config)
    history.update(["a", "b"], [1.0, 3.0])
    other.update(["b", "c", "c"], [7.0, 9.0, 20.0])
    history.merge(other)
    result = history.compute_advantages(["d"], [5.0])
    everyone = [1.0, 3.0, 7.0, 9.0, 20.0] + ([5.0] if update == "before_normalize" else [])
    assert result.mean[0] == pytest.approx(np.mean(everyone))
    assert result.std[0] == pytest.approx(np.std(everyone, ddof=1))


def test_missing_groups():
    with pytest.raises(MissingGroupError, match=r"2 of 3 rows.*row 1, uid v.*preference_group.*default_group"):
        GroupHistoryManager().compute_advantages(["a", None, float("nan")], [1, 2, 3], prompt_ids=["u", "v", "w"])
    history = GroupHistoryManager(PGRPOConfig(default_group="unknown"))
    history.update(["a", None], [1, 2])
    assert history.groups == ["a", "unknown"]


@pytest.mark.parametrize("label", [3, b"x", ("a",), "\ud800"])
def test_labels_are_text(label):
    history = GroupHistoryManager()
    with pytest.raises(GroupLabelError):
        history.update(["fine", label], [1.0, 2.0])
    assert history.num_groups == 0


def test_odd_but_valid_labels():
    labels = ["", " ", "a\nb", "🦜", "x" * 1_000_000, "a\x00b", "nan", "None"]
    history = GroupHistoryManager()
    history.update(labels, range(len(labels)))
    history.update(labels[::-1], range(len(labels)))
    assert history.groups == labels
    assert history.statistics(labels).count.tolist() == [2.0] * len(labels)


def test_sizes_must_agree():
    for arguments in [(["a"], [1.0, 2.0]), (["a"], [[1.0]]), (["a"], [1.0], ["u", "v"])]:
        with pytest.raises(ValueError, match="per row"):
            GroupHistoryManager().compute_advantages(*arguments)


def test_an_empty_batch_changes_nothing():
    history = GroupHistoryManager()
    result = history.compute_advantages([], [], prompt_ids=[])
    assert len(result.advantages) == len(result.scale) == 0
    assert history.total_count == 0


@given(batch, batch, batch)
def test_merge_equals_observing_everything(a, b, c):
    def observed(*parts):
        history = GroupHistoryManager()
        for part in parts:
            history.update(*unzip(part))
        return history

    everything = observed(a, b, c)
    left = observed(a)
    left.merge(observed(b))
    left.merge(observed(c))
    right = observed(c)
    tail = observed(b)
    tail.merge(observed(a))
    right.merge(tail)
    right.merge(GroupHistoryManager())
    for history in (left, right):
        assert history.total_count == everything.total_count
        assert sorted(history.groups) == sorted(everything.groups)
        mine, theirs = history.statistics(everything.groups), everything.statistics(everything.groups)
        np.testing.assert_array_equal(mine.count, theirs.count)
        np.testing.assert_allclose(mine.mean, theirs.mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(mine.std, theirs.std, rtol=1e-6, atol=1e-6)
    with pytest.raises(ConfigError, match="half_life"):
        left.merge(GroupHistoryManager(PGRPOConfig(half_life=2)))


@given(st.lists(st.tuples(st.sampled_from("pqr"), rewards), min_size=2, max_size=12), st.booleans())
def test_corollary_relates_the_advantages_to_grpo(rows, norm):
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    uids, values = unzip(rows)
    values = np.array(values, dtype=np.float32).astype(np.float64)
    history = GroupHistoryManager(PGRPOConfig(norm_adv_by_std_in_grpo=norm))
    history.update(["a"] * 5, [-3.0, 0.0, 1.0, 2.0, 30.0])
    result = history.compute_advantages(["a"] * len(values), values, prompt_ids=uids)
    grpo, _ = core_algos.compute_grpo_outcome_advantage(
        torch.tensor(values).unsqueeze(-1), torch.ones(len(values), 1), np.array(uids, dtype=object), 1e-6, norm
    )
    np.testing.assert_allclose(
        result.scale * grpo[:, 0].numpy() + result.shift, result.advantages, rtol=1e-6, atol=1e-5
    )


def test_a_prompt_without_spread_teaches_through_the_shift():
    history = GroupHistoryManager()
    history.update(["a"] * 4, [0.0, 1.0, 0.0, 1.0])
    result = history.compute_advantages(["a", "a"], [1.0, 1.0], prompt_ids=["u", "u"])
    assert (result.advantages > 0).all()
    np.testing.assert_allclose(result.shift, result.advantages, rtol=1e-5)


def test_grpo_relation_of_nothing():
    empty = np.zeros(0)
    assert len(grpo_relation(empty, np.zeros(0, dtype=np.int64), empty, empty)[0]) == 0


def test_largest():
    history = GroupHistoryManager()
    history.update(list("abbcccd"), range(7))
    assert history.largest(0) == []
    assert history.largest(2) == ["c", "b"]
    assert history.largest(9) == ["c", "b", "a", "d"]


def test_a_batch_costs_its_own_size():
    """Best time of one batch, at 1,000 and at a million known groups: one scan of them would already double it."""

    def best_time(known: int) -> float:
        history = GroupHistoryManager()
        for start in range(0, known, 50_000):
            groups = [f"g{i}" for i in range(start, min(start + 50_000, known))]
            history.update(groups, np.zeros(len(groups)))
        groups, values = [f"g{i}" for i in range(50)], np.arange(50.0)
        times = []
        for _ in range(200):
            start_time = time.perf_counter()
            history.compute_advantages(groups, values)
            times.append(time.perf_counter() - start_time)
        return min(times)

    assert best_time(1_000_000) < 2 * best_time(1_000)


def test_core_imports_no_framework():
    code = (
        "import sys; from verl_pgrpo import GroupHistoryManager, PGRPOConfig, personalized_advantage;"
        "import verl_pgrpo.checkpoint, verl_pgrpo.monitoring;"
        "print([m for m in ('verl', 'ray', 'vllm', 'megatron', 'torch') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


