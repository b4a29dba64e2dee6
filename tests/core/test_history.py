# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""GroupHistoryManager: the method against its exact reference, every option, and careless input."""

from __future__ import annotations

import copy
import functools
import multiprocessing

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
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
from verl_pgrpo.shrinkage import prompt_weight, share_within

ODD_LABELS = ["-", " a", "x" * 2**17, "two\nlines", "nul\0", "🦜🏽", "שלום"]
ODD_LABELS += ["worst_group", "a/b", "..", "None", "nan", "1"]
OPTIONS = [{}, {"half_life": 8}, {"prior_strength": 3, "min_count": 2}, {"baseline": "blended"}]
OPTIONS += [{"baseline": "shrinkage", "group_balance": 0.5}]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)

rewards = st.floats(min_value=-100, max_value=100, width=32)
# Rows of (preference group, reward, prompt), as columns.
rows = st.lists(st.tuples(st.sampled_from(["a", "b", "é\n", "-"]), rewards, st.integers(0, 3)), max_size=12)
batches = st.lists(rows, min_size=1, max_size=3)
few = settings(max_examples=30)  # of each option


def columns(batch):
    return [[row[i] for row in batch] for i in range(3)]


def computed(config, *batch, past=()):
    """The advantages of a batch, after batches that only enter the history."""
    history = GroupHistoryManager(config)
    for part in past:
        history.update(*part)
    return history.compute_advantages(*batch)


def assert_same(one, other):
    """Assert that two histories are bit-identical, regardless of the order of their groups."""
    assert sorted(one.groups) == sorted(other.groups)
    mine, theirs = one.statistics(one.groups), other.statistics(one.groups)
    for name in ("count", "mean", "std", "within_std"):
        assert getattr(mine, name).tobytes() == getattr(theirs, name).tobytes()


def test_golden_run():
    """Three batches under each option, bit for bit. After an intended change: python -m tests.core.golden"""
    assert golden_run() == GOLDEN.read_text()


@given(batches)
def test_the_method_equals_its_exact_reference(batches):
    parts = [columns(batch)[:2] for batch in batches]
    history = GroupHistoryManager()
    for (groups, values), expected in zip(parts, reference.advantages(parts), strict=True):
        result = history.compute_advantages(groups, values)
        # If the spread is as small as the rounding error of the rewards, advantages are equally inaccurate.
        tiny = np.where(result.std > 1e-9, 0, np.inf)
        assert np.all(np.abs(result.advantages - expected) <= 1e-6 * (1 + np.abs(expected)) + tiny)
        np.testing.assert_array_equal(result.advantages, personalized_advantage(values, result.mean, result.std))
        statistics = history.statistics(groups)
        for name in ("mean", "count"):
            np.testing.assert_array_equal(getattr(result, name), getattr(statistics, name))
    assert history.total_count == sum(map(len, batches))
    assert sorted(history.groups) == sorted({group for groups, _ in parts for group in groups})


