# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward functions, called by verl's reward manager on rows of verl's dataset."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil
import pytest

from tests.preflight.case import Case, at, problems, rows
from verl_pgrpo.preflight import Settings, preflight

pytestmark = pytest.mark.slow

GOOD = {
    "number": "def compute_score(data_source, solution_str, ground_truth, extra_info=None): return len(solution_str)",
    "awaited": "async def compute_score(**given): return {'score': 0.5, 'acc': 1.0}",
    "numpy": "import numpy\ndef compute_score(**given): return numpy.float64(0.5)",
    "decoded": "def compute_score(extra_info, **given):\n"
    "    assert given['data_source'].startswith('demo/') and given['ground_truth'] == 'jazz'\n"
    "    assert extra_info['index'] < 64 and extra_info['num_turns'] == 2\n"
    "    return 1.0",
}
BAD = {
    "raising": ("def compute_score(**given): raise KeyError('persona')", "error"),
    "raising_late": ("async def compute_score(**given): return 1 / 0", "error"),
    "raising_for_some": ("def compute_score(data_source, **given): return {'demo/a': 1.0}[data_source]", "error"),
    "not_a_number": ("def compute_score(**given): return float('nan')", "error"),
    "array": ("import numpy\ndef compute_score(**given): return numpy.ones(2)", "error"),
    "numpy_32": ("import numpy\ndef compute_score(**given): return numpy.float32(0.5)", "error"),  # torch rejects it
    "text": ("def compute_score(**given): return 'good'", "error"),
    "nothing": ("def compute_score(**given): return None", "error"),
    "nameless": ("def compute_score(**given): return {'accuracy': 1.0}", "error"),
    "not_awaited": ("async def inner(): return 1.0\ndef compute_score(**given): return inner()", "error"),
    "unnamed": ("def score(**given): return 1.0", "error"),
    "unimportable": ("import nothing_of_that_name", "error"),
    "surrogate": ("def compute_score(**given): raise ValueError('half a sign: \\ud83d')", "error"),
    "key_of_verl": ("def compute_score(**given): return {'score': 1.0, 'reward': 5.0}", "warning"),
    "other_keys": ("def compute_score(solution_str, **given):\n"
                   "    return {'score': 1.0, 'few': 1.0} if 'few' in solution_str else {'score': 1.0}", "warning"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("overrides", [(), ("actor_rollout_ref.model.path=some/model",)], ids=["here", "elsewhere"])
def test_good_reward_functions_pass(case: Case, name: str, overrides: tuple[str, ...]):
    report = case.check(case.reward(GOOD[name]), *overrides)
    assert problems(report) == set(), report.diagnostics
    assert "the reward function was called on 10 rows, 20 times" in report.facts


@pytest.mark.parametrize("name", BAD)
def test_bad_reward_functions_are_reported(case: Case, name: str):
    code, severity = BAD[name]
    report = case.check(case.reward(code))
    assert problems(report) == {(severity, "reward")}, report.diagnostics
    assert (severity, "reward") in at(report, "reward.custom_reward_function.path")
    "".join(one.message for one in report.diagnostics).encode("utf-8")


def test_a_missing_file_and_verls_own_scores(case: Case):
    assert problems(case.check("reward.custom_reward_function.path=none.py")) == {("error", "reward")}
    none = "reward.custom_reward_function.path=null"
    assert problems(case.check(none)) == {("error", "reward")}  # verl has no score for these sources
    known = [case.write(rows(data_source=lambda i: "openai/gsm8k"), split) for split in ("train", "val")]
    assert ("error", "reward") not in problems(case.check(none, *known))


def test_nonfinite_rewards_that_are_skipped(case: Case):
    nan = case.reward(BAD["not_a_number"][0])
    assert problems(case.check(nan, "+algorithm.pgrpo.on_nonfinite=skip")) == {("warning", "reward")}


def test_a_reward_that_needs_a_model_is_only_imported(case: Case):
    judge = [
        "reward.reward_model.enable=True",
        "reward.reward_model.model_path=x",
        "reward.reward_model.rollout.name=vllm",
    ]
    judge.append("reward.reward_model.rollout.tensor_model_parallel_size=1")
    assert problems(case.check(*judge, case.reward(BAD["raising"][0]))) == set()
    assert problems(case.check(*judge, case.reward(BAD["unimportable"][0]))) == {("error", "reward")}


def test_agent_loops(case: Case):
    unknown = case.write(rows(agent_name=lambda i: "mine"))
    assert ("error", "reward") in at(case.check(unknown), "train row 0")
    default = case.check("actor_rollout_ref.rollout.agent.default_agent_loop=yours")
    assert ("error", "reward") in at(default, "train row 0")
    tools = case.write(rows(agent_name=lambda i: "tool_agent"))
    assert problems(case.check(tools)) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import os\ndef compute_score(**given): os.abort()",
        "import os\nos._exit(3)",
        "import subprocess\ndef compute_score(**given): subprocess.run(['sleep', '617'])",
    ],
)
def test_code_that_ends_or_hangs_is_isolated(case: Case, code: str, monkeypatch: pytest.MonkeyPatch):
    temporary = Path(tempfile.mkdtemp())  # a short path, as a long one is not used
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    report = preflight([*case.arguments, case.reward(code)], Settings(reward_timeout=8.0 if "sleep" in code else 300.0))
    assert problems(report) == {("error", "reward")}, report.diagnostics
    assert ["sleep", "617"] not in [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
