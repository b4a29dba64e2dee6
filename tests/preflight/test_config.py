# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Settings that verl, its workers or the plugin reject later."""

from __future__ import annotations

import shutil

import pytest

from tests.preflight.case import Case, at, problems
from verl_pgrpo.preflight.config import names_hub_model

pytestmark = pytest.mark.slow

ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"

# Launches with wrong settings. Each is reported at its key, or at the place given as the second text.
LAUNCHES: list[list[str | tuple[str, str]]] = [
    [
        f"{ROLLOUT}.name=vlm",
        f"{ROLLOUT}.checkpoint_engine.backend=ncl",
        f"{ACTOR}.strategy=fdsp",
        f"{ACTOR}.policy_loss.loss_mode=vanila",
        "algorithm.kl_penalty=kl2",
        ("algorithm.kl_ctrl.type=moving algorithm.use_kl_in_reward=True", "algorithm.kl_ctrl"),
        "trainer.logger=[console,nonsense]",
        "trainer.v1.trainer_mode=async",
        "trainer.resume_mode=always",
        "algorithm.adv_estimator=pgrop",
    ],
    [
        f"{ROLLOUT}.n=null",
        f"{ROLLOUT}.temperature=warm",
        f"{ROLLOUT}.top_p=1.5",
        f"{ROLLOUT}.gpu_memory_utilization=0",
        f"{ACTOR}.optim.lr='1e-6'",
        "trainer.nnodes=0",
        "trainer.default_local_dir=null",
    ],
    [
        f"{ROLLOUT}.multi_turn.tool_config_path=tools.yaml",
        f"{ROLLOUT}.agent.agent_loop_config_path=/none/agents.yaml",
        f"{MODEL}.tokenizer_path=./none",
        f"{MODEL}.external_lib=nobodys_own",
        "trainer.v1.sampler.custom_sampler.path=mine.py",
        "reward.reward_manager.module.path=pkg://nothing_of_that_name",
    ],
    [
        ("custom_reward_function.path=mine.py", "reward.custom_reward_function.path"),  # verl ignores legacy keys
        ("reward_model.enable=True", "reward.reward_model.enable"),
    ],
    ["algorithm.filter_groups.enable=True algorithm.filter_groups.metric=acc"],
    ["trainer.v1.trainer_mode=separate_async data.train_batch_size=48"],  # an assertion of verl's trainer
    [("+algorithm.pgrpo.halflife=3", "algorithm.pgrpo")],
    [(f"{ACTOR}.optim.optimizer=AdamX", f"{ACTOR}.optim")],
    ["data.train_batch_size=many"],
]


@pytest.mark.parametrize("launch", LAUNCHES)
def test_each_wrong_setting_is_reported_at_its_key(case: Case, launch):
    settings = [one if isinstance(one, tuple) else (one, one.partition("=")[0]) for one in launch]
    report = case.check(*(override for overrides, _ in settings for override in overrides.split()))
    for _, location in settings:
        assert ("error", "config") in at(report, location), location


def test_what_hydra_rejects_is_left_out_and_the_rest_checked(case: Case):
    report = case.check("data.train_filez=x", "data.seed=${data.none}", "nonsense", f"{ROLLOUT}.name=vlm")
    fixes = {one.location: one.fix for one in report.diagnostics if one.check == "arguments"}
    assert set(fixes) == {"data.train_filez=x", "data.seed=${data.none}", "nonsense"}
    assert "data.train_files" in fixes["data.train_filez=x"]
    assert ("error", "config") in at(report, f"{ROLLOUT}.name")


def test_user_extensions(case: Case, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(case.out))
    (case.out / "users_own.py").write_text(
        "from verl.trainer.ppo.core_algos import register_policy_loss\n"
        "register_policy_loss('users_loss')(lambda **given: None)\n"
    )
    loss = f"{ACTOR}.policy_loss.loss_mode=users_loss"
    assert problems(case.check(loss, f"{MODEL}.external_lib=users_own")) == set()
    optimizer = case.check(f"{ACTOR}.optim.optimizer_impl=somebodys.optim")
    assert problems(optimizer, f"{ACTOR}.optim.optimizer_impl") == {("warning", "config")}
    assert problems(case.rehearse("trainer.use_v1=False")) == set()


def test_model_files(case: Case, tmp_path):
    model = shutil.copytree(case.folder / "model", tmp_path / "model")
    here = f"{MODEL}.path={model}"
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part-1.safetensors"}}')
    assert at(case.check(here), str(model)) == {("error", "model")}
    (model / "tokenizer.json").unlink()
    assert ("error", "model") in at(case.check(here), str(model))
    assert at(case.check(f"{MODEL}.path=/models/none"), "/models/none") == {("error", "model")}
    long = case.check("data.max_response_length=100000")
    assert ("error", "model") in at(long, "data.max_response_length")


def test_a_model_on_the_hub(case: Case):
    hub = f"{MODEL}.path=somebody/model"
    unknown = case.check(hub)
    assert problems(unknown) == set()
    assert at(unknown, "somebody/model") == {("note", "model")}
    three = (f"{ROLLOUT}.tensor_model_parallel_size=3", "trainer.n_gpus_per_node=3")
    configured = case.check(hub, *three, model_config=str(case.folder / "model" / "config.json"))
    assert ("error", "parallel") in at(configured, f"{ROLLOUT}.tensor_model_parallel_size")


def test_names_on_the_hub(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert all(map(names_hub_model, ("Qwen/Qwen2.5-7B", "gpt2", "hdfs://cluster/model")))
    files = ("/models/none", "./none", "~/none", "models/none", "a/b/c", "mine.py", "file:///none")
    assert not any(map(names_hub_model, files))
