# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs of `verl-pgrpo eval`: prompts, files of responses, reward functions, and model folders of all layouts."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.generate import Sampling, _seed
from verl_pgrpo.evaluation.models import find_model, parse_names
from verl_pgrpo.evaluation.prompts import read_prompts
from verl_pgrpo.evaluation.samples import Sample, read_samples, write_samples
from verl_pgrpo.evaluation.scoring import VERL_DEFAULT, RewardError, default_reward, load_reward, score

# -- prompts


def frame(rows=14, groups=7):
    """Rows in verl's layout."""
    names = [f"g{i % groups}" for i in range(rows)]
    taste = {"surface": "toy", "style": "slang", "genre": "metal", "offset": 1.5, "scale": 4.0, "noise": 0.0}
    return pd.DataFrame(
        {
            "data_source": [f"personas/{name}" for name in names],
            "prompt": [[{"role": "user", "content": f"request {i}"}] for i in range(rows)],
            "reward_model": [{"ground_truth": json.dumps(taste)}] * rows,
            "extra_info": [{"split": "val", "index": i, "segment": f"s{i % 2}"} for i in range(rows)],
            "preference_group": names,
        }
    )


def test_prompts_of_a_validation_file(tmp_path):
    def read(data, **options):
        data.to_parquet(tmp_path / "val.parquet")
        return read_prompts(tmp_path / "val.parquet", **options)

    prompts = read(frame())
    assert [(prompt.id, prompt.text) for prompt in prompts[:2]] == [("val/0", "request 0"), ("val/1", "request 1")]
    assert {prompt.group for prompt in read(frame(), group_key="extra_info.segment")} == {"s0", "s1"}
    limited = read(frame(rows=20, groups=2).assign(preference_group=["a"] * 15 + ["b"] * 5), limit=8)
    assert Counter(prompt.group for prompt in limited) == {"a": 4, "b": 4}
    assert [prompt.id for prompt in limited] == [f"val/{i}" for i in (0, 1, 2, 3, 15, 16, 17, 18)]
    for labels in ([1, 2] * 7, pd.Categorical(["1", "2"] * 7)):
        assert [prompt.group for prompt in read(frame().assign(preference_group=labels))] == ["1", "2"] * 7
    prompts = read(frame().drop(columns=["preference_group", "extra_info"]))
    assert [(prompt.id, prompt.group) for prompt in prompts[:2]] == [("row/0", "g0"), ("row/1", "g1")]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(columns="prompt"), {}, "no column 'prompt'"),
        (lambda f: f.assign(prompt=None), {}, "row 1: the prompt is not a list of chat messages"),
        (lambda f: f.assign(preference_group=[*f["preference_group"][1:], None]), {}, "row 14: no preference group"),
        (lambda f: f.assign(preference_group=1.5), {}, "row 1: no preference group"),
        (lambda f: f, {"group_key": "segment"}, "no column 'segment'; it has"),
        (lambda f: f, {"limit": 0}, "--limit must be at least 1"),
        (lambda f: f[:0], {}, "has no rows"),
    ],
)
def test_bad_data_is_named(tmp_path, change, options, message):
    change(frame()).to_parquet(tmp_path / "val.parquet")
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / "val.parquet", **options)
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_prompts(tmp_path / "x.parquet")


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
        ("[" * 100_000, ""), ("nul\0", ""), ('{"response": "\\ud800"}', ""), ("\ufeff{}", ""),
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
def nan(**kwargs): return float("nan")
def huge(**kwargs): return 1e200
def endless(**kwargs): return 10**5000
"""


def test_rewards_are_loaded_and_called_as_verl_does(tmp_path):
    (tmp_path / "mine.py").write_text(REWARDS)

    def prompts(data):
        data.to_parquet(tmp_path / "val.parquet")
        return {prompt.id: prompt for prompt in read_prompts(tmp_path / "val.parquet")}

    def scored(name, response="four", data=prompts(frame()), **arguments):  # noqa: B008
        sample = Sample(prompt_id="val/0", preference_group="g", prompt="?", response=response)
        score([sample], data, load_reward(name, arguments))
        return sample

    assert default_reward(prompts(frame()).values()) == "pkg://verl_pgrpo.rewards.personas"
    assert scored("pkg://verl_pgrpo.rewards.personas").values == {"score": 1.5, "utility": 0.0}
    mine = f"{tmp_path}/mine.py"
    assert scored(mine, factor=3).score == 12
    assert scored(f"{mine}:later").values == {"score": 2.0, "hit": 1.0, "turns": 2.0, "mark": None}
    assert scored(f"{mine}:nan").score is None, "left out and counted by `Scores`"
    for name, message in [
        (f"{mine}:broken", r"fails on prompt val/0, sample 0: KeyError\('gone'\)"),
        (f"{mine}:nothing", "no number as score for prompt val/0"),
        (f"{mine}:huge", "score for prompt val/0 is too large"),
        (f"{mine}:endless", "score for prompt val/0 is too large"),
        (f"{mine}:missing", "missing"),
        (f"{mine}x", "not found"),
        ("pkg://no.such.module", "ModuleNotFoundError"),
    ]:
        with pytest.raises(RewardError, match=message):
            scored(name)
    math = prompts(frame().assign(data_source="openai/gsm8k", reward_model=[{"ground_truth": "4"}] * 14))
    assert default_reward(math.values()) == VERL_DEFAULT
    assert scored(VERL_DEFAULT, "It is #### 4", math).score == 1.0
    with pytest.raises(RewardError, match="data_source 'mine/x'; give --reward"):
        default_reward(prompts(frame().assign(data_source="mine/x")).values())


# -- models


def make(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def make_adapter(folder, **config):
    make(folder, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, **config}))
    return folder


MODEL = ("config.json", "model.safetensors")


def test_a_model_is_found_where_verl_saves_it(tmp_path):
    plain = make(tmp_path / "hf", *MODEL)
    step = tmp_path / "run/global_step_2"
    saved = make(step / "actor/huggingface", *MODEL)
    megatron = make(tmp_path / "run/global_step_3/actor/model/huggingface", *MODEL)
    for path in (step, step / "actor", saved):
        assert find_model("m", path).path == saved
    assert find_model("m", tmp_path / "run/global_step_3").path == megatron
    names = parse_names([str(plain), str(step / "actor"), str(megatron), f"mine={plain}"], "--model")
    assert [name for name, _ in names] == ["hf", "global_step_2", "global_step_3", "mine"]
    assert all(find_model(*pair).adapter is None for pair in names)
    for twice in (["run", "x/run"], ["a b=y"]):
        with pytest.raises(DataError, match="--model"):
            parse_names(twice, "--model")


def test_shards_and_other_folders_are_errors_that_help(tmp_path):
    shards = make(tmp_path / "run/global_step_4", "actor/fsdp_config.json", "actor/huggingface/config.json")
    for path in (shards, shards / "actor", shards / "actor/huggingface"):
        with pytest.raises(DataError) as error:
            find_model("m", path)
        command = f"python -m verl.model_merger merge --backend fsdp --local_dir {shards}/actor"
        assert f"{command} --target_dir {shards}/merged, then name {shards}/merged" in str(error.value)
    megatron = make(tmp_path / "run/global_step_10", "actor/model/dist_ckpt/x", "actor/model/huggingface/config.json")
    for path, message in [
        (megatron, "--backend megatron"),
        (tmp_path / "run", r"holds 2 checkpoints; name one, such as .*global_step_10$"),
        (tmp_path / "none", "no such folder; for a model on the Hub: hf download"),
        (make(tmp_path / "empty", "config.json"), "no weights"),
        (make(tmp_path / "data", "x"), r"no config\.json"),
    ]:
        with pytest.raises(DataError, match=message):
            find_model("m", path)


def test_an_adapter_is_applied_or_an_error_but_never_left_out(tmp_path):
    base, steps = make(tmp_path / "base", *MODEL), tmp_path / "run"
    merged = make(steps / "global_step_1/merged", *MODEL)
    adapter = make_adapter(merged / "lora_adapter", rank_pattern={})
    for path in (merged, adapter):  # as verl's merger writes it
        model = find_model("m", path)
        assert (model.path, model.adapter, model.lora_rank) == (merged, adapter, 4)
    assert parse_names([str(adapter)], "--model")[0][0] == "global_step_1"
    named = {"base_model_name_or_path": str(base)}
    peft = make_adapter(tmp_path / "peft", **named)
    older = make_adapter(steps / "global_step_2/actor/lora_adapter", **named)
    make(steps / "global_step_2/actor", "fsdp_config.json", "huggingface/config.json")
    make(steps / "global_step_3/actor/model/huggingface", "config.json")
    exported = make_adapter(steps / "global_step_3/actor/model/huggingface/adapter", **named)
    saved = make(steps / "global_step_4/actor/huggingface", *MODEL)
    in_checkpoint = make_adapter(steps / "global_step_4/actor/lora_adapter")
    for path, weights, found in [
        (peft, base, peft),
        (steps / "global_step_2", base, older),
        (steps / "global_step_2/actor/huggingface", base, older),
        (steps / "global_step_3", base, exported),
        (saved, saved, in_checkpoint),
    ]:
        model = find_model("m", path)
        assert (model.path, model.adapter) == (weights, found)
    # What cannot be applied:
    unmerged = make(steps / "global_step_5/actor/huggingface", "config.json")
    name = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"
    save_file({name: torch.zeros(2, 2)}, unmerged / "model.safetensors")
    for folder, config, message in [
        (merged / "lora_adapter", {"lora_alpha": 0}, "lora_alpha is 0"),
        (merged / "lora_adapter", {"r": None}, "does not describe a LoRA adapter"),
        (merged / "lora_adapter", {"alpha_pattern": {"q_proj": 1}}, "vLLM ignores alpha_pattern"),
        (peft, {"base_model_name_or_path": None}, "no base weights for the adapter"),
        (peft, {"base_model_name_or_path": str(tmp_path / "gone")}, "no base weights for the adapter"),
        (peft, None, r"unmerged LoRA model.*verl\.model_merger merge"),
    ]:
        if config is not None:
            make_adapter(folder, **config)
        with pytest.raises(DataError, match=message):
            find_model("m", folder if config is not None else steps / "global_step_5")


# -- sampling


def test_sampling_is_checked_and_prompts_have_distant_seeds():
    """vLLM uses the prompt's seed plus n for the n-th response, so neighbouring seeds would share responses."""
    for options in ({"samples": 0}, {"temperature": -1}, {"top_p": 0}, {"temperature": 0, "samples": 2}):
        with pytest.raises(DataError, match="--"):
            Sampling(**options)
    Sampling(temperature=0)
    seeds = sorted(_seed(0, f"val/{i}") for i in range(1000))
    assert min(np.diff(seeds)) > 16
    assert _seed(0, "val/1") == _seed(0, "val/1") != _seed(1, "val/1")
    assert 0 <= seeds[0] <= seeds[-1] < 2**31
