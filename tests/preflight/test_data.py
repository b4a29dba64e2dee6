# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Data as verl's own dataset loads it: files, columns, missing values, subset, filter, groups."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preflight.case import DROPPED, Case, at, problems, prompt, rows
from verl_pgrpo.integration.columns import reserved_columns
from verl_pgrpo.preflight import data

pytestmark = pytest.mark.slow

GROUPS = "2 preference groups, the smallest with 32 training rows"
ERROR, WARNING = ("error", "data"), ("warning", "data")
NO_GROUPS, ODD_GROUPS, NO_STEPS = ("error", "groups"), ("warning", "groups"), ("error", "steps")
SUBSET, IN_ORDER, FILTER = "data.train_max_samples=32", "data.shuffle=False", "data.filter_overlong_prompts=True"


def labels(label):
    return {"preference_group": label}


RARE = labels(lambda i: "c" if i < 1 else "ab"[i % 2])  # less than 2 %


def one_truth(odd, others):
    return {"reward_model": lambda i: {"style": "rule", "ground_truth": odd if i == 60 else others}}


def long_prompts(numbers):
    return {"prompt": lambda i: prompt("few words " * (50 if i in numbers else 1))}


@pytest.mark.parametrize(
    ("columns", "overrides", "location", "expected"),
    [
        (one_truth(None, "jazz"), "", "", {WARNING}),
        (one_truth(float("nan"), 1.0), "", "", {WARNING}),
        ({"agent_name": lambda i: None if i == 60 else "single_turn_agent"}, "", "", {ERROR}),
        ({"images": ["a.png"]}, "", "row 0", {ERROR}),
        (labels(DROPPED), "algorithm.adv_estimator=grpo", "", set()),
        (labels("all"), "", "data.train_files", {ODD_GROUPS}),
        (labels(lambda i: "b" if i == 1 else "a"), "", "data.train_files", {ODD_GROUPS}),
        (labels(lambda i: "nan" if i % 3 else "a"), "", "data.train_files", {ODD_GROUPS}),
        (labels(lambda i: ("jazz", "jazz\u200b")[i % 2]), "", "data.train_files", {ODD_GROUPS}),
        (RARE, "+algorithm.pgrpo.group_balance=1", "group_balance", {ODD_GROUPS}),
        (RARE, "+algorithm.pgrpo.group_balance=0.5", "group_balance", set()),
        (labels("a") | {"split": "val"}, "", "data.val_files", {ODD_GROUPS}),
        (labels(lambda i: "abc"[i % 3]) | {"split": "val"}, "", "data.val_files", {ODD_GROUPS}),
        ({"data_source": lambda i: f"demo/{'ac'[i % 2]}", "split": "val"}, "", "data.val_files", {ODD_GROUPS}),
        ({}, f"{SUBSET} data.seed=null", "", {WARNING}),  # a resumed run would use other rows
        ({}, f"{SUBSET} data.seed=null {IN_ORDER}", "", set()),
        ({}, "data.train_max_samples=65 data.seed=null", "", set()),  # all 64 rows
        ({}, SUBSET, "", set()),
        ({}, f"data.max_prompt_length=4 {FILTER}", "data.train_files", {ERROR}),
        ({}, "data.filter_overlong_prompts_workers=x", "", {ERROR}),
        ({}, "data.custom_cls.path=none.py data.custom_cls.name=X", "data.custom_cls", {ERROR}),
        ({}, "data.dataloader_num_workers=-1", "", {NO_STEPS}),
        ({}, "data.val_batch_size=x", "", {NO_STEPS}),
        ({}, "data.train_batch_size=128", "data.train_files", {NO_STEPS}),
        ({}, "data.gen_batch_size=8", "", set()),
        ({}, "data.gen_batch_size=48", "data.gen_batch_size", {NO_STEPS}),
        ({}, "data.gen_batch_size=1024", "data.gen_batch_size", {NO_STEPS}),
        ({}, "trainer.total_training_steps=1000", "trainer.total_epochs", {("warning", "steps")}),
    ],
)
def test_what_is_reported(case: Case, columns, overrides, location, expected):
    """All problems at the location, or of the launch."""
    files = [case.write(**columns)] if columns else []
    assert problems(case.check(*files, *overrides.split()), location) == expected


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("column", ["prompt", "data_source", "reward_model", "preference_group"])
def test_missing_values_and_columns(case: Case, column, everywhere):
    table = rows()
    for row in table if everywhere else (table[3], table[5]):
        del row[column]
    where = "data.prompt_key" if everywhere and column == "prompt" else "data.train_files"
    expected = NO_GROUPS if column == "preference_group" else ERROR
    assert expected in at(case.check(case.write(table)), where)


