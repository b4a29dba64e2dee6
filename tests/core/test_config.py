# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Options are validated once, when they are read."""

from __future__ import annotations

import re

import numpy as np
import pytest
from omegaconf import OmegaConf

from verl_pgrpo import ConfigError, PGRPOConfig


def test_options_from_verls_algorithm_config():
    pgrpo = {"half_life": 512, "min_count": np.int64(3).item(), "default_group": "${adv_estimator_name}"}
    verls = {"norm_adv_by_std_in_grpo": False, "use_kl_in_reward": True}
    algorithm = {"adv_estimator": "pgrpo", **verls, "pgrpo": pgrpo, "adv_estimator_name": "other"}
    expected = PGRPOConfig(half_life=512.0, min_count=3, default_group="other", **verls)
    assert PGRPOConfig.from_algorithm(OmegaConf.create(algorithm)) == expected
    stock = OmegaConf.create({"adv_estimator": "pgrpo", "use_kl_in_reward": False})
    OmegaConf.set_struct(stock, True)
    assert PGRPOConfig.from_algorithm(stock) == PGRPOConfig()
    assert PGRPOConfig.from_mapping(PGRPOConfig(epsilon=0).as_dict()) == PGRPOConfig(epsilon=0)
    assert type(PGRPOConfig(min_count=np.int64(3)).min_count) is int


WRONG = {
    "update_order": ["during", ["before_normalize"]],
    "baseline": ["prompt"],
    "on_nonfinite": ["ignore"],
    "on_missing_history": [True],
    "half_life": [0, "512", float("inf")],
    "epsilon": [-1, float("nan"), True, 10**400],
    "prior_strength": [-0.5],
    "min_count": [-1, 1],
    "group_balance": [1.5, -0.1],
    "max_logged_groups": [1.5],
    "norm_adv_by_std_in_grpo": ["yes"],
    "group_key": [None, "a..b"],
    "default_group": [" ", 7],
    "initial_history": [""],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_an_error_that_names_the_option(name, value):
    with pytest.raises(ConfigError, match=name):
        PGRPOConfig.from_mapping({name: value})


LOCATED = [
    ({"pgrpo": {"half_life": 0}}, "algorithm.pgrpo.half_life must be"),
    ({"pgrpo": {"halflife": 5}}, "algorithm.pgrpo.halflife is"),
    ({"pgrpo": {"group_key x": 5}}, "algorithm.pgrpo.group_key x is"),
    ({"norm_adv_by_std_in_grpo": "yes"}, "algorithm.norm_adv_by_std_in_grpo must be"),
    ({"pgrpo": {"default_group": 1}}, """+algorithm.pgrpo.default_group='"1"'"""),
]


@pytest.mark.parametrize(("algorithm", "mentions"), LOCATED)
def test_an_error_in_verls_config_shows_where_the_option_is_set(algorithm, mentions):
    with pytest.raises(ConfigError, match=re.escape(mentions)):
        PGRPOConfig.from_algorithm(OmegaConf.create(algorithm))


UNKNOWN = [
    ({"halflife": 5}, "half_life"),
    ({"use_kl": True}, "algorithm.use_kl_in_reward"),
    ({"min_cuont": 3}, "min_count"),
    ({1: 2}, "1"),
    ("all", "pgrpo"),
]


@pytest.mark.parametrize(("options", "mentions"), UNKNOWN)
def test_an_unknown_option_is_an_error_that_suggests_the_nearest(options, mentions):
    with pytest.raises(ConfigError, match=mentions):
        PGRPOConfig.from_mapping(options)


@pytest.mark.parametrize("pgrpo", [{"norm_adv_by_std_in_grpo": True}, {"use_kl_in_reward": False}, "on"])
def test_verls_own_keys_are_set_in_one_place(pgrpo):
    with pytest.raises(ConfigError):
        PGRPOConfig.from_algorithm({"pgrpo": pgrpo})
