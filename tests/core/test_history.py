# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""GroupHistoryManager: the method against its exact reference, every option, and input as careless code makes it."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.core import reference
from tests.core.golden import GOLDEN, golden_run
from verl_pgrpo import (
    ConfigError,
    GroupHistoryManager,
    GroupLabelError,
    MissingGroupError,
    NonFiniteRewardError,
    PGRPOConfig,
    personalized_advantage,
)
from verl_pgrpo.moments import Moments
from verl_pgrpo.monitoring import HistoryMonitor

rewards = st.floats(min_value=-100, max_value=100, width=32)
batch = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "é\n", ""]), rewards), min_size=1, max_size=16)
ODD_LABELS = [
    "",
    " ",
    "x" * 2**17,
    "two\nlines",
    "nul\0",
    "🦜🏽",
    "שלום",
    "worst_group",
    "a/b",
    "..",
    "None",
    "nan",
    "1",
]


def unzip(rows):
    return [group for group, _ in rows], [reward for _, reward in rows]


def computed(config, *batch_, past=()):
    history = GroupHistoryManager(config)
    for groups, values in past:
        history.update(groups, values)
    return history.compute_advantages(*batch_)


def assert_same(one, other):
    """Two histories agree to the last bit, whatever the order of their groups."""
    assert sorted(one.groups) == sorted(other.groups)
    mine, theirs = one.statistics(one.groups), other.statistics(one.groups)
    for name in ("count", "mean", "std"):
        assert getattr(mine, name).tobytes() == getattr(theirs, name).tobytes()


def test_golden_run():
    """Three batches under each option, bit for bit. After an intended change: python -m tests.core.golden"""
    assert golden_run() == GOLDEN.read_text()


@given(st.lists(batch, min_size=1, max_size=5))
def test_the_method_equals_its_exact_reference(batches):
    parts = [unzip(rows) for rows in batches]
    history = GroupHistoryManager()
    for (groups, values), expected in zip(parts, reference.advantages(parts), strict=True):
        result = history.compute_advantages(groups, values)
        # Where a spread is as small as a rounding error of the rewards, so is the advantage's accuracy.
        tiny = np.where(result.std > 1e-9, 0, np.inf)
        assert np.all(np.abs(result.advantages - expected) <= 1e-6 * (1 + np.abs(expected)) + tiny)
        np.testing.assert_array_equal(
            result.advantages, personalized_advantage(values, result.mean, result.std, epsilon=1e-6)
        )
        statistics = history.statistics(groups)
        for name in ("mean", "count"):
            np.testing.assert_array_equal(getattr(result, name), getattr(statistics, name))
    assert history.total_count == sum(len(rows) for rows in batches)
    assert sorted(history.groups) == sorted({group for rows in batches for group, _ in rows})


@pytest.mark.parametrize("baseline", ["history", "blended", "shrinkage"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"half_life": 8, "update_order": "after_normalize"},
        {"prior_strength": 3, "min_count": 2, "group_balance": 0.5},
        {"norm_adv_by_std_in_grpo": False, "max_logged_groups": 2},
    ],
)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("pqrs"), rewards), max_size=24), st.data())
def test_the_order_of_rows_does_not_matter(baseline, options, rows, data):
    """To the last bit, signs of zeros included: results, history and metrics."""
    order = data.draw(st.permutations(range(len(rows))))
    config = PGRPOConfig(baseline=baseline, **options)
    outcomes = []
    for permuted in (rows, [rows[i] for i in order]):
        history = GroupHistoryManager(config)
        history.update(["a"] * 3 + ["b"] * 2, [1.0, 2.0, 4.0, -1.0, 0.5], ["p", "p", "q", "r", "r"])
        monitor = HistoryMonitor(history)
        groups, prompts, values = ([row[i] for row in permuted] for i in range(3))
        result = history.compute_advantages(groups, values, prompts)
        monitor.add(values, result)
        metrics = {name: float(value).hex() for name, value in monitor.end_step().items()}
        outcomes.append((result, history.groups, history.to_frame().to_numpy(str).tolist(), metrics))
    (result, *rest), (permuted_result, *permuted_rest) = outcomes
    for name in ("advantages", "mean", "std", "count", "scale", "shift", "cold"):
        assert getattr(result, name)[order].tobytes() == getattr(permuted_result, name).tobytes(), name
    assert rest == permuted_rest


