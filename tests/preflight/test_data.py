# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Data as verl's own dataset sees them: files, columns, missing values, subset, filter, groups."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preflight.case import Case, at, problems, rows
from verl_pgrpo.integration.columns import reserved_columns

pytestmark = pytest.mark.slow

GROUPS = "2 preference groups, the smallest with 32 training rows"
ALL_RESERVED = {use_v1: sorted(reserved_columns(use_v1).values(), key=lambda one: one.name) for use_v1 in (True, False)}


@pytest.mark.parametrize("use_v1", [True, False])
def test_every_column_that_verl_uses_is_reported(case: Case, use_v1: bool):
    reserved = ALL_RESERVED[use_v1]
    data = case.write(rows(**{one.name: lambda i: 1 for one in reserved}))
    report = case.check(data, f"trainer.use_v1={use_v1}")
    for one in reserved:
        assert (one.severity, "data") in at(report, f"column {one.name}"), one
        assert one.name in "".join(d.message for d in report.diagnostics if d.location.endswith(f"column {one.name}"))


BREAKING = ("output", "sampling_params", "trajectory", "trace", "self")


# The V1 agent loop takes `validate` off the row: it breaks nothing there, but turns rollouts into those of validation.
@pytest.mark.parametrize(
    ("use_v1", "column"), [*((use_v1, name) for use_v1 in (True, False) for name in BREAKING), (False, "validate")]
)
def test_columns_that_break_a_rollout_do_break_it(
    case: Case, use_v1: bool, column: str, monkeypatch: pytest.MonkeyPatch
):
    """Without the check by name, the rehearsal fails: the derived names are not false alarms."""
    monkeypatch.setattr("verl_pgrpo.preflight.data.check_columns", lambda *_: [])
    report = case.check(case.write(rows(**{column: lambda i: "x"})), f"trainer.use_v1={use_v1}")
    assert ("error", "reward") in at(report, "train row 0"), report.diagnostics


def test_a_harmless_column_is_not_reported(case: Case):
    assert problems(case.check(case.write(rows(answer=lambda i: "x", score=lambda i: 1.0)))) == set()


@pytest.mark.parametrize("form", ["lines", "list", "categories", "several"])
def test_every_format_that_verl_reads(case: Case, form: str):
    if form == "categories":
        table = pa.Table.from_pylist(rows())
        number = table.schema.get_field_index("preference_group")
        name = case.write(table.set_column(number, "preference_group", table["preference_group"].dictionary_encode()))
    elif form == "several":
        case.write(rows(16))
        name = f"data.train_files=[{case.folder}/train.parquet,{case.out}/train.parquet]"
    else:
        path = case.out / ("train.json" if form == "list" else "train.jsonl")
        path.write_text(json.dumps(rows()) if form == "list" else "".join(json.dumps(row) + "\n" for row in rows()))
        name = f"data.train_files={path}"
    report = case.check(name)
    assert problems(report) == set()
    assert (GROUPS if form != "several" else GROUPS.replace("32", "40")) in report.facts


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.string(), pa.large_string()])
def test_groups_of_any_type_are_counted_as_labels(case: Case, kind: pa.DataType):
    table = pa.Table.from_pylist(rows())
    values = pa.array([i % 2 for i in range(64)]).cast(kind)
    number = table.schema.get_field_index("preference_group")
    report = case.check(case.write(table.set_column(number, "preference_group", values)), skip=("reward",))
    assert GROUPS in report.facts
    assert not any(severity == "error" for severity, _ in problems(report))


def without(column: str, value=None):
    """Rows 3 and 5 with a missing value, or all rows without the column."""

    def changed(i: int, row: dict) -> dict:
        if value == "drop":
            return {key: old for key, old in row.items() if key != column}
        return {**row, column: value} if i in (3, 5) else row

    return [changed(i, row) for i, row in enumerate(rows())]


@pytest.mark.parametrize("column", ["prompt", "data_source", "reward_model", "preference_group"])
@pytest.mark.parametrize("value", [None, "drop"])
def test_missing_values_and_columns(case: Case, column: str, value):
    report = case.check(case.write(without(column, value)))
    check = "groups" if column == "preference_group" else "data"
    where = "data.prompt_key" if (column, value) == ("prompt", "drop") else "data.train_files"
    assert ("error", check) in at(report, where)


