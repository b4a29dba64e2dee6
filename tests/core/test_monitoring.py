# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of a step: names, exact values, limited number. Warnings: printed when due, once, and only then."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_history import ODD_LABELS
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.monitoring import HistoryMonitor, describe_run, metric_label


def monitored(sizes=None, **options):
    history = GroupHistoryManager(PGRPOConfig(**options))
    return history, HistoryMonitor(history, sizes)


def add(history, monitor, groups, rewards, prompts=None):
    monitor.add(rewards, history.compute_advantages(groups, rewards, prompts))


def test_a_step_of_two_batches():
    history, monitor = monitored()
    add(history, monitor, ["a", "a", "b", "b"], [1.0, 3.0, 10.0, 10.0], [0, 0, 1, 1])
    first = history.statistics(["a"])
    add(history, monitor, ["a", "c"], [5.0, 0.0], [2, 3])
    report = monitor.end_step()
    by_hand = [(1 - 2) / first.std[0], (3 - 2) / first.std[0], (5 - 3) / 2]
    expected = {
        "pgrpo/observed_total": 6,
        "pgrpo/num_groups": 3,
        "pgrpo/group/a/count": 3,
        "pgrpo/group/a/mean": 3.0,
        "pgrpo/group/a/std": 2.0,
        "pgrpo/group/a/reward": 3.0,
        "pgrpo/group/a/advantage": np.mean(by_hand),
        "pgrpo/worst_group/reward": 0.0,
        "pgrpo/reward_gap": 10.0,
        "pgrpo/cold_fraction": 3 / 6,  # b twice (no spread) and c once
    }
    assert {name: report[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert {f"pgrpo/group/{g}/{term}" for g in "abc" for term in ("scale", "shift")} <= set(report)
    assert not [name for name in report if "other_groups" in name]

    add(history, monitor, ["c"], [1.0])
    report = monitor.end_step()
    assert (report["pgrpo/observed_total"], report["pgrpo/group/a/count"]) == (7, 3)  # all groups' history,
    assert "pgrpo/group/a/reward" not in report  # but only this step's rewards
    assert "pgrpo/group/c/scale" not in report  # without prompts there is no relation to GRPO
    assert {type(value) for value in report.values()} == {float}


@pytest.mark.parametrize("batches", [0, 1])
def test_a_step_without_rows(batches):
    history, monitor = monitored()
    for _ in range(batches):
        add(history, monitor, [], [], [])
    assert monitor.end_step() == {"pgrpo/observed_total": 0.0, "pgrpo/num_groups": 0.0}


def test_only_the_largest_are_named_and_the_others_are_logged_together():
    (history, monitor), rng = monitored(max_logged_groups=2), np.random.default_rng(0)
    for _ in range(10):
        groups, rewards = [f"g{i}" for i in rng.zipf(1.5, 40) % 50], rng.standard_normal(40)
        add(history, monitor, groups, rewards)
        report = monitor.end_step()
        named = {match[1] for name in report if (match := re.match(r"pgrpo/group/(g\d+)/count", name))}
        assert named == set(history.largest(2))
        assert report["pgrpo/other_groups/num_groups"] == history.num_groups - 2
        assert report["pgrpo/other_groups/count"] == history.total_count - history.statistics([*named]).count.sum()
        rest = [reward for group, reward in zip(groups, rewards, strict=True) if group not in named]
        assert report["pgrpo/other_groups/reward"] == pytest.approx(np.mean(rest))
    assert f"pgrpo/group/{history.largest(1)[0]}/count" in HistoryMonitor(history).end_step()  # a resumed run


def test_skipped_rows_are_counted_and_nothing_else():
    history, monitor = monitored(on_nonfinite="skip")
    for groups, rewards, skipped in ((["a", "a"], [1.0, np.nan], 1), (["a"], [np.nan], 1), ([], [], 0)):
        add(history, monitor, groups, rewards)
        report = monitor.end_step()
        assert report["pgrpo/nonfinite_skipped"] == skipped
        assert report.get("pgrpo/group/a/reward") == (1.0 if len(groups) == 2 else None)


@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=20))
def test_labels_become_names_that_every_logger_accepts(labels):
    labels |= {*ODD_LABELS, "jazz", "count", "../x", "x" * 1000, "x" * 1001}
    names = {label: metric_label(label) for label in labels}
    assert len(set(names.values())) == len(labels)
    assert all(re.fullmatch(r"[A-Za-z0-9_. -]{1,57}", name) and name.strip(" .") for name in names.values())
    assert (names["jazz"], metric_label("v1.2 b-7_x")) == ("jazz", "v1.2 b-7_x")


