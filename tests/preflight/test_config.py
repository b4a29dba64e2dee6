# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Settings that verl, its workers or the plugin reject later."""

from __future__ import annotations

import pytest

from tests.preflight.case import Case, at, problems
from verl_pgrpo.preflight.config import names_hub_model

pytestmark = pytest.mark.slow

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


# Each is reported at its own key, and none hides another.
NAMES = [
    f"{ROLLOUT}.name=vlm",
    f"{ROLLOUT}.checkpoint_engine.backend=ncl",
    f"{ACTOR}.strategy=fdsp",
    f"{ACTOR}.policy_loss.loss_mode=vanila",
    "algorithm.kl_penalty=kl2",
    "algorithm.kl_ctrl.type=moving",
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
    "data.train_batch_size=many",
    "trainer.nnodes=0",
    "trainer.default_local_dir=null",
]
FILES = [
    f"{ROLLOUT}.multi_turn.tool_config_path=tools.yaml",
    f"{ROLLOUT}.agent.agent_loop_config_path=/none/agents.yaml",
    "actor_rollout_ref.model.tokenizer_path=./none",
    "trainer.v1.sampler.custom_sampler.path=mine.py",
    "reward.reward_manager.module.path=pkg://nothing_of_that_name",
]


@pytest.mark.parametrize(
    ("overrides", "more"), [(NAMES, ["algorithm.use_kl_in_reward=True"]), (VALUES, []), (FILES, [])]
)
def test_each_wrong_setting_is_reported_at_its_key(case: Case, overrides: list[str], more: list[str]):
    report = case.check(*overrides, *more)
    for override in overrides:
        key = override.partition("=")[0].removesuffix(".type")
        assert ("error", "config") in at(report, key), key


def test_what_hydra_rejects_is_left_out_and_the_rest_checked(case: Case):
    report = case.check("data.train_filez=x", "data.seed=${data.none}", "nonsense", f"{ROLLOUT}.name=vlm")
    fixes = {one.location: one.fix for one in report.diagnostics if one.check == "arguments"}
    assert set(fixes) == {"data.train_filez=x", "data.seed=${data.none}", "nonsense"}
    assert "data.train_files" in fixes["data.train_filez=x"]
    assert ("error", "config") in at(report, f"{ROLLOUT}.name")


def test_options_of_the_plugin(case: Case):
    assert at(case.check("+algorithm.pgrpo.halflife=3"), "algorithm.pgrpo") == [("error", "config")]
    filtered = case.check("algorithm.filter_groups.enable=True", "algorithm.filter_groups.metric=acc")
    assert ("error", "config") in at(filtered, "algorithm.filter_groups.enable")


def test_legacy_reward_keys_are_ignored_by_verl(case: Case):
    report = case.check("custom_reward_function.path=mine.py", "reward_model.enable=True")
    assert at(report, "reward.custom_reward_function.path")[0] == ("error", "config")
    assert at(report, "reward.reward_model.enable") == [("error", "config")]


def test_optimizers(case: Case):
    key = f"{ACTOR}.optim"
    wrong = case.check(f"{key}.optimizer=AdamX", skip=("reward",))
    assert at(wrong, key) == [("error", "config")]
    elsewhere = case.check(f"{key}.optimizer_impl=somebodys.optim", skip=("reward",))
    assert at(elsewhere, f"{key}.optimizer_impl") == [("warning", "config")]


def test_assertions_of_verls_own_trainer(case: Case):
    report = case.check("trainer.v1.trainer_mode=separate_async", "data.train_batch_size=48")
    assert ("error", "config") in at(report, "trainer.v1.trainer_mode=separate_async")


def test_names_that_a_users_module_registers(case: Case, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(case.out))
    (case.out / "users_own.py").write_text(
        "from verl.trainer.ppo.core_algos import register_policy_loss\n"
        "register_policy_loss('users_loss')(lambda **given: None)\n"
    )
    loss = f"{ACTOR}.policy_loss.loss_mode=users_loss"
    assert problems(case.check(loss, "actor_rollout_ref.model.external_lib=users_own")) == set()
    missing = case.check("actor_rollout_ref.model.external_lib=nobodys_own")
    assert at(missing, "actor_rollout_ref.model.external_lib")[0] == ("error", "config")


def test_other_estimators_need_no_groups(case: Case):
    from tests.preflight.case import rows

    plain = [{key: value for key, value in row.items() if key != "preference_group"} for row in rows()]
    assert problems(case.check(case.write(plain), "algorithm.adv_estimator=grpo")) == set()


def test_the_older_trainers(case: Case):
    assert problems(case.check("trainer.use_v1=False")) == set()


def test_the_models_files(case: Case, tmp_path):
    import shutil

    model = shutil.copytree(case.folder / "model", tmp_path / "model")
    here = f"actor_rollout_ref.model.path={model}"
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part-1.safetensors"}}')
    assert at(case.check(here), str(model)) == [("error", "model")]
    (model / "tokenizer.json").unlink()
    assert ("error", "model") in at(case.check(here), str(model))
    assert at(case.check("actor_rollout_ref.model.path=/models/none"), "/models/none") == [("error", "model")]
    elsewhere = case.check("actor_rollout_ref.model.path=somebody/model")
    assert problems(elsewhere) == set()
    assert at(elsewhere, "somebody/model") == [("note", "model")]
    assert "the reward function was called on 10 rows, 20 times" in elsewhere.facts
    configured = case.check(
        "actor_rollout_ref.model.path=somebody/model",
        f"{ROLLOUT}.tensor_model_parallel_size=3",
        "trainer.n_gpus_per_node=3",
        model_config=str(case.folder / "model" / "config.json"),
    )
    assert ("error", "parallel") in at(configured, f"{ROLLOUT}.tensor_model_parallel_size")
    assert at(case.check("data.max_response_length=100000"), "data.max_response_length")[0] == ("error", "model")


def test_names_on_the_hub(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("Qwen/Qwen2.5-7B", "gpt2", "hdfs://cluster/model"):
        assert names_hub_model(name), name
    for name in ("/models/none", "./none", "~/none", "models/none", "a/b/c", "mine.py", "file:///none"):
        assert not names_hub_model(name), name
