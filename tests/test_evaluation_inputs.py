# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What `verl-pgrpo eval` works on: prompts, samples, reward functions and models, as people and verl leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.personas import make_split
from verl_pgrpo.evaluation.errors import RewardError
from verl_pgrpo.evaluation.generate import Sampling, _seed
from verl_pgrpo.evaluation.models import folder_of, models_of, named
from verl_pgrpo.evaluation.prompts import read_prompts
from verl_pgrpo.evaluation.rewards import load_reward, reward_of, score
from verl_pgrpo.evaluation.samples import Sample, read_samples, write_samples

# --------------------------------------------------------------------------------------------------------- what is read


def test_prompts_of_a_validation_parquet(tmp_path: Path) -> None:
    make_split("val", 14, seed=3).to_parquet(tmp_path / "val.parquet")
    prompts = read_prompts(tmp_path / "val.parquet")
    assert [prompt.id for prompt in prompts] == [f"val/{i}" for i in range(14)]
    assert prompts[0].messages[0]["role"] == "user"
    assert prompts[0].text == prompts[0].messages[0]["content"]
    limited = read_prompts(tmp_path / "val.parquet", limit=7)
    assert len({prompt.group for prompt in limited}) == 7, "even over the groups"
    assert [p for p in prompts if p in limited] == limited, "in the data's order, with the same ids"
    assert {p.group for p in read_prompts(tmp_path / "val.parquet", "extra_info.random_group")} == {
        p.group for p in prompts
    }


def test_the_group_is_found_without_its_column_too(tmp_path: Path) -> None:
    frame = make_split("val", 7).drop(columns=["preference_group", "extra_info"])
    frame.to_parquet(tmp_path / "val.parquet")
    prompts = read_prompts(tmp_path / "val.parquet")
    assert [f"personas/{prompt.group}" for prompt in prompts] == list(frame["data_source"])
    assert [prompt.id for prompt in prompts] == [f"row/{i}" for i in range(7)]
    for source in (None, 3):
        frame.assign(data_source=source).to_parquet(tmp_path / "val.parquet")
        with pytest.raises(DataError, match="row 1: no preference group in 'preference_group'"):
            read_prompts(tmp_path / "val.parquet")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(columns="prompt"), {}, "no column 'prompt'; it has data_source"),
        (lambda f: f.assign(prompt=None), {}, "row 1: the prompt is no list of chat messages"),
        (lambda f: f.assign(preference_group=[" ", *f["preference_group"][1:]]), {}, "row 1: no preference group in"),
        (lambda f: f, {"group_key": "segment"}, r"row 1: no column 'segment' \(--group-key\)"),
        (lambda f: f, {"limit": 0}, "--limit must be at least 1"),
        (lambda f: f[:0], {}, "has no rows"),
    ],
)
def test_bad_data_is_named(tmp_path: Path, change: Any, options: dict[str, Any], message: str) -> None:
    change(make_split("val", 7)).to_parquet(tmp_path / "val.parquet")
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / "val.parquet", **options)


def test_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("x")
    for name, message in (("none.parquet", "no such file"), ("x.parquet", "not a Parquet file")):
        with pytest.raises(DataError, match=message):
            read_prompts(tmp_path / name)


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    samples = [
        Sample("1", "g\u2028", "p\n", "r \u2028 \x85 \u2029 x", 1, "m", 0.5, {"score": 0.5, "utility": 1.0}),
        Sample("2", "h", "q", "s"),
    ]
    write_samples(tmp_path / "s.jsonl", samples)
    assert read_samples(tmp_path / "s.jsonl") == samples
    assert set(json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])) >= {
        "prompt_id", "preference_group", "prompt", "response",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [tmp_path / "s.jsonl"]
    row = {"prompt_id": 3, "preference_group": "g", "prompt": [{"role": "user", "content": "hi"}], "response": "\ud800"}
    (tmp_path / "s.jsonl").write_text(json.dumps(row))
    assert read_samples(tmp_path / "s.jsonl") == [Sample("3", "g", "hi", "\\ud800")]


# -------------------------------------------------------------------------------------------------------------- rewards


def test_the_recipes_reward_is_found_and_called_as_verl_calls_it(tmp_path: Path) -> None:
    make_split("val", 7).to_parquet(tmp_path / "val.parquet")
    prompts = read_prompts(tmp_path / "val.parquet")
    assert reward_of(prompts) == "pkg://verl_pgrpo.rewards.personas"
    truth = json.loads(prompts[0].ground_truth)
    samples = [Sample(prompts[0].id, prompts[0].group, prompts[0].text, "")]
    score(samples, {prompts[0].id: prompts[0]}, load_reward(reward_of(prompts)), {})
    assert samples[0].values == {"score": truth["offset"], "utility": 0.0}
    other = make_split("val", 7).assign(data_source="mine/x")
    other.to_parquet(tmp_path / "other.parquet")
    with pytest.raises(RewardError, match="no recipe's reward is for data_source 'mine'; give --reward"):
        reward_of(read_prompts(tmp_path / "other.parquet"))


REWARDS = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, factor=1):
    return factor * len(solution_str)