def test_a_message_without_content_is_missing():
    """Many templates write the text "None" for it. An assistant that calls a tool needs none."""
    call = [*prompt("jazz"), {"role": "assistant", "content": None}]
    texts = pa.array([[*call, {"role": "user", "content": None if i == 60 else "jazz"}] for i in range(64)])
    empty = data._empty_field(pa.chunked_array([texts[:10], texts[10:]]), "content")
    assert [i for i, flag in enumerate(empty.to_pylist()) if flag] == [60]
    assert data._empty_field(pa.chunked_array([texts]), "text") is None


@pytest.mark.parametrize("use_v1", [True, False])
def test_every_column_that_verl_uses_is_reported(case: Case, use_v1):
    reserved = reserved_columns(use_v1).values()
    report = case.check(case.write(rows(**{one.name: 1 for one in reserved})), f"trainer.use_v1={use_v1}")
    for one in reserved:
        assert (one.severity, "data") in at(report, f"column {one.name}"), one


@pytest.mark.parametrize("use_v1", [True, False])
@pytest.mark.parametrize("column", ["output", "sampling_params", "trajectory", "trace", "self"])
def test_columns_that_break_a_rollout_do_break_it(case: Case, column, use_v1, monkeypatch):
    """Without the check by name, the rehearsal fails: the derived names are not false alarms."""
    monkeypatch.setattr(data, "check_columns", lambda *_: [])
    report = case.rehearse(case.write(rows(**{column: "x"})), f"trainer.use_v1={use_v1}")
    assert ("error", "reward") in at(report, "train row 0"), report.diagnostics


@pytest.mark.parametrize("form", ["lines", "list", "several"])
def test_every_format_that_verl_reads(case: Case, form):
    """A harmless column is not reported. Types of group columns: tests/integration/test_checks.py."""
    table, path = rows(answer="x", score=1.0), case.out / f"train.json{'l' * (form == 'lines')}"
    path.write_text(json.dumps(table) if form == "list" else "".join(json.dumps(row) + "\n" for row in table))
    files = f"[{case.folder}/train.parquet,{path}]" if form == "several" else str(path)
    report = case.rehearse(f"data.train_files={files}")
    assert problems(report) == set()
    assert (GROUPS if form != "several" else GROUPS.replace("32", "64")) in report.facts


@pytest.mark.parametrize("damage", ["missing", "text", "body", "empty", "csv"])
def test_files_that_verl_cannot_read(case: Case, damage):
    path = case.out / ("train.csv" if damage == "csv" else "train.parquet")
    good = (case.folder / "train.parquet").read_bytes()
    half = len(good) // 2  # the footer at the end is intact
    contents = {"text": b"nonsense", "csv": good, "body": good[:4] + b"\xff" * (half - 4) + good[half:]}
    if damage == "empty":
        pq.write_table(pa.Table.from_pylist(rows()).slice(0, 0), path)
    elif damage in contents:
        path.write_bytes(contents[damage])
    report = case.check(f"data.train_files={path}")
    assert problems(report, str(path)) == {ERROR}
    assert ERROR not in at(report, "data.val_files")


