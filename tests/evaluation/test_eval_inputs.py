# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs of `verl-pgrpo eval`: prompts, files of responses, reward functions, and model folders of all layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.generate import Sampling, _seed
from verl_pgrpo.evaluation.models import Model, find_model, parse_names
from verl_pgrpo.evaluation.prompts import read_prompts
from verl_pgrpo.evaluation.samples import Sample, read_samples, write_samples
from verl_pgrpo.evaluation.scoring import VERL_DEFAULT, RewardError, default_reward, load_reward, score

# -- prompts


def frame(rows=14, **columns):
    """Rows in verl's layout, with other columns if given."""
    names = [f"g{i % 7}" for i in range(rows)]
    taste = {"surface": "toy", "style": "slang", "genre": "metal", "offset": 1.5, "scale": 4.0, "noise": 0.0}
    data = {
        "data_source": [f"personas/{name}" for name in names],
        "prompt": [[{"role": "user", "content": f"request {i}"}] for i in range(rows)],
        "reward_model": [{"ground_truth": json.dumps(taste)}] * rows,
        "extra_info": [{"split": "val", "index": i, "segment": f"s{i % 2}"} for i in range(rows)],
        "preference_group": names,
    }
    return pd.DataFrame({**data, **columns})


@pytest.fixture
def read(tmp_path):
    def read(data, **options):
        data.to_parquet(tmp_path / "val.parquet")
        return read_prompts(tmp_path / "val.parquet", **options)

    return read


def test_prompts_of_a_validation_file(read):
    for data, options, expected in (
        (frame(), {}, ["val/0 g0 request 0", "val/1 g1 request 1"]),
        (frame(), {"group_key": "extra_info.segment"}, ["val/0 s0 request 0", "val/1 s1 request 1"]),
        (frame(preference_group=[1, 2] * 7), {}, ["val/0 1 request 0", "val/1 2 request 1"]),
        (frame()[["data_source", "prompt"]], {}, ["row/0 g0 request 0", "row/1 g1 request 1"]),
    ):
        assert [f"{one.id} {one.group} {one.text}" for one in read(data, **options)[:2]] == expected
    limited = read(frame(20, preference_group=["a"] * 15 + ["b"] * 5), limit=8)
    assert [prompt.id for prompt in limited] == [f"val/{i}" for i in (0, 1, 2, 3, 15, 16, 17, 18)]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (frame().drop(columns="prompt"), {}, "'prompt'"),
        (frame(prompt=None), {}, "row 1: the prompt"),
        (frame(preference_group=[*"abcdefghijklm", None]), {}, "row 14: no preference group"),
        (frame(preference_group=1.5), {}, "row 1: no preference group"),
        (frame(), {"group_key": "segment"}, "'segment'"),
        (frame(), {"limit": 0}, "--limit"),
        (frame()[:0], {}, "no rows"),
    ],
)
def test_bad_data_is_named(read, data, options, message):
    with pytest.raises(DataError, match=message):
        read(data, **options)


# -- files of responses

LINE = {"prompt_id": 3, "preference_group": "g", "prompt": [{"role": "user", "content": "hi"}], "response": "r"}


def test_responses_survive_a_file(tmp_path):
    first = {"prompt_id": "1", "preference_group": "g\u2028", "prompt": "p\n", "response": "r \u2028 \x85 \u2029 é"}
    nulls = {"sample": None, "model": None, "values": None}
    samples = [Sample(**first, sample=1, score=0.5, values={"score": 0.5, "fun": None}), Sample(**LINE, **nulls)]
    write_samples(tmp_path / "s.jsonl", samples)
    assert read_samples(tmp_path / "s.jsonl") == samples
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 2
    assert (samples[1].prompt_id, samples[1].prompt) == ("3", "hi")


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"sample": 1.5}, "sample"), ({"score": -1e200}, "score"), ({"score": float("nan")}, "score"),
        ({"values": {"x": 10**400}}, ""), ({"preference_group": 3}, "preference_group"), ({"prompt": None}, "prompt"),
        ("[" * 100_000, ""), ("nul\0", ""), ('{"response": "\\ud800"}', ""),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line, field):
    (tmp_path / "s.jsonl").write_text("\n" + (line if isinstance(line, str) else json.dumps({**LINE, **line})))
    with pytest.raises(DataError, match=rf"s\.jsonl, line 2: {field}"):
        read_samples(tmp_path / "s.jsonl")