async def later(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": 2.0, "note": "x", "hit": True}

def broken(**kwargs):
    raise KeyError("gone")

def nothing(**kwargs):
    return {"utility": 1}

def infinite(**kwargs):
    return float("nan")

def huge(**kwargs):
    return 1e200

def endless(**kwargs):
    return 10**5000
"""


def test_rewards_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REWARDS)
    make_split("val", 7).to_parquet(tmp_path / "val.parquet")
    prompts = {prompt.id: prompt for prompt in read_prompts(tmp_path / "val.parquet")}

    def scored(function: str, **arguments: Any) -> Sample:
        sample = Sample("val/0", "g", "?", "four")
        score([sample], prompts, load_reward(f"{tmp_path}/mine.py{function}"), arguments)
        return sample

    assert scored("", factor=3).score == 12
    assert scored(":later").values == {"score": 2.0, "hit": 1.0}
    for function, message in [
        (":broken", r"fails on prompt val/0, sample 0: KeyError\('gone'\)"),
        (":nothing", "gives no number as score for prompt val/0"),
        (":infinite", "score for prompt val/0 is nan"),
        (":huge", r"score for prompt val/0 is 1e\+200"),
        (":endless", "score for prompt val/0 is inf"),
        (":missing", "has no function 'missing'"),
        ("x", "no such file; a module is named pkg://"),
    ]:
        with pytest.raises(RewardError, match=message):
            scored(function)
    with pytest.raises(RewardError, match="cannot be imported: ModuleNotFoundError"):
        load_reward("pkg://no.such.module")


# --------------------------------------------------------------------------------------------------------------- models


def test_a_model_is_found_where_verl_leaves_it(tmp_path: Path) -> None:
    def folder(name: str, *files: str) -> Path:
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / name

    plain = folder("hf", "config.json", "model.safetensors")
    assert folder_of(plain) == plain
    saved = folder("run/global_step_2", "actor/huggingface/config.json", "actor/huggingface/model.safetensors")
    for path in (saved, saved / "actor", saved / "actor" / "huggingface"):
        assert folder_of(path) == saved / "actor" / "huggingface"
    merged = folder("run/global_step_3/merged", "config.json", "model.safetensors")
    paths = [str(plain), str(saved / "actor"), str(merged), f"mine={plain}"]
    assert [model.name for model in models_of(paths)] == [
        "hf", "global_step_2", "global_step_3", "mine",
    ]  # fmt: skip
    shards = folder("run/global_step_4", "actor/fsdp_config.json", "actor/huggingface/config.json")
    for path in (shards, shards / "actor", shards / "actor" / "huggingface"):
        with pytest.raises(DataError) as error:
            folder_of(path)
        command = f"python -m verl.model_merger merge --backend fsdp --local_dir {shards}/actor"
        assert f"{command} --target_dir {shards}/merged, then name {shards}/merged" in str(error.value)
    megatron = folder("run/global_step_10", "actor/model/dist_ckpt/x", "actor/model/huggingface/config.json")
    with pytest.raises(DataError, match="--backend megatron"):
        folder_of(megatron)
    with pytest.raises(DataError, match=r"holds 4 checkpoints; name one, such as .*global_step_10$"):
        folder_of(tmp_path / "run")
    with pytest.raises(DataError, match="no such folder; of a model on the Hub: hf download"):
        folder_of(tmp_path / "none")
    with pytest.raises(DataError, match="no weights"):
        folder_of(folder("empty", "config.json"))
    with pytest.raises(DataError, match=r"no config\.json"):
        folder_of(folder("data", "x"))
    with pytest.raises(DataError, match="a second one of the name 'hf'; give NAME=PATH"):
        models_of([str(plain), str(plain)])
    with pytest.raises(DataError, match="cannot be the name of a file"):
        named(["../x=y", "a b=y"], "--model")


def test_what_vllm_would_refuse_late() -> None:
    for options in ({"samples": 0}, {"temperature": -1}, {"top_p": 0}, {"temperature": 0, "samples": 2}):
        with pytest.raises(DataError, match="--"):
            Sampling(**options).check()
    Sampling(temperature=0).check()


def test_a_prompts_seed_is_its_own() -> None:
    """vLLM gives the n-th response the prompt's seed plus n: seeds next to each other would share responses."""
    seeds = sorted(_seed(0, f"val/{i}") for i in range(1000))
    assert min(np.diff(seeds)) > 16
    assert _seed(0, "val/1") == _seed(0, "val/1") != _seed(1, "val/1")
    assert 0 <= seeds[0] <= seeds[-1] < 2**31
