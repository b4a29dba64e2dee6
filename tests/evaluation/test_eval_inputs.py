# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs of `verl-pgrpo eval`: prompts, files of responses, reward functions, and model folders of all layouts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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


def frame(rows: int = 14, groups: int = 7) -> pd.DataFrame:
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


def test_prompts_of_a_validation_file(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "val.parquet")
    prompts = read_prompts(tmp_path / "val.parquet")
    assert [(prompt.id, prompt.text) for prompt in prompts[:2]] == [("val/0", "request 0"), ("val/1", "request 1")]
    skewed = frame(rows=20, groups=2).assign(preference_group=["a"] * 15 + ["b"] * 5)
    skewed.to_parquet(tmp_path / "skewed.parquet")
    limited = read_prompts(tmp_path / "skewed.parquet", limit=8)
    assert Counter(prompt.group for prompt in limited) == {"a": 4, "b": 4}
    assert [prompt.id for prompt in limited] == [f"val/{i}" for i in (0, 1, 2, 3, 15, 16, 17, 18)]
    assert {p.group for p in read_prompts(tmp_path / "val.parquet", "extra_info.segment")} == {"s0", "s1"}
    bare = frame().drop(columns=["preference_group", "extra_info"])
    bare.to_parquet(tmp_path / "bare.parquet")
    prompts = read_prompts(tmp_path / "bare.parquet")
    assert [(prompt.id, prompt.group) for prompt in prompts[:2]] == [("row/0", "g0"), ("row/1", "g1")]


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int64(), pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_groups_of_any_column_type_are_the_same_labels(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array(["1", "2"] * 7).cast(kind) if pa.types.is_integer(kind) else pa.array(["1", "2"] * 7, kind)
    table = pa.Table.from_pandas(frame().drop(columns="preference_group")).append_column("preference_group", values)
    pq.write_table(table, tmp_path / "val.parquet")
    assert [prompt.group for prompt in read_prompts(tmp_path / "val.parquet")] == ["1", "2"] * 7


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(columns="prompt"), {}, "no column 'prompt'; it has data_source"),
        (lambda f: f.assign(prompt=None), {}, "row 1: the prompt is not a list of chat messages"),
        (lambda f: f.assign(preference_group=[*f["preference_group"][1:], None]), {}, "row 14: no preference group"),
        (lambda f: f.assign(preference_group=1.5), {}, "row 1: no preference group"),
        (lambda f: f.drop(columns="preference_group").assign(data_source=None), {}, "row 1: no preference group"),
        (lambda f: f, {"group_key": "segment"}, "no column 'segment'; it has"),
        (lambda f: f, {"limit": 0}, "--limit must be at least 1"),
        (lambda f: f[:0], {}, "has no rows"),
    ],
)
def test_bad_data_is_named(tmp_path: Path, change: Any, options: dict[str, Any], message: str) -> None:
    change(frame()).to_parquet(tmp_path / "val.parquet")
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / "val.parquet", **options)
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_prompts(tmp_path / "x.parquet")


# -- files of responses

LINE = {"prompt_id": 3, "preference_group": "g", "prompt": [{"role": "user", "content": "hi"}], "response": "r"}


def test_responses_survive_a_file(tmp_path: Path) -> None:
    first = {"prompt_id": "1", "preference_group": "g\u2028", "prompt": "p\n", "response": "r \u2028 \x85 \u2029 é"}
    nulls = {"sample": None, "model": None, "values": None}
    samples = [Sample(**first, sample=1, score=0.5, values={"score": 0.5, "fun": None}), Sample(**LINE, **nulls)]
    write_samples(tmp_path / "s.jsonl", samples)
    assert read_samples(tmp_path / "s.jsonl") == samples
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 2
    assert (samples[1].prompt_id, samples[1].prompt) == ("3", "hi")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sample": 1.5}, "sample"), ({"score": -1e200}, "score"), ({"score": float("nan")}, "score"),
        ({"values": {"x": 10**400}}, ""), ({"preference_group": 3}, "preference_group"), ({"prompt": None}, "prompt"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    (tmp_path / "s.jsonl").write_text("\n" + json.dumps({**LINE, **change}))
    with pytest.raises(DataError, match=rf"s\.jsonl, line 2: {field}"):
        read_samples(tmp_path / "s.jsonl")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a":' * 100_000, "nul\0", '{"response": "\\ud800"}', "\ufeff{}"])
def test_no_text_breaks_the_reader(tmp_path: Path, line: str) -> None:
    (tmp_path / "s.jsonl").write_text(line)
    with pytest.raises(DataError, match="line 1"):
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


def test_rewards_are_loaded_and_called_as_verl_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REWARDS)
    frame().to_parquet(tmp_path / "val.parquet")
    prompts = {prompt.id: prompt for prompt in read_prompts(tmp_path / "val.parquet")}

    def scored(name: str, **arguments: Any) -> Sample:
        sample = Sample(prompt_id="val/0", preference_group="g", prompt="?", response="four")
        score([sample], prompts, load_reward(name, arguments))
        return sample

    assert default_reward(prompts.values()) == "pkg://verl_pgrpo.rewards.personas"
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


