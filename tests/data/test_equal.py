# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Training data in which all preference groups have equally many rows."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_pgrpo.cli import main

COUNTS = {"a": 60, "b": 25, None: 10}


@pytest.fixture
def train(tmp_path: Path) -> Path:
    labels = [label for label, count in COUNTS.items() for _ in range(count)]
    segments = [{"segment": str(row % 5)} for row in range(95)]
    table = pa.table({"preference_group": labels, "id": list(range(95)), "extra_info": segments})
    pq.write_table(table, tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def equalized(train: Path, *options: str, name: str = "equal.parquet") -> pd.DataFrame:
    out = train.with_name(name)
    assert main(["data", "equalize", "--input", str(train), "--out", str(out), *options]) == 0
    table = pq.read_table(out)
    assert table.schema == pq.read_table(train).schema
    return pd.DataFrame(table.to_pylist())


def test_groups_have_equally_many_rows_and_none_is_lost(train: Path, capsys) -> None:
    rows = equalized(train, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert {row["group"]: row["written"] for row in summary["groups"]} == {"a": 60, "b": 60, "(no group)": 60}
    assert rows.groupby("preference_group", dropna=False).size().to_list() == [60, 60, 60]
    times = rows.groupby("id").size()
    assert times[:60].eq(1).all()
    assert times[60:85].between(2, 3).all(), "a row is repeated as often as the others of its group"
    assert times[85:].eq(6).all()
    assert (rows["preference_group"][:30] == "b").any(), "shuffled"


def test_equal_arguments_give_equal_bytes_and_seeds_differ(train: Path) -> None:
    for name, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        equalized(train, "--seed", seed, name=f"{name}.parquet")
    one, two, three = (train.with_name(f"{name}.parquet").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_the_group_may_be_a_field_of_extra_info(train: Path) -> None:
    rows = equalized(train, "--group-key", "extra_info.segment")
    assert len(rows) == 95, "the five segments are of one size"


@pytest.mark.parametrize(
    ("key", "message"),
    [("persona", "no column 'persona'"), ("preference_group.x", "has no field 'x'"), ("score", "has type float")],
)
def test_a_wrong_column_is_an_error(train: Path, capsys, key: str, message: str) -> None:
    pq.write_table(pq.read_table(train).append_column("score", pa.array([0.5] * 95)), train)
    out = train.with_name("equal.parquet")
    assert main(["data", "equalize", "--input", str(train), "--out", str(out), "--group-key", key]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(train) in error
    assert not out.exists()


def test_the_input_is_not_overwritten(train: Path, capsys) -> None:
    before = train.read_bytes()
    assert main(["data", "equalize", "--input", str(train), "--out", str(train)]) == 2
    assert "is also an input" in capsys.readouterr().err
    assert train.read_bytes() == before
