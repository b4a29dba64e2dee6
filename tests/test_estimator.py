# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The estimator inside verl's own advantage step: which rows count, and who gets which advantage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import reference
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.errors import GroupLabelError, MissingGroupError, UnsupportedVerlError
from verl_pgrpo.integration.estimator import batch_of_run, compute_pgrpo_outcome_advantage
from verl_pgrpo.integration.rows import Rows, group_label, nested_value

PADDING = {"is_padding": True}


def run(rows, rewards, mask, history=None):
    """Through verl's own `compute_advantage_for_multi_trajectories`, as its V1 trainers do."""
    from verl.protocol import DataProto
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    history = history if history is not None else GroupHistoryManager()
    rewards, mask = torch.as_tensor(rewards, dtype=torch.float32), torch.as_tensor(mask)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask}, non_tensors={"uid": rows.uids}
    )
    keys = [f"{uid}_0_0" for uid in rows.uids]
    with batch_of_run(history, rows) as batch:
        data = compute_advantage_for_multi_trajectories(data, batch_keys=keys, adv_estimator="pgrpo", config={})
    torch.testing.assert_close(data.batch["advantages"], data.batch["returns"])
    return data.batch["advantages"], history, batch


def at_end(rewards, mask):
    """Token-level rewards with each response's reward on its last token."""
    out = torch.zeros(np.shape(mask))
    out[:, -1] = torch.as_tensor(rewards)
    return out


