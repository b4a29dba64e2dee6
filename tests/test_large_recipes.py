# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The recipes for GPUs, without GPUs: what each script would launch is composed, validated by verl, checked for what
must divide and agree, and its memory estimated. Then the same for scripts that have been edited into nonsense."""

from __future__ import annotations

import copy
import importlib.util
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from verl_pgrpo.errors import ConfigError
from verl_pgrpo.launch import MODELS, Launch, Parallel, estimate, model_of, problems
from verl_pgrpo.launch.recorded import arguments_of, composed

pytestmark = pytest.mark.slow

pytest.importorskip("verl")

ROOT = Path(__file__).resolve().parent.parent
PERSONAS = ROOT / "recipes" / "personas"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MEMORY_TABLE = load(ROOT / "recipes" / "memory_table.py")
SCRIPTS = {script.stem.removeprefix("run_").rpartition("_")[0]: script for script in MEMORY_TABLE.SCRIPTS}
MODES = MEMORY_TABLE.MODES

every_recipe = pytest.mark.parametrize("name", SCRIPTS)
every_mode = pytest.mark.parametrize("mode", MODES)


@cache
def recipe(name: str, mode: str) -> DictConfig:
    """The configuration that a recipe launches; shared by tests, which only read it."""
    return composed(arguments_of(SCRIPTS[name], MODE=mode))


def edited(name: str, mode: str, *arguments: str, **variables: str) -> DictConfig:
    """A recipe with other variables and arguments. What the script then launches is its own; only what differs is set
    in the composed configuration, as composing the whole again takes ten times as long."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    script, config = SCRIPTS[name], copy.deepcopy(recipe(name, mode))
    was, now = arguments_of(script, MODE=mode), arguments_of(script, *arguments, MODE=mode, **variables)
    if {argument.partition("=")[0] for argument in was} - {argument.partition("=")[0] for argument in now}:
        return composed(now)
    different = [argument for argument in now if argument not in was]
    for override in OverridesParser.create().parse_overrides(different):
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    return config


def complaints(config: DictConfig) -> list[str]:
    """Everything that is said against a launch."""
    launch = Launch.of(config)
    model = model_of(launch.model_path)
    return problems(model, launch) or estimate(model, launch).problems()


# ------------------------------------------------------------------------------------------------------ as they are


def test_every_gpu_script_is_tested():
    assert {script for script in PERSONAS.glob("run_*.sh") if "cpu" not in script.stem} == set(SCRIPTS.values())


@every_mode
@every_recipe
def test_recipe_is_accepted(name: str, mode: str, capsys: pytest.CaptureFixture[str]):
    config = recipe(name, mode)
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    assert "passed successfully" in capsys.readouterr().out
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)  # its own assertions
    assert complaints(config) == []
    assert config.algorithm.adv_estimator == "pgrpo"
    assert config.trainer.v1.trainer_mode == mode


@every_mode
@every_recipe
def test_actor_reference_and_rollout_agree(name: str, mode: str):
    config, launch = recipe(name, mode), Launch.of(recipe(name, mode))
    assert launch.ref == launch.parallel
    assert launch.dtype == launch.rollout_dtype == "bfloat16"
    if launch.strategy == "megatron":
        assert config.actor_rollout_ref.ref.megatron.dtype == launch.dtype
        assert config.ray_kwargs.ray_init.runtime_env.env_vars.CUDA_DEVICE_MAX_CONNECTIONS == "1"
    assert launch.log_prob_max_tokens == launch.max_tokens
    assert model_of(launch.model_path).path == config.actor_rollout_ref.model.path


@every_recipe
def test_both_modes_use_the_same_gpus(name: str):
    sync, separate = Launch.of(recipe(name, "sync")), Launch.of(recipe(name, "separate_async"))
    assert sync.hybrid
    assert not separate.hybrid
    assert sync.train_gpus == separate.train_gpus + separate.rollout_gpus
    assert sync.train_batch * sync.n == separate.train_batch * separate.n


@every_recipe
def test_separate_async_satisfies_verls_own_assertions(name: str, monkeypatch: pytest.MonkeyPatch):
    from verl.trainer.ppo.v1 import trainer_base, trainer_separate_async

    def base(self, config):
        self.config = config

    monkeypatch.setattr(trainer_base.PPOTrainer, "__init__", base)
    trainer = trainer_separate_async.PPOTrainerSeparateAsync(recipe(name, "separate_async"))
    assert not trainer._enable_hybrid_replicas
    # Without this verl 0.9.1 raises a TypeError from the log message that says so.
    assert trainer.config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_LOGGING_LEVEL == "WARN"


