# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The GPU recipes without GPUs: each script's launch is composed, validated by verl, and checked against the rules in
`launches.py`; then scripts are broken to test that each rule detects it."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata
from itertools import takewhile
from pathlib import Path

import pytest
from omegaconf import DictConfig
from packaging.requirements import Requirement

from tests.conftest import ROOT
from tests.recipes import newest_verl
from tests.recipes.launches import (
    RECIPES,
    arguments_of,
    broken_rules,
    commands_of,
    composed,
    environment,
    recipe,
    validate,
)

pytest.importorskip("verl")

PERSONAS = RECIPES / "personas"
SCRIPTS = {path.stem.removeprefix("run_"): path for path in PERSONAS.glob("run_*.sh") if "cpu" not in path.stem}
MODES = ("sync", "separate_async")
TASKS = ("personas", "movielens", "goodreads")

every_script = pytest.mark.parametrize("name", SCRIPTS)
every_mode = pytest.mark.parametrize("mode", MODES)
every_task = pytest.mark.parametrize("task", TASKS)


@cache
def launch(name: str, mode: str, task: str = "personas") -> DictConfig:
    """A recipe's configuration; shared, so tests only read it."""
    return composed(arguments_of(SCRIPTS[name], MODE=mode, TASK=task))


@every_mode
@pytest.mark.parametrize("task", ["personas", *(pytest.param(t, marks=pytest.mark.slow) for t in TASKS[1:])])
@every_script
def test_verl_accepts_every_recipe_and_every_rule_is_kept(name: str, task: str, mode: str):
    config = launch(name, mode, task)
    validate(config)
    assert broken_rules(config) - ({"idle pipeline"} if task != "personas" else set()) == set()
    assert config.algorithm.adv_estimator == "pgrpo"
    assert config.trainer.v1.trainer_mode == mode
    assert config.data.train_files.startswith(f"data/{task}")


def test_the_largest_recipe_avoids_data_parallel_vllm_over_nodes_where_vllm_rejects_it():
    sync = launch("qwen3_235b_a22b_megatron", "sync")
    assert broken_rules(sync, vllm=(0, 28)) == {"data parallel over nodes"}
    one = composed(arguments_of(SCRIPTS["qwen3_235b_a22b_megatron"], ROLLOUT_TP="16", ROLLOUT_DP="1"))
    assert broken_rules(one, vllm=(0, 30)) == set()
    separate = launch("qwen3_235b_a22b_megatron", "separate_async")
    assert broken_rules(separate, vllm=(0, 30)) == set()
    assert separate.trainer.v1.separate_async.parameter_sync_step == 8, "a weight sync takes minutes"
    assert broken_rules(composed(arguments_of(SCRIPTS["qwen3_235b_a22b_megatron"], NNODES="16"))) == set()


@newest_verl
@every_script
def test_both_modes_use_the_same_gpus_and_verls_asynchronous_trainer_starts(name: str, monkeypatch):
    from verl.trainer.ppo.v1 import trainer_base, trainer_separate_async

    sync, separate = (launch(name, mode) for mode in MODES)
    trainer, rollout = separate.trainer, separate.actor_rollout_ref.rollout
    gpus = trainer.nnodes * trainer.n_gpus_per_node + rollout.nnodes * rollout.n_gpus_per_node
    assert gpus == sync.trainer.nnodes * sync.trainer.n_gpus_per_node
    monkeypatch.setattr(trainer_base.PPOTrainer, "__init__", lambda self, config: setattr(self, "config", config))
    assert not trainer_separate_async.PPOTrainerSeparateAsync(separate)._enable_hybrid_replicas


def test_no_two_recipes_share_a_folder():
    folders = {launch(name, mode).trainer.default_local_dir for name in SCRIPTS for mode in MODES}
    assert len(folders) == len(SCRIPTS) * len(MODES), "verl would resume from another model's checkpoint"


@pytest.mark.slow
def test_vllm_knows_the_engine_arguments():
    from vllm.config.kernel import KernelConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    arguments = launch("qwen3_30b_a3b_megatron", "sync").actor_rollout_ref.rollout.engine_kwargs.vllm
    assert set(arguments) <= set(AsyncEngineArgs.__dataclass_fields__)
    assert KernelConfig(moe_backend=arguments.moe_backend).moe_backend == "triton"


