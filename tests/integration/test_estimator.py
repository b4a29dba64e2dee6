# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The estimator inside verl's own advantage step: which rows count, and which advantage each row gets."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.core import reference
from tests.core.test_history import computed
from verl_pgrpo import GroupLabelError, MissingGroupError, PGRPOConfig, UnsupportedVerlError
from verl_pgrpo.integration.batch import BatchRows, GroupColumn
from verl_pgrpo.integration.estimator import compute_pgrpo_outcome_advantage
from verl_pgrpo.integration.state import PGRPOState

U = ["u_0_0", "u_1_0"]


def rows_of(keys, groups=None):
    """Rows of a batch; those of a prompt `padx` are padding."""
    tags = [{"is_padding": True} if key.startswith("padx") else {} for key in keys]
    return BatchRows.from_keys(keys, tags, groups or ["a"] * len(keys))


def run(rows, rewards, mask):
    """Compute advantages (N, T) by verl's own `compute_advantage_for_multi_trajectories`, as its V1 trainers do."""
    from verl.protocol import DataProto
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    state = PGRPOState(PGRPOConfig())
    tensors = {"token_level_rewards": at_end(rewards, mask), "response_mask": torch.as_tensor(mask)}
    data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": np.array(rows.uids, dtype=object)})
    keys = [f"{uid}_0_0" for uid in rows.uids]
    step = functools.partial(compute_advantage_for_multi_trajectories, data, keys, adv_estimator="pgrpo", config={})
    data = state.advantage_step(rows, step)
    torch.testing.assert_close(data.batch["advantages"], data.batch["returns"])
    return data.batch["advantages"], state


def at_end(rewards, mask):
    """Token-level rewards with each response's reward on its last token."""
    out = torch.zeros(np.shape(mask))
    out[:, -1] = torch.as_tensor(rewards)
    return out


def test_every_token_gets_the_references_advantage_of_its_session():
    """A session counts once, by its last output, unless that is padding or has no token. Outputs are in any order.

    verl pads with copies of the batch's first row, and copies the last output's score to the earlier ones.
    """
    batch = [  # key, group, reward, mask, and the place of the session's reward among those that count
        ("u_0_1", "a", 9.0, [1, 1, 0], 0),
        ("u_1_0", "a", 1.0, [1, 0, 1], 1),
        ("u_0_2", "a", 9.0, [1, 1, 1], 0),
        ("v_0_0", "b", 7.0, [1, 1, 1], 3),
        ("u_0_10", "a", 3.0, [0, 1, 1], 0),
        ("w_0_0", "b", 2.0, [1, 0, 0], 2),
        ("v_0_1", "b", 5.0, [1, 1, 1], 3),
        ("v_1_0", "b", 100.0, [0, 0, 0], None),
        ("w_1_0", "b", 3.0, [1, 1, 1], None),
        ("w_1_1", "b", 100.0, [0, 0, 0], None),
        ("padx_0_0", None, 0.0, [1, 1, 1], None),
    ]
    keys, groups, rewards, mask, session = (list(column) for column in zip(*batch, strict=True))
    advantages, state = run(rows_of(keys, groups), rewards, mask)
    (expected,) = reference.advantages([(["a", "a", "b", "b"], [3.0, 1.0, 2.0, 5.0])])
    of_row = torch.tensor([0.0 if place is None else expected[place] for place in session])
    wanted = of_row.unsqueeze(-1) * torch.tensor(mask)
    torch.testing.assert_close(advantages, wanted, rtol=1e-5, atol=1e-5)
    assert state.end_step()["pgrpo/observed_total"] == 4


TYPES = [(torch.int64, torch.float32), (torch.float32, torch.bfloat16), (torch.bool, torch.float16)]
TYPES += [(torch.int64, torch.float64), (torch.bool, torch.int64)]


@pytest.mark.parametrize(("mask_type", "reward_type"), TYPES)
def test_any_type_of_mask_and_reward(mask_type, reward_type):
    rows, mask = rows_of(U), torch.tensor([[1, 0], [1, 1]], dtype=mask_type)
    rewards = at_end([1.0, 3.0], mask).to(reward_type)
    state = PGRPOState(PGRPOConfig())
    advantages, _ = state.advantage_step(rows, lambda: compute_pgrpo_outcome_advantage(rewards, mask, rows.uids))
    assert advantages.is_floating_point()
    wanted = torch.tensor([[-0.7071, 0.0], [0.7071, 0.7071]])
    torch.testing.assert_close(advantages, wanted, rtol=1e-2, atol=1e-3, check_dtype=False)


sessions = st.tuples(st.sampled_from(["u", "u_1", "v"]), st.integers(0, 2), st.integers(0, 11), st.booleans())


@given(st.lists(sessions, unique_by=lambda row: row[:3], max_size=12))
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
        run(rows_of(U, ["a", bad]), [1.0, 2.0], [[1], [1]])


def test_groups_of_a_nested_column():
    column = GroupColumn.parse("extra_info.user.id", ["prompt", "extra_info"])
    values = [{"user": {"id": 7}}, {"user": None}, {}, None, {"user": {"id": " "}}]
    assert column.labels(values) == ["7", None, None, None, None]
    assert GroupColumn.parse("n").labels(torch.tensor([3, 4])) == ["3", "4"]
    with pytest.raises(MissingGroupError, match="extra_info"):
        column.labels(["text"])


OTHER = [(["v", "u"], 1), (["u", "v", "w"], 1), (["u", "v"], 2), (["u", "v"], 0), (None, 2)]


@pytest.mark.parametrize(("uids", "times"), OTHER)
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
    for keys, groups in ((U, ["a"]), (["nokey"], ["a"]), (["u_0_x"], ["a"]), (["_0_0"], ["a"])):
        with pytest.raises(ValueError, match=r"one batch|uid_session_index"):
            rows_of(keys, groups)
    with pytest.raises(ValueError, match="one batch"):
        BatchRows.from_sessions(["u"], [])


OPTIONS = [{}, {"baseline": "blended"}, {"baseline": "shrinkage", "group_balance": 0.5}]
prompts = st.lists(st.tuples(st.sampled_from("pqr"), st.floats(-100, 100, width=32)), min_size=2, max_size=12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(prompts, st.booleans())
def test_corollary_relates_the_advantages_to_verls_grpo(options, rows, norm):
    from verl.trainer.ppo import core_algos

    uids, values = [list(column) for column in zip(*rows, strict=True)]
    config, past = PGRPOConfig(norm_adv_by_std_in_grpo=norm, **options), (["a"] * 4 + ["b"], [-3, 0, 1, 2, 30])
    result = computed(config, ["a"] * len(values), values, uids, past=[past])
    scores = torch.tensor(values, dtype=torch.float64).unsqueeze(-1)
    ones, index = torch.ones(len(values), 1), np.array(uids, dtype=object)
    grpo, _ = core_algos.compute_grpo_outcome_advantage(scores, ones, index, 1e-6, norm)
    rebuilt = result.scale * grpo[:, 0].numpy() + result.shift
    np.testing.assert_allclose(rebuilt, result.advantages, rtol=1e-6, atol=1e-5)
