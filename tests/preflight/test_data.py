# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Data as verl's own dataset loads it: files, columns, missing values, subset, filter, groups."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preflight.case import Case, at, problems, rows
from verl_pgrpo.integration.columns import reserved_columns
from verl_pgrpo.preflight import data

pytestmark = pytest.mark.slow

GROUPS = "2 preference groups, the smallest with 32 training rows"
ERROR, WARNING = ("error", "data"), ("warning", "data")


@pytest.mark.parametrize("use_v1", [True, False])
def test_every_column_that_verl_uses_is_reported(case: Case, use_v1: bool):
    reserved = reserved_columns(use_v1).values()
    report = case.check(
        case.write(rows(**{one.name: lambda i: 1 for one in reserved})), f"trainer.use_v1={use_v1}", skip=("reward",)
    )
    for one in reserved:
        assert (one.severity, "data") in at(report, f"column {one.name}"), one


BREAKING = ("output", "sampling_params", "trajectory", "trace", "self")


# The V1 agent loop reads `validate` from the row: this raises no error, but makes rollouts count as validation.
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


@pytest.mark.parametrize("form", ["lines", "list", "several"])
def test_every_format_that_verl_reads(case: Case, form: str):
    """A harmless column is not reported. Types of group columns: tests/integration/test_checks.py."""
    table, path = rows(answer=lambda i: "x", score=lambda i: 1.0), case.out / f"train.json{'l' * (form == 'lines')}"
    path.write_text(json.dumps(table) if form == "list" else "".join(json.dumps(row) + "\n" for row in table))
    files = f"[{case.folder}/train.parquet,{path}]" if form == "several" else str(path)
    report = case.check(f"data.train_files={files}")
    assert problems(report) == set()
    assert (GROUPS if form != "several" else GROUPS.replace("32", "64")) in report.facts


def without(column: str, value=None):
    """Rows 3 and 5 with a missing value, or all rows without the column."""
    if value == "drop":
        return [{key: old for key, old in row.items() if key != column} for row in rows()]
    return [{**row, column: value} if i in (3, 5) else row for i, row in enumerate(rows())]


@pytest.mark.parametrize("column", ["prompt", "data_source", "reward_model", "preference_group"])
@pytest.mark.parametrize("value", [None, "drop"])
def test_missing_values_and_columns(case: Case, column: str, value):
    report = case.check(case.write(without(column, value)))
    where = "data.prompt_key" if (column, value) == ("prompt", "drop") else "data.train_files"
    assert ("error", "groups" if column == "preference_group" else "data") in at(report, where)
    if column == "preference_group":  # other estimators need no groups
        plain = case.check(case.write(without(column, "drop")), "algorithm.adv_estimator=grpo", skip=("reward",))
        assert problems(plain) == set()


@pytest.mark.parametrize("truths", [(None, "jazz"), (float("nan"), 1.0)])
def test_a_missing_ground_truth_is_a_warning(case: Case, truths):
    table = rows(reward_model=lambda i: {"style": "rule", "ground_truth": truths[i != 60]})
    assert problems(case.check(case.write(table), skip=("reward",))) == {WARNING}


def test_a_missing_agent_name_and_a_message_without_content_are_errors(case: Case):
    names = rows(agent_name=lambda i: None if i == 60 else "single_turn_agent")
    assert problems(case.check(case.write(names), skip=("reward",))) == {ERROR}
    # Many templates write the text "None" for a missing content. An assistant that calls a tool needs none.
    call = [{"role": "user", "content": "jazz"}, {"role": "assistant", "content": None}]
    texts = pa.array([[*call, {"role": "user", "content": None if i == 60 else "jazz"}] for i in range(64)])
    assert data._empty_field(pa.chunked_array([texts[:10], texts[10:]]), "content").to_pylist().index(True) == 60
    assert data._empty_field(pa.chunked_array([texts]), "text") is None


@pytest.mark.parametrize(
    "setting", ["dataloader_num_workers=-1", "val_batch_size=x", "filter_overlong_prompts_workers=x"]
)
def test_values_that_verls_dataset_or_dataloader_rejects(case: Case, setting: str):
    found = problems(case.check(f"data.{setting}", skip=("reward",)))
    assert found == {("error", "data" if setting.startswith("filter") else "steps")}


