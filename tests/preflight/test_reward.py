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
    "awaited": "async def compute_score(**given): return {'score': 0.5, 'acc': 1.0}",
    "numpy": "import numpy\ndef compute_score(**given): return numpy.float64(0.5)",
    "decoded": "def compute_score(extra_info, **given):\n"
    "    assert given['data_source'].startswith('demo/') and given['ground_truth'] == 'jazz'\n"
    "    assert extra_info['index'] < 64 and extra_info['num_turns'] == 2\n"
    "    return 1.0",
}
BAD = {
    "raising": "raise KeyError('persona')",
    "raising_for_some": "return {'demo/a': 1.0}[given['data_source']]",
    "not_a_number": "return float('nan')",
    "array": "import numpy; return numpy.ones(2)",
    "numpy_32": "import numpy; return numpy.float32(0.5)",  # torch rejects it
    "text": "return 'good'",
    "nothing": "return None",
    "nameless": "return {'accuracy': 1.0}",
    "surrogate": "raise ValueError('half a sign: \\ud83d')",
    "key_of_verl": "return {'score': 1.0, 'reward': 5.0}",
    "other_keys": "return {'score': 1.0, 'few': 1.0} if 'few' in given['solution_str'] else {'score': 1.0}",
}
BAD = {name: f"def compute_score(**given): {body}" for name, body in BAD.items()}
BAD |= {
    "raising_late": "async def compute_score(**given): return 1 / 0",
    "not_awaited": "async def inner(): return 1.0\ndef compute_score(**given): return inner()",
    "unnamed": "def score(**given): return 1.0",
    "unimportable": "import nothing_of_that_name",
}
WARNINGS = {"key_of_verl", "other_keys"}


@pytest.mark.parametrize("name", GOOD)
def test_good_reward_functions_pass(case: Case, name: str):
    elsewhere = ("actor_rollout_ref.model.path=some/model",) if name == "decoded" else ()
    report = case.check(case.reward(GOOD[name]), *elsewhere)
    assert problems(report) == set(), report.diagnostics
    assert "the reward function was called on 10 rows, 20 times" in report.facts


@pytest.mark.parametrize("name", BAD)
def test_bad_reward_functions_are_reported(case: Case, name: str, monkeypatch: pytest.MonkeyPatch):
    # Nothing is captured of verl's log, because pytest-xdist cannot send half a sign.
    monkeypatch.setattr("verl.trainer.ppo.v1.agent_loop_tq.logger.propagate", False)
    report, severity = case.check(case.reward(BAD[name])), "warning" if name in WARNINGS else "error"
    assert problems(report) == {(severity, "reward")}, report.diagnostics
    assert (severity, "reward") in at(report, "reward.custom_reward_function.path")
    "".join(one.message for one in report.diagnostics).encode("utf-8")


TYPES = "return {'score': 1.0, 'm': 'text' if 'few' in given['solution_str'] else 1.0}"
SOME = "return {'score': 1.0, 'few': 1.0} if 'few' in given['solution_str'] else {'score': 1.0}"


@pytest.mark.parametrize("use_v1", [True, False])
@pytest.mark.parametrize(
    ("body", "settings", "severity"),
    [
        ("return {'score': 1.0, 'details': {'a': 1}}", ("trainer.test_freq=5",), "error"),
        ("return {'score': 1.0, 'details': {'a': 1}}", (), None),  # without validation, nothing is averaged
        (TYPES, ("trainer.test_freq=5", "actor_rollout_ref.rollout.val_kwargs.n=2"), "error"),
        ("return {'score': 1.0, 'pred': 'x', 'acc': None}", ("trainer.test_freq=5",), None),
        ("return {'score': 1.0, 'output': 'x'}", ("trainer.validation_data_dir=dumps",), "warning"),
        ("return {'score': 1.0, 'output': 'x'}", (), None),
    ],
)
def test_values_and_keys_that_verls_validation_cannot_use(case: Case, use_v1: bool, body: str, settings, severity):
    report = case.check(case.reward(f"def compute_score(**given): {body}"), f"trainer.use_v1={use_v1}", *settings)
    assert problems(report) == (set() if severity is None else {(severity, "reward")}), report.diagnostics


def test_the_older_trainers_need_the_same_keys_for_every_row(case: Case):
    code = case.reward(f"def compute_score(**given): {SOME}")
    assert problems(case.check(code, "trainer.use_v1=False")) == {("error", "reward")}


def test_a_missing_file_verls_own_scores_and_skipped_rewards(case: Case):
    assert problems(case.check("reward.custom_reward_function.path=none.py")) == {("error", "reward")}
    none = "reward.custom_reward_function.path=null"
    assert problems(case.check(none)) == {("error", "reward")}  # verl has no score for these sources
    known = [case.write(rows(data_source=lambda i: "openai/gsm8k"), split) for split in ("train", "val")]
    assert ("error", "reward") not in problems(case.check(none, *known))
    skipped = case.check(case.reward(BAD["not_a_number"]), "+algorithm.pgrpo.on_nonfinite=skip")
    assert problems(skipped) == {("warning", "reward")}


def test_a_reward_that_needs_a_model_is_only_imported(case: Case):
    model = {"enable": True, "model_path": "x", "rollout.name": "vllm", "rollout.tensor_model_parallel_size": 1}
    judge = [f"reward.reward_model.{key}={value}" for key, value in model.items()]
    assert problems(case.check(*judge, case.reward(BAD["raising"]))) == set()
    assert problems(case.check(*judge, case.reward(BAD["unimportable"]))) == {("error", "reward")}


def test_agent_loops(case: Case):
    unknown = case.check(case.write(rows(agent_name=lambda i: "mine")))
    default = case.check("actor_rollout_ref.rollout.agent.default_agent_loop=yours")
    later = case.check(case.write(rows(agent_name=lambda i: "mine" if i == 40 else "tool_agent")))
    assert ("error", "reward") in at(later, "train row 40")
    for report in (unknown, default):
        assert ("error", "reward") in at(report, "train row 0")
    assert problems(case.check(case.write(rows(agent_name=lambda i: "tool_agent")))) == set()


@pytest.mark.parametrize(
    "code",
    [
        "import os\ndef compute_score(**given): os.abort()",
        "import os\nos._exit(3)",
        "import subprocess\ndef compute_score(**given): subprocess.run(['sleep', '617'])",
    ],
)
def test_code_that_ends_or_hangs_is_isolated(case: Case, code: str, monkeypatch: pytest.MonkeyPatch):
    temporary = Path(tempfile.mkdtemp())  # a short path, because a long one would not be used
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    report = preflight([*case.arguments, case.reward(code)], Settings(reward_timeout=8.0 if "sleep" in code else 300.0))
    assert problems(report) == {("error", "reward")}, report.diagnostics
    assert ["sleep", "617"] not in [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