@every_mode
def test_estimators_differ_in_nothing_else(mode: str):
    script = SCRIPTS["qwen3_8b"]
    ours, theirs = arguments_of(script, MODE=mode), arguments_of(script, MODE=mode, ESTIMATOR="grpo")
    different = {a.partition("=")[0] for a, b in zip(ours, theirs, strict=True) if a != b}
    names = {"trainer.experiment_name", "trainer.default_local_dir", "trainer.rollout_data_dir"}
    metrics = "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH"
    assert different == {"algorithm.adv_estimator", metrics, *names}


def test_no_two_recipes_share_a_folder():
    folders = {recipe(name, mode).trainer.default_local_dir for name in SCRIPTS for mode in MODES}
    assert len(folders) == len(SCRIPTS) * len(MODES), "verl would resume from another model's checkpoint"


def test_other_tasks_bring_their_data_and_reward():
    task = {"TASK": "mine", "DATA_DIR": "data/mine", "REWARD": "mine.py", "MAX_RESPONSE_LENGTH": "1024"}
    config = composed(arguments_of(SCRIPTS["qwen3_32b"], "trainer.total_epochs=1", **task))
    assert config.data.train_files == "data/mine/train.parquet"
    assert config.reward.custom_reward_function.path == "mine.py"
    assert config.trainer.project_name == "mine"
    assert config.trainer.total_epochs == 1, "an argument of the user's must win over the script's"
    assert complaints(config) == []


def test_largest_recipe_fits_half_its_nodes_in_sync():
    assert complaints(composed(arguments_of(SCRIPTS["qwen3_235b_a22b"], NNODES="16"))) == []


# -------------------------------------------------------------------------------------------- edited into nonsense

