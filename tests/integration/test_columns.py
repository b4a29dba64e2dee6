# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Names that the installed verl uses, and a history's groups compared with the data's."""

from __future__ import annotations

import inspect

import pytest

from verl_pgrpo.integration.columns import check_columns, reserved_columns, reserved_reward_keys
from verl_pgrpo.integration.resume import compare_groups

pytest.importorskip("verl")


def errors(use_v1: bool) -> set[str]:
    return {name for name, one in reserved_columns(use_v1).items() if one.severity == "error"}


def test_names_are_those_of_verls_signatures_and_fields():
    """Names derived from the source equal those of the objects. `agent_name` and later names come from the row."""
    from verl.experimental.agent_loop import AgentLoopOutput, AgentLoopWorker
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics

    run = list(inspect.signature(AgentLoopWorker._run_agent_loop).parameters)
    end = list(inspect.signature(AgentLoopWorker._agent_loop_postprocess).parameters)
    for use_v1 in (True, False):
        assert {*run[: run.index("agent_name")], *end} - {"kwargs"} <= errors(use_v1)
    assert "session_id" in reserved_columns(True)
    assert "session_id" not in reserved_columns(False)
    values = {"prompt_ids": [1], "response_ids": [1], "response_mask": [1], "response_logprobs": [0.0], "num_turns": 2}
    extra = {"teacher_ids": [1], "teacher_logprobs": [0.0]}
    output = AgentLoopOutput(
        **values, reward_score=1.0, metrics=AgentLoopMetrics(), routed_experts=[[[0]]], extra_fields=extra
    )
    assert set(output.as_dict()) <= errors(True)


def test_columns_of_verls_data_format_are_free():
    names = ["data_source", "prompt", "ability", "reward_model", "extra_info", "preference_group", "agent_name"]
    for use_v1 in (True, False):
        assert check_columns([*names, "images"], use_v1) == []
    found = check_columns(["prompt", "output", "uid"])
    assert [(one.name, one.severity) for one in found] == [("output", "error"), ("uid", "warning")]
    assert all(one.name in str(one) and "verl/" in str(one) for one in found)
    assert "reward" in reserved_reward_keys()
    assert not {"score", "acc", "pred"} & set(reserved_reward_keys())


@pytest.mark.parametrize(
    ("history", "data", "severity"),
    [("ab", "ab", None), ("", "ab", None), ("ab", "cd", "error"), ("ab", "bc", "warning"), ("a", "ab", "note")],
)
def test_groups_of_a_history_against_the_data(history: str, data: str, severity: str | None):
    found = compare_groups(list(history), list(data))
    assert (found.severity if found else None) == severity