ENGINE = "sync engine"
BROKEN = {
    ("qwen3_1_7b_fsdp", "sync"): {"BUCKET_MB=2048": "tied embeddings in one bucket", "PROMPT": "max_model_len"},
    ("qwen3_1_7b_fsdp", "separate_async"): {"OFFLOAD=True": "policy stays on the GPU"},
    ("gemma_2b_fsdp", "sync"): {"BUCKET_MB=11264": "tied embeddings in one bucket", "ROLLOUT_TP=16": "vLLM's size"},
    ("gemma_2b_fsdp", "separate_async"): {"ROLLOUT_UTILIZATION=0.6": "room for buckets"},
    ("qwen3_8b_megatron", "sync"): {
        "TP=3": "tensor parallel", "TP=16": "tensor parallel", "NGPUS_PER_NODE=7": "GPUs divide",
        "MAX_TOKENS_PER_GPU=256": "a sequence fits a micro-batch", "PPO_MINI_BATCH_SIZE=255": "batches divide",
        "TRAIN_BATCH_SIZE=600": "batches divide",
    },
    ("qwen3_8b_megatron", "separate_async"): {"TRAIN_BATCH_SIZE=600": "steps", "CHECKPOINT_ENGINE=naive": ENGINE},
    ("qwen3_32b_megatron", "sync"): {"PP=3": "pipeline"},
    ("qwen3_30b_a3b_megatron", "sync"): {"EP=7": "experts divide", "EP=16": "experts divide"},
    ("qwen3_235b_a22b_megatron", "sync"): {
        "FIRST_STAGE_LAYERS=": "pipeline", "LAST_STAGE_LAYERS=12": "pipeline", "NNODES=12": "GPUs divide",
        "PPO_MINI_BATCH_SIZE=512 MAX_TOKENS_PER_GPU=4096": "idle pipeline",
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "mode"), BROKEN)
def test_a_broken_setting_is_noticed(name: str, mode: str):
    for settings, rule in BROKEN[name, mode].items():
        variables = dict(setting.split("=") for setting in settings.split()) if "=" in settings else {}
        arguments = [] if variables else ["data.max_response_length=4096"]
        broken = broken_rules(composed(arguments_of(SCRIPTS[name], *arguments, MODE=mode, **variables)))
        assert rule in broken, settings


@pytest.mark.parametrize(
    ("name", "mode", "line", "rule"),
    [
        ("qwen3_1_7b_fsdp", "sync", "rollout.max_model_len=", "max_model_len"),
        ("qwen3_1_7b_fsdp", "separate_async", "actor.strategy=fsdp2", "FSDP2"),
        ("qwen3_1_7b_fsdp", "sync", "update_weights_bucket_megabytes=", "tied embeddings in one bucket"),
        ("qwen3_30b_a3b_megatron", "sync", "moe_router_dtype=fp32", "router in fp32"),
        ("qwen3_30b_a3b_megatron", "sync", "moe_backend=triton", "Triton experts"),
        ("qwen3_8b_megatron", "sync", "CUDA_DEVICE_MAX_CONNECTIONS=", "one queue"),
        ("qwen3_8b_megatron", "separate_async", "hybrid_engine=False", "no second vLLM"),
        ("qwen3_8b_megatron", "separate_async", "VERL_LOGGING_LEVEL=WARN", "log level"),
    ],
)
def test_a_line_that_is_removed_from_the_common_part_is_missed(
    tmp_path: Path, name: str, mode: str, line: str, rule: str
):
    shutil.copytree(RECIPES, tmp_path / "recipes")
    common = tmp_path / "recipes" / "_common.sh"
    lines = common.read_text(encoding="utf-8").splitlines()
    (index,) = (i for i, text in enumerate(lines) if line in text and not text.lstrip().startswith("#"))
    lines[index] = "    ROLLOUT+=()" if "ROLLOUT+=" in lines[index] else ""
    common.write_text("\n".join(lines), encoding="utf-8")
    script = tmp_path / "recipes" / "personas" / SCRIPTS[name].name
    assert rule in broken_rules(composed(arguments_of(script, MODE=mode)))