# Recipe, mode, what is changed (variables; verl's keys as arguments), and what must be said.
ULYSSES = "actor_rollout_ref.actor.ulysses_sequence_parallel_size"
NONSENSE = [
    ("qwen3_8b", "sync", {"TP": "3"}, [], r"attention heads \(32\) is not divisible by actor TP \(3\)"),
    ("qwen3_8b", "sync", {"TP": "3"}, [], r"trainer's GPUs \(8\) is not divisible by actor TP x PP x CP \(3\)"),
    ("qwen3_8b", "sync", {"TP": "16"}, [], r"KV heads \(8\) is not divisible by actor TP \(16\)"),
    ("qwen3_8b", "sync", {"TP": "16"}, [], r"actor TP \(16\) spans nodes of 8 GPUs"),
    ("qwen3_8b", "sync", {"TP": "1"}, [], r"update: \d+ GiB on a GPU are more than 71 \(weights 15"),
    ("qwen3_8b", "sync", {"EP": "2"}, [], r"EP \(2\) > 1, but Qwen/Qwen3-8B has no experts"),
    ("qwen3_8b", "sync", {"CP": "3"}, [], r"not divisible by actor TP x PP x CP \(6\)"),
    ("qwen3_8b", "sync", {"NGPUS_PER_NODE": "7"}, [], r"trainer's GPUs \(7\)"),
    ("qwen3_8b", "sync", {"OFFLOAD": "False"}, [], r"rollout: \d+ GiB on a GPU are more than 79"),
    ("qwen3_8b", "sync", {"MAX_TOKENS_PER_GPU": "65536"}, [], r"update: .* logits 5\d"),
    (
        "qwen3_8b",
        "sync",
        {"MAX_TOKENS_PER_GPU": "256"},
        [],
        r"ppo_max_token_len_per_gpu \(256\) x CP \(1\) is less than one",
    ),
    (
        "qwen3_8b",
        "sync",
        {"PPO_MINI_BATCH_SIZE": "255"},
        [],
        r"responses .*\(510\) is not divisible by the trainer's DP \(4\)",
    ),
    (
        "qwen3_8b",
        "sync",
        {"PPO_MINI_BATCH_SIZE": "250"},
        [],
        r"train_batch_size \(512\) is not a multiple of .* \(250\)",
    ),
    ("qwen3_8b", "sync", {"ROLLOUT_UTILIZATION": "0.95"}, [], r"rollout: 80 GiB on a GPU are more than 79"),
    ("qwen3_8b", "sync", {"ROLLOUT_UTILIZATION": "0.2"}, [], r"KV cache: gpu_memory_utilization=0.2 leaves -"),
    ("qwen3_8b", "sync", {"ROLLOUT_TP": "3"}, [], r"attention heads \(32\) is not divisible by rollout TP \(3\)"),
    (
        "qwen3_8b",
        "sync",
        {},
        ["trainer.use_v1=False", "actor_rollout_ref.actor.ppo_mini_batch_size=248"],
        r"verl would stop at the first update",
    ),
    (
        "qwen3_32b",
        "separate_async",
        {"ROLLOUT_TP": "4"},
        ["actor_rollout_ref.rollout.nnodes=2", "actor_rollout_ref.rollout.n_gpus_per_node=6"],
        r"rollout's GPUs a node \(6\) is not divisible by rollout TP x DP \(4\)",
    ),
    ("qwen3_8b", "sync", {"ROLLOUT_TP": "16"}, [], r"rollout's GPUs \(8\) is not divisible by rollout TP x DP \(16\)"),
    (
        "qwen3_8b",
        "sync",
        {},
        ["actor_rollout_ref.ref.megatron.tensor_model_parallel_size=4"],
        r"ref TP \(4\) is not actor TP \(2\)",
    ),
    (
        "qwen3_8b",
        "sync",
        {},
        ["actor_rollout_ref.rollout.dtype=float16"],
        r"rollout.dtype \(float16\) is not the actor's",
    ),
    ("qwen3_8b", "sync", {}, ["actor_rollout_ref.rollout.max_model_len=256"], r"max_model_len \(256\) is less than"),
    ("qwen3_8b", "sync", {}, ["actor_rollout_ref.model.use_remove_padding=False"], r"use_remove_padding=False"),
    ("qwen3_32b", "sync", {"PP": "3"}, [], r"layers \(64\) cannot be shared out over PP \(3\)"),
    ("qwen3_32b", "sync", {"PP": "16"}, [], r"trainer's GPUs \(32\) is not divisible by actor TP x PP x CP \(64\)"),
    ("qwen3_32b", "sync", {"NNODES": "1"}, [], r"update: .* optimizer 45"),
    (
        "qwen3_32b",
        "sync",
        {},
        ["actor_rollout_ref.actor.megatron.virtual_pipeline_model_parallel_size=5"],
        r"layers of a pipeline stage \(32\) is not divisible by virtual PP \(5\)",
    ),
    ("qwen3_30b_a3b", "sync", {"EP": "7"}, [], r"experts \(128\) is not divisible by EP \(7\)"),
    ("qwen3_30b_a3b", "sync", {"EP": "64"}, [], r"trainer's GPUs \(32\) is not divisible by ETP x EP x PP \(128\)"),
    ("qwen3_30b_a3b", "sync", {"ETP": "5"}, [], r"expert's FFN width \(768\) is not divisible by ETP \(5\)"),
    ("qwen3_30b_a3b", "sync", {"EP": "1"}, [], r"update: \d\d+ GiB"),
    (
        "qwen3_30b_a3b",
        "sync",
        {"ROLLOUT_EP": "2"},
        [],
        r"expert_parallel_size \(2\) must be 1 or rollout TP x DP \(4\)",
    ),
    (
        "qwen3_30b_a3b",
        "sync",
        {},
        ["actor_rollout_ref.actor.megatron.sequence_parallel=False"],
        r"TP > 1 with experts needs sequence_parallel",
    ),
    ("qwen3_235b_a22b", "sync", {"FIRST_STAGE_LAYERS": ""}, [], r"layers \(94\) cannot be shared out over PP \(8\)"),
    ("qwen3_235b_a22b", "sync", {"LAST_STAGE_LAYERS": "12"}, [], r"layers \(94\) cannot be shared out over PP \(8\)"),
    (
        "qwen3_235b_a22b",
        "sync",
        {"NNODES": "12"},
        [],
        r"trainer's GPUs \(96\) is not divisible by ETP x EP x PP \(64\)",
    ),
    ("qwen3_235b_a22b", "separate_async", {"NNODES": "16"}, [], r"reference: .* optimizer 41"),
    (
        "qwen3_235b_a22b",
        "sync",
        {"ROLLOUT_DP": "1", "ROLLOUT_UTILIZATION": "0.7"},
        [],
        r"KV cache|weight sync: .* rollout's weights 5",
    ),
    ("qwen3_8b", "separate_async", {"CHECKPOINT_ENGINE": "naive"}, [], r"checkpoint_engine.backend=naive"),
    (
        "qwen3_8b",
        "separate_async",
        {"TRAIN_BATCH_SIZE": "600"},
        [],
        r"\(600\) is not parameter_sync_step \(2\) x .* \(256\)",
    ),
    ("qwen3_8b", "separate_async", {}, ["actor_rollout_ref.rollout.nnodes=0"], r"give generation no GPU"),
    ("qwen3_8b", "separate_async", {"ROLLOUT_NGPUS_PER_NODE": "5"}, [], r"trainer's GPUs \(3\)"),
    ("qwen3_8b", "separate_async", {"MAX_TOKENS_PER_GPU": "16384"}, [], r"reference: 74 GiB on a GPU are more than 71"),
    ("qwen3_1_7b", "separate_async", {"OFFLOAD": "True"}, [], r"save_model_to_cpu.* expect the weights on the GPU"),
    ("qwen3_1_7b", "sync", {"MAX_TOKENS_PER_GPU": "65536"}, [], r"update: .* logits 7"),
    (
        "qwen3_1_7b",
        "sync",
        {},
        [f"{ULYSSES}=3"],
        r"heads \(16\) is not divisible by Ulysses' sequence parallel size \(3\)",
    ),
    ("qwen3_1_7b", "sync", {}, [f"{ULYSSES}=16"], r"trainer's GPUs \(8\) is not divisible by Ulysses'"),
    ("gemma_2b", "sync", {"ROLLOUT_TP": "16"}, [], r"attention heads \(8\) is not divisible by rollout TP \(16\)"),
    (
        "gemma_2b",
        "sync",
        {"PPO_MINI_BATCH_SIZE": "1"},
        [],
        r"responses .*\(2\) is not divisible by the trainer's DP \(8\)",
    ),
]