def test_after_normalize_uses_the_past_and_a_first_batch_itself():
    history = GroupHistoryManager(PGRPOConfig(update_order="after_normalize"))
    first = history.compute_advantages(["a"] * 3, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(first.advantages, [-1, 0, 1], atol=1e-5)
    second = history.compute_advantages(["a", "b"], [4.0, 7.0])
    np.testing.assert_allclose(second.advantages, [2.0, 0.0], atol=1e-5)
    assert second.count.tolist() == [3.0, 1.0]
    assert history.statistics(["a", "b"]).count.tolist() == [4.0, 1.0]


def test_unscaled_advantages_and_epsilon():
    batch = ["a"] * 4, [1.0, 3.0, 5.0, 3.0], [0, 0, 1, 1]
    unscaled = computed(PGRPOConfig(norm_adv_by_std_in_grpo=False), *batch)
    np.testing.assert_allclose(unscaled.advantages, [-2, 0, 2, 0])
    np.testing.assert_allclose([unscaled.scale, unscaled.shift], [[1, 1, 1, 1], [-1, -1, 1, 1]])
    result = computed(PGRPOConfig(epsilon=2.0), *batch)
    np.testing.assert_allclose(result.advantages, unscaled.advantages / (np.std(batch[1], ddof=1) + 2.0))


def test_a_group_without_spread_is_not_scaled_and_rounding_errors_are_no_spread():
    for past in ([0.3] * 5, [0.3, 0.3, 0.1 + 0.2]):
        config = PGRPOConfig(update_order="after_normalize")
        result = computed(config, ["a"], [0.8], past=[(["a"] * len(past), past)])
        assert result.advantages[0] == pytest.approx(0.5)
        assert result.cold.tolist() == [True]


@pytest.mark.parametrize("order", ["before_normalize", "after_normalize"])
def test_min_count_normalizes_small_groups_by_all_groups(order):
    past = [(["big"] * 5 + ["small"] * 2, [0, 1, 2, 3, 4, 10.0, 20.0])]
    config = PGRPOConfig(min_count=4, update_order=order)
    result = computed(config, ["big", "small", "new"], [2.0, 6.0, 9.0], past=past)
    everyone = [*past[0][1], *([2.0, 6.0, 9.0] if order == "before_normalize" else [])]
    assert result.mean[1:] == pytest.approx(np.mean(everyone))
    assert result.std[1:] == pytest.approx(np.std(everyone, ddof=1))
    assert result.mean[0] == pytest.approx(2.0)
    assert result.cold.tolist() == [False, True, True]


def test_prior_strength_shrinks_toward_all_groups():
    data = ["big"] * 50 + ["small"] * 2, np.r_[np.arange(50.0), 100.0, 102.0]
    plain = computed(None, *data)
    weak, between, strong = (computed(PGRPOConfig(prior_strength=k), *data) for k in (1e-9, 4, 1e9))
    np.testing.assert_allclose(weak.mean, plain.mean)
    np.testing.assert_allclose(weak.std, plain.std, rtol=1e-4)
    np.testing.assert_allclose(strong.mean, np.mean(data[1]))
    np.testing.assert_allclose(strong.std, np.std(data[1], ddof=1), rtol=1e-4)
    assert between.mean[-1] == pytest.approx((2 * 101 + 4 * np.mean(data[1])) / 6)
    assert between.cold.tolist() == [False] * 50 + [True] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200, 10**400, -(10**400), None])
def test_a_nonfinite_reward_stops_the_run_or_is_skipped(bad):
    past = [(["a", "a"], [1.0, 2.0])]
    history = GroupHistoryManager()
    history.update(*past[0])
    with pytest.raises(NonFiniteRewardError) as error:
        history.compute_advantages(["a", "new"], [1.0, bad], ["u1", "u2"])
    assert "'new'" in str(error.value)
    assert "u2" in str(error.value)
    assert (history.groups, history.total_count) == (["a"], 2)

    skip = PGRPOConfig(on_nonfinite="skip")
    result = computed(skip, ["a", "new", "a"], [3.0, bad, bad], past=past)
    assert result.advantages.tolist() == [pytest.approx(1.0, abs=1e-5), 0.0, 0.0]
    assert result.skipped.tolist() == [False, True, True]
    assert np.isnan(result.mean[1:]).all()
    history = GroupHistoryManager(skip)
    assert history.compute_advantages(["a"], [bad], ["u"]).advantages.tolist() == [0.0]
    assert history.num_groups == 0


