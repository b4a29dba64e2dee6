# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The estimator inside verl's own advantage step: which rows count, and which advantage each row gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.core import reference
from verl_pgrpo import GroupHistoryManager, GroupLabelError, MissingGroupError, PGRPOConfig, UnsupportedVerlError
from verl_pgrpo.integration.batch import BatchRows, GroupColumn
from verl_pgrpo.integration.estimator import compute_pgrpo_outcome_advantage
from verl_pgrpo.integration.state import PGRPOState

PADDING = {"is_padding": True}
U = ["u_0_0", "u_1_0", "u_2_0"]


def rows_of(keys, groups=None, tags=None):
    return BatchRows.from_keys(keys, tags or [{}] * len(keys), groups or ["a"] * len(keys))


def run(rows, rewards, mask, config=None):
    """Compute advantages (N, T) by verl's own `compute_advantage_for_multi_trajectories`, as its V1 trainers do."""
    from verl.protocol import DataProto
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    state, uids = PGRPOState(config or PGRPOConfig()), np.array(rows.uids, dtype=object)
    tensors = {"token_level_rewards": at_end(rewards, mask), "response_mask": torch.as_tensor(mask)}
    data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": uids})
    keys = [f"{uid}_0_0" for uid in rows.uids]
    data = state.advantage_step(
        rows,
        lambda: compute_advantage_for_multi_trajectories(data, batch_keys=keys, adv_estimator="pgrpo", config={}),
    )
    torch.testing.assert_close(data.batch["advantages"], data.batch["returns"])
    return data.batch["advantages"], state


def at_end(rewards, mask):
    """Token-level rewards with each response's reward on its last token."""
    out = torch.zeros(np.shape(mask))
    out[:, -1] = torch.as_tensor(rewards)
    return out


def expected(groups, rewards):
    return torch.tensor(reference.advantages([(groups, rewards)])[0])


def close(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5, check_dtype=False)


def test_advantages_are_those_of_the_reference_on_every_unmasked_token():
    groups, rewards = ["a", "a", "b", "b", "a", "a"], [1.0, 2.0, 5.0, 5.0, 3.0, 0.5]
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 0]])
    advantages, state = run(rows_of([f"u{i // 2}_{i % 2}_0" for i in range(6)], groups), rewards, mask)
    close(advantages, expected(groups, rewards).unsqueeze(-1) * mask)
    assert state.end_step()["pgrpo/observed_total"] == 6


@pytest.mark.parametrize("mask_type", [torch.int64, torch.float32, torch.bool])
def test_any_type_of_mask_and_reward(mask_type):
    rows, mask = rows_of(U[:2]), torch.tensor([[1, 0], [1, 1]])
    for reward_type in (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64):
        arguments = at_end([1.0, 3.0], mask).to(reward_type), mask.to(mask_type), rows.uids
        state = PGRPOState(PGRPOConfig())
        advantages, _ = state.advantage_step(rows, lambda given=arguments: compute_pgrpo_outcome_advantage(*given))
        assert advantages.is_floating_point()
        wanted = torch.tensor([[-0.7071, 0.0], [0.7071, 0.7071]])
        torch.testing.assert_close(advantages, wanted, rtol=1e-2, atol=1e-3, check_dtype=False)


def test_padding_and_empty_responses_never_reach_the_history():
    """verl pads with copies of the batch's first row: its group, a reward of 0. An empty mask has nothing to train."""
    rows = rows_of([*U, "padx_0_0"], ["a", "a", "a", None], [{}, {}, {}, PADDING])
    advantages, state = run(rows, [4.0, 6.0, 100.0, 0.0], [[1, 1], [0, 1], [0, 0], [1, 1]])
    statistics = state.history.statistics(["a"])
    assert (statistics.count[0], statistics.mean[0]) == (2, 5.0)
    assert (advantages[1, 1] > 0).item()
    assert advantages[2:].abs().sum() == 0


