# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What `preflight` says of the reward function, which it runs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.preflight_case import Case, changed, serious
from verl_pgrpo.launch.check_reward_model import check_reward_model
from verl_pgrpo.launch.command_line import compose, parse
from verl_pgrpo.launch.finding import Found
from verl_pgrpo.launch.run import Run, Settings

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
def test_verls_own_scores(case: Case):
    [(severity, check, said)] = serious(case.check("reward.custom_reward_function.path=null", reward=True))
    assert (severity, check) == ("error", "reward")
    assert "NotImplementedError" in said
    assert "6 other messages" in said  # one for each data_source
    known = case.written(changed("data_source", "openai/gsm8k")(case.data()))
    other = case.written(changed("data_source", "openai/gsm8k")(case.data("val")), "val")
    assert serious(case.check(known, other, "reward.custom_reward_function.path=null", reward=True)) == []


JUDGE = ["reward.reward_model.enable=True", "reward.reward_model.model_path=x", "reward.reward_model.rollout.name=vllm"]
ALONE = "reward.reward_model.rollout.tensor_model_parallel_size=1"
MODEL = "reward.reward_model"
POOL = f"{MODEL}.enable_resource_pool=True"


@pytest.mark.slow
def test_a_reward_that_asks_a_model_is_imported_and_not_run(case: Case):
    report = case.check(*JUDGE, ALONE, reward=True)
    assert serious(report) == []
    notes = [one.what for one in report.findings if one.severity == "note"]
    assert "the reward function is only imported: it asks a reward model, which is not there yet" in notes
    assert any("the reward model x is not on this machine" in note for note in notes)
    for path, said in (("none.py", "Custom module file not found"), ("unimportable", "No module named 'nothing_of")):
        if path in REWARDS:
            case.out.mkdir(exist_ok=True)
            (case.out / f"{path}.py").write_text(REWARDS[path])
            path = f"{case.out}/{path}.py"
        [(severity, check, told)] = serious(
            case.check(*JUDGE, ALONE, f"reward.custom_reward_function.path={path}", reward=True)
        )
        assert (severity, check) == ("error", "reward")
        assert said in told


WRONG_MODELS = [
    ([f"{MODEL}.model_path=null"], "no reward model is named"),
    ([f"{MODEL}.model_path=/models/none"], "there is no folder /models/none"),
    ([f"{MODEL}.rollout.name=vlm"], "no rollout is called 'vlm'"),
    ([f"{MODEL}.rollout.tensor_model_parallel_size=2"], "the reward model's GPUs (1) is not divisible by"),
    ([POOL, f"{MODEL}.nnodes=0", f"{MODEL}.n_gpus_per_node=8"], "reward_model.nnodes=0 is no whole number"),
    ([POOL, f"{MODEL}.nnodes=1", f"{MODEL}.n_gpus_per_node=0"], "reward_model.n_gpus_per_node=0 is no whole number"),
    ([POOL, f"{MODEL}.nnodes=1", f"{MODEL}.n_gpus_per_node=3", f"{MODEL}.rollout.tensor_model_parallel_size=2"],
     "the reward model's GPUs (3) is not divisible by its TP x DP (2)"),
    ([f"{MODEL}.enable=False", POOL, f"{MODEL}.nnodes=0"], "reward_model.nnodes=0 is no whole number"),
    ([f"{MODEL}.rollout.name=trtllm", "reward.custom_reward_function.path=null"], "in TensorRT-LLM"),
    ([f"{MODEL}.rollout.skip_tokenizer_init=True"], "a reward model needs its tokenizer"),
    ([f"{MODEL}.rollout.pipeline_model_parallel_size=2"], "pipeline_model_parallel_size > 1"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "said"), WRONG_MODELS, ids=lambda value: str(value)[:60])
def test_what_is_wrong_with_a_reward_model_is_named(case: Case, overrides: list[str], said: str):
    case.out.mkdir(exist_ok=True)
    (case.out / "good.py").write_text(REWARDS["good"])
    own = f"reward.custom_reward_function.path={case.out}/good.py"
    [(severity, check, told)] = serious(case.check(*JUDGE, ALONE, own, *overrides))
    assert (severity, check) == ("error", "config")
    assert said in told


def test_a_reward_models_folder(case: Case):
    model = shutil.copytree(case.folder / "model", case.out / "judge")
    here = [*JUDGE, ALONE, f"{MODEL}.model_path={model}"]
    for damage, said in (
        (lambda: None, None),
        ("model.safetensors", "weights of the reward model"),
        ("config.json", "no config.json"),
    ):
        if isinstance(damage, str):
            (model / damage).unlink()
        found = Found("reward")
        check_reward_model(Run(compose(parse([*case.arguments, *here])), Settings()), found)
        serious_ones = [one.what for one in found.findings if one.severity != "note"]
        assert [said in one for one in serious_ones] == [True] * (said is not None), serious_ones


SOURCES = """
def compute_score(data_source, **given):
    if data_source == "task/{bad}": raise KeyError(data_source)
    import time; time.sleep({seconds})
    return 1.0
"""


@pytest.mark.slow
def test_all_sources_are_tried_while_there_is_time(case: Case):
    case.out.mkdir(exist_ok=True)
    validation = case.data("val").assign(data_source=[f"task/{row % 60:02}" for row in range(70)])
    other = case.written(validation, "val")
    path = case.out / "reward.py"
    path.write_text(SOURCES.format(bad="59", seconds=0))
    own = f"reward.custom_reward_function.path={path}"
    found = serious(case.check(other, own, reward=True, reward_timeout=60.0))
    assert [said for _, check, said in found if check == "reward"] == [
        "the reward function raised KeyError: 'task/59' (2 of 136 calls, validation row 59 for one)"
    ]
    # Of a slow one the first rows must do: that there was no time for others is no error.
    path.write_text(SOURCES.format(bad="none", seconds=0.1))
    report = case.check(other, own, reward=True, reward_timeout=9.0)
    assert [one for one in serious(report) if one[1] == "reward"] == []
    assert any("the reward function ran on" in fact and "68 rows" not in fact for fact in report.facts), report.facts


def test_an_error_that_cannot_be_printed(case: Case):
    case.out.mkdir(exist_ok=True)
    (case.out / "odd.py").write_text("def compute_score(**given): raise ValueError('half a sign: \\ud83d')")
    [(severity, _, said)] = serious(
        case.check(f"reward.custom_reward_function.path={case.out}/odd.py", reward=True, reward_timeout=60.0)
    )
    assert severity == "error"
    assert "half a sign: \\ud83d" in said
    said.encode("utf-8")
