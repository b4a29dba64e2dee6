# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Checks before a run: its options, the installed verl, and its dataset's groups as they will reach the history."""

from __future__ import annotations

import inspect
import json
import sys
from collections import Counter
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_pgrpo import DataError, GroupLabelError, MissingGroupError, PGRPOConfig, UnsupportedVerlError
from verl_pgrpo.integration import legacy, trainers
from verl_pgrpo.integration.batch import GroupColumn
from verl_pgrpo.integration.checks import check_dataset_columns, count_groups, require_hooks
from verl_pgrpo.integration.columns import check_columns, reserved_columns, reserved_reward_keys
from verl_pgrpo.integration.mixin import PGRPOTrainerMixin
from verl_pgrpo.integration.plugin import check_run
from verl_pgrpo.integration.resume import compare_groups

FILLED = PGRPOConfig(default_group="none")
TEXT = ["a", "b", "a", None, "ü", " "]
NUMBERS = [1, 2, 1, None, 100, 0]
INTEGERS = pa.int8(), pa.int64(), pa.uint8(), pa.uint64()
COLUMNS = {
    "string": pa.array(TEXT, pa.string()),
    "large_string": pa.array(TEXT, pa.large_string()),
    "categorical": pa.array(TEXT, pa.string()).dictionary_encode(),
    "categorical of int8": pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, None, 2, 0], pa.int8()), ["a", "b", "ü"]),
    "categorical of numbers": pa.array(NUMBERS, pa.int64()).dictionary_encode(),
    **{str(kind): pa.array(NUMBERS, kind) for kind in INTEGERS},
    "large numbers": pa.array([2**53 + 1, 2**64 - 1, 0, None, 2**63, 2**53], pa.uint64()),
    "nested": pa.array([{"user": {"id": value}} for value in TEXT]),
    "nested numbers": pa.array([{"user": {"id": value}} for value in NUMBERS]),
    "nested with nulls": pa.array([None, {"user": None}, *({"user": {"id": value}} for value in NUMBERS[2:])]),
}


@pytest.fixture(scope="module", params=["parquet", "jsonl"])
def dataset(request, tmp_path_factory):
    """verl's own dataset of a file with all the columns."""
    from verl.utils.dataset.rl_dataset import RLHFDataset

    folder = tmp_path_factory.mktemp("data")
    path = folder / f"data.{request.param}"
    table = pa.table({"prompt": [[{"role": "user", "content": "?"}]] * 6, **COLUMNS})
    if request.param == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        config = {"filter_overlong_prompts": False, "cache_dir": str(folder / "verl")}
        yield RLHFDataset(data_files=str(path), tokenizer=None, config=config)


@pytest.mark.parametrize("name", COLUMNS)
def test_the_counted_labels_are_those_that_reach_the_history(name, dataset, request, monkeypatch):
    """After passing through verl: TransferQueue, and an older trainer's DataProto."""
    from transfer_queue import KVBatchMeta
    from verl.protocol import DataProto
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.rl_dataset import collate_fn

    options = PGRPOConfig(group_key=f"{name}.user.id" if name.startswith("nested") else name, default_group="none")
    if name == "large numbers" and "jsonl" in request.node.name:  # pyarrow reads integers beyond int64 as floats
        with pytest.raises(GroupLabelError, match="float"):
            count_groups(dataset, options)
        return
    column, counts = count_groups(dataset, options)
    values = [v["user"] and v["user"]["id"] if isinstance(v, dict) else v for v in COLUMNS[name].to_pylist()]
    assert counts == Counter("none" if value in (None, " ") else str(value) for value in values)

    collated = collate_fn([dataset[row] for row in range(6)])
    stack = dict(tu.get_tensordict(dict(collated)).items())[column.name]  # as verl's agent loop splits it
    fields = tu.list_of_dict_to_tensordict([{column.name: stack[row].data} for row in range(6)])
    monkeypatch.setattr(trainers.tq, "kv_batch_get", lambda **_: fields)
    in_queue = KVBatchMeta([f"{row}_0_0" for row in range(6)], [{}] * 6, "train")
    for labels in (
        trainers.preference_groups(in_queue, column),
        legacy.preference_groups(DataProto.from_single_dict(collated), options),
    ):
        assert Counter(label or "none" for label in labels) == counts


