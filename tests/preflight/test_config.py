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

# Each is reported at its own key, and none hides another.
NAMES = [
    f"{ROLLOUT}.name=vlm",
    f"{ROLLOUT}.checkpoint_engine.backend=ncl",
    f"{ACTOR}.strategy=fdsp",
    f"{ACTOR}.policy_loss.loss_mode=vanila",
    "algorithm.kl_penalty=kl2",
    "algorithm.kl_ctrl.type=moving",
    "algorithm.use_kl_in_reward=True",
    "trainer.logger=[console,nonsense]",
    "trainer.v1.trainer_mode=async",
    "trainer.resume_mode=always",
    "algorithm.adv_estimator=pgrop",
]
VALUES = [
    f"{ROLLOUT}.n=null",
    f"{ROLLOUT}.temperature=warm",
    f"{ROLLOUT}.top_p=1.5",
    f"{ROLLOUT}.gpu_memory_utilization=0",
    f"{ACTOR}.optim.lr='1e-6'",
    "trainer.nnodes=0",
    "trainer.default_local_dir=null",
]
FILES = [
    f"{ROLLOUT}.multi_turn.tool_config_path=tools.yaml",
    f"{ROLLOUT}.agent.agent_loop_config_path=/none/agents.yaml",
    f"{MODEL}.tokenizer_path=./none",
    f"{MODEL}.external_lib=nobodys_own",
    "trainer.v1.sampler.custom_sampler.path=mine.py",
    "reward.reward_manager.module.path=pkg://nothing_of_that_name",
]
PLUGIN = ["algorithm.filter_groups.enable=True", "algorithm.filter_groups.metric=acc"]
LEGACY = ["custom_reward_function.path=mine.py", "reward_model.enable=True"]  # verl ignores them
V1 = ["trainer.v1.trainer_mode=separate_async", "data.train_batch_size=48"]  # an assertion of the trainer itself
# Where it is reported if not at the key itself; None: together with another setting.
ELSEWHERE = {
    "algorithm.use_kl_in_reward": None,
    "algorithm.kl_ctrl.type": "algorithm.kl_ctrl",
    "+algorithm.pgrpo.halflife": "algorithm.pgrpo",
    "algorithm.filter_groups.metric": None,
    "custom_reward_function.path": "reward.custom_reward_function.path",
    "reward_model.enable": "reward.reward_model.enable",
    f"{ACTOR}.optim.optimizer": f"{ACTOR}.optim",
    "data.train_batch_size": None,
}
ALONE = ["+algorithm.pgrpo.halflife=3", f"{ACTOR}.optim.optimizer=AdamX", "data.train_batch_size=many"]


@pytest.mark.parametrize("overrides", [NAMES, VALUES, FILES, PLUGIN, LEGACY, V1, *([one] for one in ALONE)])
def test_each_wrong_setting_is_reported_at_its_key(case: Case, overrides: list[str]):
    report = case.check(*overrides)
    for override in overrides:
        key = override.partition("=")[0]
        where = ELSEWHERE.get(key, key) if len(overrides) > 1 else ELSEWHERE.get(key) or key
        if where is not None:
            assert ("error", "config") in at(report, where), key


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
    assert problems(case.check(loss, f"{MODEL}.external_lib=users_own", skip=("reward",))) == set()
    optimizer = case.check(f"{ACTOR}.optim.optimizer_impl=somebodys.optim", skip=("reward",))
    assert at(optimizer, f"{ACTOR}.optim.optimizer_impl") == [("warning", "config")]
    assert problems(case.check("trainer.use_v1=False")) == set()


def test_model_files(case: Case, tmp_path):
    model = shutil.copytree(case.folder / "model", tmp_path / "model")
    here = f"{MODEL}.path={model}"
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part-1.safetensors"}}')
    assert at(case.check(here, skip=("reward",)), str(model)) == [("error", "model")]
    (model / "tokenizer.json").unlink()
    assert ("error", "model") in at(case.check(here, skip=("reward",)), str(model))
    assert at(case.check(f"{MODEL}.path=/models/none"), "/models/none") == [("error", "model")]
    elsewhere = case.check(f"{MODEL}.path=somebody/model")
    assert problems(elsewhere) == set()
    assert at(elsewhere, "somebody/model") == [("note", "model")]
    three = f"{ROLLOUT}.tensor_model_parallel_size=3"
    configured = case.check(
        f"{MODEL}.path=somebody/model",
        three,
        "trainer.n_gpus_per_node=3",
        model_config=str(case.folder / "model" / "config.json"),
    )
    assert ("error", "parallel") in at(configured, f"{ROLLOUT}.tensor_model_parallel_size")
    long = case.check("data.max_response_length=100000", skip=("reward",))
    assert at(long, "data.max_response_length")[0] == ("error", "model")


def test_names_on_the_hub(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("Qwen/Qwen2.5-7B", "gpt2", "hdfs://cluster/model"):
        assert names_hub_model(name), name
    for name in ("/models/none", "./none", "~/none", "models/none", "a/b/c", "mine.py", "file:///none"):
        assert not names_hub_model(name), name
