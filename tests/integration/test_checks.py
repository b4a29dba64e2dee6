# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Checks before a run: its options, the installed verl, and its dataset's groups as they will reach the history."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_pgrpo import ConfigError, DataError, GroupLabelError, MissingGroupError, PGRPOConfig, UnsupportedVerlError
from verl_pgrpo.integration.batch import GroupColumn
from verl_pgrpo.integration.checks import check_config, check_dataset_columns, check_verl, count_groups, require_hooks
from verl_pgrpo.integration.mixin import PGRPOTrainerMixin
from verl_pgrpo.integration.plugin import check_run

FILLED = PGRPOConfig(default_group="none")
TEXT = ["a", "b", "a", None, "ü", " "]
NUMBERS = [1, 2, 1, None, 100, 0]
INTEGERS = [*(pa.int8(), pa.int16(), pa.int32(), pa.int64()), *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())]
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


def labels_in_rollouts(dataset, options, monkeypatch):
    """The labels of all rows after passing through verl: TransferQueue, and an older trainer's DataProto."""
    from transfer_queue import KVBatchMeta
    from verl.protocol import DataProto
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.rl_dataset import collate_fn

    from verl_pgrpo.integration import legacy, trainers

    column, _ = count_groups(dataset, options)
    collated = collate_fn([dataset[row] for row in range(len(dataset))])
    stack = dict(tu.get_tensordict(dict(collated)).items())[column.name]  # as verl's agent loop splits it
    fields = tu.list_of_dict_to_tensordict([{column.name: stack[row].data} for row in range(len(dataset))])
    monkeypatch.setattr(trainers.tq, "kv_batch_get", lambda **_: fields)
    keys = [f"{row}_0_0" for row in range(len(dataset))]
    in_queue = trainers.preference_groups(KVBatchMeta(keys, [{}] * len(keys), "train"), column)
    return in_queue, [
        label or None for label in legacy.preference_groups(DataProto.from_single_dict(collated), options)
    ]


@pytest.mark.parametrize("name", COLUMNS)
def test_the_counted_labels_are_those_that_reach_the_history(name, dataset, request, monkeypatch):
    key = f"{name}.user.id" if name.startswith("nested") else name
    options = PGRPOConfig(group_key=key, default_group="none")
    if name == "large numbers" and "jsonl" in request.node.name:  # pyarrow reads integers beyond int64 as floats
        with pytest.raises(GroupLabelError, match="float"):
            count_groups(dataset, options)
        return
    _, counts = count_groups(dataset, options)
    for labels in labels_in_rollouts(dataset, options, monkeypatch):
        assert Counter(label or "none" for label in labels) == counts
    values = [v["user"] and v["user"]["id"] if isinstance(v, dict) else v for v in COLUMNS[name].to_pylist()]
    assert counts == Counter("none" if value in (None, " ") else str(value) for value in values)


BAD = [[1.5, 2.0], [True, False], [["a"], ["b"]], [{"a": 1}, {"a": 2}], [b"a", b"b"]]
BAD += [pa.array([1, 2], pa.decimal128(5, 0)), pa.array([1, 2], pa.date32())]


@pytest.mark.parametrize("values", BAD, ids=str)
def test_a_column_of_another_type_is_an_error(values):
    data = SimpleNamespace(dataframe=datasets.Dataset(pa.table({"preference_group": values})))
    with pytest.raises(GroupLabelError, match="row 0"):
        count_groups(data, PGRPOConfig())


def table(features=None, **columns):
    return SimpleNamespace(dataframe=datasets.Dataset.from_dict(columns, features=features))


def test_rows_are_counted_as_verl_trains_on_them():
    data = table(preference_group=["a", None, "b"])
    data.dataframe = data.dataframe.filter(lambda row: row["preference_group"] is not None)
    assert count_groups(data, PGRPOConfig())[1] == {"a": 1, "b": 1}
    dotted = table(**{"user.id": ["a", "b", "a"], "user": [{"id": "x"}] * 3})  # the whole name takes precedence
    assert count_groups(dotted, PGRPOConfig(group_key="user.id")) == (GroupColumn("user.id"), {"a": 2, "b": 1})
    assert count_groups(table(preference_group=["a", None, " "]), FILLED)[1] == {"a": 1, "none": 2}
    assert count_groups(table(prompt=["?"] * 3), FILLED) == (None, {"none": 3})
    no_table = SimpleNamespace(dataframe=[1, 2])
    column = GroupColumn("extra_info", ("user",))
    assert count_groups(no_table, PGRPOConfig(group_key="extra_info.user")) == (column, None)
    assert column.labels(np.array([{"user": 7}, None], dtype=object)) == ["7", None]


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