def test_a_missing_ground_truth_is_a_warning(case: Case):
    truths = rows(reward_model=lambda i: {"style": "rule", "ground_truth": None if i == 60 else "jazz"})
    assert problems(case.check(case.write(truths), skip=("reward",))) == {("warning", "data")}


@pytest.mark.parametrize("damage", ["missing", "text", "body", "empty", "csv"])
def test_files_that_verl_cannot_read(case: Case, damage: str):
    path = case.out / ("train.csv" if damage == "csv" else "train.parquet")
    raw = bytearray((case.folder / "train.parquet").read_bytes())
    if damage == "body":
        raw[4 : len(raw) // 2] = b"\xff" * (len(raw) // 2 - 4)  # the footer, at the end, is whole
    if damage == "empty":
        pq.write_table(pa.Table.from_pylist(rows()).slice(0, 0), path)
    elif damage != "missing":
        path.write_bytes(b"nonsense" if damage == "text" else raw)
    report = case.check(f"data.train_files={path}")
    assert at(report, str(path)) == [("error", "data")]
    assert ("error", "data") not in at(report, "data.val_files")


def test_groups_are_those_of_the_subset(case: Case):
    """The first 32 rows have one group, the others another."""
    halves = case.write(rows(preference_group=lambda i: "ab"[i // 32]))
    report = case.check(halves, "data.train_max_samples=32", "data.shuffle=False")
    assert ("warning", "groups") in at(report, "data.train_files")
    assert "1 preference groups, the smallest with 32 training rows" in report.facts
    assert "2 preference groups, the smallest with 32 training rows" in case.check(halves, "data.shuffle=False").facts


def test_an_unseeded_subset_cannot_be_resumed(case: Case):
    subset = ("data.train_max_samples=32", "data.seed=null")
    assert problems(case.check(*subset)) == {("warning", "data")}
    assert problems(case.check(*subset, "data.shuffle=False")) == set()
    assert problems(case.check(subset[0])) == set()


@pytest.mark.parametrize(("gen", "error"), [(48, True), (8, False), (16, False), (1024, True)])
def test_gen_batch_size(case: Case, gen: int, error: bool):
    found = at(case.check(f"data.gen_batch_size={gen}", skip=("reward",)), "data.gen_batch_size")
    assert found == ([("error", "steps")] if error else [])


def test_steps(case: Case):
    assert at(case.check("data.train_batch_size=128"), "data.train_batch_size")[-1] == ("error", "steps")
    more = case.check("trainer.total_training_steps=1000", "trainer.total_epochs=1")
    assert at(more, "trainer.total_epochs") == [("warning", "steps")]


def test_overlong_prompts(case: Case):
    long = case.write(rows(prompt=lambda i: [{"role": "user", "content": "few words " * (50 if i < 4 else 1)}]))
    for filtered, facts in (("True", "60 training rows"), ("False", "64 training rows")):
        report = case.check(long, f"data.filter_overlong_prompts={filtered}", skip=("reward",))
        assert problems(report) == {("warning", "data")}
        assert any(fact.startswith(facts) for fact in report.facts)
    all_long = case.check("data.max_prompt_length=4", "data.filter_overlong_prompts=True")
    assert ("error", "data") in at(all_long, "data.train_files")


def test_the_filter_is_sampled_on_large_data(case: Case, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("verl_pgrpo.preflight.data.FILTER_LIMIT", 32)
    monkeypatch.setattr("verl_pgrpo.preflight.data.FILTER_SAMPLE", 8)
    report = case.check("data.filter_overlong_prompts=True", skip=("reward",))
    assert problems(report) == set()
    assert ("note", "data") in at(report, "data.train_files")


def test_groups_of_large_data_are_estimated_after_the_filter(case: Case, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("verl_pgrpo.preflight.data.FILTER_LIMIT", 32)
    monkeypatch.setattr("verl_pgrpo.preflight.data.FILTER_SAMPLE", 64)  # every row, so the estimate is exact

    def check(long: range):
        table = rows(prompt=lambda i: [{"role": "user", "content": "few words " * (50 if i in long else 1)}])
        return case.check(case.write(table), "data.filter_overlong_prompts=True", skip=("reward",))

    report = check(range(0, 48, 2))
    assert "2 preference groups, the smallest with 8 training rows" in report.facts
    assert problems(report) == {("warning", "data")}
    assert ("warning", "groups") in problems(check(range(0, 64, 2))), "all rows of one group"


def test_a_chat_template_that_rejects_the_prompts(case: Case, tmp_path):
    import shutil

    model = shutil.copytree(case.folder / "model", tmp_path / "model")
    (model / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    report = case.check(f"actor_rollout_ref.model.path={model}")
    assert ("error", "data") in at(report, "data.train_files")
    assert any("no such role" in one.message for one in report.diagnostics)


def test_pictures_for_a_model_of_text(case: Case):
    assert ("error", "data") in at(case.check(case.write(rows(images=lambda i: ["a.png"]))), "row 0")


CUSTOM = """
from torch.utils.data import Dataset
class Mine(Dataset):
    def __init__(self, data_files, tokenizer, config, processor=None, max_samples=-1):
        {body}
    def __len__(self): return 48
    def __getitem__(self, i):
        return {{"raw_prompt": [{{"role": "user", "content": "jazz"}}], "data_source": "demo/a", "index": i,
                "reward_model": {{"ground_truth": "x"}}, "extra_info": {{}}, "preference_group": "abc"[i % 3]}}
"""


def test_a_dataset_class_of_the_user(case: Case):
    path = case.out / "mine.py"
    custom = (f"data.custom_cls.path={path}", "data.custom_cls.name=Mine")
    path.write_text(CUSTOM.format(body="pass"))
    report = case.check(*custom)
    assert not any(severity == "error" for severity, _ in problems(report)), report.diagnostics
    assert "3 preference groups, the smallest with 16 training rows" in report.facts
    path.write_text(CUSTOM.format(body="raise KeyError('column')"))
    assert ("error", "data") in at(case.check(*custom), "data.custom_cls")
    assert ("error", "data") in at(
        case.check("data.custom_cls.path=none.py", "data.custom_cls.name=X"), "data.custom_cls"
    )


LABELS = [
    ({"preference_group": lambda i: "all"}, "data.train_files"),  # one group
    ({"preference_group": lambda i: "b" if i == 1 else "a"}, "data.train_files"),  # a small and a dominant one
    ({"preference_group": lambda i: "nan" if i % 3 else "a"}, "data.train_files"),
    ({"preference_group": lambda i: ("Pok\u00e9mon", "Poke\u0301mon")[i % 2]}, "data.train_files"),
    ({"preference_group": lambda i: ("jazz", "jazz\u200b")[i % 2]}, "data.train_files"),
    ({"preference_group": lambda i: ("Jazz", "jazz")[i % 2]}, "data.train_files"),
]


@pytest.mark.parametrize(("columns", "location"), LABELS)
def test_labels_that_surprise_are_warnings(case: Case, columns: dict, location: str):
    data = [case.write(rows(**columns), split) for split in ("train", "val")]
    report = case.check(*data, skip=("reward",))
    assert ("warning", "groups") in at(report, location)
    assert report.ok


def test_look_alikes_come_with_code_points(case: Case):
    data = case.write(rows(preference_group=lambda i: ("jazz", "jazz\u200b")[i % 2]))
    assert any("U+200B" in one.message for one in case.check(data, skip=("reward",)).diagnostics)


def test_labels_that_are_no_label(case: Case):
    for value in (1.5, " ", ["a"]):
        report = case.check(case.write(rows(preference_group=lambda i, value=value: value)), skip=("reward",))
        assert ("error", "groups") in at(report, "data.train_files"), value


def test_validation_groups_that_differ(case: Case):
    other = case.check(case.write(rows(preference_group=lambda i: "ac"[i % 2]), "val"), skip=("reward",))
    assert at(other, "data.val_files") == [("warning", "groups")] * 2  # one is unknown, one is never validated
    sources = case.check(case.write(rows(data_source=lambda i: f"demo/{'ac'[i % 2]}"), "val"), skip=("reward",))
    assert at(sources, "data.val_files") == [("warning", "groups")]
