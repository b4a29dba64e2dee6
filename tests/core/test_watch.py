# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Warnings of a run: each when it is due, once, by name, and none in a run that is as it should be."""

from __future__ import annotations

import numpy as np

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.run_log import RunLog, describe
from verl_pgrpo.watch import WATCHED, HistoryWatch


def train(watch, history, rng, steps, share, mean=0.0, size=64):
    """Lines of `steps` training steps with groups drawn by their share and normal rewards around `mean`."""
    lines = []
    for _ in range(steps):
        groups = rng.choice(list(share), size, p=list(share.values())).tolist()
        rewards = rng.standard_normal(size) + mean
        watch.add(groups, rewards, history.compute_advantages(groups, rewards))
        lines += watch.flush()
    return lines


def test_a_healthy_run_says_nothing():
    share = {"a": 0.6, "b": 0.35, "c": 0.05}
    for sizes in ({name: int(1000 * part) for name, part in share.items()}, None):
        history = GroupHistoryManager()
        assert train(HistoryWatch(history, sizes), history, np.random.default_rng(0), 300, share) == []


def test_a_group_without_data_is_named_once():
    history, rng = GroupHistoryManager(), np.random.default_rng(0)
    watch = HistoryWatch(history, {"a": 500, "b": 400, "never": 100})
    lines = train(watch, history, rng, 15, {"a": 0.5, "b": 0.5})
    assert lines == []  # 96 to be expected
    lines = train(watch, history, rng, 30, {"a": 0.5, "b": 0.5})
    assert len(lines) == 1
    assert "'never'" in lines[0]
    assert "filtered out" in lines[0]


def test_a_group_that_stops_is_named_though_the_training_set_is_unknown():
    history, rng = GroupHistoryManager(), np.random.default_rng(0)
    watch = HistoryWatch(history)
    assert train(watch, history, rng, 20, {"a": 0.5, "b": 0.4, "gone": 0.1}) == []
    lines = train(watch, history, rng, 100, {"a": 0.5, "b": 0.5})
    assert len(lines) == 1
    assert "'gone'" in lines[0]


def test_a_group_that_holds_nearly_all_rewards():
    history, rng = GroupHistoryManager(), np.random.default_rng(0)
    lines = train(HistoryWatch(history), history, rng, 30, {"big": 0.95, "small": 0.05})
    assert len(lines) == 1
    assert "'big' holds 9" in lines[0]
    assert "group_key" in lines[0]


def test_a_history_that_lags_with_the_remedy():
    def lines_of_a_rising_reward(config):
        history, rng = GroupHistoryManager(config), np.random.default_rng(0)
        watch = HistoryWatch(history)
        assert train(watch, history, rng, 40, {"a": 0.5, "b": 0.5}) == []
        return train(watch, history, rng, 20, {"a": 0.5, "b": 0.5}, mean=2.0)

    lines = lines_of_a_rising_reward(None)
    assert [line.count("'a'") + line.count("'b'") for line in lines] in ([1, 1], [2])
    assert all("above 10" in line and "statistics=exponential" in line for line in lines)
    assert lines_of_a_rising_reward(PGRPOConfig(half_life=64)) == []


def test_many_groups_are_named_together():
    history, rng = GroupHistoryManager(), np.random.default_rng(0)
    watch = HistoryWatch(history, {f"g{i}": 10 for i in range(8)} | {"a": 20})
    lines = [line for line in train(watch, history, rng, 60, {"a": 1.0}, size=40) if "no reward" in line]
    assert len(lines) == 1
    assert "'g0', 'g1', 'g2', 'g3', 'g4' and 3 more" in lines[0]


def test_more_groups_than_are_watched():
    history, rng = GroupHistoryManager(), np.random.default_rng(0)
    watch = HistoryWatch(history)
    for _ in range(3):
        groups = [f"g{i}" for i in rng.permutation(3 * WATCHED)]
        rewards = rng.standard_normal(len(groups))
        watch.add(groups, rewards, history.compute_advantages(groups, rewards))
        assert watch.flush() == []


def test_the_line_at_the_start():
    history = GroupHistoryManager(PGRPOConfig(update_order="after_normalize"))
    history.update(["a"], [1.0])
    line = describe(history, {"a": 30, "b": 60, "c": 10})
    assert "3 preference groups in 100 training rows: 'b' 60 (60.0%), 'a' 30 (30.0%), 'c' 10 (10.0%)" in line
    assert "1 rewards of 1 groups" in line
    assert "{'update': 'after_normalize'}" in line
    many = describe(GroupHistoryManager(), {f"g{i}": 20 - i for i in range(20)})
    assert "'g7' 13 (6.2%), ..., 'g19' 1 (0.5%)" in many
    assert "all default" in many
    assert "not a table" in describe(GroupHistoryManager(), None)


def test_a_run_prints_its_line_and_its_warnings(capsys):
    history = GroupHistoryManager()
    log = RunLog(history, {"a": 1})
    groups, rewards = ["a"] * 300, np.arange(300.0)
    log.add(groups, rewards, history.compute_advantages(groups, rewards))
    assert log.flush()["pgrpo/observed_total"] == 300
    start, warning = capsys.readouterr().out.splitlines()
    assert start.startswith("P-GRPO: each response's reward")
    assert warning.startswith("P-GRPO warning: preference group 'a' holds 100.0%")
