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


def test_the_spread_within_prompts_is_shown_where_it_is_used():
    history, monitor = monitored(baseline="shrinkage")
    add(history, monitor, ["a", "a", "a", "a", "b"], [0.0, 2.0, 5.0, 7.0, 1.0], [0, 0, 1, 1, 2])
    report = monitor.end_step()
    assert report["pgrpo/group/a/within_std"] == pytest.approx(2**0.5)
    assert report["pgrpo/group/a/std"] == history.statistics(["a"]).std[0]
    assert "pgrpo/group/b/within_std" not in report  # of a single response


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


HALVES, THREE = {"a": 0.5, "b": 0.5}, {"a": 0.6, "b": 0.35, "c": 0.05}
ALIKE = {"jazz": 5, "jazz\u200b": 5, "rock": 5}
# Options of the run; then steps, the shares of its groups and their mean reward, and the groups that are named.
RUNS = {
    "healthy": ({}, [(100, THREE, 0, [])]),
    "healthy, of known sizes": ({"sizes": {"a": 600, "b": 350, "c": 50}}, [(100, THREE, 0, [])]),
    "no rewards": ({"sizes": {"a": 5, "b": 4, "gone": 1}}, [(15, HALVES, 0, []), (40, HALVES, 0, ["gone"])]),
    "no more rewards": ({}, [(15, {"a": 0.5, "b": 0.4, "gone": 0.1}, 0, []), (40, HALVES, 0, ["gone"])]),
    "nearly all rewards": ({}, [(30, {"big": 0.95, "small": 0.05}, 0, ["big"])]),
    "lagging": ({}, [(40, HALVES, 0, []), (20, HALVES, 2, ["a", "b"])]),
    "forgetting": ({"half_life": 8}, [(40, HALVES, 0, []), (20, HALVES, 2, [])]),
    "alike in the data": ({"sizes": ALIKE}, [(0, HALVES, 0, ["jazz", "jazz\\u200b"])]),
    "alike in the rewards": ({}, [(2, {"jazz": 0.5, "Jazz ": 0.5}, 0, ["jazz", "Jazz "])]),
}


@pytest.mark.parametrize(("options", "phases"), RUNS.values(), ids=RUNS)
def test_warnings_name_each_group_once_when_due(options, phases, capsys):
    rng = np.random.default_rng(0)
    history, monitor = monitored(**options)
    for steps, share, mean, named in phases:
        for _ in range(steps):
            groups = rng.choice(list(share), 64, p=list(share.values())).tolist()
            add(history, monitor, groups, rng.standard_normal(64) + mean)
            monitor.end_step()
        assert sorted(re.findall(r"'([^'\n]*)'", capsys.readouterr().out)) == sorted(named)


def test_the_startup_line_shows_groups_and_options():
    history = GroupHistoryManager(PGRPOConfig(update_order="after_normalize"))
    history.update(["a"], [1.0])
    line = describe_run(history, {"a": 30, "b": 60, "c": 10})
    for part in ("3 preference groups", "100 training rows", "'b' 60", "1 rewards of 1 groups", "after_normalize"):
        assert part in line
    assert "'g7' 13 (6.2%), ..., 'g19' 1" in describe_run(history, {f"g{i}": 20 - i for i in range(20)})
    assert len(describe_run(history, dict.fromkeys(ODD_LABELS, 1))) < 2000
    assert describe_run(history, None)