def test_skipped_rows_do_not_enter_their_prompts_statistics():
    config = PGRPOConfig(on_nonfinite="skip")
    with_nan = computed(config, ["a"] * 4, [5.0, np.nan, 7.0, 1.0], ["u", "u", "u", "v"])
    without = computed(config, ["a"] * 3, [5.0, 7.0, 1.0], ["u", "u", "v"])
    for name in ("advantages", "scale", "shift", "mean", "std", "count"):
        np.testing.assert_array_equal(getattr(with_nan, name)[[0, 2, 3]], getattr(without, name))


@pytest.mark.parametrize("scale", [5e-324, 1e-320, 1e-300, 1e-100, 1e100, 9e139])
@pytest.mark.parametrize("options", [{}, {"prior_strength": 1e15}, {"baseline": "blended"}])
def test_tiny_and_huge_rewards_give_finite_advantages(scale, options):
    result = computed(PGRPOConfig(**options), ["a"] * 4, np.array([0.0, 1.0, 1.0, 0.0]) * scale, [0, 0, 1, 1])
    assert np.isfinite(result.advantages).all()
    assert np.isfinite([result.scale, result.shift]).all()
    assert (np.sign(result.advantages) == [-1, 1, 1, -1]).all() or scale < 1e-300 or options.get("prior_strength")


def test_any_kind_of_sequence_will_do():
    expected = computed(None, ["a", "b", "a"], [1.0, 2.0, 3.0], ["u", "v", "u"])
    frame = pd.DataFrame({"g": ["a", "b", "a"], "r": [1.0, 2.0, 3.0], "u": ["u", "v", "u"]}, index=[7, 8, 9])
    for groups, values, prompts in [
        (frame["g"], frame["r"], frame["u"]),
        (frame["g"].to_numpy(), frame["r"].to_numpy(), frame["u"].to_numpy()),
        (np.array(["a", "b", "a"]), torch.tensor([1, 2, 3], dtype=torch.bfloat16), torch.tensor([4, 5, 4]).tolist()),
        (("a", "b", "a"), torch.tensor([1.0, 2.0, 3.0], requires_grad=True), ("u", "v", "u")),
        ("aba", [np.float32(1), True + True, torch.tensor(3)], np.array([1, 2, 1])),
    ]:
        result = computed(None, groups, values, prompts)
        np.testing.assert_array_equal(result.advantages, expected.advantages)
        np.testing.assert_array_equal(result.scale, expected.scale)
        assert [type(group) for group in result.groups] == [str] * 3


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        (["a", None, 1], MissingGroupError),
        (["a", 1, "b"], GroupLabelError),
        (["a", ["b"], "c"], GroupLabelError),
        (["a", {"b": 1}, "c"], GroupLabelError),
        (["a", np.zeros(2), "c"], GroupLabelError),
        (["a", torch.zeros(2), "c"], GroupLabelError),
        (["a", b"bytes", "c"], GroupLabelError),
        (["a", "\ud800", "c"], GroupLabelError),
        (["a", float("nan"), "c"], MissingGroupError),
        (["a", pd.NA, pd.NaT], MissingGroupError),
        (pd.Series(["a", None, "b"], dtype="string"), MissingGroupError),
    ],
)
def test_a_bad_label_is_named_and_leaves_no_trace(groups, error):
    history = GroupHistoryManager()
    for call in (history.update, history.compute_advantages):
        with pytest.raises(error, match="row 1"):
            call(groups, [1.0, 2.0, 3.0])
    assert history.num_groups == history.total_count == 0


def test_default_group_takes_the_rows_that_have_none():
    history = GroupHistoryManager(PGRPOConfig(default_group="unknown"))
    result = history.compute_advantages(["a", None, float("nan"), "unknown"], [1, 2, 3, 4])
    assert result.groups == ["a", "unknown", "unknown", "unknown"]
    assert history.statistics(["unknown", None]).count.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    "arguments", [(["a"], [1.0, 2.0]), (["a"], [[1.0]]), (["a"], 1.0), (["a"], [1.0], ["u", "v"]), ([], [1.0])]
)
def test_one_entry_per_row(arguments):
    with pytest.raises(ValueError, match="per row"):
        GroupHistoryManager().compute_advantages(*arguments)


