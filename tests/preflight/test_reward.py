# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward functions, called by verl's reward manager on rows of verl's dataset."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil
import pytest

from tests.preflight.case import Case, at, problems
from verl_pgrpo.preflight import Settings, preflight

pytestmark = pytest.mark.slow

VALIDATED, V0 = "trainer.test_freq=5", "trainer.use_v1=False"
SKIP = "+algorithm.pgrpo.on_nonfinite=skip"
SOME_KEYS = "return {'score': 1.0, 'few': 1.0} if 'few' in given['solution_str'] else {'score': 1.0}"
TWO_TYPES = "return {'score': 1.0, 'm': 'text' if 'few' in given['solution_str'] else 1.0}"
DETAILS = "return {'score': 1.0, 'details': {'a': 1}}"
BODIES = [
    (None, "import numpy; return numpy.float64(0.5)", ()),
    ("error", "return {'demo/a': 1.0}[given['data_source']]", ()),
    ("error", "raise ValueError('half a sign: \\ud83d')", ()),
    ("error", "return float('nan')", ()),
    ("warning", "return float('nan')", (SKIP,)),
    ("error", "import numpy; return numpy.ones(2)", ()),
    ("error", "import numpy; return numpy.float32(0.5)", ()),  # torch rejects it
    ("error", "return None", ()),
    ("error", "return {'accuracy': 1.0}", ()),
    ("warning", "return {'score': 1.0, 'reward': 5.0}", ()),  # a key of verl
    ("warning", "return {'score': 1.0, 'output': 'x'}", ("trainer.validation_data_dir=dumps",)),
    (None, "return {'score': 1.0, 'output': 'x'}", ()),
    ("warning", SOME_KEYS, ()),
    ("error", SOME_KEYS, (V0,)),
    (None, DETAILS, ()),  # without validation, nothing is averaged
    ("error", DETAILS, (VALIDATED,)),
    ("error", DETAILS, (VALIDATED, V0)),
    ("error", TWO_TYPES, (VALIDATED, "actor_rollout_ref.rollout.val_kwargs.n=2")),
    ("error", TWO_TYPES, (VALIDATED, "actor_rollout_ref.rollout.val_kwargs.n=2", V0)),
    (None, "return {'score': 1.0, 'pred': 'x', 'acc': None}", (VALIDATED,)),
    (None, "return {'score': 1.0, 'pred': 'x', 'acc': None}", (VALIDATED, V0)),
]
DECODED = """
def compute_score(extra_info, **given):
    assert given['data_source'].startswith('demo/') and given['ground_truth'] == 'jazz'
    assert extra_info['index'] < 64 and extra_info['num_turns'] == 2
    return 1.0
"""
FUNCTIONS = [
    *((severity, f"def compute_score(**given): {body}", overrides) for severity, body, overrides in BODIES),
    (None, DECODED, ("actor_rollout_ref.model.path=some/model",)),
    (None, "async def compute_score(**given): return {'score': 0.5, 'acc': 1.0}", ()),
    ("error", "async def compute_score(**given): return 1 / 0", ()),
    ("error", "async def inner(): return 1.0\ndef compute_score(**given): return inner()", ()),
    ("error", "def score(**given): return 1.0", ()),
    ("error", "import nothing_of_that_name", ()),
]


@pytest.mark.parametrize(("severity", "code", "overrides"), FUNCTIONS)
def test_reward_functions(case: Case, severity, code, overrides, monkeypatch):
    # Nothing is captured of verl's log, because pytest-xdist cannot send half a sign.
    monkeypatch.setattr("verl.trainer.ppo.v1.agent_loop_tq.logger.propagate", False)
    report = case.rehearse(case.reward(code), *overrides)
    expected = {(severity, "reward")} if severity else set()
    assert problems(report) == problems(report, "reward.custom_reward_function.path") == expected, report.diagnostics
    assert severity or "the reward function was called on 10 rows, 20 times" in report.facts
    "".join(one.message for one in report.diagnostics).encode("utf-8")


def test_a_missing_file_and_verls_own_scores(case: Case):
    assert problems(case.rehearse("reward.custom_reward_function.path=none.py")) == {("error", "reward")}
    own = "reward.custom_reward_function.path=null"
    assert problems(case.rehearse(own)) == {("error", "reward")}  # verl has no score for these sources
    known = [case.write(split=split, data_source="openai/gsm8k") for split in ("train", "val")]
    assert ("error", "reward") not in problems(case.rehearse(own, *known))


def test_a_reward_that_needs_a_model_is_only_imported(case: Case):
    model = {"enable": True, "model_path": "x", "rollout.name": "vllm", "rollout.tensor_model_parallel_size": 1}
    judge = [f"reward.reward_model.{key}={value}" for key, value in model.items()]
    assert problems(case.rehearse(*judge, case.reward("def compute_score(**given): return 1 / 0"))) == set()
    assert problems(case.rehearse(*judge, case.reward("import nothing_of_that_name"))) == {("error", "reward")}


def test_agent_loops(case: Case):
    unknown = case.rehearse(case.write(agent_name="mine"))
    default = case.rehearse("actor_rollout_ref.rollout.agent.default_agent_loop=yours")
    later = case.rehearse(case.write(agent_name=lambda i: "mine" if i == 40 else "tool_agent"))
    for report, row in ((unknown, 0), (default, 0), (later, 40)):
        assert ("error", "reward") in at(report, f"train row {row}")
    assert problems(case.rehearse(case.write(agent_name="tool_agent"))) == set()


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
