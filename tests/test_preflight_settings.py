# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What `preflight` says of wrong data files and wrong settings: each is named, and nothing else is."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.preflight_case import Case, changed, serious

pytestmark = pytest.mark.launch

pytest.importorskip("verl")


def emptied(column: str, rows: list[int]):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        frame[column] = [None if row in rows else value for row, value in enumerate(frame[column])]
        return frame

    return change


def relabelled(old: str, new: str):
    return changed("preference_group", lambda group: new if group == old else group)


def only_one_row_of(group: str):
    return lambda frame: frame[(frame.preference_group != group) | ~frame.preference_group.duplicated()]


# Of the training data, or of the validation data: what is done to it, and what is said of it.
DATA = [
    ("train", changed("prompt", None), "error", "data", "no column 'prompt'"),
    ("train", changed("prompt", "hello"), "error", "data", "string, not chat messages"),
    ("train", emptied("prompt", [3, 5]), "error", "data", "2 of 512 training rows have no prompt (first rows: [3"),
    ("val", changed("data_source", None), "error", "data", "the validation data has no column 'data_source'"),
    ("train", emptied("data_source", [0]), "error", "data", "1 of 512 training rows have no data_source"),
    ("train", lambda frame: frame.assign(session_id="s"), "error", "data", "a column 'session_id', which verl's agent"),
    ("val", changed("reward_model", None), "error", "data", "has no column 'reward_model'"),
    ("train", changed("reward_model", {"style": "rule"}), "error", "data", "without ground_truth"),
    ("train", emptied("reward_model", [7]), "error", "data", "1 of 512 training rows have no reward_model"),
    ("train", changed("extra_info", "{}"), "error", "data", "and verl's dataset calls its .get()"),
    ("train", lambda frame: frame.head(0), "error", "data", "the training data has no rows"),
    ("train", changed("preference_group", None), "error", "groups", "no column 'preference_group'"),
    ("train", emptied("preference_group", [1, 2]), "error", "groups", "2 of 512 training rows have no 'pref"),
    ("train", changed("preference_group", " "), "error", "groups", "512 of 512 training rows have no"),
    ("train", changed("preference_group", 1.5), "error", "groups", "of type float"),
    ("train", only_one_row_of("poetic_jazz"), "warning", "groups", "1 of 7 preference groups get fewer than 8"),
    ("val", relabelled("poetic_jazz", "jazz"), "warning", "groups", "1 preference groups of the validation"),
    ("val", lambda frame: frame[frame.preference_group != "poetic_jazz"], "warning", "groups", "1 of 7 pref"),
    ("val", changed("data_source", lambda old: old.replace("poetic_jazz", "jazz")), "warning", "groups", "/jazz"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("split", "change", "severity", "check", "said"), DATA)
def test_what_is_wrong_with_the_data_is_named(case: Case, split: str, change, severity: str, check: str, said: str):
    report = case.check(case.written(change(case.data(split)), split))
    found = serious(report)
    # What comes of it is not said again: of a label that is misspelt in one split the other has too many.
    assert said in found[0][2], found
    assert {one[:2] for one in found} == {(severity, check)}
    assert report.ok == (severity == "warning")
    assert all(one.where and one.fix for one in report.findings)


SETTINGS = [
    ("data.train_batch_size=many", "config", "data.train_batch_size=many is no whole number of at least 1"),
    ("trainer.nnodes=0", "config", "trainer.nnodes=0 is no whole number of at least 1"),
    ("actor_rollout_ref.rollout.n=null", "config", "actor_rollout_ref.rollout.n=None is no whole number"),
    ("trainer.default_local_dir=null", "config", "trainer.default_local_dir is not set"),
    ("algorithm.adv_estimator=pgrop", "config", "no advantage estimator is called 'pgrop'"),
    ("+algorithm.pgrpo.halflife=3", "config", "unknown option halflife; did you mean half_life?"),
    ("+algorithm.pgrpo.epsilon=-1", "config", "epsilon=-1: must be at least 0"),
    ("algorithm.filter_groups.enable=True", "config", "filter_groups.enable=True contradicts"),
    ("trainer.v1.trainer_mode=async", "config", "no trainer mode is called 'async'"),
    ("trainer.resume_mode=always", "config", "no resume mode is called 'always'"),
    ("trainer.total_training_steps=0", "config", "total_training_steps=0 is no whole number of at least 1"),
    ("actor_rollout_ref.rollout.data_parallel_size=x", "config", "data_parallel_size=x is no whole number"),
    ("actor_rollout_ref.rollout.gpu_memory_utilization=abc", "config", "gpu_memory_utilization=abc is no number"),
    ("trainer.logger=[console,nonsense]", "config", "no logger is called 'nonsense'"),
    ("trainer.logger=[clearml]", "config", "clearml cannot be imported"),
    ("custom_reward_function.path=mine.py", "config", "custom_reward_function.path has no effect"),
    ("trainer.v1.sampler.custom_sampler.path=mine.py", "config", "mine.py does not exist"),
    ("actor_rollout_ref.actor.loss_agg_mode=mean", "config", "Invalid loss_agg_mode: mean"),
    ("data.train_batch_size=${data.batch}", "arguments", "Interpolation key 'data.batch' not found"),
    ("data.train_files=~/train.parquet", "arguments", "data.train_files=~/train.parquet"),
    ("data.train_filez=x.parquet", "arguments", "Could not override 'data.train_filez'"),
    ("nonsense", "arguments", "Error parsing override 'nonsense'"),
    ("data.train_files='~/train.parquet'", "data", "no such file"),
    ("data.train_files=[]", "data", "no file is named"),
    ("data.train_files=data.csv", "data", "no such file"),
    ("data.train_batch_size=1024", "steps", "512 training rows do not fill one batch"),
    ("trainer.n_gpus_per_node=3", "parallel", "not divisible by the trainer's DP (3)"),
    ("actor_rollout_ref.rollout.tensor_model_parallel_size=3", "parallel", "rollout TP x DP (3)"),
    ("actor_rollout_ref.rollout.max_model_len=32", "parallel", "max_model_len (32) is less than a prompt"),
    ("actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=False", "parallel", "log_prob_use_dynamic_bsz (False) is not"),
    ("actor_rollout_ref.model.path=/models/none", "model", "there is no folder /models/none"),
    ("data.max_response_length=100000", "model", "the model knows"),
    ("actor_rollout_ref.actor.checkpoint.async_save=True", "checkpoints", "never writes latest_checkpointed_iteration"),
    ("trainer.resume_mode=resume_path", "checkpoints", "resume_path without a path"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("override", "check", "said"), SETTINGS, ids=lambda value: value.partition("=")[0])
def test_a_wrong_setting_is_named(case: Case, override: str, check: str, said: str):
    more = ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=200000"] if "100000" in override else []
    report = case.check(override, *more)
    assert {one[:2] for one in serious(report)} == {("error", check)}, serious(report)
    assert said in serious(report)[0][2]
    assert not report.ok
    assert all(one.where and one.fix for one in report.findings)


@pytest.mark.parametrize("lacking", [["preference_group"], ["data_source", "reward_model"]])
@pytest.mark.parametrize("first", [True, False])
def test_a_column_that_one_of_several_files_lacks(case: Case, lacking: list[str], first: bool):
    """verl puts the files together, with nulls where a file has none."""
    files = [case.folder / "train.parquet", case.out / "part.parquet"]
    case.out.mkdir(exist_ok=True)
    case.data().head(200).drop(columns=lacking).to_parquet(files[1])
    named = ",".join(map(str, reversed(files) if first else files))
    found = serious(case.check(f"data.train_files=[{named}]"))
    assert all(severity == "error" and "could not be checked" not in said for severity, _, said in found)
    for column in lacking:
        assert any("200 of 712" in said and column in said for _, _, said in found)