def test_verls_own_rewards_are_the_default_for_its_data(tmp_path: Path) -> None:
    frame().assign(data_source="openai/gsm8k", reward_model=[{"ground_truth": "4"}] * 14).to_parquet(tmp_path / "v")
    prompts = {prompt.id: prompt for prompt in read_prompts(tmp_path / "v")}
    assert default_reward(prompts.values()) == VERL_DEFAULT
    sample = Sample(prompt_id="val/0", preference_group="g", prompt="?", response="It is #### 4")
    score([sample], prompts, load_reward(VERL_DEFAULT, {}))
    assert sample.score == 1.0
    frame().assign(data_source="mine/x").to_parquet(tmp_path / "v")
    with pytest.raises(RewardError, match="data_source 'mine/x'; give --reward"):
        default_reward(read_prompts(tmp_path / "v"))


# -- models


def make(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def make_adapter(folder: Path, **config: Any) -> Path:
    make(folder, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, **config}))
    return folder


def test_a_model_is_found_where_verl_saves_it(tmp_path: Path) -> None:
    plain = make(tmp_path / "hf", "config.json", "model.safetensors")
    step = tmp_path / "run/global_step_2"
    saved = make(step / "actor/huggingface", "config.json", "model.safetensors")
    for path in (step, step / "actor", saved):
        assert find_model("m", path).path == saved
    megatron = make(tmp_path / "run/global_step_3/actor/model/huggingface", "config.json", "model.safetensors")
    assert find_model("m", tmp_path / "run/global_step_3").path == megatron
    names = parse_names([str(plain), str(step / "actor"), str(megatron), f"mine={plain}"], "--model")
    assert [name for name, _ in names] == ["hf", "global_step_2", "global_step_3", "mine"]
    assert all(find_model(*pair).adapter is None for pair in names)


def test_shards_and_other_folders_are_errors_that_help(tmp_path: Path) -> None:
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
    with pytest.raises(DataError, match="the name 'run' is used twice"):
        parse_names(["run", "x/run"], "--model")
    with pytest.raises(DataError, match="cannot be a file name"):
        parse_names(["a b=y"], "--model")


def test_an_adapter_is_never_left_out(tmp_path: Path) -> None:
    base = make(tmp_path / "base", "config.json", "model.safetensors")
    merged = make(tmp_path / "run/global_step_1/merged", "config.json", "model.safetensors")
    adapter = make_adapter(merged / "lora_adapter", rank_pattern={})
    for path in (merged, adapter):  # as verl's merger writes it
        model = find_model("m", path)
        assert (model.path, model.adapter, model.lora_rank) == (merged, adapter, 4)
    assert parse_names([str(adapter)], "--model")[0][0] == "global_step_1"
    peft = make_adapter(tmp_path / "peft", base_model_name_or_path=str(base))
    older = make_adapter(tmp_path / "run/global_step_2/actor/lora_adapter", base_model_name_or_path=str(base))
    make(tmp_path / "run/global_step_2/actor", "fsdp_config.json", "huggingface/config.json")
    bridge = make(tmp_path / "run/global_step_3/actor/model/huggingface", "config.json")
    saved = make(tmp_path / "run/global_step_4/actor/huggingface", "config.json", "model.safetensors")
    beside = make_adapter(tmp_path / "run/global_step_4/actor/lora_adapter")
    assert (find_model("m", saved).path, find_model("m", saved).adapter) == (saved, beside)
    exported = make_adapter(bridge / "adapter", base_model_name_or_path=str(base))
    steps = tmp_path / "run"
    for path, found in [
        (peft, peft),
        (steps / "global_step_2", older),
        (steps / "global_step_2/actor/huggingface", older),
        (steps / "global_step_3", exported),
    ]:
        model = find_model("m", path)
        assert (model.path, model.adapter) == (base, found)


def test_an_adapter_that_cannot_be_applied_is_an_error(tmp_path: Path) -> None:
    merged = make(tmp_path / "merged", "config.json", "model.safetensors")
    unmerged = make(tmp_path / "global_step_1/actor/huggingface", "config.json")
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{name}.base_layer.weight": torch.zeros(2, 2)}, unmerged / "model.safetensors")
    with pytest.raises(DataError, match=r"unmerged LoRA model.*verl\.model_merger merge"):
        find_model("m", tmp_path / "global_step_1")
    for config, message in [
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"r": None}, "does not describe a LoRA adapter"),
        ({"alpha_pattern": {"q_proj": 1}}, "vLLM ignores alpha_pattern"),
    ]:
        make_adapter(merged / "lora_adapter", **config)
        with pytest.raises(DataError, match=message):
            find_model("m", merged)
    for named in (None, "org/base", str(tmp_path / "gone")):
        with pytest.raises(DataError, match="no base weights for the adapter"):
            find_model("m", make_adapter(tmp_path / "peft", base_model_name_or_path=named))


# -- sampling


def test_sampling_that_vllm_would_reject_late() -> None:
    for options in ({"samples": 0}, {"temperature": -1}, {"top_p": 0}, {"temperature": 0, "samples": 2}):
        with pytest.raises(DataError, match="--"):
            Sampling(**options)
    Sampling(temperature=0)


def test_prompts_have_distant_seeds() -> None:
    """vLLM gives the n-th response the prompt's seed plus n: neighbouring seeds would share responses."""
    seeds = sorted(_seed(0, f"val/{i}") for i in range(1000))
    assert min(np.diff(seeds)) > 16
    assert _seed(0, "val/1") == _seed(0, "val/1") != _seed(1, "val/1")
    assert 0 <= seeds[0] <= seeds[-1] < 2**31