@pytest.mark.parametrize("key", ["segment", "user.segment"])
def test_a_class_label_is_rejected_because_verl_passes_on_its_number(key):
    feature = datasets.ClassLabel(names=["jazz", "rock"])
    features = {"prompt": datasets.Value("string"), "segment": feature, "user": {"segment": feature}}
    columns = {"prompt": ["?"] * 3, "segment": [0, 1, 0], "user": [{"segment": 0}] * 3}
    dataset = SimpleNamespace(dataframe=datasets.Dataset.from_dict(columns, datasets.Features(features)))
    assert dataset.dataframe[1]["segment"] == 1
    with pytest.raises(GroupLabelError, match=f"'{key}' is a ClassLabel.*'jazz', 'rock'"):
        count_groups(dataset, PGRPOConfig(group_key=key))


@pytest.mark.parametrize(
    ("columns", "key", "mentions"),
    [
        ({"preference_groups": ["a"] * 3}, "preference_group", "group_key=preference_groups"),
        ({"preference_group": ["a", None, " "]}, "preference_group", r"\[1, 2\]"),
        ({"extra_info": ["a"] * 3}, "extra_info.segment", "segment"),
    ],
)
def test_missing_groups_are_an_error_that_says_where(columns, key, mentions):
    with pytest.raises(MissingGroupError, match=mentions):
        count_groups(table(**columns), PGRPOConfig(group_key=key))


def test_filter_groups_contradicts_the_method(compose):
    with pytest.raises(ConfigError, match="filter_groups"):
        check_config(compose("algorithm.filter_groups.enable=True", "algorithm.filter_groups.metric=acc"))
    options = ["+algorithm.pgrpo.half_life=512", "algorithm.use_kl_in_reward=True"]
    assert check_config(compose(*options)) == PGRPOConfig(half_life=512, use_kl_in_reward=True)


# ------------------------------------------------------------------------------------------------- the installed verl


@pytest.mark.parametrize("use_v1", [True, False])
def test_the_installed_verl_is_supported(compose, use_v1):
    check_verl(compose(f"trainer.use_v1={use_v1}"))


def test_a_verl_without_what_the_plugin_needs_is_recognized(compose, monkeypatch):
    """Upstream's branch `neo` has neither TransferQueue nor a launcher for the V1 trainers."""
    from verl.trainer import main_ppo

    v1, v0, older = compose("trainer.use_v1=True"), compose("trainer.use_v1=False"), compose("~trainer.use_v1")
    lacking = [
        (older, "use_v1", lambda patch: None),
        (v0, "verl.trainer.main_ppo_v0", lambda patch: patch.setitem(sys.modules, "verl.trainer.main_ppo_v0", None)),
        (v1, "TransferQueue", lambda patch: patch.setitem(sys.modules, "transfer_queue", None)),
        (v1, "TaskRunnerV1", lambda patch: patch.delattr(main_ppo, "TaskRunnerV1")),
    ]
    for config, named, change in lacking:
        with monkeypatch.context() as patch:
            change(patch)
            for config.algorithm.adv_estimator in ("grpo", "pgrpo"):
                if config.algorithm.adv_estimator == "grpo":
                    check_run(config)
                else:
                    for check in (check_run, PGRPOTrainerMixin):  # the launcher's check, and every trainer's
                        with pytest.raises(UnsupportedVerlError, match=named):
                            check(config)


def test_an_untested_version_is_a_warning(compose, monkeypatch, capsys):
    class Trainer:
        def __init__(self, config):
            print("stock")

    monkeypatch.setattr("verl.__version__", "0.10.0.dev0")
    config = compose("trainer.resume_mode=disable")
    config.algorithm.adv_estimator = "pgrpo"
    type("Personalized", (PGRPOTrainerMixin, Trainer), {})(config)
    assert re.search(r"warning: verl 0\.10\.0\.dev0 is not tested \(0\.9.*\n(?:.*\n)*stock", capsys.readouterr().out)


def test_a_class_without_a_required_method_is_named():
    from verl_pgrpo.integration import legacy, trainers

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
