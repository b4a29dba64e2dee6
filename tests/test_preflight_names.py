# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Names and values that verl looks up only when its workers need them: `preflight` says which are not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.preflight_case import Case, serious

pytestmark = [pytest.mark.launch, pytest.mark.slow]

pytest.importorskip("verl")

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
REF = f"{ACTOR}.use_kl_loss=True"
IN_REWARD = "algorithm.use_kl_in_reward=True"

# What is set, and what is said of it.
WRONG = [
    ([f"{ROLLOUT}.name=vlm"], "no rollout is called 'vlm'"),
    ([f"{ROLLOUT}.dtype=bf16"], "no dtype of vLLM is called 'bf16'"),
    ([f"{ROLLOUT}.checkpoint_engine.backend=ncl"], "no checkpoint engine is called 'ncl'"),
    ([f"{ROLLOUT}.agent.default_agent_loop=my_agent"], "no agent loop is called 'my_agent'"),
    ([f"{ROLLOUT}.temperature=-1"], "temperature=-1 is not at least 0"),
    ([f"{ROLLOUT}.temperature=warm"], "temperature=warm is no number"),
    ([f"{ROLLOUT}.top_p=1.5"], "top_p=1.5 is not above 0 and at most 1"),
    ([f"{ROLLOUT}.val_kwargs.n=0"], "val_kwargs.n=0 is no whole number of at least 1"),
    ([f"{ROLLOUT}.max_num_batched_tokens=64", f"{ROLLOUT}.max_num_seqs=128"], "max_num_batched_tokens (64) is less"),
    ([f"{ACTOR}.strategy=fdsp"], "no training strategy is called 'fdsp'"),
    ([f"{ACTOR}.policy_loss.loss_mode=vanila"], "no policy loss is called 'vanila'"),
    ([f"{ACTOR}.kl_loss_type=k4", REF], "kl_loss_type=k4: verl does not know it (NotImplementedError)"),
    ([f"{ACTOR}.kl_loss_type=full", REF], "kl_loss_type=full"),
    (["algorithm.kl_penalty=kl2", IN_REWARD], "algorithm.kl_penalty=kl2"),
    (["algorithm.kl_ctrl.type=moving", IN_REWARD], "algorithm.kl_ctrl.type=moving"),
    (["algorithm.kl_ctrl.type=adaptive", "algorithm.kl_ctrl.horizon=0", IN_REWARD], "horizon must be larger than 0"),
    ([f"{ACTOR}.optim.lr=fast"], "lr=fast is no number"),
    ([f"{ACTOR}.optim.lr='1e-6'"], "lr=1e-6 is no number"),
    ([f"{ACTOR}.optim.lr=-1e-6"], "lr=-1e-06 is no number of at least 0"),
    ([f"{ACTOR}.optim.optimizer=AdamX"], "optimizer=AdamX of torch.optim: Optimizer 'AdamX' not found"),
    ([f"{ACTOR}.optim.optimizer_impl=torch.optimum"], "optimizer=AdamW of torch.optimum: Failed to import"),
    ([f"{ACTOR}.optim.betas=[0.9,2.0]"], "Invalid beta parameter"),
    ([f"{ACTOR}.fsdp_config.mixed_precision.param_dtype=fp33"], "param_dtype=fp33: unexpected precision: fp33"),
    ([f"{ACTOR}.fsdp_config.mixed_precision.param_dtype=null"], "param_dtype=None: unexpected precision"),
    ([f"{ACTOR}.checkpoint.save_contents=model"], "save_contents=model is no list"),
    (["reward.reward_manager.name=naiv", "reward.custom_reward_function.path=null"], "no reward manager is called"),
    (["reward.reward_manager.source=importlib"], "source=importlib without a module"),
    ([REF, "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=70"], "ref.log_prob_max_token_len_per_gpu (70) x CP"),
    ([REF, "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=False"], "ref.log_prob_micro_batch_size_per_gpu is not set"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), WRONG, ids=lambda value: str(value)[:60])
def test_a_name_that_verl_does_not_know(case: Case, overrides: list[str], said: str):
    found = serious(case.check(*overrides))
    [told] = [what for severity, _, what in found if severity == "error"]
    assert said in told
    assert len(found) == 1 + ("rollout.dtype" in overrides[0]), found  # which is not the actor's, either


GOOD = [
    [REF, f"{ACTOR}.kl_loss_type=k3+"],
    [IN_REWARD, "algorithm.kl_penalty=abs"],
    [f"{ACTOR}.policy_loss.loss_mode=gspo", f"{ACTOR}.loss_agg_mode=seq-mean-token-mean"],
    [f"{ACTOR}.optim.optimizer=SGD", f"{ACTOR}.optim.lr=0"],
    [f"{ROLLOUT}.load_format=safetensors", f"{ROLLOUT}.agent.default_agent_loop=tool_agent"],
    [f"{ACTOR}.checkpoint.save_contents=[model,optimizer,extra,hf_model]", "reward.reward_manager.name=dapo"],
    # Nothing computes log-probabilities with these sizes.
    [REF, "actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.target_modules=all-linear",
     "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=70"],
    ["algorithm.rollout_correction.bypass_mode=True", f"{ROLLOUT}.calculate_log_probs=True",
     f"{ROLLOUT}.log_prob_max_token_len_per_gpu=70"],
    [f"{ACTOR}.strategy=fsdp_turbo"],
    [f"{ROLLOUT}.name=sglang", f"{ROLLOUT}.max_num_batched_tokens=64", f"{ROLLOUT}.max_num_seqs=128"],
    [REF, "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=False",
     "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8"],
]  # fmt: skip