def table(features=None, **columns):
    features = features and datasets.Features(features)
    return SimpleNamespace(dataframe=datasets.Dataset.from_dict(columns, features))


def test_rows_are_counted_as_verl_trains_on_them():
    data = table(preference_group=["a", None, "b"])
    data.dataframe = data.dataframe.filter(lambda row: row["preference_group"] is not None)
    assert count_groups(data, PGRPOConfig())[1] == {"a": 1, "b": 1}
    dotted = table(**{"user.id": ["a", "b", "a"], "user": [{"id": "x"}] * 3})  # the whole name takes precedence
    assert count_groups(dotted, PGRPOConfig(group_key="user.id")) == (GroupColumn("user.id"), {"a": 2, "b": 1})
    assert count_groups(table(preference_group=["a", None, " "]), FILLED)[1] == {"a": 1, "none": 2}
    assert count_groups(table(prompt=["?"] * 3), FILLED) == (None, {"none": 3})
    nested = GroupColumn("extra_info", ("user",))
    assert count_groups(SimpleNamespace(dataframe=[1]), PGRPOConfig(group_key="extra_info.user")) == (nested, None)


NAMES = datasets.ClassLabel(names=["jazz", "rock"])  # verl passes on its number
BAD = [[1.5, 2.0], [True, False], [["a"], ["b"]], [{"a": 1}, {"a": 2}], [b"a", b"b"]]
BAD += [pa.array([1, 2], pa.decimal128(5, 0)), pa.array([1, 2], pa.date32())]
# The training data, group_key, the error, and where it is.
WRONG = [
    *((table(segment=values), "segment", GroupLabelError, "row 0") for values in BAD),
    (table({"segment": NAMES}, segment=[0, 1]), "segment", GroupLabelError, "'segment'.*'jazz', 'rock'"),
    (table({"user": {"id": NAMES}}, user=[{"id": 0}]), "user.id", GroupLabelError, "'user.id'.*'jazz', 'rock'"),
    (table(segments=["a"]), "segment", MissingGroupError, "group_key=segments"),
    (table(segment=["a", None, " "]), "segment", MissingGroupError, r"\[1, 2\]"),
    (table(extra_info=["a"]), "extra_info.segment", MissingGroupError, "segment"),
]


@pytest.mark.parametrize(("data", "key", "error", "where"), WRONG)
def test_data_without_usable_groups_are_an_error_that_says_where(data, key, error, where):
    with pytest.raises(error, match=where):
        count_groups(data, PGRPOConfig(group_key=key))


def test_rows_of_a_dataset_class_that_changes_them_are_what_counts(dataset, capsys):
    class Changed:
        dataframe = dataset.dataframe.rename_column("string", "preference_group")

        def __len__(self):
            return len(dataset)

        def __getitem__(self, row):
            return {**dataset[row], "preference_group": "x", "num_turns": 7}

    assert count_groups(Changed(), FILLED) == (GroupColumn("preference_group"), None)
    with pytest.raises(DataError, match="'num_turns' replaces"):
        check_dataset_columns(Changed(), use_v1=True)
    check_dataset_columns(dataset, use_v1=True)
    assert capsys.readouterr().out == "", "verl's own dataset adds raw_prompt and index itself"


# ------------------------------------------------------------------------------------------------- the installed verl


def removed(module):
    return lambda patch: patch.setitem(sys.modules, module, None)


# Upstream's branch `neo` has neither TransferQueue nor a launcher for the V1 trainers.
LACKING = [
    ("~trainer.use_v1", "use_v1", lambda patch: None),
    ("trainer.use_v1=False", "verl.trainer.main_ppo_v0", removed("verl.trainer.main_ppo_v0")),
    ("trainer.use_v1=True", "TransferQueue", removed("transfer_queue")),
    ("trainer.use_v1=True", "TaskRunnerV1", lambda patch: patch.delattr("verl.trainer.main_ppo.TaskRunnerV1")),
]


