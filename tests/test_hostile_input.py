# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Rewards and labels as bad data and careless code make them: each is right, or an error that names it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests import reference
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.errors import GroupLabelError, MissingGroupError, NonFiniteRewardError
from verl_pgrpo.metrics import StepMetrics

ODD = [
    "",
    " ",
    "x" * 2**20,
    "two\nlines",
    "\r\n",
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


def test_odd_labels_go_through_everything(tmp_path):
    history = GroupHistoryManager()
    rewards = np.arange(2.0 * len(ODD))
    result = history.advantages(ODD * 2, rewards)
    np.testing.assert_allclose(result.advantages, reference.advantages([(ODD * 2, rewards.tolist())])[0], rtol=1e-9)
    history.save(tmp_path / "h.parquet", step=1)
    loaded = GroupHistoryManager.load(tmp_path / "h.parquet", step=1)
    assert loaded.groups == ODD
    assert pd.read_parquet(tmp_path / "h.parquet")["group"].tolist() == ODD
    metrics = StepMetrics(history)
    metrics.add(ODD * 2, rewards, result)
    names = [name.split("/")[1] for name in metrics.flush() if name.endswith("/advantage")]
    assert len(set(names)) == len(ODD)
    assert all(name.isascii() and name.isprintable() and len(name) <= 60 for name in names)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300, np.float64(3e140)])
def test_rewards_that_cannot_be_squared_are_named_and_leave_no_trace(bad):
    history = GroupHistoryManager()
    history.observe(["a", "b"], [1.0, 2.0])
    before = history.statistics(["a", "b"])
    with pytest.raises(NonFiniteRewardError, match=r"preference group 'b' \(row 1, uid u1\)"):
        history.advantages(["a", "b"], [1.0, bad], index=["u0", "u1"])
    after = history.statistics(["a", "b"])
    np.testing.assert_array_equal(before.mean, after.mean)
    assert history.total_count == 2
    skipping = GroupHistoryManager(PGRPOConfig(nonfinite="skip"))
    result = skipping.advantages(["a", "b", "a"], [1.0, bad, 3.0])
    assert result.advantages[1] == 0
    assert result.skipped.tolist() == [False, True, False]
    assert skipping.groups == ["a"]


@pytest.mark.parametrize("scale", [5e-324, 1e-320, 1e-300, 1e-100, 1e100, 9e139])
def test_tiny_and_huge_rewards_give_finite_advantages(scale):
    history = GroupHistoryManager()
    result = history.advantages(["a"] * 4, np.array([0.0, 1.0, 1.0, 0.0]) * scale)
    assert np.isfinite(result.advantages).all()
    assert (np.sign(result.advantages) == [-1, 1, 1, -1]).all() or scale == 5e-324


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (["a", 1, None], MissingGroupError, "1 of 3 rows"),
        (["a", 1, "b"], GroupLabelError, r"preference group 1 \(row 1\) is of type int"),
        (["a", ["b"], None], GroupLabelError, r"\['b'\] \(row 1\) is of type list"),
        (["a", {"b": 1}, "c"], GroupLabelError, "type dict"),
        (["a", np.zeros(2), "c"], GroupLabelError, "type ndarray"),
        (["a", b"bytes", "c"], GroupLabelError, "type bytes"),
        (["a", "\ud800", "c"], GroupLabelError, "surrogates not allowed"),
        (["a", float("nan"), "c"], MissingGroupError, "first: row 1"),
        (["a", pd.NA, pd.NaT], MissingGroupError, "2 of 3 rows"),
    ],
)
def test_labels_that_are_no_text_are_named_and_leave_no_trace(groups, error, message):
    history = GroupHistoryManager()
    for call in (history.observe, history.advantages):
        with pytest.raises(error, match=message):
            call(groups, [1.0, 2.0, 3.0])
    assert history.num_groups == history.total_count == 0


def test_one_group_and_many():
    for groups in (["all"] * 1000, [f"user {i}" for i in range(1000)]):
        history = GroupHistoryManager()
        result = history.advantages(groups, np.arange(1000.0))
        assert np.isfinite(result.advantages).all()
        assert history.num_groups == len(set(groups))
        assert result.cold.all() == (len(set(groups)) > 1)
