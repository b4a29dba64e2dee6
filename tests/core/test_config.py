# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Options: each is checked once, and a mistake says what, where and what to do."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from verl_pgrpo import PGRPOConfig
from verl_pgrpo.errors import ConfigError


def test_defaults_are_the_plain_method():
    config = PGRPOConfig()
    assert (config.statistics, config.update, config.epsilon) == ("cumulative", "before_normalize", 1e-6)
    assert config.cold_start == ColdStart(prior_strength=0.0, min_count=0)
    assert config.group_key == "preference_group"


def test_from_verls_algorithm_config():
    algorithm = OmegaConf.create(
        {
            "adv_estimator": "pgrpo",
            "norm_adv_by_std_in_grpo": False,
            "pgrpo": {"statistics": "exponential", "half_life": 512, "cold_start": {"min_count": 3}},
        }
    )
    config = PGRPOConfig.from_algorithm(algorithm)
    assert config == PGRPOConfig(
        statistics="exponential",
        half_life=512,
        min_count=3,
        norm_adv_by_std_in_grpo=False,
    )
    assert PGRPOConfig.from_algorithm(OmegaConf.create({"adv_estimator": "pgrpo"})) == PGRPOConfig()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistic": "cumulative"}, "unknown option statistic; did you mean statistics"),
        ({"cold_start": {"min_cuont": 3}}, r"cold_start.min_cuont; did you mean cold_start.min_count"),
        ({"cold_start": 3}, "cold_start takes the keys"),
        ({"cold_start": {"min_count": -1}}, "cold_start.min_count=-1: must be a whole number of at least 0"),
        ({"cold_start": {"prior_strength": -0.5}}, "cold_start.prior_strength"),
        ({"statistics": "rolling"}, "one of cumulative, exponential"),
        ({"statistics": "exponential"}, "needs half_life"),
        ({"half_life": 100}, "no effect with statistics=cumulative"),
        ({"statistics": "exponential", "half_life": 0}, "above 0"),
        ({"epsilon": -1}, "at least 0"),
        ({"epsilon": float("nan")}, "finite"),
        ({"epsilon": "tiny"}, "finite number"),
        ({"epsilon": True}, "finite number"),
        ({"update": "during"}, "before_normalize, after_normalize"),
        ({"update": ["before_normalize"]}, "before_normalize, after_normalize"),
        ({"nonfinite": "ignore"}, "error, skip"),
        ({"missing_group": ""}, "non-empty"),
        ({"missing_group": 7}, "non-empty string"),
        ({"group_key": None}, "non-empty string"),
        ({"group_key": "a..b"}, "path of names"),
        ({"cold_start": {"min_count": 1}}, "at least 2"),
        ({"epsilon": 10**400}, "at most 1e"),
        ({"missing_group": " "}, "non-empty"),
        ({"max_logged_groups": 1.5}, "whole number"),
        ({"resume_without_history": "yes"}, "true or false"),
        ("all", "by name"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        PGRPOConfig.from_mapping(options)


def test_verls_own_key_is_not_repeated():
    with pytest.raises(ConfigError, match=r"set algorithm.norm_adv_by_std_in_grpo"):
        PGRPOConfig.from_algorithm({"pgrpo": {"norm_adv_by_std_in_grpo": True}})
    with pytest.raises(ConfigError, match="by name"):
        PGRPOConfig.from_algorithm({"pgrpo": "on"})


def test_fingerprint_covers_what_a_history_means():
    base = PGRPOConfig().fingerprint()
    assert PGRPOConfig(epsilon=1e-3, max_logged_groups=1, on_nonfinite="skip").fingerprint() == base
    others = [PGRPOConfig(half_life=h).fingerprint() for h in (1, 2)]
    others.append(PGRPOConfig(group_key="segment").fingerprint())
    assert len({base, *others}) == 4
