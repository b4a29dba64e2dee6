# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Intervals cover as often as they claim, tests reject as often as they claim, and Gini and Holm match definitions."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from verl_pgrpo.evaluation import statistics as ours

several = arrays(np.float64, st.integers(1, 12), elements=st.floats(-100, 100, allow_nan=False, width=32))


def plain_gini(values: np.ndarray) -> float:
    total = np.abs(values).sum()
    return float(np.abs(values[:, None] - values).sum() / (2 * len(values) * total)) if total else 0.0


@given(several)
def test_gini_is_its_definition(values: np.ndarray) -> None:
    assert float(ours.gini(values)) == pytest.approx(plain_gini(values), abs=1e-9)
    assert -1e-12 <= ours.gini(values) <= (len(values) - 1) / len(values) + 1e-12


def holm_by_definition(p_values: list[float]) -> list[float]:
    """The adjusted p is the lowest level at which Holm's procedure rejects."""
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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    assert ours.holm(p_values) == pytest.approx(holm_by_definition(p_values))
    assert ours.holm([*p_values, np.nan])[:-1] == ours.holm(p_values), "NaN is not a test"


def interval(values: np.ndarray, rng: np.random.Generator, resamples: int = 999) -> tuple[float, float]:
    _, low, high = ours.bootstrap_mean(values[None], resamples, rng)
    return float(low[0]), float(high[0])


@pytest.mark.parametrize(
    ("draw", "truth", "prompts"),
    [
        (lambda rng, n: rng.normal(3, 2, n), 3.0, 15),
        (lambda rng, n: rng.exponential(1, n), 1.0, 40),
        (lambda rng, n: rng.random(n) < 0.3, 0.3, 40),
    ],
    ids=["normal 15", "skewed 40", "zeros and ones 40"],
)
def test_intervals_cover_the_mean_in_about_95_of_100(draw, truth: float, prompts: int) -> None:
    rng = np.random.default_rng(0)
    ends = [interval(np.asarray(draw(rng, prompts), dtype=float), rng) for _ in range(400)]
    inside = [low <= truth <= high for low, high in ends if not np.isnan(low)]
    assert 0.92 <= np.mean(inside) <= 0.99  # a standard error is 0.011


def test_equal_values_get_no_interval_and_rows_share_the_resamples() -> None:
    values = np.random.default_rng(0).random(30)
    means, low, high = ours.bootstrap_mean(np.stack([values, values + 5, np.ones(30)]), 999, np.random.default_rng(1))
    assert means.shape == (3, 999)
    assert means[1] - means[0] == pytest.approx(5)
    assert np.isnan([low[2], high[2]]).all()
    assert not np.isnan([*low[:2], *high[:2]]).any()


@pytest.mark.parametrize("prompts", [6, 13])
def test_the_paired_test_is_the_exact_permutation_test(prompts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(prompts)
    signs = 1 - 2 * ((np.arange(2**prompts)[:, None] >> np.arange(prompts)) & 1)
    for differences in (rng.normal(0.5, 1, prompts), rng.integers(-3, 5, prompts) / 10, np.full(prompts, 0.1)):
        moved = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
        assert ours.sign_flip_test(differences, 999, rng) == pytest.approx(moved.mean())
        with monkeypatch.context() as patch:
            patch.setattr(ours, "MAX_EXACT", 0)
            sampled = ours.sign_flip_test(differences, 999, rng)
        assert sampled == pytest.approx(moved.mean(), abs=5 * np.sqrt(moved.mean() / 999) + 1 / 1000)


def test_p_values_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(0)
    p_values = [ours.sign_flip_test(rng.standard_t(3, n), 999, rng) for n in (25, 45) for _ in range(150)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09
    found = [ours.sign_flip_test(rng.normal(1, 1, 25), 999, rng) for _ in range(50)]
    assert np.mean(np.array(found) < 0.05) > 0.9, "small with one"


def test_the_bound_on_small_p_values_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sizes = (15, 20, 30)
    cases = [values for n in sizes for values in (np.ones(n), rng.exponential(1, n), rng.lognormal(0, 2, n))]
    cases += [rng.normal(0.7, 1, n) for n in sizes for _ in range(10)]
    exact = [ours.sign_flip_test(case, 1, rng) for case in cases]
    monkeypatch.setattr(ours, "MAX_EXACT", 0)
    bounds = [ours.sign_flip_test(case, 1, rng) for case in cases]  # one resample: the bound alone, or at least 0.5
    assert all(p <= bound for p, bound in zip(exact, bounds, strict=True) if p < 0.5)


def test_edge_cases_of_the_paired_test() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(ours.sign_flip_test(np.ones(4), 999, rng)), "too few prompts"
    assert ours.sign_flip_test(np.zeros(100), 999, rng) == 1.0
    assert 0 < ours.sign_flip_test(np.full(100, 1e130), 999, rng) < 1e-20


def test_time_is_linear_in_the_groups() -> None:
    rng = np.random.default_rng(0)
    start = time.process_time()
    p_values = [ours.sign_flip_test(rng.normal(1.2, 1, n), 999, rng) for n in (25, 50) for _ in range(150)]
    assert time.process_time() - start < 8, "each group took as many permutations as 200 times the groups"
    assert np.mean(np.array(ours.holm(p_values)) < 0.05) > 0.9, "and 300 groups can still be told apart"


def test_wilson_is_scipys_and_covers() -> None:
    for wins, count in ((0, 7), (3, 7), (50, 100)):
        known = stats.binomtest(wins, count).proportion_ci(method="wilson")
        assert ours.wilson(wins / count, count) == pytest.approx({"low": known.low, "high": known.high})
    assert np.isnan(list(ours.wilson(np.nan, 0).values())).all()
    for count in (1, 6, 49, 399):
        assert (ours.wilson(0.0, count)["low"], ours.wilson(1.0, count)["high"]) == (0.0, 1.0)
    rng = np.random.default_rng(0)
    shares = rng.choice([0.0, 0.5, 1.0], p=[0.2, 0.3, 0.5], size=(300, 30)).mean(axis=1)
    inside = [ends["low"] <= 0.65 <= ends["high"] for ends in (ours.wilson(share, 30) for share in shares)]
    assert np.mean(inside) >= 0.95, "with ties it is too wide, never too narrow"