@every_option
@few
@given(rows, rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(options, past, batch, random):
    """To the last bit, signs of zeros included: results, history and metrics."""
    order = random.sample(range(len(batch)), len(batch))
    results, metrics, histories = [], [], []
    for permuted in (batch, [batch[i] for i in order]):
        history = GroupHistoryManager(PGRPOConfig(**options))
        history.update(*columns(past))
        groups, values, prompts = columns(permuted)
        monitor = HistoryMonitor(history)
        results.append(history.compute_advantages(groups, values, prompts))
        monitor.add(values, results[-1])
        metrics.append({name: float(value).hex() for name, value in monitor.end_step().items()})
        histories.append(history)
    for name in ("advantages", "mean", "std", "count", "scale", "shift", "cold"):
        assert getattr(results[0], name)[order].tobytes() == getattr(results[1], name).tobytes(), name
    assert metrics[0] == metrics[1]
    assert_same(*histories)


def observed(half_life, *parts):
    history = GroupHistoryManager(PGRPOConfig(half_life=half_life))
    for part in parts:
        history.update(*columns(part))
    return history


def merged(first, *others):
    for other in others:
        first.merge(other)
    return first


def assert_moments(history, parts, half_life=None):
    """Count, mean and sum of squares are those of the exact reference, or of weights written out."""
    frame = history.to_frame().set_index("group")
    assert sorted(frame.index) == sorted({group for part in parts for group, _, _ in part})
    for group, row in frame.iterrows():
        kept = [[reward for name, reward, _ in part if name == group] for part in parts]
        flat = [reward for part in kept for reward in part]
        scale, plain = max(map(abs, flat)), half_life is None
        _, mean, m2 = reference.exact_moments(flat) if plain else reference.exponential_moments(kept, half_life)
        assert row["count"] == len(flat)
        assert row["mean"] == pytest.approx(float(mean), abs=(1e-12 if plain else 1e-9) * scale)
        assert row["m2"] == pytest.approx(float(m2), rel=1e-7, abs=1e-12 * scale**2)


@given(rows, st.randoms(use_true_random=False))
def test_any_order_and_any_split_equal_the_exact_moments(batch, random):
    shuffled, cut = random.sample(batch, len(batch)), random.randint(0, len(batch))
    for parts in ([shuffled[:cut], shuffled[cut:]], [[row] for row in shuffled]):
        assert_moments(observed(None, *parts), [batch])


@pytest.mark.parametrize("half_life", [None, 1.0, 5.0, 1e15])
@settings(max_examples=50)
@given(a=rows, b=rows, c=rows)
def test_batches_and_merges_equal_the_reference(half_life, a, b, c):
    made = functools.partial(observed, half_life)
    with np.errstate(all="raise", under="ignore"):
        everything = made(a, b, c)
        histories = [everything, merged(made(a), merged(made(b, c))), merged(made(), made(a, b), made(c), made())]
        histories += [merged(made(c), made(a), made(b))] if half_life is None else []
    for history in histories:
        assert_moments(history, [a, b, c], half_life)
        mine, theirs = (each.statistics(everything.groups) for each in (history, everything))
        for name in ("std", "within_std"):
            np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=1e-6, atol=1e-6)
    with pytest.raises(ConfigError, match="half_life"):
        everything.merge(GroupHistoryManager(PGRPOConfig(half_life=2)))


@pytest.mark.parametrize("half_life", [1, 8, 64])
def test_forgetting_within_one_batch_keeps_the_spread(half_life):
    """Although the degrees of freedom of the history are those of rewards that came one at a time."""
    draw, rows, prompts = np.random.default_rng(0), np.repeat(np.arange(400), 200), np.arange(80_000) // 2
    moments = Moments(400, half_life)
    for step in range(3):
        values = draw.standard_normal(80_000)
        moments.update(rows, values, prompts)
        if step == 0:
            np.testing.assert_allclose(moments.std(), values.reshape(400, 200).std(1, ddof=1))
    assert np.square(moments.std()).mean() == pytest.approx(1, abs=0.02)
    assert prompt_weight(share_within(moments), 1).mean() < 0.07  # prompts do not differ


SPREADS = [(1e9, 1.0), (99.9999999, 3.2e-8), (-1e12, 1e-3), (0.0, 1e-160), (0.0, 1e130), (1e-300, 1e-301)]


@pytest.mark.parametrize(("offset", "spread"), SPREADS)
def test_a_large_offset_does_not_drown_the_spread(offset, spread):
    values = (offset + spread * np.random.default_rng(0).standard_normal(3000)).tolist()
    (_, mean, _), std = reference.exact_moments(values), reference.exact_std(values)
    # Within a few units in the last place of the mean, which may be large relative to the spread.
    ulp = float(np.spacing(abs(offset) + spread))
    for batch_size in (1, 7, 1000):
        parts = [values[start : start + batch_size] for start in range(0, 3000, batch_size)]
        history = observed(None, *([("a", value, 0) for value in part] for part in parts))
        found = history.statistics(["a"])
        assert found.count[0] == 3000
        assert found.mean[0] == pytest.approx(float(mean), abs=60 * ulp)
        if spread > 1e-155:  # below this, squares underflow: the spread counts as zero
            assert found.std[0] == pytest.approx(std, rel=1e-6 + (60 * ulp / spread) ** 2)
        else:
            assert found.std[0] <= std * (1 + 1e-6)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1, 5e-324, -1e139])