@pytest.mark.parametrize("damage", ["missing", "text", "body", "empty", "csv"])
def test_files_that_verl_cannot_read(case: Case, damage: str):
    path = case.out / ("train.csv" if damage == "csv" else "train.parquet")
    raw = bytearray((case.folder / "train.parquet").read_bytes())
    if damage == "body":
        raw[4 : len(raw) // 2] = b"\xff" * (len(raw) // 2 - 4)  # the footer at the end is intact
    if damage == "empty":
        pq.write_table(pa.Table.from_pylist(rows()).slice(0, 0), path)
    elif damage != "missing":
        path.write_bytes(b"nonsense" if damage == "text" else raw)
    report = case.check(f"data.train_files={path}", skip=("reward",))
    assert at(report, str(path)) == [ERROR]
    assert ERROR not in at(report, "data.val_files")


def test_groups_are_those_of_the_subset(case: Case):
    """The first 32 rows have one group, the others another."""
    halves = (case.write(rows(preference_group=lambda i: "ab"[i // 32])), "data.shuffle=False")
    report = case.check(*halves, "data.train_max_samples=32", skip=("reward",))
    assert ("warning", "groups") in at(report, "data.train_files")
    assert "1 preference groups, the smallest with 32 training rows" in report.facts
    assert GROUPS in case.check(*halves, skip=("reward",)).facts


def test_an_unseeded_subset_cannot_be_resumed(case: Case):
    subset = "data.train_max_samples=32"
    for more, found in (
        (["data.seed=null"], {WARNING}),
        (["data.seed=null", "data.shuffle=False"], set()),
        (["data.seed=null", "data.train_max_samples=65"], set()),  # all 64 rows
        ([], set()),
    ):
        assert problems(case.check(subset, *more, skip=("reward",))) == found


@pytest.mark.parametrize(("gen", "error"), [(48, True), (8, False), (16, False), (1024, True)])
def test_gen_batch_size(case: Case, gen: int, error: bool):
    found = at(case.check(f"data.gen_batch_size={gen}", skip=("reward",)), "data.gen_batch_size")
    assert found == ([("error", "steps")] if error else [])


def test_steps(case: Case):
    few = case.check("data.train_batch_size=128", skip=("reward",))
    assert at(few, "data.train_batch_size")[-1] == ("error", "steps")
    more = case.check("trainer.total_training_steps=1000", "trainer.total_epochs=1", skip=("reward",))
    assert at(more, "trainer.total_epochs") == [("warning", "steps")]


def test_overlong_prompts(case: Case, monkeypatch: pytest.MonkeyPatch):
    long = case.write(rows(prompt=lambda i: [{"role": "user", "content": "few words " * (50 if i < 4 else 1)}]))
    for filtered, facts in (("True", "60 training rows"), ("False", "64 training rows")):
        report = case.check(long, f"data.filter_overlong_prompts={filtered}", skip=("reward",))
        assert problems(report) == {WARNING}
        assert any(fact.startswith(facts) for fact in report.facts)
    filtered = "data.filter_overlong_prompts=True"
    assert ERROR in at(case.check("data.max_prompt_length=4", filtered, skip=("reward",)), "data.train_files")
    # The filter is sampled on large data.
    monkeypatch.setattr("verl_pgrpo.preflight.data.FILTER_LIMIT", 32)
    monkeypatch.setattr("verl_pgrpo.preflight.data.FILTER_SAMPLE", 8)
    report = case.check(filtered, skip=("reward",))
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


def test_prompts_that_the_model_does_not_take(case: Case, tmp_path):
    model = shutil.copytree(case.folder / "model", tmp_path / "model")
    (model / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    report = case.check(f"actor_rollout_ref.model.path={model}", skip=("reward",))
    assert ERROR in at(report, "data.train_files")
    assert any("no such role" in one.message for one in report.diagnostics)
    assert ERROR in at(case.check(case.write(rows(images=lambda i: ["a.png"]))), "row 0")


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
    for wrong in (custom, ("data.custom_cls.path=none.py", "data.custom_cls.name=X")):
        assert ERROR in at(case.check(*wrong), "data.custom_cls")


SUBCLASS = """
from verl.utils.dataset.rl_dataset import RLHFDataset
class Mine(RLHFDataset):
    def __getitem__(self, i):
        return {**super().__getitem__(i), **COLUMNS(i)}
"""


@pytest.mark.parametrize(
    ("columns", "check"),
    [
        ("dict(num_turns=7)", "data"),
        ("dict(preference_group=i % 2 == 0)", "groups"),
        ("dict(preference_group='x' if i else None)", "groups"),
    ],
)
def test_what_a_dataset_class_adds_to_its_rows_is_checked(case: Case, columns: str, check: str):
    path = case.out / "mine.py"
    path.write_text(SUBCLASS.replace("COLUMNS(i)", columns))
    report = case.check(f"data.custom_cls.path={path}", "data.custom_cls.name=Mine", skip=("reward",))
    assert ("error", check) in problems(report), report.diagnostics
    path.write_text(SUBCLASS.replace("COLUMNS(i)", "dict(preference_group='xyz'[i % 3])"))
    report = case.check(f"data.custom_cls.path={path}", "data.custom_cls.name=Mine", skip=("reward",))
    assert "3 preference groups, the smallest with 21 training rows" in report.facts


LABELS = [
    lambda i: "all",
    lambda i: "b" if i == 1 else "a",  # a small and a dominant one
    lambda i: "nan" if i % 3 else "a",
    lambda i: ("jazz", "jazz\u200b")[i % 2],
]


@pytest.mark.parametrize("label", LABELS)
def test_suspicious_labels_are_warnings(case: Case, label):
    files = [case.write(rows(preference_group=label), split) for split in ("train", "val")]
    report = case.check(*files, skip=("reward",))
    assert ("warning", "groups") in at(report, "data.train_files")
    assert any("U+200B" in one.message for one in report.diagnostics) == ("\u200b" in label(1))
    assert report.ok
    number = case.check(case.write(rows(preference_group=lambda i: 1.5)), skip=("reward",))
    assert ("error", "groups") in at(number, "data.train_files")


@pytest.mark.parametrize(("column", "label", "count"), [("preference_group", "", 2), ("data_source", "demo/", 1)])
def test_validation_groups_that_differ(case: Case, column: str, label: str, count: int):
    """One group is missing from training, one from validation."""
    other = case.check(case.write(rows(**{column: lambda i: label + "ac"[i % 2]}), "val"), skip=("reward",))
    assert at(other, "data.val_files") == [("warning", "groups")] * count
