# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""baseline=blended: what the responses to a prompt share is removed, and everything else stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.advantage import prompt_blend

BLENDED = PGRPOConfig(baseline="blended")
# Rows of (preference group, prompt, reward in eighths).
rows = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("pqrs"), st.integers(-80, 80)), min_size=1, max_size=24
)


def with_past(config):
    history = GroupHistoryManager(config)
    history.update(["a"] * 4 + ["b"] * 4, [-1.0, 0.0, 1.0, 2.0, 5.0, 7.0, 9.0, 15.0])
    return history


def by_hand(plain, standardized, prompts):
    """Each response's advantage minus w times the mean of its prompt's others, in plain loops."""
    of = {name: [i for i, prompt in enumerate(prompts) if prompt == name] for name in prompts}
    mean = {name: np.mean(standardized[members]) for name, members in of.items()}
    spare = sum(len(members) - 1 for members in of.values())
    within = sum((standardized[i] - mean[prompt]) ** 2 for i, prompt in enumerate(prompts)) / max(spare, 1)
    between = max(0.0, np.mean([mean[name] ** 2 - within / len(members) for name, members in of.items()]))
    out = plain.copy()
    for i, prompt in enumerate(prompts):
        others = [k for k in of[prompt] if k != i]
        if others and between > 0:
            out[i] -= between / (between + within / len(others)) * np.mean(plain[others])
    return out


@pytest.mark.parametrize("norm", [True, False])
@given(rows)
def test_it_is_the_leave_one_out_formula_and_the_corollary_holds(norm, batch):
    groups, prompts, eighths = (list(column) for column in zip(*batch, strict=True))
    values = np.array(eighths) / 8
    result, plain, standardized = (
        with_past(PGRPOConfig(**options)).compute_advantages(groups, values, prompts)
        for options in (
            {"baseline": "blended", "norm_adv_by_std_in_grpo": norm},
            {"norm_adv_by_std_in_grpo": norm},
            {},
        )
    )
    expected = by_hand(plain.advantages, standardized.advantages, prompts)
    np.testing.assert_allclose(result.advantages, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(result.mean, plain.mean)
    np.testing.assert_array_equal(result.std, plain.std)
    for prompt in set(prompts):
        members = [i for i, name in enumerate(prompts) if name == prompt]
        # One preference group to a prompt, as in training; others have no common scale.
        if len(members) > 1 and len({groups[i] for i in members}) == 1:
            spread = values[members].std(ddof=1) + 1e-6 if norm else 1.0
            grpo = (values[members] - values[members].mean()) / spread
            rebuilt = result.scale[members] * grpo + result.shift[members]
            np.testing.assert_allclose(result.advantages[members], rebuilt, rtol=1e-9, atol=1e-9)


def test_what_prompts_share_is_removed_and_what_they_do_not_share_stays():
    rng = np.random.default_rng(0)
    prompts, groups = np.repeat(np.arange(500), 4).tolist(), ["a"] * 2000
    noise, mood = rng.standard_normal(2000), np.repeat(rng.standard_normal(500), 4)

    def correlation(config, values, with_what):
        advantages = GroupHistoryManager(config).compute_advantages(groups, values, prompts).advantages
        return np.corrcoef(advantages, with_what)[0, 1]

    moody = 5 * mood + noise
    assert correlation(PGRPOConfig(), moody, mood) > 0.9
    assert abs(correlation(BLENDED, moody, mood)) < 0.1
    assert correlation(BLENDED, moody, noise) > 0.8
    assert correlation(BLENDED, noise, noise) > 0.999


def test_a_single_response_and_a_prompt_without_spread():
    batch = ["a", "b", "a"], [4.0, 1.0, 2.0], ["p", "q", "r"]
    expected, result = (with_past(config).compute_advantages(*batch) for config in (PGRPOConfig(), BLENDED))
    np.testing.assert_array_equal(result.advantages, expected.advantages)
    np.testing.assert_array_equal(result.shift, expected.shift)
    alike = np.full(4, 2.0)
    assert prompt_blend(alike, alike, np.array([0, 0, 1, 1]))[0].tolist() == [0.0] * 4  # shared, to the last bit


def test_without_prompts_it_is_an_error_and_the_history_is_unchanged():
    history = with_past(BLENDED)
    with pytest.raises(ValueError, match="prompt_ids"):
        history.compute_advantages(["a"], [1.0])
    assert history.total_count == 8


def test_it_keeps_no_state(tmp_path):
    """A history continues under the other baseline."""
    batch = ["a", "a", "b"], [1.0, 3.0, 4.0], ["p", "p", "q"]
    with_past(PGRPOConfig()).save(tmp_path / "history.parquet")
    resumed = GroupHistoryManager.load(tmp_path / "history.parquet", BLENDED)
    np.testing.assert_array_equal(
        resumed.compute_advantages(*batch).advantages, with_past(BLENDED).compute_advantages(*batch).advantages
    )
    plain = with_past(PGRPOConfig())
    plain.compute_advantages(*batch)
    np.testing.assert_array_equal(plain.statistics(["a", "b"]).std, resumed.statistics(["a", "b"]).std)