def test_equal_values_have_no_spread_at_all(value):
    found = observed(None, *([("a", value, 0)] * size for size in (3, 1, 500))).statistics(["a"])
    assert (found.mean[0], found.std[0]) == (value, 0.0)


@every_option
@few
@given(past=rows, last=rows)
def test_copies_and_files_continue_bit_for_bit(tmp_path_factory, options, past, last):
    config = PGRPOConfig(**options)
    history = GroupHistoryManager(config)
    history.update(ODD_LABELS, range(13))
    history.compute_advantages(*columns(past))
    path = tmp_path_factory.getbasetemp() / "h.parquet"
    history.save(path, step=3)
    copies = [copy.deepcopy(history), copy.copy(history)]
    copies += [GroupHistoryManager.load(path, config, step=3), GroupHistoryManager.load(path)]
    results = []
    for each in (*copies, history):  # the original last: no copy shares an array with it
        assert set(ODD_LABELS) <= set(each.groups)
        results.append(each.compute_advantages(*columns([*last, ("new", 1.0, 9)])))
        assert_same(each, copies[0])
        assert each.config == config
    for name in ("advantages", "mean", "std", "count", "scale", "shift"):
        assert len({getattr(result, name).tobytes() for result in results}) == 1


def updated(history):
    history.update(["a", "ü", "new"], [5.0, 6.0, 7.0])
    return history


def test_a_history_sent_to_another_process_knows_its_groups(monkeypatch):
    """In which string hashes have another salt."""
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    history = updated(GroupHistoryManager())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        returned = pool.apply(updated, (history,))
    assert_same(returned, updated(history))


def test_update_order_scale_and_epsilon():
    history = GroupHistoryManager(PGRPOConfig(update_order="after_normalize"))
    first = history.compute_advantages(["a"] * 3, [1.0, 2.0, 3.0])  # without a history, by the batch itself
    np.testing.assert_allclose(first.advantages, [-1, 0, 1], atol=1e-5)
    second = history.compute_advantages(["a", "b"], [4.0, 7.0])
    np.testing.assert_allclose(second.advantages, [2.0, 0.0], atol=1e-5)
    assert (second.count.tolist(), history.total_count) == ([3.0, 1.0], 5)
    batch = ["a"] * 3, [1.0, 2.0, 3.0]
    np.testing.assert_allclose(computed(PGRPOConfig(epsilon=2.0), *batch).advantages, [-1 / 3, 0, 1 / 3])
    unscaled = computed(PGRPOConfig(norm_adv_by_std_in_grpo=False, epsilon=2.0), *batch)
    np.testing.assert_allclose(unscaled.advantages, [-1, 0, 1])


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float16])
@pytest.mark.parametrize("norm", [True, False])
def test_advantages_are_float64_for_any_kind_of_number(kind, norm):
    advantages = personalized_advantage(*np.array([[1, 5], [2, 2], [3, 0]], kind), norm_by_std=norm)
    assert advantages.dtype == np.float64
    np.testing.assert_array_equal(advantages, [-1 / (3 + 1e-6) if norm else -1, 3])


@pytest.mark.parametrize("past", [[0.3] * 5, [0.3, 0.3, 0.1 + 0.2]])
def test_a_group_without_spread_is_not_scaled_and_rounding_errors_are_no_spread(past):
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
    assert result.mean.tolist() == pytest.approx([2.0, *[np.mean(everyone)] * 2])
    assert result.std[1:] == pytest.approx(np.std(everyone, ddof=1))
    assert result.cold.tolist() == [False, True, True]


@given(batches)
def test_the_pool_is_the_exact_moments_of_all_groups(batches):
    history, values = GroupHistoryManager(PGRPOConfig(min_count=1000)), []
    for batch in batches:
        result = history.compute_advantages(*columns(batch))
        values += columns(batch)[1]
        mean, std, scale = reference.exact_moments(values)[1], reference.exact_std(values), max(map(abs, [0, *values]))
        np.testing.assert_allclose(result.mean, float(mean), rtol=0, atol=1e-12 * scale)
        np.testing.assert_allclose(result.std, std, rtol=1e-6, atol=1e-9 * scale)