def test_advantages_are_those_of_the_reference_on_every_unmasked_token():
    keys = [f"u{i // 2}_{i % 2}_0" for i in range(6)]
    groups, rewards = ["a", "a", "b", "b", "a", "a"], [1.0, 2.0, 5.0, 5.0, 3.0, 0.5]
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 0]])
    advantages, history, batch = run(Rows.of(keys, [{}] * 6, groups), at_end(rewards, mask), mask)
    expected = torch.tensor(reference.advantages([(groups, rewards)])[0])
    torch.testing.assert_close(advantages, (expected.unsqueeze(-1) * mask).float(), rtol=1e-5, atol=1e-6)
    assert history.total_count == 6
    np.testing.assert_allclose(batch.outcome[1], rewards)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_any_type_of_mask(dtype):
    rows = Rows.of(["u_0_0", "u_1_0"], [{}] * 2, ["a", "a"])
    advantages, _, _ = run(rows, at_end([1.0, 3.0], [[1, 1]] * 2), torch.tensor([[1, 0], [1, 1]]).to(dtype))
    assert advantages.dtype == torch.float32
    torch.testing.assert_close(advantages[:, 0], torch.tensor([-1.0, 1.0]) / (2**0.5), rtol=1e-5, atol=1e-5)
    assert advantages[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_any_type_of_reward(dtype):
    rows, mask = Rows.of(["u_0_0", "u_1_0"], [{}] * 2, ["a", "a"]), torch.ones(2, 2)
    with batch_of_run(GroupHistoryManager(), rows):
        rewards = at_end([1.0, 3.0], mask).to(dtype)
        advantages, _ = compute_pgrpo_outcome_advantage(rewards, mask, index=rows.uids)
        assert advantages.is_floating_point()
        torch.testing.assert_close(advantages[:, 0].float(), torch.tensor([-0.7071, 0.7071]), rtol=1e-2, atol=1e-3)
        with pytest.raises(UnsupportedVerlError, match="twice"):
            compute_pgrpo_outcome_advantage(rewards, mask, index=rows.uids)


def test_padding_rows_never_reach_the_history():
    """verl pads with copies of the batch's first row: its group, a reward of 0."""
    rows = Rows.of(["u_0_0", "u_1_0", "padx_0_0"], [{}, {}, PADDING], ["a", "a", "a"])
    advantages, history, _ = run(rows, at_end([4.0, 6.0, 0.0], [[1, 1]] * 3), [[1, 1]] * 3)
    assert history.total_count == 2
    assert history.statistics(["a"]).mean[0] == 5.0
    assert advantages[2].abs().sum() == 0


def test_rows_with_an_empty_mask_never_reach_the_history():
    rows = Rows.of(["u_0_0", "u_1_0", "u_2_0"], [{}] * 3, ["a", "a", "a"])
    advantages, history, _ = run(rows, at_end([4.0, 6.0, 100.0], [[1, 1]] * 3), [[1, 1], [0, 1], [0, 0]])
    assert history.total_count == 2
    assert history.statistics(["a"]).mean[0] == 5.0
    assert advantages[1, 1] > 0
    assert advantages[2].abs().sum() == 0


def test_a_session_counts_once_and_all_its_outputs_get_its_advantage():
    """Outputs may lie anywhere in the batch; verl copies the last output's score to the earlier ones."""
    keys = ["u_0_1", "u_1_0", "u_0_2", "v_0_0", "u_0_10", "v_0_1"]
    rewards = [9.0, 1.0, 9.0, 7.0, 3.0, 5.0]  # the earlier outputs' own rewards must not matter
    rows = Rows.of(keys, [{}] * 6, ["a"] * 6)
    assert rows.last.tolist() == [4, 1, 4, 5, 4, 5]
    advantages, history, _ = run(rows, at_end(rewards, [[1, 1]] * 6), [[1, 1]] * 6)
    assert history.total_count == 3
    expected = reference.advantages([(["a"] * 3, [3.0, 1.0, 5.0])])[0]
    torch.testing.assert_close(
        advantages[:, 0],
        torch.tensor([expected[i] for i in (0, 1, 0, 2, 0, 2)]),
        rtol=1e-5,
        atol=1e-5,
        check_dtype=False,
    )


def test_a_session_whose_last_output_does_not_count_trains_nothing():
    rows = Rows.of(["u_0_0", "u_0_1", "u_1_0"], [{}] * 3, ["a"] * 3)
    advantages, history, _ = run(rows, at_end([3.0, 3.0, 4.0], [[1, 1]] * 3), [[1, 1], [0, 0], [1, 1]])
    assert history.total_count == 1
    assert advantages.abs().sum() == 0


def test_uids_may_contain_underscores():
    rows = Rows.of(["a_b_c_0_0", "a_b_c_1_0"], [{}] * 2, ["a", "a"])
    assert rows.uids.tolist() == ["a_b_c", "a_b_c"]


def test_missing_and_odd_groups():
    keys, rewards, mask = ["u_0_0", "v_0_0"], at_end([1.0, 2.0], [[1]] * 2), [[1], [1]]
    with pytest.raises(MissingGroupError, match=r"uid v.*preference_group"):
        run(Rows.of(keys, [{}] * 2, ["a", None]), rewards, mask)
    with pytest.raises(MissingGroupError):
        run(Rows.of(keys, [{}] * 2, ["a", "  "]), rewards, mask)
    with pytest.raises(GroupLabelError, match="float"):
        run(Rows.of(keys, [{}] * 2, ["a", 1.5]), rewards, mask)
    _, history, _ = run(
        Rows.of(keys, [{}] * 2, ["a", None]), rewards, mask, GroupHistoryManager(PGRPOConfig(missing_group="none"))
    )
    assert history.groups == ["a", "none"]
    # A padding row's group is nobody's business.
    run(Rows.of([*keys[:1], "padx_0_0"], [{}, PADDING], ["a", None]), rewards, mask)


def test_labels_and_nested_columns():
    assert [group_label(v) for v in ("x", 7, np.int64(7), None, float("nan"), "", True)] == [
        "x",
        "7",
        "7",
        None,
        None,
        None,
        True,
    ]
    assert nested_value({"user": {"segment": "s"}}, ["user", "segment"], "extra_info.user.segment") == "s"
    assert nested_value({"user": None}, ["user", "segment"], "k") is None
    assert nested_value({}, ["user"], "k") is None
    with pytest.raises(MissingGroupError, match="no fields"):
        nested_value("text", ["user"], "extra_info.user")


def test_without_a_history_the_estimator_says_so():
    with pytest.raises(UnsupportedVerlError, match="with_history"):
        compute_pgrpo_outcome_advantage(torch.zeros(1, 1), torch.ones(1, 1))


def test_rows_in_another_order_are_refused():
    history, rows = GroupHistoryManager(), Rows.of(["u_0_0", "v_0_0"], [{}] * 2, ["a", "b"])
    for uids, size in ((["v", "u"], 2), (["u", "v", "w"], 3)):
        with (
            pytest.raises(UnsupportedVerlError, match="wrong responses"),
            batch_of_run(history, rows),
        ):
            compute_pgrpo_outcome_advantage(
                torch.zeros(size, 1), torch.ones(size, 1), index=np.array(uids, dtype=object)
            )
    assert history.total_count == 0
    with pytest.raises(UnsupportedVerlError, match="without calling"), batch_of_run(history, rows):
        pass
    with pytest.raises(ValueError, match="one batch"):
        Rows.of(["u_0_0", "u_1_0"], [{}] * 2, ["a"])
    with pytest.raises(ValueError, match="uid_session_index"):
        Rows.of(["nokey"], [{}], ["a"])


def test_golden_run():
    """Three batches with everything in them, bit for bit. Renew: python -m tests.golden"""
    from tests.golden import GOLDEN, golden_run

    assert golden_run() == GOLDEN.read_text()


def test_a_result_that_is_held_keeps_its_memory():
    def once(reward):
        rows = Rows.of(["u_0_0", "u_1_0"], [{}] * 2, ["a", "a"])
        with batch_of_run(GroupHistoryManager(), rows):
            return compute_pgrpo_outcome_advantage(at_end([reward, 0.0], [[1]] * 2), torch.ones(2, 1))[0]

    first = once(1.0)[:1]  # a view of the result holds it too
    before = first.clone()
    once(-1.0)
    torch.testing.assert_close(first, before, rtol=0, atol=0)