@pytest.mark.parametrize(("override", "lacking", "change"), LACKING)
def test_a_verl_without_what_the_plugin_needs_is_recognized(override, lacking, change, compose, monkeypatch):
    change(monkeypatch)
    check_run(compose(override, "algorithm.adv_estimator=grpo"))
    for check in (check_run, PGRPOTrainerMixin):  # the launcher's check, and every trainer's
        with pytest.raises(UnsupportedVerlError, match=lacking):
            check(compose(override, "algorithm.adv_estimator=pgrpo"))


def test_an_untested_version_is_a_warning(compose, monkeypatch, capsys):
    monkeypatch.setattr("verl.__version__", "0.10.0.dev0")
    stock = type("Trainer", (), {"__init__": lambda self, config: None})
    config = compose("algorithm.adv_estimator=pgrpo", "trainer.resume_mode=disable")
    assert type("Personalized", (PGRPOTrainerMixin, stock), {})(config).pgrpo.step == 0
    assert "warning: verl 0.10.0.dev0" in capsys.readouterr().out


def test_a_class_without_a_required_method_is_named():
    class Trainer:
        def step(self): ...
        def _init_dataloader(self): ...
        def _save_checkpoint(self): ...
        def _load_checkpoint(self): ...

    with pytest.raises(UnsupportedVerlError, match=r"Trainer has no _compute_advantage\."):
        trainers.with_history(Trainer)
    require_hooks(Trainer, "step", "_load_checkpoint")
    for name, classes in legacy._REPLACED.items():
        for members in ({}, dict.fromkeys(classes, Trainer)):
            with pytest.raises(UnsupportedVerlError, match=r" has no \w+"):
                legacy.personalize_module(SimpleNamespace(__name__=name, **members))


# ------------------------------------------------------------------------------------------------- names that verl uses


def errors(use_v1):
    return {name for name, one in reserved_columns(use_v1).items() if one.severity == "error"}


def test_names_are_those_of_verls_signatures_and_fields():
    """Names derived from the source equal those of the objects. `agent_name` and later names come from the row."""
    from verl.experimental.agent_loop import AgentLoopOutput, AgentLoopWorker
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics

    run = list(inspect.signature(AgentLoopWorker._run_agent_loop).parameters)
    end = list(inspect.signature(AgentLoopWorker._agent_loop_postprocess).parameters)
    for use_v1 in (True, False):
        assert {*run[: run.index("agent_name")], *end} - {"kwargs"} <= errors(use_v1)
    assert "session_id" in reserved_columns(True)
    assert "session_id" not in reserved_columns(False)
    values = {"prompt_ids": [1], "response_ids": [1], "response_mask": [1], "response_logprobs": [0.0], "num_turns": 2}
    extra = {"teacher_ids": [1], "teacher_logprobs": [0.0]}
    output = AgentLoopOutput(
        **values, reward_score=1.0, metrics=AgentLoopMetrics(), routed_experts=[[[0]]], extra_fields=extra
    )
    assert set(output.as_dict()) <= errors(True)


def test_columns_of_verls_data_format_are_free():
    names = ["data_source", "prompt", "ability", "reward_model", "extra_info", "preference_group", "agent_name"]
    for use_v1 in (True, False):
        assert check_columns([*names, "images"], use_v1) == []
    found = check_columns(["prompt", "output", "uid"])
    assert [(one.name, one.severity) for one in found] == [("output", "error"), ("uid", "warning")]
    assert "reward" in reserved_reward_keys()
    assert not {"score", "acc", "pred"} & set(reserved_reward_keys())


@pytest.mark.parametrize(
    ("history", "data", "severity"),
    [("ab", "ab", None), ("", "ab", None), ("ab", "cd", "error"), ("ab", "bc", "warning"), ("a", "ab", "note")],
)
def test_groups_of_a_history_against_the_data(history, data, severity):
    found = compare_groups(list(history), list(data))
    assert (found.severity if found else None) == severity