def test_the_pool_weighs_each_reward_as_its_group_does():
    """So it forgets at the rate of its groups, and not within one step in which each of many groups gets a reward."""
    parts = {"a": [[0.0] * 50, [1.0, 2.0, 4.0]], "b": [[5.0] * 4], "c": [[7.0], [8.0]]}
    past = [([group] * len(part), part) for group, batches in parts.items() for part in batches]
    result = computed(PGRPOConfig(half_life=8, min_count=1000), *past.pop(), past=past)
    weights, means, m2s = np.transpose([reference.exponential_moments(batches, 8) for batches in parts.values()])
    assert result.mean[0] == pytest.approx(np.average(means, weights=weights))
    # The weights of single rewards are below 1, so Bessel's correction takes less than 1 from the sum of weights.
    biased = np.sum(m2s + weights * (means - result.mean[0]) ** 2) / weights.sum()
    assert biased < result.std[0] ** 2 < biased * weights.sum() / (weights.sum() - 1)


def test_prior_strength_shrinks_toward_all_groups():
    data = ["big"] * 50 + ["small"] * 2, np.r_[np.arange(50.0), 100.0, 102.0]
    plain = computed(None, *data)
    weak, between, strong = (computed(PGRPOConfig(prior_strength=k), *data) for k in (1e-9, 4, 1e9))
    np.testing.assert_allclose([weak.mean, weak.std], [plain.mean, plain.std], rtol=1e-4)
    np.testing.assert_allclose(strong.mean, np.mean(data[1]))
    np.testing.assert_allclose(strong.std, np.std(data[1], ddof=1), rtol=1e-4)
    assert between.mean[-1] == pytest.approx((2 * 101 + 4 * np.mean(data[1])) / 6)
    assert between.cold.tolist() == [False] * 50 + [True] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200, 10**400, None])
def test_a_nonfinite_reward_stops_the_run_or_is_skipped(bad):
    history = GroupHistoryManager()
    with pytest.raises(NonFiniteRewardError, match=r"'new'.*u2"):
        history.compute_advantages(["a", "new"], [1.0, bad], ["u1", "u2"])
    assert history.num_groups == 0
    skip = PGRPOConfig(on_nonfinite="skip")
    result = computed(skip, ["a", "new", "a", "a"], [5.0, bad, 7.0, 1.0], ["u", "u", "u", "v"])
    assert result.skipped.tolist() == [False, True, False, False]
    assert (result.advantages[1], np.isnan(result.mean[1]), result.cold[1]) == (0.0, True, False)
    without = computed(skip, ["a"] * 3, [5.0, 7.0, 1.0], ["u", "u", "v"])
    for name in ("advantages", "scale", "shift", "mean", "std", "count"):
        np.testing.assert_array_equal(getattr(result, name)[[0, 2, 3]], getattr(without, name))
    assert computed(skip, ["a"], [bad], ["u"]).advantages.tolist() == [0.0]


@pytest.mark.parametrize("options", [{}, {"prior_strength": 1e15}, {"baseline": "blended"}], ids=str)
def test_tiny_and_huge_rewards_give_finite_advantages(options):
    for scale in (5e-324, 1e-320, 1e-300, 1e-100, 1e100, 9e139):
        result = computed(PGRPOConfig(**options), ["a"] * 4, np.array([0.0, 1.0, 1.0, 0.0]) * scale, [0, 0, 1, 1])
        assert np.isfinite([result.advantages, result.scale, result.shift]).all()
        assert (np.sign(result.advantages) == [-1, 1, 1, -1]).all() or scale < 1e-300 or options.get("prior_strength")


