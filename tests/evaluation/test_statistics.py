# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Intervals have their nominal coverage, tests their nominal error rate, and the rest matches its definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation import statistics as ours
from verl_pgrpo.evaluation.variance import recommended_options, variance_components

RNG = np.random.default_rng(0)


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(-100, 100, allow_nan=False, width=32)))
def test_gini_is_its_definition(values):
    total = np.abs(values).sum()
    expected = np.abs(values[:, None] - values).sum() / (2 * len(values) * total) if total else 0.0
    assert float(ours.gini(values)) == pytest.approx(expected, abs=1e-9)
    assert -1e-12 <= ours.gini(values) <= (len(values) - 1) / len(values) + 1e-12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_its_definition(p_values):
    """The k-th smallest of m, times m - k + 1; never below a smaller one, and at most 1."""
    order = np.argsort(p_values, kind="stable")
    steps = [p_values[i] * (len(p_values) - rank) for rank, i in enumerate(order)]
    expected = dict(zip(order.tolist(), np.minimum(1.0, np.maximum.accumulate(steps)), strict=True))
    assert ours.holm(p_values) == pytest.approx([expected[i] for i in range(len(p_values))])
    assert ours.holm([*p_values, np.nan])[:-1] == ours.holm(p_values), "NaN is not a test"


@pytest.mark.parametrize(
    ("values", "truth"),
    [(RNG.normal(3, 2, (400, 15)), 3.0), (RNG.exponential(1, (400, 40)), 1.0), (RNG.binomial(1, 0.3, (400, 40)), 0.3)],
    ids=["normal 15", "skewed 40", "zeros and ones 40"],
)
def test_intervals_cover_the_mean_in_about_95_of_100(values, truth):
    _, low, high = ours.bootstrap_mean(values.astype(float), 999, np.random.default_rng(0))
    assert 0.92 <= np.mean((low <= truth) & (truth <= high)) <= 0.99  # a standard error is 0.011


@pytest.mark.parametrize("prompts", [6, 13])
def test_the_paired_test_is_the_exact_permutation_test(prompts, monkeypatch):
    rng = np.random.default_rng(prompts)
    signs = 1 - 2 * ((np.arange(2**prompts)[:, None] >> np.arange(prompts)) & 1)
    for differences in (rng.normal(0.5, 1, prompts), rng.integers(-3, 5, prompts) / 10, np.full(prompts, 0.1)):
        moved = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
        assert ours.sign_flip_test(differences, 999, rng) == pytest.approx(moved.mean())
        with monkeypatch.context() as patch:
            patch.setattr(ours, "MAX_EXACT", 0)
            sampled = ours.sign_flip_test(differences, 999, rng)
        assert sampled == pytest.approx(moved.mean(), abs=5 * np.sqrt(moved.mean() / 999) + 1 / 1000)


def test_the_paired_test_of_few_equal_and_many_prompts():
    rng = np.random.default_rng(0)
    assert np.isnan(ours.sign_flip_test(np.ones(4), 999, rng)), "too few prompts"
    assert ours.sign_flip_test(np.zeros(100), 999, rng) == 1.0
    assert ours.sign_flip_test(np.ones(32), 999, rng) == 2 / 2**32, "exact without 2 ** 32 sums"
    assert 0 < ours.sign_flip_test(np.full(100, 1e130), 999, rng) < 1e-20, "small enough for thousands of groups"


def test_wilson_takes_the_outer_ends_for_a_share_between_two_whole_numbers():
    below, above = (stats.binomtest(wins, 7).proportion_ci(method="wilson") for wins in (3, 4))
    assert ours.wilson(3 / 7, 7) == pytest.approx({"low": below.low, "high": below.high})
    assert ours.wilson(3.5 / 7, 7) == pytest.approx({"low": below.low, "high": above.high})
    assert np.isnan(list(ours.wilson(np.nan, 0).values())).all()


def test_components_of_simulated_ratings():
    rng = np.random.default_rng(0)
    prompts, n = 4000, 4
    group = np.where(np.arange(prompts) % 4 == 0, "few", "many")
    mood = np.where(group == "few", 2.0, 0.5) * rng.standard_normal(prompts)
    rewards = (5 + mood[:, None] + rng.standard_normal((prompts, n))).ravel()
    table = pd.DataFrame({"group": group.repeat(n), "prompt": np.arange(prompts).repeat(n), "reward": rewards})
    few, many = variance_components(table).to_dict("records")
    exact = {"group": "few", "prompts": 1000, "responses": 4000, "share": 0.25, "weight": 1.0}
    assert {name: few[name] for name in exact} == exact
    assert (few["mean"], few["within"], few["between_within"]) == pytest.approx((5, 1, 4), rel=0.15)
    weight = 4 / 3 * 0.25 / (0.25 + 1 / 3)
    assert (many["between_within"], many["weight"]) == pytest.approx((0.25, weight), rel=0.15)


def test_components_of_single_and_of_equal_responses():
    table = pd.DataFrame({"group": [*"aabbb"], "prompt": [1, 2, 3, 3, 4], "reward": [0, 1, 2, 2, 5.0]})
    single, equal = variance_components(table).to_dict("records")
    assert np.isnan(single["within"])
    assert (single["weight"], equal["between_within"], equal["weight"]) == (0, np.inf, 1)


def test_components_are_those_that_the_estimator_uses():
    """Rewards that differ by rounding are equal; groups may be integers."""
    table = pd.DataFrame({"group": [7] * 4, "prompt": [1, 1, 2, 2], "reward": [0.1 + 0.2, 0.1 + 0.2, 0.3, 0.3]})
    [found] = variance_components(table).to_dict("records")
    assert (found["group"], found["std"], found["between_within"], found["weight"]) == ("7", 0, 0, 0)


@pytest.mark.parametrize(
    ("column", "value"), [("group", None), ("group", " "), ("prompt", None), ("reward", np.nan), ("reward", None)]
)
def test_a_row_without_a_group_prompt_or_reward_is_named_by_its_column(column, value):
    table = pd.DataFrame({"group": ["a", "a"], "prompt": [1, 2], "reward": [1, 2]}, dtype=object)
    table.loc[1, column] = value
    with pytest.raises(DataError, match=rf"'{column}'.* 1 of 2 rows \(first: row 1\)"):
        variance_components(table)


SHRINKAGE, BALANCED = {"baseline": "shrinkage"}, {"baseline": "shrinkage", "group_balance": 1.0}


@pytest.mark.parametrize(
    ("prompts", "within", "options"),
    [
        ([50, 50], 1.0, SHRINKAGE),
        ([80, 20], 1.0, BALANCED),
        ([8, 2], 1.0, SHRINKAGE),  # may be chance
        ([970, 30], 1.0, BALANCED),
        ([980, 20], 1.0, SHRINKAGE | {"group_balance": 0.5}),  # rarer than any group tested
        ([80, 20], np.nan, {}),  # one response to each prompt
        ([80, 20], 0.0, {}),  # equal responses to each prompt
        ([25] * 256, 1.0, {}),
    ],
)
def test_recommended_options(prompts, within, options):
    found = pd.DataFrame({"prompts": prompts, "responses": np.multiply(prompts, 2), "within": within})
    assert recommended_options(found) == options


@pytest.mark.parametrize(("groups", "prompts"), [(7, 32), (20, 640), (40, 1600)])
def test_groups_that_are_sampled_equally_need_no_balance(groups, prompts):
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = np.bincount(rng.integers(groups, size=prompts), minlength=groups)
        found = pd.DataFrame({"prompts": counts, "responses": 4 * counts, "within": 1.0})
        assert recommended_options(found) == SHRINKAGE