@pytest.mark.parametrize(("name", "mode", "variables", "arguments", "said"), NONSENSE)
def test_nonsense_is_named(name: str, mode: str, variables: dict[str, str], arguments: list[str], said: str):
    found = complaints(edited(name, mode, *arguments, **variables))
    assert any(re.search(said, one) for one in found), found


@pytest.mark.parametrize(
    ("name", "mode", "file", "old", "new", "said"),
    [
        ("qwen3_32b", "sync", "personas/run_qwen3_32b_megatron.sh", "${TP:-4}", "${TP:-6}", r"actor TP \(6\)"),
        ("qwen3_30b_a3b", "sync", "personas/run_qwen3_30b_a3b_megatron.sh", "${EP:-4}", "${EP:-7}", r"EP \(7\)"),
        ("qwen3_8b", "separate_async", "_common.sh", "CHECKPOINT_ENGINE:-nccl", "CHECKPOINT_ENGINE:-naive", "naive"),
        (
            "qwen3_8b",
            "separate_async",
            "_common.sh",
            "ROLLOUT_UTILIZATION:-0.85",
            "ROLLOUT_UTILIZATION:-0.98",
            "rollout:",
        ),
        (
            "qwen3_8b",
            "sync",
            "_common.sh",
            "override_transformer_config.recompute_num_layers=1",
            "pad_to_length=False",
            "update:",
        ),
    ],
)
def test_an_edited_script_is_caught(tmp_path: Path, name: str, mode: str, file: str, old: str, new: str, said: str):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    copied = tmp_path / "recipes" / file
    text = copied.read_text()
    assert text.count(old) == 1
    copied.write_text(text.replace(old, new))
    script = tmp_path / "recipes" / "personas" / SCRIPTS[name].name
    # Without recomputation every layer's activations stay: enough tokens to see it.
    config = composed(arguments_of(script, MODE=mode, MAX_TOKENS_PER_GPU="10240"))
    found = complaints(config)
    assert any(re.search(said, one) for one in found), found


@pytest.mark.parametrize("variables", [{"MODE": "async"}, {"ENGINE": "x", "MODE": "x"}])
def test_an_unknown_mode_stops_the_script(variables: dict[str, str]):
    with pytest.raises(ConfigError, match="sync or separate_async"):
        arguments_of(SCRIPTS["qwen3_8b"], **variables)