def test_a_label_cannot_collide_with_a_metric():
    """Loggers that store a metric as a file cannot have `a` and `a/b`."""
    history, monitor = monitored()
    labels = ["groups", "num_groups", "worst_group", "reward_gap", "observed_total", "count", "group", "other_groups"]
    add(history, monitor, labels, np.arange(8.0))
    names = set(monitor.end_step())
    assert {f"pgrpo/group/{label}/count" for label in labels} <= names
    assert not {parent for name in names for parent in names if name.startswith(f"{parent}/")}


# ------------------------------------------------------------------------------------------------------------- warnings

HALVES = {"a": 0.5, "b": 0.5}


@pytest.fixture
def train(capsys):
    """Train steps with groups drawn by their share and normal rewards around `mean`; return the warnings."""
    rng = np.random.default_rng(0)

    def trained(run, steps, share, mean=0.0):
        history, monitor = run
        for _ in range(steps):
            groups = rng.choice(list(share), 64, p=list(share.values())).tolist()
            add(history, monitor, groups, rng.standard_normal(64) + mean)
            monitor.end_step()
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("P-GRPO warning: ")]

    return trained


@pytest.mark.parametrize("sizes", [{"a": 600, "b": 350, "c": 50}, None])
def test_a_healthy_run_has_no_warnings(train, sizes):
    assert train(monitored(sizes), 100, {"a": 0.6, "b": 0.35, "c": 0.05}) == []


@pytest.mark.parametrize("sizes", [{"a": 500, "b": 400, "gone": 100}, None])
def test_a_group_without_rewards_is_named_once(train, sizes):
    """Also if its share is known only from its history."""
    run = monitored(sizes)
    assert train(run, 15, HALVES if sizes else {"a": 0.5, "b": 0.4, "gone": 0.1}) == []  # with sizes, 96 were expected
    (line,) = train(run, 40, HALVES)
    assert "'gone'" in line


def test_a_group_that_holds_nearly_all_rewards_is_named(train):
    (line,) = train(monitored(), 30, {"big": 0.95, "small": 0.05})
    assert "'big'" in line
    assert "group_key" in line


@pytest.mark.parametrize(("half_life", "lags"), [(None, True), (64, False)])
def test_a_history_that_lags_is_named_unless_it_forgets(train, half_life, lags):
    run = monitored(half_life=half_life)
    assert train(run, 40, HALVES) == []
    text = "\n".join(train(run, 20, HALVES, mean=2.0))
    assert [text.count("'a'"), text.count("'b'"), "half_life" in text] == [lags, lags, lags]


def test_labels_that_look_alike_are_named_once(train):
    (line,) = train(monitored({"jazz": 5, "jazz\u200b": 5, "rock": 5}), 0, HALVES)
    assert "U+200B" in line
    (line,) = train(monitored(), 2, {"jazz": 0.5, "Jazz ": 0.5})  # not a table: found at their first rewards
    assert "'Jazz '" in line


def test_the_startup_line_shows_groups_and_options():
    history = GroupHistoryManager(PGRPOConfig(update_order="after_normalize"))
    history.update(["a"], [1.0])
    line = describe_run(history, {"a": 30, "b": 60, "c": 10})
    for part in ("3 preference groups", "100 training rows", "'b' 60", "1 rewards of 1 groups", "after_normalize"):
        assert part in line
    assert "'g7' 13 (6.2%), ..., 'g19' 1" in describe_run(history, {f"g{i}": 20 - i for i in range(20)})
    assert len(describe_run(history, dict.fromkeys(ODD_LABELS, 1))) < 2000
    assert describe_run(history, None)
