# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Intervals that cover what they say, tests that reject as often as they say, and the laws of Gini and Holm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from verl_pgrpo.evaluation import statistics as ours

finite = st.floats(-100, 100, allow_nan=False, width=32)
several = arrays(np.float64, st.integers(1, 12), elements=finite)


def plain_gini(values: np.ndarray) -> float:
    total = np.abs(values).sum()
    return float(np.abs(values[:, None] - values).sum() / (2 * len(values) * total)) if total else 0.0


@given(several)
def test_gini_is_its_definition(values: np.ndarray) -> None:
    assert float(ours.gini(values)) == pytest.approx(plain_gini(values), abs=1e-9)
    assert -1e-12 <= ours.gini(values) <= (len(values) - 1) / len(values) + 1e-12


@given(st.integers(1, 50), st.floats(0.01, 100))
def test_gini_of_equal_and_of_one_who_has_all(k: int, x: float) -> None:
    assert float(ours.gini(np.full(k, x))) == pytest.approx(0, abs=1e-9)
    assert float(ours.gini(np.eye(k)[0] * x)) == pytest.approx((k - 1) / k)
    assert float(ours.gini(np.zeros(k))) == 0


def test_gini_of_a_known_case_and_of_many_at_once() -> None:
    assert float(ours.gini(np.array([1.0, 2.0, 3.0, 4.0]))) == pytest.approx(0.25)
    table = np.random.default_rng(0).random((5, 3, 4))
    assert ours.gini(table) == pytest.approx(np.array([[plain_gini(row) for row in rows] for rows in table]))


def slow_holm(p_values: list[float]) -> list[float]:
    """By its definition: the adjusted p is the lowest level at which Holm's procedure rejects."""
    levels = sorted({min(1.0, p * m) for p in p_values for m in range(1, len(p_values) + 1)} | {1.0})
    found = []
    for target in range(len(p_values)):
        for level in levels:
            left, rejected = list(range(len(p_values))), set()
            while left:
                lowest = min(left, key=lambda i: (p_values[i], i))
                if p_values[lowest] * len(left) > level:
                    break
                rejected.add(lowest)
                left.remove(lowest)
            if target in rejected or level == 1.0:
                found.append(level)
                break
    return found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    assert ours.holm(p_values) == pytest.approx(slow_holm(p_values))


def test_holm_passes_over_what_was_not_tested() -> None:
    assert ours.holm([0.01, None, 0.02]) == [0.02, None, 0.02]


@pytest.mark.parametrize(
    ("draw", "truth", "prompts"),
    [
        (lambda rng, n: rng.normal(3, 2, n), 3.0, 15),
        (lambda rng, n: rng.normal(3, 2, n), 3.0, 40),
        (lambda rng, n: rng.exponential(1, n), 1.0, 40),
        (lambda rng, n: rng.random(n) < 0.3, 0.3, 40),
    ],
    ids=["normal 15", "normal 40", "skewed 40", "zeros and ones 40"],
)
def test_intervals_cover_the_mean_in_about_95_of_100(draw, truth: float, prompts: int) -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(600):
        values = np.asarray(draw(rng, prompts), dtype=float)
        interval = ours.mean_interval(values, ours.bootstrap_means(values[:, None], 999, rng)[:, 0])
        if interval is not None:
            inside.append(interval[0] <= truth <= interval[1])
    assert 0.925 <= np.mean(inside) <= 0.985  # a standard error is 0.009


def test_of_few_normal_values_the_interval_is_as_wide_as_students() -> None:
    values = stats.norm.ppf((np.arange(10) + 0.5) / 10)
    low, high = ours.mean_interval(
        values, ours.bootstrap_means(values[:, None], 20_000, np.random.default_rng(0))[:, 0]
    )
    known = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(known, rel=0.03), "without the widening it would be 5 % narrower"


def test_the_unit_is_the_prompt() -> None:
    """Ten copies of each response are not ten times as much evidence."""
    from verl_pgrpo.evaluation.groups import Scores, describe
    from verl_pgrpo.evaluation.samples import Sample

    scores = np.random.default_rng(0).random(20)

    def width(copies: int) -> float:
        samples = [Sample(f"p{i}", "g", "?", "!", c, "m", x) for i, x in enumerate(scores) for c in range(copies)]
        [line] = describe(Scores.of("m", samples))["groups"]
        assert (line["prompts"], line["responses"]) == (20, 20 * copies)
        return line["high"] - line["low"]

    assert width(10) == pytest.approx(width(1))


def test_no_interval_of_few_prompts_nor_of_equal_ones() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.random(4), np.full(50, 0.1)):
        assert ours.mean_interval(values, ours.bootstrap_means(values[:, None], 999, rng)[:, 0]) is None
    assert ours.sign_flip_test(rng.random(4), 999, rng) is None


def test_models_share_the_draws() -> None:
    values = np.random.default_rng(0).random((30, 1))
    both = ours.bootstrap_means(np.hstack([values, values + 5]), 999, np.random.default_rng(1))
    assert both[:, 1] - both[:, 0] == pytest.approx(5)


@pytest.mark.parametrize("prompts", [6, 10])
def test_the_paired_test_is_scipys(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    for shift in (0.0, 0.5, 2.0):
        differences = rng.normal(shift, 1, prompts)
        exact = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert ours.sign_flip_test(differences, 9999, rng) == pytest.approx(exact.pvalue)
        assert ours.sign_flip_test(differences, 20, rng) == pytest.approx(exact.pvalue, abs=0.3), "random, in the end"


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    p_values = [ours.sign_flip_test(rng.standard_t(3, 25), 999, rng) for _ in range(500)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09
    found = [ours.sign_flip_test(rng.normal(1, 1, 25), 999, rng) for _ in range(50)]
    assert np.mean(np.array(found) < 0.05) > 0.9, "and small where there is one"


def test_a_random_p_value_is_never_zero_and_a_sure_tie_is_one() -> None:
    rng = np.random.default_rng(0)
    assert ours.sign_flip_test(np.full(100, 1.0), 999, rng) == pytest.approx(1 / 1000)
    assert ours.sign_flip_test(np.zeros(100), 999, rng) == 1.0


def test_wilson_is_scipys_and_covers() -> None:
    for wins, count in ((0, 7), (3, 7), (50, 100)):
        known = stats.binomtest(wins, count).proportion_ci(method="wilson")
        assert ours.wilson(wins / count, count) == pytest.approx((known.low, known.high))
    assert ours.wilson(0.0, 0) is None
    for count in range(1, 400):
        assert ours.wilson(0.0, count)[0] == 0.0
        assert ours.wilson(1.0, count)[1] == 1.0
    rng = np.random.default_rng(0)
    shares = rng.choice([0.0, 0.5, 1.0], p=[0.2, 0.3, 0.5], size=(1000, 30)).mean(axis=1)
    inside = [low <= 0.65 <= high for low, high in (ours.wilson(share, 30) for share in shares)]
    assert np.mean(inside) >= 0.95, "with ties it is too wide, never too narrow"