def test_a_session_counts_once_and_all_its_outputs_get_its_advantage():
    """Outputs may be in any place of the batch; verl copies the last output's score to the earlier ones."""
    rows = rows_of(["u_0_1", "u_1_0", "u_0_2", "v_0_0", "u_0_10", "v_0_1"])
    assert rows.last_output.tolist() == [4, 1, 4, 5, 4, 5]
    advantages, state = run(rows, [9.0, 1.0, 9.0, 7.0, 3.0, 5.0], [[1, 1]] * 6)
    assert state.history.total_count == 3
    close(advantages[:, 0], expected(["a"] * 3, [3.0, 1.0, 5.0])[[0, 1, 0, 2, 0, 2]])
    # A session whose last output does not count trains nothing.
    advantages, state = run(rows_of(["u_0_0", "u_0_1", "u_1_0"]), [3.0, 3.0, 4.0], [[1, 1], [0, 0], [1, 1]])
    assert (state.history.total_count, advantages.abs().sum()) == (1, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["u", "u_1", "v"]), st.integers(0, 2), st.integers(0, 11), st.booleans()),
        unique_by=lambda row: row[:3],
        max_size=12,
    )
)
def test_rows_that_count_by_the_rule_written_out(batch):
    """The last output of its session, with a token, not padding. uids may contain underscores."""
    rows = rows_of([f"{uid}_{session}_{index}" for uid, session, index, _ in batch])
    mask = torch.tensor([[has_token, False] for *_, has_token in batch]).reshape(-1, 2)
    last = [max(index for uid, s, index, _ in batch if (uid, s) == row[:2]) for row in batch]
    assert rows.uids == [uid for uid, *_ in batch]
    wanted = [i for i, row in enumerate(batch) if row[2] == last[i] and row[3]]
    assert rows.counted(mask).tolist() == wanted


@pytest.mark.parametrize(("bad", "error"), [(None, MissingGroupError), (1.5, GroupLabelError), (True, GroupLabelError)])
def test_bad_groups_stop_the_step_with_their_prompt(bad, error):
    with pytest.raises(error, match="uid u"):
        run(rows_of(U[:2], ["a", bad]), [1.0, 2.0], [[1], [1]])


def test_groups_of_a_nested_column_and_the_default():
    column = GroupColumn.parse("extra_info.user.id", ["prompt", "extra_info"])
    values = [{"user": {"id": 7}}, {"user": None}, {}, None, {"user": {"id": " "}}]
    assert column.labels(values) == ["7", None, None, None, None]
    assert GroupColumn.parse("n").labels(torch.tensor([3, 4])) == ["3", "4"]
    with pytest.raises(MissingGroupError, match="extra_info"):
        column.labels(["text"])
    _, state = run(rows_of(U[:2], ["a", None]), [1.0, 2.0], [[1], [1]], PGRPOConfig(default_group="none"))
    assert state.history.groups == ["a", "none"]


@pytest.mark.parametrize(
    ("uids", "times"), [(["v", "u"], 1), (["u", "v", "w"], 1), (["u", "v"], 2), (["u", "v"], 0), (None, 2)]
)
def test_other_rows_than_announced_are_an_error(uids, times):
    """Another order or number of rows, a second call, or no call: advantages would go to the wrong responses."""
    state = PGRPOState(PGRPOConfig())
    index, size = (None, 2) if uids is None else (np.array(uids, dtype=object), len(uids))

    def step():
        for _ in range(times):
            compute_pgrpo_outcome_advantage(torch.zeros(size, 1), torch.ones(size, 1), index=index)

    with pytest.raises(UnsupportedVerlError):
        state.advantage_step(rows_of(["u_0_0", "v_0_0"]), step)
    assert state.history.total_count == (2 if times == 2 else 0)
    with pytest.raises(UnsupportedVerlError, match="with_history"):  # the failed step left no state behind
        compute_pgrpo_outcome_advantage(torch.zeros(1, 1), torch.ones(1, 1))


def test_keys_must_have_verls_form():
    for keys, groups in ((U[:2], ["a"]), (["nokey"], ["a"]), (["u_0_x"], ["a"]), (["_0_0"], ["a"])):
        with pytest.raises(ValueError, match=r"one batch|uid_session_index"):
            rows_of(keys, groups)
    with pytest.raises(ValueError, match="one batch"):
        BatchRows.from_sessions(["u"], [])


@pytest.mark.parametrize("options", [{"baseline": b, "group_balance": w} for b, w in
                                     [("history", 0), ("blended", 0), ("shrinkage", 0.5)]], ids=str)  # fmt: skip
@given(
    st.lists(st.tuples(st.sampled_from("pqr"), st.floats(-100, 100, width=32)), min_size=2, max_size=12), st.booleans()
)
def test_corollary_relates_the_advantages_to_verls_grpo(options, rows, norm):
    from verl.trainer.ppo import core_algos

    uids, values = [list(column) for column in zip(*rows, strict=True)]
    history = GroupHistoryManager(PGRPOConfig(norm_adv_by_std_in_grpo=norm, **options))
    history.update(["a"] * 4 + ["b"], [-3.0, 0.0, 1.0, 2.0, 30.0])
    result = history.compute_advantages(["a"] * len(values), values, uids)
    scores = torch.tensor(values, dtype=torch.float64).unsqueeze(-1)
    ones, index = torch.ones(len(values), 1), np.array(uids, dtype=object)
    grpo, _ = core_algos.compute_grpo_outcome_advantage(scores, ones, index, 1e-6, norm)
    rebuilt = result.scale * grpo[:, 0].numpy() + result.shift
    np.testing.assert_allclose(rebuilt, result.advantages, rtol=1e-6, atol=1e-5)