@pytest.mark.parametrize("overrides", GOOD, ids=lambda value: value[0])
def test_names_that_verl_knows(case: Case, overrides: list[str]):
    assert serious(case.check(*overrides)) == []


def test_agent_loops_of_the_data_and_of_a_file(case: Case):
    data = case.written(case.data().assign(agent_name="mine"))
    [(severity, check, said)] = serious(case.check(data))
    assert (severity, check) == ("error", "config")
    assert "no agent loop is called 'mine'" in said
    loops = case.out / "loops.yaml"
    loops.write_text("- name: mine\n  _target_: package.MyLoop\n")
    config = f"{ROLLOUT}.agent.agent_loop_config_path={loops}"
    assert serious(case.check(data, config)) == []
    # Rows of the validation data name none: the default is theirs.
    [(_, _, said)] = serious(case.check(data, config, f"{ROLLOUT}.agent.default_agent_loop=yours"))
    assert "no agent loop is called 'yours'" in said


WARNED = [
    ([f"{ROLLOUT}.load_format=mine"], "vLLM itself knows no load_format 'mine'"),
    ([f"{ROLLOUT}.temperature=0"], "there is nothing to learn from"),
    ([f"{ACTOR}.optim.optimizer_impl=somebodys.optim"], "was not tried: Failed to import module 'somebodys.optim'"),
    ([f"{ACTOR}.checkpoint.save_contents=[model,optimiser]"], "verl knows no part 'optimiser' of a checkpoint"),
    ([f"{ACTOR}.checkpoint.save_contents=[optimizer]"], "checkpoints would have no weights"),
    (["reward.reward_manager.name=naiv"], "unless the reward function's file registers it"),
]


@pytest.mark.parametrize(("overrides", "said"), WARNED, ids=lambda value: str(value)[:60])
def test_what_may_be_meant_is_a_warning(case: Case, overrides: list[str], said: str):
    [(severity, check, told)] = serious(case.check(*overrides))
    assert (severity, check) == ("warning", "config")
    assert said in told


def test_names_that_the_users_module_registers(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As verl's workers, which import it before they look names up."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "users_own.py").write_text(
        "from verl.trainer.ppo.core_algos import register_policy_loss\n"
        "from verl.experimental.agent_loop.agent_loop import AgentLoopBase, register\n"
        "register_policy_loss('users_loss')(lambda **given: None)\n"
        "@register('users_agent')\nclass Agent(AgentLoopBase): pass\n"
    )
    names = [f"{ACTOR}.policy_loss.loss_mode=users_loss", f"{ROLLOUT}.agent.default_agent_loop=users_agent"]
    assert serious(case.check(*names, "actor_rollout_ref.model.external_lib=users_own")) == []
    found = serious(case.check("actor_rollout_ref.model.external_lib=nobodys_own"))
    assert any(check == "config" and "nobodys_own cannot be imported" in said for _, check, said in found)


def test_steps_that_would_be_padded_are_said_on_a_cpu_too(case: Case):
    [(severity, check, said)] = serious(case.check(f"{ACTOR}.ppo_mini_batch_size=24"))
    assert (severity, check) == ("warning", "parallel")
    assert "padding rows" in said


def test_folders_for_what_is_dumped(case: Case, tmp_path: Path):
    (tmp_path / "file").touch()
    for key in ("trainer.rollout_data_dir", "trainer.validation_data_dir"):
        [(severity, check, said)] = serious(case.check(f"{key}={tmp_path}/file/dumps"))
        assert (severity, check) == ("error", "checkpoints")
        assert "is a file" in said


def test_a_critic_that_is_on_the_hub(case: Case):
    """Its settings would be asked of the network."""
    report = case.check("algorithm.adv_estimator=gae", "critic.model.path=somebody/critic", "critic.strategy=fsdp2")
    assert [one for one in serious(report) if one[0] == "error"] == []
    assert any("the critic somebody/critic is not on this machine" in one.what for one in report.findings)


def test_heads_that_ulysses_cannot_share_out(case: Case):
    """The model has 4 heads, and keys and values for 2 or 4 of them."""
    found = serious(case.check(f"{ACTOR}.ulysses_sequence_parallel_size=3", "trainer.n_gpus_per_node=3"))
    assert any("attention heads (4) is not divisible by Ulysses" in said for _, _, said in found)
    assert any("KV heads" in said and "Ulysses" in said and "neither divides" in said for _, _, said in found)


def test_what_was_typed_is_no_remedy(case: Case):
    report = case.check("data.train_files=~/train.parquet")
    [fix] = [one.fix for one in report.findings if one.check == "arguments"]
    assert "did you mean" not in fix
    assert "quotes" in fix


def test_experts_in_tensorrt_llm_need_not_be_everywhere(case: Case):
    """verl's RolloutConfig exempts it: TensorRT-LLM cuts what is left within an expert."""
    sizes = [
        f"{ROLLOUT}.tensor_model_parallel_size=4",
        f"{ROLLOUT}.expert_parallel_size=2",
        "trainer.n_gpus_per_node=4",
    ]

    def of_experts(name: str) -> list[str]:
        found = serious(case.check(*sizes, f"{ROLLOUT}.name={name}"))
        return [said for _, _, said in found if "must be 1 or rollout TP x DP" in said]

    assert of_experts("trtllm") == []
    assert of_experts("vllm") != []
