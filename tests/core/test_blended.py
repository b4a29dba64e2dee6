# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""baseline=blended: how much of what a prompt's responses share is taken off, and that all else stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.advantage import prompt_blend
from verl_pgrpo.errors import ConfigError

BLENDED = PGRPOConfig(baseline="blended")
# Rows of (preference group, prompt, reward in eighths).
rows = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("pqrs"), st.integers(-80, 80)), min_size=1, max_size=24
)


def past(config):
    history = GroupHistoryManager(config)
    history.update(["a"] * 4 + ["b"] * 4, [-1.0, 0.0, 1.0, 2.0, 5.0, 7.0, 9.0, 15.0])
    return history


def by_hand(plain, standardised, prompts):
    """Each response's advantage less w times the mean of its prompt's others, in plain loops."""
    of = {name: [i for i, prompt in enumerate(prompts) if prompt == name] for name in prompts}
    mean = {name: np.mean(standardised[members]) for name, members in of.items()}
    spare = sum(len(members) - 1 for members in of.values())
    within = sum((standardised[i] - mean[prompt]) ** 2 for i, prompt in enumerate(prompts)) / max(spare, 1)
    between = max(0.0, np.mean([mean[name] ** 2 - within / len(members) for name, members in of.items()]))
    out = plain.copy()
    for i, prompt in enumerate(prompts):
        others = [k for k in of[prompt] if k != i]
        if others and between > 0:
            out[i] -= between / (between + within / len(others)) * np.mean(plain[others])
    return out


@pytest.mark.parametrize("norm", [True, False])
@given(rows)
def test_it_is_the_leave_one_out_formula(norm, batch):
    groups, prompts, eighths = (list(column) for column in zip(*batch, strict=True))
    values = np.array(eighths) / 8
    result = past(PGRPOConfig(baseline="blended", norm_adv_by_std_in_grpo=norm)).compute_advantages(groups, values, prompts)
    plain = past(PGRPOConfig(norm_adv_by_std_in_grpo=norm)).compute_advantages(groups, values, prompts)
    standardised = past(PGRPOConfig()).compute_advantages(groups, values, prompts)
    expected = by_hand(plain.advantages, standardised.advantages, prompts)
    np.testing.assert_allclose(result.advantages, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(result.mean, plain.mean)
    np.testing.assert_array_equal(result.std, plain.std)


@given(rows)
def test_the_corollary_holds(batch):
    groups, prompts, eighths = (list(column) for column in zip(*batch, strict=True))
    values = np.array(eighths) / 8
    result = past(BLENDED).compute_advantages(groups, values, prompts)
    for prompt in set(prompts):
        members = [i for i, name in enumerate(prompts) if name == prompt]
        if len(members) > 1:
            grpo = (values[members] - values[members].mean()) / (values[members].std(ddof=1) + 1e-6)
            rebuilt = result.scale[members] * grpo + result.shift[members]
            # One preference group to a prompt, as in training; others have no common scale.
            if len({groups[i] for i in members}) == 1:
                np.testing.assert_allclose(result.advantages[members], rebuilt, rtol=1e-9, atol=1e-9)


@given(rows, st.floats(0.1, 10), st.floats(-50, 50))
def test_units_of_a_preference_group_do_not_matter(batch, scale, offset):
    groups, prompts, eighths = (list(column) for column in zip(*batch, strict=True))
    values = np.array(eighths) / 8
    history, other = GroupHistoryManager(BLENDED), GroupHistoryManager(BLENDED)
    for step in range(2):  # from the second on every group has a spread
        start = ["a", "a", "b", "b", *groups], [1.0, 2.0, 1.0, 2.0, *values], ["s", "s", "t", "t", *prompts]
        units = [value * scale + offset if group == "a" else value for group, value in zip(*start[:2], strict=True)]
        mine = history.compute_advantages(*start).advantages
        np.testing.assert_allclose(
            other.compute_advantages(start[0], units, start[2]).advantages, mine, atol=1e-4, err_msg=step
        )


def test_what_prompts_share_goes_and_what_they_do_not_stays():
    rng = np.random.default_rng(0)
    prompts, groups = np.repeat(np.arange(500), 4).tolist(), ["a"] * 2000
    noise, mood = rng.standard_normal(2000), np.repeat(rng.standard_normal(500), 4)

    def correlation(config, values, with_what):
        history = GroupHistoryManager(config)
        return np.corrcoef(history.compute_advantages(groups, values, prompts).advantages, with_what)[0, 1]

    moody = 5 * mood + noise
    assert correlation(PGRPOConfig(), moody, mood) > 0.9
    assert abs(correlation(BLENDED, moody, mood)) < 0.1
    assert correlation(BLENDED, moody, noise) > 0.8
    assert correlation(BLENDED, noise, noise) > 0.999


def test_single_responses_and_nothing_at_all():
    plain, blended = past(PGRPOConfig()), past(BLENDED)
    groups, values = ["a", "b", "a"], [4.0, 1.0, 2.0]
    expected = plain.compute_advantages(groups, values, ["p", "q", "r"])
    result = blended.compute_advantages(groups, values, ["p", "q", "r"])
    np.testing.assert_array_equal(result.advantages, expected.advantages)
    np.testing.assert_array_equal(result.shift, expected.shift)
    assert len(blended.compute_advantages([], [], []).advantages) == 0
    alike = np.full(4, 2.0)
    assert prompt_blend(alike, alike, np.array([0, 0, 1, 1]))[0].tolist() == [0.0] * 4  # shared, to the last bit


def test_without_generation_groups_it_is_refused_and_nothing_has_changed():
    history = past(BLENDED)
    with pytest.raises(ValueError, match="requires prompt_ids"):
        history.compute_advantages(["a"], [1.0])
    assert history.total_count == 8
    with pytest.raises(ConfigError, match="one of history, blended"):
        PGRPOConfig(baseline="prompt")


def test_it_has_no_state(tmp_path):
    """Histories of either baseline are the same, and a history goes on under the other one."""
    assert BLENDED.fingerprint() == PGRPOConfig().fingerprint()
    batch = ["a", "a", "b"], [1.0, 3.0, 4.0], ["p", "p", "q"]
    history = past(PGRPOConfig())
    history.save(tmp_path / "history.parquet", step=3)
    resumed = GroupHistoryManager.load(tmp_path / "history.parquet", BLENDED, step=3)
    np.testing.assert_array_equal(resumed.compute_advantages(*batch).advantages, past(BLENDED).compute_advantages(*batch).advantages)
    history.compute_advantages(*batch)
    np.testing.assert_array_equal(history._moments.m2[:2], resumed._moments.m2[:2])
