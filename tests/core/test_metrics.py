# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a step reports: the design's names, exact numbers, and a bound on how many."""

from __future__ import annotations

import re

import numpy as np
import pytest

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.monitoring import metric_label


def step(history, metrics, groups, rewards, prompt_ids=None):
    metrics.add(groups, rewards, history.compute_advantages(groups, rewards, prompt_ids=index))


def test_a_step_of_two_batches():
    history = GroupHistoryManager()
    metrics = StepMetrics(history)
    step(history, metrics, ["a", "a", "b", "b"], [1.0, 3.0, 10.0, 10.0], prompt_ids=[0, 0, 1, 1])
    first = history.statistics(["a"])
    step(history, metrics, ["a", "c"], [5.0, 0.0], prompt_ids=[2, 3])
    report = metrics.flush()
    assert report["pgrpo/observed_total"] == 6
    assert report["pgrpo/groups"] == 3
    assert report["pgrpo/a/count"] == 3
    assert report["pgrpo/a/mean"] == pytest.approx(3.0)
    assert report["pgrpo/a/std"] == pytest.approx(2.0)
    assert report["pgrpo/a/reward"] == pytest.approx(3.0)
    by_hand = [(1 - 2) / first.std[0], (3 - 2) / first.std[0], (5 - 3) / 2]
    assert report["pgrpo/a/advantage"] == pytest.approx(np.mean(by_hand), abs=1e-5)
    assert {"pgrpo/a/scale", "pgrpo/a/shift", "pgrpo/b/scale", "pgrpo/c/shift"} <= set(report)
    assert report["pgrpo/worst_group/reward"] == 0.0
    assert report["pgrpo/reward_gap"] == 10.0
    assert report["pgrpo/cold_fraction"] == pytest.approx(3 / 6)  # b twice (no spread) and c once
    assert not [key for key in report if "other_groups" in key]

    step(history, metrics, ["c"], [1.0])
    report = metrics.flush()
    assert report["pgrpo/a/count"] == 3  # the history is still reported
    assert "pgrpo/a/reward" not in report  # but it got nothing in this step
    assert "pgrpo/c/scale" not in report  # without generation groups there is no relation to GRPO
    assert report["pgrpo/observed_total"] == 7


def test_a_step_without_rows():
    report = StepMetrics(GroupHistoryManager()).flush()
    assert report == {"pgrpo/observed_total": 0.0, "pgrpo/groups": 0.0}


def test_only_the_largest_are_named_and_the_rest_is_summed_up():
    history = GroupHistoryManager(PGRPOConfig(max_logged_groups=2))
    metrics, rng = StepMetrics(history), np.random.default_rng(0)
    for _ in range(30):
        groups = [f"g{i}" for i in rng.zipf(1.5, 40) % 50]
        rewards = rng.standard_normal(40)
        step(history, metrics, groups, rewards)
        report = metrics.flush()
        named = {match[1] for key in report if (match := re.match(r"pgrpo/(g\d+)/count", key))}
        assert named == set(history.largest(2))
        assert report["pgrpo/other_groups/groups"] == history.num_groups - 2
        assert report["pgrpo/other_groups/count"] == history.total_count - sum(
            report[f"pgrpo/{group}/count"] for group in named
        )
        rest = [reward for group, reward in zip(groups, rewards, strict=True) if group not in named]
        assert report["pgrpo/other_groups/reward"] == pytest.approx(np.mean(rest))
        assert len(report) <= 30


def test_a_loaded_history_names_its_largest():
    history = GroupHistoryManager(PGRPOConfig(max_logged_groups=1))
    history.update(["small", "big", "big"], [1, 2, 3])
    assert StepMetrics(history).flush()["pgrpo/big/count"] == 2


def test_none_by_name():
    history = GroupHistoryManager(PGRPOConfig(max_logged_groups=0))
    metrics = StepMetrics(history)
    step(history, metrics, ["a", "b"], [1.0, 2.0])
    report = metrics.flush()
    assert report["pgrpo/other_groups/groups"] == 2
    assert report["pgrpo/other_groups/reward"] == 1.5


def test_skipped_rows_are_counted_and_nothing_else():
    history = GroupHistoryManager(PGRPOConfig(on_nonfinite="skip"))
    metrics = StepMetrics(history)
    step(history, metrics, ["a", "a"], [1.0, float("nan")])
    report = metrics.flush()
    assert report["pgrpo/nonfinite_skipped"] == 1
    assert report["pgrpo/a/reward"] == 1.0
    assert metrics.flush()["pgrpo/nonfinite_skipped"] == 0


def test_labels_fit_every_logger_and_stay_apart():
    plain = ["jazz", "slang_jazz", "user 7", "v1.2-b"]
    assert [metric_label(group) for group in plain] == plain
    odd = ["a/b", "a_b/", "a b\n", "", "🦜", "ü", "x" * 1000, "x" * 1001, "worst_group", "other_groups", " "]
    made = [metric_label(group) for group in odd]
    assert len({*made, *plain}) == len(odd) + len(plain)
    assert all(re.fullmatch(r"[A-Za-z0-9_. -]{1,60}", label) for label in made)
    assert not {"worst_group", "other_groups"} & set(made)