@pytest.mark.parametrize(
    "options", [{}, {"baseline": "blended"}, {"prior_strength": 2, "min_count": 2, "half_life": 3}]
)
@pytest.mark.parametrize("order", ["before_normalize", "after_normalize"])
def test_an_empty_batch_changes_nothing(options, order):
    history = GroupHistoryManager(PGRPOConfig(update_order=order, **options))
    for total in (0, 2):
        result = history.compute_advantages([], [], [])
        assert len(result.advantages) == len(result.scale) == len(result.groups) == 0
        history.update([], [])
        assert history.total_count == total
        history.update(["a", "b"], [1.0, 2.0])


def test_unknown_groups_have_no_statistics_and_are_not_added():
    history = GroupHistoryManager()
    for known in (0, 1):
        statistics = history.statistics(["unknown"])
        assert statistics.count.tolist() == [0.0]
        assert np.isnan([statistics.mean, statistics.std]).all()
        assert history.num_groups == known
        history.update(["known"], [1.0])


@given(batch, batch, batch)
def test_merge_equals_observing_everything(a, b, c):
    def observed(*parts):
        history = GroupHistoryManager()
        for part in parts:
            history.update(*unzip(part))
        return history

    everything, left, right, tail = observed(a, b, c), observed(a), observed(c), observed(b)
    left.merge(observed(b))
    left.merge(observed(c))
    tail.merge(observed(a))
    right.merge(tail)
    right.merge(GroupHistoryManager())
    for history in (left, right):
        assert sorted(history.groups) == sorted(everything.groups)
        mine, theirs = history.statistics(everything.groups), everything.statistics(everything.groups)
        np.testing.assert_array_equal(mine.count, theirs.count)
        np.testing.assert_allclose(mine.mean, theirs.mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(mine.std, theirs.std, rtol=1e-6, atol=1e-6)
    with pytest.raises(ConfigError, match="half_life"):
        left.merge(GroupHistoryManager(PGRPOConfig(half_life=2)))


def test_from_moments_takes_distinct_labels():
    moments = Moments(2)
    moments.update(np.array([0, 0, 1]), np.array([1.0, 3.0, 5.0]))
    history = GroupHistoryManager.from_moments(["a", "b"], moments)
    assert history.statistics(["a", "b"]).mean.tolist() == [2.0, 5.0]
    for labels in (["a", "a"], ["a", 1]):
        with pytest.raises(GroupLabelError):
            GroupHistoryManager.from_moments(labels, moments)


def test_largest():
    history = GroupHistoryManager()
    history.update(list("abbcccd"), range(7))
    assert [history.largest(k) for k in (0, 2, 9)] == [[], ["c", "b"], ["c", "b", "a", "d"]]


LOAD = """
import pickle, sys
history = pickle.load(sys.stdin.buffer)
history.update(["a", "ü", "new"], [5.0, 6.0, 7.0])
sys.stdout.buffer.write(pickle.dumps(history))
"""


def test_a_pickled_history_knows_its_groups_in_another_process():
    history = GroupHistoryManager(PGRPOConfig(half_life=5))
    history.update(["a", "ü", "a"], [1.0, 2.0, 3.0])
    for seed in "1", "2":
        sent = pickle.dumps(history)
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        returned = subprocess.run([sys.executable, "-c", LOAD], input=sent, capture_output=True, env=environment)
        received = pickle.loads(returned.stdout)
        history.update(["a", "ü", "new"], [5.0, 6.0, 7.0])
        assert_same(received, history)
        assert received.groups == history.groups
        assert received.config == history.config


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda history: pickle.loads(pickle.dumps(history))])
def test_a_copy_is_independent(duplicate):
    history, untouched = GroupHistoryManager(), GroupHistoryManager()
    for each in (history, untouched):
        each.update(["a", "b"], [1.0, 2.0])
    other = duplicate(history)
    assert_same(other, history)
    other.update(["a", "c"], [9.0, 9.0])
    assert_same(history, untouched)
    assert other.groups == ["a", "b", "c"]
