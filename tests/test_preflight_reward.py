# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What `preflight` says of the reward function, which it runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil
import pytest

from tests.preflight_case import Case, changed, serious

pytestmark = pytest.mark.launch

pytest.importorskip("verl")


REWARDS = {
    "good": "def compute_score(data_source, solution_str, ground_truth, extra_info=None): return len(solution_str)",
    "awaited": "async def compute_score(**given): return {'score': 0.5}",
    "raising": "def compute_score(**given): raise KeyError('persona')",
    "raising_late": "async def compute_score(**given): return 1 / 0",
    "ending": "import sys\ndef compute_score(**given): sys.exit(3)",
    "killed": "import os\ndef compute_score(**given): os.abort()",
    "hanging": "import subprocess\ndef compute_score(**given): subprocess.run(['sleep', '617'])",
    "not_a_number": "def compute_score(**given): return float('nan')",
    "array": "import numpy\ndef compute_score(**given): return numpy.ones(1)",
    "text": "def compute_score(**given): return 'good'",
    "nameless": "def compute_score(**given): return {'reward': 1.0}",
    "not_awaited": "async def inner(): return 1.0\ndef compute_score(**given): return inner()",
    "unnamed": "def score(**given): return 1.0",
    "unimportable": "import nothing_of_that_name",
    "ending_import": "import sys; sys.exit('no licence')",
    "other_keys": "def compute_score(solution_str, **given):\n"
    "    return {'score': 1.0, 'few': 1.0} if 'few' in solution_str else {'score': 1.0}",
}
SAID = [
    ("raising", "raised KeyError: 'persona' (30 of 30 calls, training row 0 for one)"),
    ("raising_late", "raised ZeroDivisionError: division by zero"),
    ("ending", "ended its process with status 3, on training row 0"),
    ("killed", "ended its process with status -6, on training row 0"),
    ("hanging", "did not finish in 10 s, on training row 0"),
    ("not_a_number", "returned nan as the score"),
    ("array", "returned a score of type ndarray, which verl cannot store"),
    ("text", "returned 'good' of type str as the score, not a number"),
    ("nameless", "returned a dict without 'score', with reward"),
    ("not_awaited", "returned a coroutine"),
    ("unnamed", "raised AttributeError: Object not found in module: object_name='compute_score'"),
    ("unimportable", "from ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    ("ending_import", "ended its process with status 1, at its import: no licence"),
    ("missing", "Custom module file not found"),
]


def rewarded(case: Case, name: str):
    path = case.out / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    if name in REWARDS:
        path.write_text(REWARDS[name])
    patience = 10.0 if name == "hanging" else 60.0
    return case.check(f"reward.custom_reward_function.path={path}", reward=True, reward_timeout=patience)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "said"), SAID)
def test_what_is_wrong_with_the_reward_function_is_named(case: Case, name: str, said: str):
    found = serious(rewarded(case, name))
    assert [one[:2] for one in found] == [("error", "reward")], found
    assert said in found[0][2]
    assert ["sleep", "617"] not in [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]


@pytest.mark.slow
def test_good_reward_functions_pass_and_leave_nothing_behind(case: Case, monkeypatch: pytest.MonkeyPatch):
    temporary = Path(tempfile.mkdtemp())  # a short path, as a long one is not used
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for name in ("good", "awaited"):
        assert serious(rewarded(case, name)) == []
    [(severity, check, said)] = serious(rewarded(case, "other_keys"))
    assert (severity, check) == ("warning", "reward")
    assert "few for some rows only" in said
    assert list(temporary.iterdir()) == []
    temporary.rmdir()


@pytest.mark.slow
def test_verls_own_scores_and_a_reward_that_asks_a_model(case: Case):
    [(severity, check, said)] = serious(case.check("reward.custom_reward_function.path=null", reward=True))
    assert (severity, check) == ("error", "reward")
    assert "NotImplementedError" in said
    assert "6 other messages" in said  # one for each data_source
    known = case.written(changed("data_source", "openai/gsm8k")(case.data()))
    other = case.written(changed("data_source", "openai/gsm8k")(case.data("val")), "val")
    assert serious(case.check(known, other, "reward.custom_reward_function.path=null", reward=True)) == []
    judge = [
        "reward.reward_model.enable=True",
        "reward.reward_model.model_path=x",
        "reward.reward_model.rollout.name=vllm",
    ]
    report = case.check(*judge, reward=True)
    assert serious(report) == []
    assert any(one.severity == "note" and "not run: it asks a reward model" in one.what for one in report.findings)