def test_an_unknown_model_is_named():
    config = composed(arguments_of(SCRIPTS["qwen3_8b"], MODEL_PATH="/models/Qwen3-9B/"))
    with pytest.raises(ConfigError, match="no dimensions are known for the model '/models/Qwen3-9B/'"):
        complaints(config)


def test_a_model_is_known_by_its_folder():
    assert model_of("/models/Qwen3-8B/") is model_of("Qwen/Qwen3-8B")


# ---------------------------------------------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.path)
def test_parameters_are_those_of_transformers(model):
    """Built from the dimensions without memory for weights. These totals are the published ones, too."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, GemmaConfig, Qwen3Config, Qwen3MoeConfig

    dimensions = {
        "vocab_size": model.vocab,
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.ffn,
        "tie_word_embeddings": model.tied,
    }
    if model.experts:
        experts = {"num_experts": model.experts, "num_experts_per_tok": model.topk}
        config = Qwen3MoeConfig(**dimensions, **experts, moe_intermediate_size=model.moe_ffn)
    else:
        config = (Qwen3Config if model.qk_norm else GemmaConfig)(**dimensions)
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    published = {
        "Qwen/Qwen3-1.7B": 1_720_574_976,
        "google/gemma-2b-it": 2_506_172_416,
        "Qwen/Qwen3-8B": 8_190_735_360,
        "Qwen/Qwen3-32B": 32_762_123_264,
        "Qwen/Qwen3-30B-A3B": 30_532_122_624,
        "Qwen/Qwen3-235B-A22B": 235_093_634_560,
    }
    assert sum(weight.numel() for weight in built.parameters()) == model.parameters == published[model.path]


@every_mode
@every_recipe
def test_cuts_lose_no_parameter(name: str, mode: str):
    """What all GPUs of one copy hold adds up to the model."""
    from verl_pgrpo.launch.memory import _stage_parameters

    launch = Launch.of(recipe(name, mode))
    model, p = model_of(launch.model_path), launch.parallel
    stages = p.stages(model.layers)
    assert sum(stages) == model.layers
    held = [_stage_parameters(model, launch, stage, stages) for stage in range(p.pp)]
    replicated = (p.tp - 1) * (model.layers * model.replicated_layer + model.hidden)
    dense = p.tp * sum(part[0] for part in held) - replicated
    experts = p.ep * p.etp * sum(part[1] for part in held)
    assert dense + experts == pytest.approx(model.parameters, abs=1)


@pytest.mark.parametrize(
    ("layers", "parallel", "stages"),
    [
        (36, Parallel(), [36]),
        (64, Parallel(pp=2), [32, 32]),
        (94, Parallel(pp=8, first_stage=11, last_stage=11), [11, *[12] * 6, 11]),
        (94, Parallel(pp=4, last_stage=22), [24, 24, 24, 22]),
        (10, Parallel(pp=2, first_stage=4, last_stage=6), [4, 6]),
    ],
)
def test_stages(layers: int, parallel: Parallel, stages: list[int]):
    assert parallel.stages(layers) == stages


def test_memory_by_hand():
    """Qwen3-8B, TP2 of 8 GPUs: 2, 4 and 12 / 4 bytes of half its parameters; and what a token of cache takes."""
    launch = Launch.of(recipe("qwen3_8b", "sync"))
    guess = estimate(model_of("Qwen/Qwen3-8B"), launch)
    half = 8.19e9 / 2 / 2**30
    update = guess.phase("update").parts
    assert update["weights"] == pytest.approx(2 * half, rel=1e-3)
    assert update["gradients"] == pytest.approx(4 * half, rel=1e-3)
    assert update["optimizer"] == pytest.approx(12 / 4 * half, rel=1e-3)
    assert update["logits"] == pytest.approx(12 * 8192 * 151936 / 2 / 2**30)
    assert guess.kv_bytes_a_token == 2 * 36 * 8 * 128 * 2
    # 36 inputs of layers, and one layer computed again: all in bf16, the former cut by sequence parallelism.
    assert 36 * 8192 * 4096 * 2 / 2 / 2**30 < update["activations"] < 3


def test_tables_in_the_page_are_as_the_scripts_are():
    page = MEMORY_TABLE.PAGE.read_text(encoding="utf-8")
    launches = [Launch.of(recipe(name, mode)) for name in SCRIPTS for mode in MODES]
    assert MEMORY_TABLE.with_tables(page, MEMORY_TABLE.tables(launches)) == page, (
        "renew them: python recipes/memory_table.py --write"
    )
