# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Variance within and between prompts of a table of rewards."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from verl_pgrpo.evaluation.variance import recommended_options, variance_components


def test_components_of_simulated_ratings():
    rng = np.random.default_rng(0)
    prompts, n = 4000, 4
    group = np.where(np.arange(prompts) % 4 == 0, "few", "many")
    mood = np.where(group == "few", 2.0, 0.5) * rng.standard_normal(prompts)
    rewards = (5 + mood[:, None] + rng.standard_normal((prompts, n))).ravel()
    table = pd.DataFrame({"group": group.repeat(n), "prompt": np.arange(prompts).repeat(n), "reward": rewards})
    few, many = variance_components(table).to_dict("records")
    assert (few["group"], few["prompts"], few["responses"], few["share"]) == ("few", 1000, 4000, 0.25)
    assert (many["share"], many["prompts"]) == (0.75, 3000)
    assert few["between_within"] == pytest.approx(4, rel=0.15)
    assert many["between_within"] == pytest.approx(0.25, rel=0.15)
    assert few["within"] == pytest.approx(1, rel=0.1)
    assert few["mean"] == pytest.approx(5, abs=0.2)
    assert few["weight"] == 1
    assert many["weight"] == pytest.approx(4 / 3 * 0.25 / (0.25 + 1 / 3), rel=0.15)


def test_single_responses_and_equal_ones():
    table = pd.DataFrame({"group": ["a", "a", "b", "b", "b"], "prompt": [1, 2, 3, 3, 4], "reward": [0, 1, 2, 2, 5.0]})
    single, equal = variance_components(table).to_dict("records")
    assert np.isnan(single["within"])
    assert single["weight"] == 0
    assert equal["between_within"] == np.inf
    assert equal["weight"] == 1


def test_recommended_options():
    def options(shares, within=1.0):
        return recommended_options(pd.DataFrame({"share": shares, "within": within}))

    assert options([0.5, 0.5]) == {"baseline": "shrinkage"}
    assert options([0.8, 0.2]) == {"baseline": "shrinkage", "group_balance": 1.0}
    assert options([0.97, 0.03], within=np.nan) == {"group_balance": 0.5}
    assert options([1.0], within=np.nan) == {}
