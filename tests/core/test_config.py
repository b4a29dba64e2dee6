# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Options are validated once, where they are read."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf

from verl_pgrpo import ConfigError, PGRPOConfig


def test_options_from_verls_algorithm_config():
    algorithm = OmegaConf.create(
        {
            "adv_estimator": "pgrpo",
            "norm_adv_by_std_in_grpo": False,
            "use_kl_in_reward": True,
            "pgrpo": {"half_life": 512, "min_count": 3, "default_group": "${adv_estimator_name}"},
            "adv_estimator_name": "other",
        }
    )
    expected = {"half_life": 512.0, "min_count": 3, "norm_adv_by_std_in_grpo": False, "use_kl_in_reward": True}
    assert PGRPOConfig.from_algorithm(algorithm) == PGRPOConfig(default_group="other", **expected)
    stock = OmegaConf.create({"adv_estimator": "pgrpo", "use_kl_in_reward": False})
    OmegaConf.set_struct(stock, True)
    assert PGRPOConfig.from_algorithm(stock) == PGRPOConfig()
    assert PGRPOConfig.from_mapping(PGRPOConfig(epsilon=0).as_dict()) == PGRPOConfig(epsilon=0)
    assert type(PGRPOConfig(min_count=np.int64(3)).min_count) is int


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ({"halflife": 5}, "half_life"),
        ({"min_cuont": 3}, "min_count"),
        ({1: 2}, "unknown option 1"),
        ({"update_order": "during"}, "before_normalize, after_normalize"),
        ({"update_order": ["before_normalize"]}, "update_order"),
        ({"baseline": "prompt"}, "history, blended"),
        ({"on_nonfinite": "ignore"}, "error, skip"),
        ({"on_missing_history": True}, "error, reset"),
        ({"half_life": 0}, "half_life"),
        ({"half_life": "512"}, "half_life"),
        ({"half_life": float("inf")}, "half_life"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"epsilon": True}, "epsilon"),
        ({"epsilon": 10**400}, "epsilon"),
        ({"prior_strength": -0.5}, "prior_strength"),
        ({"min_count": -1}, "min_count"),
        ({"min_count": 1}, "min_count"),
        ({"max_logged_groups": 1.5}, "max_logged_groups"),
        ({"norm_adv_by_std_in_grpo": "yes"}, "norm_adv_by_std_in_grpo"),
        ({"group_key": None}, "group_key"),
        ({"group_key": "a..b"}, "group_key"),
        ({"default_group": " "}, "default_group"),
        ({"default_group": 7}, "default_group"),
        ({"initial_history": ""}, "initial_history"),
        ("all", "algorithm.pgrpo"),
        ([1], "algorithm.pgrpo"),
    ],
)
def test_a_mistake_is_a_config_error_that_names_the_option(options, mentions):
    with pytest.raises(ConfigError) as error:
        PGRPOConfig.from_mapping(options)
    assert mentions in str(error.value)


@pytest.mark.parametrize("pgrpo", [{"norm_adv_by_std_in_grpo": True}, {"use_kl_in_reward": False}, "on"])
def test_verls_own_keys_are_set_in_one_place(pgrpo):
    with pytest.raises(ConfigError):
        PGRPOConfig.from_algorithm({"pgrpo": pgrpo})


def test_the_fingerprint_covers_what_the_numbers_mean_and_nothing_else():
    base = PGRPOConfig().fingerprint()
    free = {"epsilon": 1e-3, "max_logged_groups": 1, "on_nonfinite": "skip", "baseline": "blended", "min_count": 2}
    free |= {"initial_history": "x", "default_group": "y", "norm_adv_by_std_in_grpo": False}
    assert PGRPOConfig(**free).fingerprint() == base
    changes = [{"half_life": 1}, {"half_life": 2}, {"group_key": "segment"}, {"use_kl_in_reward": True}]
    assert len({base, *(PGRPOConfig(**change).fingerprint() for change in changes)}) == 5