def test_groups_are_those_of_the_subset(case: Case):
    halves = case.write(preference_group=lambda i: "ab"[i // 32])
    report = case.check(halves, SUBSET, IN_ORDER)
    assert ODD_GROUPS in at(report, "data.train_files")
    assert "1 preference groups, the smallest with 32 training rows" in report.facts
    assert GROUPS in case.check(halves, IN_ORDER).facts


@pytest.mark.parametrize(("filtered", "left"), [(True, 60), (False, 64)])
def test_overlong_prompts(case: Case, filtered, left):
    report = case.check(case.write(**long_prompts(range(4))), f"data.filter_overlong_prompts={filtered}")
    assert problems(report) == {WARNING}
    assert any(fact.startswith(f"{left} training rows") for fact in report.facts)


def test_the_filter_is_sampled_on_large_data(case: Case, monkeypatch):
    monkeypatch.setattr(data, "FILTER_LIMIT", 32)
    monkeypatch.setattr(data, "FILTER_SAMPLE", 8)
    report = case.check(FILTER)
    assert problems(report) == set()
    assert ("note", "data") in at(report, "data.train_files")
    monkeypatch.setattr(data, "FILTER_SAMPLE", 64)  # every row, so the estimate is exact
    report = case.check(case.write(**long_prompts(range(0, 48, 2))), FILTER)
    assert "2 preference groups, the smallest with 8 training rows" in report.facts
    assert problems(report) == {WARNING}
    whole_group = case.write(**long_prompts(range(0, 64, 2)))
    assert ODD_GROUPS in problems(case.check(whole_group, FILTER))


def test_prompts_that_the_model_does_not_take(case: Case, tmp_path):
    model = shutil.copytree(case.folder / "model", tmp_path / "model")
    (model / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    report = case.check(f"actor_rollout_ref.model.path={model}")
    assert ERROR in at(report, "data.train_files")
    assert any("no such role" in one.message for one in report.diagnostics)


TABLELESS = """
from torch.utils.data import Dataset
class Mine(Dataset):
    def __init__(self, data_files, tokenizer, config, processor=None, max_samples=-1):
        CODE
    def __len__(self): return 48
    def __getitem__(self, i):
        return {"raw_prompt": [{"role": "user", "content": "jazz"}], "data_source": "demo/a", "index": i,
                "reward_model": {"ground_truth": "x"}, "extra_info": {}, "preference_group": "abc"[i % 3]}
"""
SUBCLASS = """
from verl.utils.dataset.rl_dataset import RLHFDataset
class Mine(RLHFDataset):
    def __getitem__(self, i):
        return {**super().__getitem__(i), **dict(CODE)}
"""


def custom_class(case: Case, cls: str, code: str) -> tuple[str, str]:
    (case.out / "mine.py").write_text(cls.replace("CODE", code))
    return f"data.custom_cls.path={case.out}/mine.py", "data.custom_cls.name=Mine"


def test_a_dataset_class_of_the_user(case: Case):
    report = case.rehearse(*custom_class(case, TABLELESS, "pass"))
    assert report.ok, report.diagnostics
    assert "3 preference groups, the smallest with 16 training rows" in report.facts
    report = case.check(*custom_class(case, SUBCLASS, "preference_group='xyz'[i % 3]"))
    assert "3 preference groups, the smallest with 21 training rows" in report.facts


@pytest.mark.parametrize(
    ("cls", "code", "location", "expected"),
    [
        (TABLELESS, "raise KeyError('column')", "data.custom_cls", ERROR),
        (SUBCLASS, "num_turns=7", "num_turns", ERROR),
        (SUBCLASS, "preference_group='x' if i else None", "preference_group", NO_GROUPS),
    ],
)
def test_a_wrong_dataset_class(case: Case, cls, code, location, expected):
    assert expected in at(case.check(*custom_class(case, cls, code)), location)
