# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Data files as verl reads them: what it takes, `preflight` takes; what is damaged is an error that names the file."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preflight_case import Case, serious
from verl_pgrpo.launch.data_files import DataFiles

pytestmark = pytest.mark.launch

pytest.importorskip("verl")


def rows_of(frame: pd.DataFrame) -> list[dict]:
    return json.loads(frame.to_json(orient="records"))


@pytest.mark.parametrize("form", ["lines", "list", "long_rows"])
def test_json_as_verl_reads_it(case: Case, form: str):
    rows = rows_of(case.data())
    if form == "long_rows":
        rows[7]["extra_info"]["notes"] = "x" * 3_000_000
        rows[8]["extra_info"]["notes"] = "x"
    case.out.mkdir(exist_ok=True)
    path = case.out / ("train.json" if form == "list" else "train.jsonl")
    path.write_text(json.dumps(rows) if form == "list" else "".join(json.dumps(row) + "\n" for row in rows))
    report = case.check(f"data.train_files={path}")
    assert serious(report) == []
    assert "7 preference groups, the smallest with 26 training rows" in report.facts


def test_categories_of_pandas_are_their_values(case: Case):
    frame = case.data()
    for column in ("data_source", "preference_group"):
        frame[column] = frame[column].astype("category")
    report = case.check(case.written(frame))
    assert serious(report) == []
    assert "7 preference groups, the smallest with 26 training rows" in report.facts


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "parquet_body"])
def test_a_damaged_file_is_an_error(case: Case, form: str):
    case.out.mkdir(exist_ok=True)
    path = case.out / f"train.{form.partition('_')[0]}"
    if form == "parquet_body":
        raw = bytearray((case.folder / "train.parquet").read_bytes())
        raw[4 : len(raw) // 2] = b"\xff" * (len(raw) // 2 - 4)  # the footer, at the end, is whole
        path.write_bytes(raw)
    else:
        path.write_bytes(b'{"prompt": [{"role"\n{')
    found = serious(case.check(f"data.train_files={path}"))
    assert {one[:2] for one in found} == {("error", "data")}, found
    assert len(found) == 1
    assert f"{path} is damaged" in found[0][2]


def test_a_damaged_column_of_groups_is_said_once(case: Case):
    """Its pages lie behind those that the data's own check reads."""
    path = case.out / "train.parquet"
    case.written(case.data()[["prompt", "data_source", "reward_model", "extra_info", "preference_group"]])
    group = pq.ParquetFile(path).metadata.row_group(0)
    [column] = [c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema == "preference_group"]
    start = column.dictionary_page_offset or column.data_page_offset
    raw = bytearray(path.read_bytes())
    raw[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(raw)
    found = serious(case.check(f"data.train_files={path}"))
    assert [one[0] for one in found] == ["error"], found
    assert f"{path} is damaged" in found[0][2]


def test_rows_are_taken_from_json_as_from_parquet(case: Case):
    case.out.mkdir(exist_ok=True)
    path = case.out / "some.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(case.data())))
    rows, columns = [0, 3, 511], ["data_source", "preference_group"]
    both = [DataFiles([str(file)]).take(rows, columns).to_pylist() for file in (path, case.folder / "train.parquet")]
    assert both[0] == both[1]


@pytest.mark.slow
def test_labels_that_were_missing_values(case: Case):
    bad = case.data()
    bad["preference_group"] = [f"{group}" if number % 9 else "nan" for number, group in enumerate(bad.preference_group)]
    found = serious(case.check(case.written(bad)))
    assert any("preference group 'nan': a missing label as text" in one[2] for one in found)
    assert {one[0] for one in found} == {"warning"}


@pytest.mark.parametrize("field", ["ground_truth", "content", "unread"])
def test_json_with_fields_of_several_types_is_not_looked_into(case: Case, field: str):
    """verl reads them, each value with its type; a table has one type for all."""
    rows = rows_of(case.data())
    for number, row in enumerate(rows):
        if field == "ground_truth":
            row["reward_model"] = {"style": "rule", "ground_truth": "x" if number % 2 else 1}
        elif field == "content" and number % 2:
            row["prompt"] = [{"role": "user", "content": [{"type": "text", "text": "few words"}]}]
        elif field == "unread":
            row["misc"] = {"a": 1} if number % 2 else [1]
    case.out.mkdir(exist_ok=True)
    path = case.out / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [(severity, check, said)] = serious(case.check(f"data.train_files={path}"))
    assert (severity, check) == ("warning", "data")
    assert "not looked into" in said
    assert "have several types" in said


def test_files_that_verl_can_put_together(case: Case):
    """Whatever the order of a message's fields."""
    table = pq.read_table(case.folder / "train.parquet")
    kind = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
    turned = [
        [{name: message[name] for name in ("content", "role")} for message in one]
        for one in table["prompt"].to_pylist()
    ]
    case.out.mkdir(exist_ok=True)
    number = table.schema.get_field_index("prompt")
    pq.write_table(table.set_column(number, "prompt", pa.array(turned, kind)), case.out / "turned.parquet")
    pq.write_table(table.set_column(number, "prompt", pa.array(["text"] * len(table))), case.out / "text.parquet")
    files = f"{case.folder}/train.parquet,{case.out}"
    report = case.check(f"data.train_files=[{files}/turned.parquet]")
    assert serious(report) == []
    assert any(fact.startswith("1,024 training rows") for fact in report.facts)
    [(severity, _, said)] = serious(case.check(f"data.train_files=[{files}/text.parquet]"))
    assert severity == "error"
    assert "column prompt is string, but list" in said


@pytest.mark.slow
def test_pictures_for_a_model_of_text(case: Case):
    pictures = case.written(case.data().assign(images=[["a.png"]] * 512))
    [(severity, check, said)] = serious(case.check(pictures))
    assert (severity, check) == ("error", "model")
    assert "has images in column 'images', and the model takes text alone" in said
    assert serious(case.check(case.written(case.data().assign(images=[[]] * 512)))) == []


@pytest.mark.slow
@pytest.mark.parametrize("column", ["prompts", "rm_scores", "response_mask"])
def test_columns_that_verl_would_write_over_a_rollout(case: Case, column: str):
    [(severity, check, said)] = serious(case.check(case.written(case.data().assign(**{column: 1}))))
    assert (severity, check) == ("error", "data")
    assert f"a column '{column}', which verl would write over the rollout's own" in said


@pytest.mark.slow
def test_validation_prompts_that_are_all_too_long(case: Case):
    long = case.data("val")
    long["prompt"] = [[{"role": "user", "content": "few words " * 100}] for _ in range(len(long))]
    [(severity, check, said)] = serious(case.check(case.written(long, "val"), "data.filter_overlong_prompts=True"))
    assert (severity, check) == ("error", "model")
    assert "70 of the first 70 validation prompts are dropped" in said