@pytest.mark.parametrize(
    "variables",
    [
        {"MODE": "async"}, {"ESTIMATOR": "grpo", "RANDOM_GROUPS": "1"}, {"RANDOM_GROUPS": "yes"},
        {"PGRPO_OPTIONS": "half_life=9 group_key=x", "RANDOM_GROUPS": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_an_unknown_value_stops_the_script(variables: dict[str, str]):
    with pytest.raises(recipe.RecipeError, match="must be"):
        arguments_of(SCRIPTS["qwen3_8b_megatron"], **variables)


def test_doctor_and_preflight_get_the_arguments_of_a_recipe(tmp_path: Path):
    script, variables = SCRIPTS["qwen3_30b_a3b_megatron"], {"RUN_DIR": str(tmp_path)}
    command = ["bash", str(script), "trainer.save_freq=7"]
    given = environment(LAUNCH=r"printf %s\n", **variables)
    run = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines() == arguments_of(script, "trainer.save_freq=7", **variables)[2:]


RUN_NAMES = {f"trainer.{name}" for name in ("experiment_name", "default_local_dir", "rollout_data_dir")}
RUN_NAMES.add("+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH")


@pytest.mark.parametrize("script", sorted(RECIPES.glob("*/run_*.sh")), ids=lambda s: f"{s.parent.name}-{s.stem}")
def test_a_control_differs_in_nothing_else(script: Path):
    ours = set(arguments_of(script))
    for control, key in (
        ({"ESTIMATOR": "grpo"}, "algorithm.adv_estimator"),
        ({"RANDOM_GROUPS": "1"}, "+algorithm.pgrpo.group_key"),
    ):
        theirs = set(arguments_of(script, **control))
        different = {argument.partition("=")[0] for argument in ours ^ theirs} - {"hydra.run.dir"}
        assert different - RUN_NAMES == {key}
        assert "trainer.experiment_name" in different


@pytest.mark.parametrize("task", ["goodreads", "personas"])
def test_a_judge_runs_on_gpus_of_its_own_and_stays_awake(task: str):
    variables = {"JUDGE": "Qwen/Qwen3-8B", "JUDGE_TP": "2", "JUDGE_NNODES": "2", "TASK": task}
    variables["PGRPO_OPTIONS"] = "on_nonfinite=error"  # instead of skip
    config = composed(arguments_of(SCRIPTS["qwen3_1_7b_fsdp"], **variables))
    validate(config)
    assert config.algorithm.pgrpo.on_nonfinite == "error"
    judge, reward = config.reward.reward_model, config.reward.custom_reward_function
    assert (judge.enable, judge.enable_resource_pool, judge.nnodes, judge.n_gpus_per_node) == (True, True, 2, 8)
    assert (judge.rollout.tensor_model_parallel_size, judge.rollout.free_cache_engine) == (2, False)
    assert judge.model_path == reward.reward_kwargs.judge_model == "Qwen/Qwen3-8B"
    assert inspect.iscoroutinefunction(importlib.import_module(reward.path.removeprefix("pkg://")).compute_score)


def test_a_custom_task_brings_its_data_and_reward():
    task = {"TASK": "mine", "DATA_DIR": "data/mine", "REWARD": "mine.py", "MAX_RESPONSE_LENGTH": "1024"}
    config = composed(arguments_of(SCRIPTS["qwen3_32b_megatron"], "trainer.total_epochs=1", **task))
    assert config.data.train_files == "data/mine/train.parquet"
    assert config.reward.custom_reward_function.path == "mine.py"
    assert config.trainer.project_name == "mine"
    assert config.trainer.total_epochs == 1, "an argument must win over the script"
    assert config.actor_rollout_ref.rollout.max_model_len == 512 + 1024
    assert broken_rules(config) == set()


@pytest.mark.parametrize("script", ["run_qwen3_1_7b_fsdp.sh", "run_tiny_cpu.sh"])
def test_each_start_logs_into_a_file_of_its_own(tmp_path: Path, script: str):
    """verl's file logger overwrites its file: only the last part of a resumed run would remain."""
    run = tmp_path / "run"
    for name in ("metrics.jsonl", "metrics_2.jsonl", "metrics_3.jsonl"):
        key = "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH="
        assert f"{key}{run / name}" in arguments_of(PERSONAS / script, RUN_DIR=str(run))
        run.mkdir(exist_ok=True)
        (run / name).touch()


PAGES = [*RECIPES.glob("*/README.md"), RECIPES / "large_models.md"]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_recipes_in_a_page_launch(page: Path):
    for line in commands_of(page):
        words = shlex.split(line, comments=True)
        variables = [*takewhile(lambda word: "=" in word and not word.startswith("-"), words)]
        command = words[len(variables) :]
        if command[:1] == ["bash"] and "/run_" in command[1]:
            arguments = arguments_of(ROOT / command[1], *command[2:], **dict(v.split("=", 1) for v in variables))
            assert "cpu" in command[1] or broken_rules(composed(arguments)) <= {"idle pipeline"}, line


@pytest.mark.parametrize(("variables", "preset"), [({}, "cpu"), ({"JUDGE": "judge"}, "cpu_judge")])
@every_task
def test_a_tiny_run_is_composed_with_its_preset(task: str, variables: dict[str, str], preset: str, compose):
    config = composed_on_cpu(RECIPES / task / "run_tiny_cpu.sh", variables, preset, compose)
    assert config.ray_kwargs.ray_init.num_gpus == (2 if variables else 1)


@pytest.mark.parametrize(("task", "reward"), [("personas", "personas"), ("movielens", "movielens_stars")])
def test_smollm2_is_composed_with_its_preset_and_options(task: str, reward: str, tmp_path: Path, compose):
    script = RECIPES / task / "run_smollm2_135m_cpu.sh"
    (tmp_path / "val.parquet").touch()  # so that no data is created
    place = {"DATA_DIR": str(tmp_path), "MODEL_PATH": "model"}
    config = composed_on_cpu(script, {"THREADS": "3", **place}, "cpu_135m", compose)
    assert config.ray_kwargs.ray_init.runtime_env.env_vars.OMP_NUM_THREADS == "3"
    assert config.reward.custom_reward_function.path == f"pkg://verl_pgrpo.rewards.{reward}"
    options = {"PGRPO_OPTIONS": "baseline=shrinkage group_balance=0.5"}
    config = composed_on_cpu(script, {**options, **place}, "cpu_135m", compose)
    assert config.algorithm.pgrpo == {"baseline": "shrinkage", "group_balance": 0.5}
    assert config.trainer.experiment_name == "pgrpo_baseline_shrinkage_group_balance_0.5"
    with pytest.raises(recipe.RecipeError, match="options of pgrpo"):
        arguments_of(script, ESTIMATOR="grpo", **options, **place)


def test_smollm2_of_the_hub_is_one_revision_with_verified_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = importlib.import_module("personas.make_smollm2")

    def download(repository: str, *, revision: str, local_dir: Path, **options: object) -> None:
        assert (repository, len(revision)) == (module.REPOSITORY, 40), "a commit, not a branch"
        (local_dir / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(SystemExit, match="SHA-256"):
        module.from_hub(tmp_path)
    monkeypatch.setattr(module, "WEIGHTS_SHA256", hashlib.sha256(b"weights").hexdigest())
    module.from_hub(tmp_path)


def composed_on_cpu(script: Path, variables: dict[str, str], preset: str, compose):
    """The configuration that a CPU script launches with, after verl's and our own validation."""
    arguments = arguments_of(script, **variables)
    assert arguments[arguments.index("--preset") + 1] == preset
    overrides = [word for word in arguments[arguments.index("--") + 1 :] if not word.startswith("hydra.")]
    config = compose(*overrides, config_name=preset)
    validate(config)
    return config


@newest_verl
def test_the_installation_for_images_has_the_versions_that_verl_names():
    """The versions in verl 0.9.1's extras; TransferQueue and tensordict in the ranges that their users require."""
    text = (RECIPES / "launch" / "install.sh").read_text(encoding="utf-8")
    pins = {r.name: r for r in map(Requirement, re.findall(r"^    '?([\w-]+[=>][^' ]+)'? ?\\?$", text, re.MULTILINE))}
    assert str(pins["verl"].specifier) == f"=={metadata.version('verl')}"
    for line in metadata.requires("verl") or []:
        wanted = Requirement(line)
        extra = re.search(r'extra == "(.*)"', line)
        if wanted.name in pins and (extra is None or extra[1] in ("vllm", "cupy-cu130", "verl-core")):
            (pin,) = pins[wanted.name].specifier
            assert wanted.specifier.contains(pin.version), line


@pytest.mark.slow
def test_memory_tables_in_the_page_are_those_of_the_scripts():
    command = [sys.executable, str(RECIPES / "memory_table.py")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    page = (RECIPES / "large_models.md").read_text(encoding="utf-8")
    assert run.stdout.strip() in page, "renew them: python recipes/memory_table.py --write"