def test_any_kind_of_sequence_will_do():
    expected = computed(None, ["a", "b", "a"], [1.0, 2.0, 3.0], ["u", "v", "u"])
    frame = pd.DataFrame({"g": ["a", "b", "a"], "r": [1.0, 2.0, 3.0], "u": ["u", "v", "u"]}, index=[7, 8, 9])
    for groups, values, prompts in [
        (frame["g"], frame["r"], frame["u"]),
        (np.array(["a", "b", "a"]), torch.tensor([1.0, 2.0, 3.0]).bfloat16().requires_grad_(), torch.tensor([4, 5, 4])),
        ("aba", (np.float32(1), True + True, torch.tensor(3)), np.array([1, 2, 1])),
    ]:
        result = computed(None, groups, values, prompts)
        np.testing.assert_array_equal([result.advantages, result.scale], [expected.advantages, expected.scale])
        assert [type(group) for group in result.groups] == [str] * 3


BAD = [(bad, GroupLabelError) for bad in (1, ["b"], {"b": 1}, np.zeros(2), torch.zeros(2), b"bytes", "\ud800")]
BAD += [(missing, MissingGroupError) for missing in (None, float("nan"), pd.NA, "", " ", "\u3000")]


@pytest.mark.parametrize(("bad", "error"), BAD)
def test_a_bad_label_is_named_and_leaves_no_trace(bad, error):
    history = GroupHistoryManager()
    for call in (history.update, history.compute_advantages):
        with pytest.raises(error, match="row 1"):
            call(["a", bad, "b"], [1.0, 2.0, 3.0])
    assert history.num_groups == history.total_count == 0


def test_default_group_takes_the_rows_that_have_none():
    history = GroupHistoryManager(PGRPOConfig(default_group="unknown"))
    result = history.compute_advantages(["a", None, float("nan"), "unknown", " "], [1, 2, 3, 4, 5])
    assert result.groups == ["a", "unknown", "unknown", "unknown", "unknown"]
    assert history.statistics(["unknown", None, ""]).count.tolist() == [4.0, 4.0, 4.0]


RAGGED = [(["a"], [1.0, 2.0]), (["a"], [[1.0]]), (["a"], 1.0), (["a"], [1.0], ["u", "v"]), ([], [1.0])]


@pytest.mark.parametrize("arguments", RAGGED)
def test_one_entry_per_row(arguments):
    with pytest.raises(ValueError, match="per row"):
        GroupHistoryManager().compute_advantages(*arguments)


def test_prompt_ids_of_several_dimensions_leave_no_trace():
    history = GroupHistoryManager()
    with pytest.raises(ValueError, match=r"prompt_ids .*hashable"):
        history.compute_advantages(["a", "a"], [1.0, 2.0], np.zeros((2, 2)))
    assert history.num_groups == 0


@every_option
@pytest.mark.parametrize("order", ["before_normalize", "after_normalize"])
def test_empty_batches_and_unknown_groups_add_nothing(options, order):
    history = GroupHistoryManager(PGRPOConfig(update_order=order, **options))
    for total in (0, 2):
        result = history.compute_advantages([], [], [])
        assert len(result.advantages) == len(result.scale) == len(result.groups) == 0
        history.update([], [])
        unknown = history.statistics(["unknown"])
        assert unknown.count.tolist() == [0.0]
        assert np.isnan([unknown.mean, unknown.std]).all()
        assert history.total_count == history.num_groups == total
        history.update(["a", "b"], [1.0, 2.0])


def test_from_moments_takes_distinct_labels_and_largest_orders_by_count():
    moments = Moments(2)
    moments.update(np.array([0, 0, 1]), np.array([1.0, 3.0, 5.0]))
    assert GroupHistoryManager.from_moments(["a", "b"], moments).statistics(["a", "b"]).mean.tolist() == [2.0, 5.0]
    for labels in (["a", "a"], ["a", 1]):
        with pytest.raises(GroupLabelError):
            GroupHistoryManager.from_moments(labels, moments)
    with pytest.raises(ValueError, match="count 0"):
        GroupHistoryManager.from_moments(["a"], Moments(1))
    history = GroupHistoryManager()
    history.update(list("abbcccd"), range(7))
    assert [history.largest(k) for k in (0, 2, 9)] == [[], ["c", "b"], ["c", "b", "a", "d"]]