# -- reward functions

REWARDS = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, factor=1):
    return factor * len(solution_str)

async def later(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": 2.0, "note": "x", "hit": True, "turns": extra_info["num_turns"], "mark": float("nan")}

def broken(**kwargs): raise KeyError("gone")
def nothing(**kwargs): return {"utility": 1}
def endless(**kwargs): return 10**5000
"""


def test_rewards_are_loaded_and_called_as_verl_does(tmp_path, read):
    (tmp_path / "mine.py").write_text(REWARDS)
    mine = f"{tmp_path}/mine.py"

    def values(name, prompts, response="four", **arguments):
        sample = Sample(prompt_id="val/0", preference_group="g", prompt="?", response=response)
        score([sample], {prompt.id: prompt for prompt in prompts}, load_reward(name, arguments))
        return sample.values

    prompts = read(frame())
    assert values(mine, prompts, factor=3) == {"score": 12.0}
    assert values(f"{mine}:later", prompts) == {"score": 2.0, "hit": 1.0, "turns": 2.0, "mark": None}
    for name, message in (
        (f"{mine}:broken", r"val/0, sample 0: KeyError\('gone'\)"),
        (f"{mine}:nothing", "val/0"),
        (f"{mine}:endless", "val/0 is too large"),
        (f"{mine}:missing", "missing"),
        ("pkg://no.such.module", "ModuleNotFoundError"),
    ):
        with pytest.raises(RewardError, match=message):
            values(name, prompts)
    # Without --reward: the recipe's, else verl's.
    assert values(default_reward(prompts), prompts) == {"score": 1.5, "utility": 0.0}
    prompts = read(frame(data_source="openai/gsm8k", reward_model=[{"ground_truth": "4"}] * 14))
    assert default_reward(prompts) == VERL_DEFAULT
    assert values(VERL_DEFAULT, prompts, "It is #### 4") == {"score": 1.0}
    for source in ("mine/x", "judge/x"):  # rewards/judge.py is no reward function
        with pytest.raises(RewardError, match=f"'{source}'; give --reward"):
            default_reward(read(frame(data_source=source)))


# -- models

MODEL, ADAPTER = ["config.json", "model.safetensors"], ["adapter_config.json", "adapter_model.safetensors"]
STEP = "run/global_step_2"
SAVED, EXPORTED, MERGED = f"{STEP}/actor/huggingface", f"{STEP}/actor/model/huggingface", f"{STEP}/merged"
OLDER, BY_MERGER = f"{STEP}/actor/lora_adapter", f"{MERGED}/lora_adapter"
SHARDS = {f"{STEP}/actor": ["fsdp_config.json"], SAVED: ["config.json"]}
MERGE = f"--backend fsdp --local_dir {STEP}/actor --target_dir {STEP}/merged, then name {STEP}/merged$"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write folders of empty files, and a base model. Adapters are for it unless `config` says otherwise."""
    monkeypatch.chdir(tmp_path)

    def write(folders, **config):
        config = {"r": 4, "lora_alpha": 8, "rank_pattern": {}, "base_model_name_or_path": "base", **config}
        for folder, files in {"base": MODEL, **folders}.items():
            Path(folder).mkdir(parents=True, exist_ok=True)
            for file in files:
                Path(folder, file).write_text(json.dumps(config) if file == "adapter_config.json" else "")

    return write


@pytest.mark.parametrize(
    ("folders", "paths", "weights", "adapter"),
    [
        ({SAVED: MODEL}, [STEP, f"{STEP}/actor", SAVED], SAVED, None),
        ({EXPORTED: MODEL}, [STEP], EXPORTED, None),
        ({EXPORTED: ["config.json"], f"{EXPORTED}/adapter": ADAPTER}, [STEP], "base", f"{EXPORTED}/adapter"),
        ({MERGED: MODEL, BY_MERGER: ADAPTER}, [MERGED, BY_MERGER], MERGED, BY_MERGER),
        ({"peft": ADAPTER}, ["peft"], "base", "peft"),
        ({**SHARDS, OLDER: ADAPTER}, [STEP, SAVED], "base", OLDER),
        ({SAVED: MODEL, OLDER: ADAPTER}, [SAVED], SAVED, OLDER),
    ],
)
def test_a_model_and_its_adapter_are_found_where_verl_saves_them(write, folders, paths, weights, adapter):
    write(folders)
    for path in paths:
        expected = Model("m", Path(weights), adapter and Path(adapter), lora_rank=4 if adapter else 0)
        assert find_model("m", Path(path)) == expected


def test_the_default_name_is_the_last_distinctive_part():
    paths = ["x/hf", SAVED, "run/global_step_3/merged/lora_adapter", "mine=x/hf"]
    assert [name for name, _ in parse_names(paths, "--model")] == ["hf", "global_step_2", "global_step_3", "mine"]
    for bad in (["run", "x/run"], ["a b=y"]):
        with pytest.raises(DataError, match="--model"):
            parse_names(bad, "--model")


@pytest.mark.parametrize(
    ("folders", "config", "path", "message"),
    [
        (SHARDS, {}, STEP, MERGE),
        (SHARDS, {}, SAVED, MERGE),
        ({f"{STEP}/actor/model/dist_ckpt": [], EXPORTED: ["config.json"]}, {}, STEP, "--backend megatron"),
        ({"run/global_step_10": [], STEP: []}, {}, "run", "global_step_10$"),
        ({}, {}, "none", "hf download"),
        ({"empty": ["config.json"]}, {}, "empty", "no weights"),
        ({"data": ["x"]}, {}, "data", r"no config\.json"),
        ({"peft": ADAPTER}, {"lora_alpha": 0}, "peft", "lora_alpha"),
        ({"peft": ADAPTER}, {"r": None}, "peft", "adapter_config"),
        ({"peft": ADAPTER}, {"alpha_pattern": {"q_proj": 1}}, "peft", "vLLM ignores alpha_pattern"),
        ({"peft": ADAPTER}, {"base_model_name_or_path": "gone"}, "peft", "base_model_name_or_path"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_that_helps(write, folders, config, path, message):
    write(folders, **config)
    with pytest.raises(DataError, match=message):
        find_model("m", Path(path))


def test_an_unmerged_lora_model_is_an_error(write):
    write({SAVED: ["config.json"]})
    name = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"
    save_file({name: torch.zeros(2, 2)}, Path(SAVED, "model.safetensors"))
    with pytest.raises(DataError, match="--backend fsdp"):
        find_model("m", Path(STEP))


# -- sampling


def test_sampling_is_checked_and_prompts_have_distant_seeds():
    """vLLM uses the prompt's seed plus n for the n-th response, so neighboring seeds would share responses."""
    for options in ({"samples": 0}, {"temperature": -1}, {"top_p": 0}, {"temperature": 0, "samples": 2}):
        with pytest.raises(DataError, match="--"):
            Sampling(**options)
    Sampling(temperature=0)
    seeds = sorted(_seed(0, f"val/{i}") for i in range(1000))
    assert min(np.diff(seeds)) > 16
    assert _seed(0, "val/1") != _seed(1, "val/1")
    assert 0 <= seeds[0] <= seeds[-1] < 2**31
