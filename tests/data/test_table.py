# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""User tables: any format, any Arrow type, any missing value; splits without leaks; errors that name row and cause."""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from datetime import date
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.rows import read_rows
from verl_pgrpo.cli import main
from verl_pgrpo.data.columns import label_values
from verl_pgrpo.data.schema import COLUMNS
from verl_pgrpo.data.table import TableOptions, prepare
from verl_pgrpo.data.user_table import UserTable
from verl_pgrpo.errors import DataError

ROWS = 300
WRITERS = {
    ".parquet": pd.DataFrame.to_parquet,
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    user, start = rng.integers(60, size=ROWS), "2024-01-01"
    return pd.DataFrame(
        {
            "user": [f"user {i}" for i in user],
            "q": [f'{i}: a quéstion, with a "quote"?\nAnd a second line.' for i in range(ROWS)],
            "g": np.where(user % 3 == 0, "rare", "common"),
            "x": (user % 3) * 6 + rng.normal(size=ROWS),
            "y": rng.normal(size=ROWS),
            "when": pd.date_range(start, periods=ROWS, freq="h").strftime("%Y-%m-%dT%H:%M:%S"),
            "wanted": pd.date_range(start, periods=ROWS).strftime("%Y-%m-%d"),
        }
    )


def run(folder: Path, name: str, *options: str, group: str = "g", out: str = "out", table=None) -> int:
    """Run the command on a file of the folder, to which `table` is written first; prompts are in the column q."""
    if table is not None:
        WRITERS[Path(name).suffix](table, folder / name)
    columns = ["--prompt-column", "q", *(["--group-column", group] if group else [])]
    return main(["data", "table", "--input", str(folder / name), "--out", str(folder / out), *columns, *options])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-pgrpo: error: ")
    return line


def test_every_format_gives_the_same_bytes(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame = frame.copy()
    frame.loc[3, "q"] += "word " * 600_000  # longer than Arrow's blocks
    for suffix, write in WRITERS.items():
        write(frame, tmp_path / f"table{suffix}")
    (tmp_path / "table.jsonl.gz").write_bytes(gzip.compress((tmp_path / "table.jsonl").read_bytes()))
    data = datasets.Dataset.from_pandas(frame)
    data.save_to_disk(tmp_path / "table")
    datasets.DatasetDict(part=data).save_to_disk(tmp_path / "several")
    data.select(range(ROWS - 1, -1, -1)).select(range(ROWS - 1, -1, -1)).save_to_disk(tmp_path / "indices")
    for source in (*(f"table{suffix}" for suffix in WRITERS), "table.jsonl.gz", "table", "several", "indices"):
        options = ["--truth-column", "wanted", "--time-column", "when", "--task", "mine"]
        options += ["--split", "part"] if source == "several" else []
        assert run(tmp_path, source, *options, out=source.replace(".", "_")) == 0
        for name in ("train.parquet", "val.parquet"):
            made = (tmp_path / source.replace(".", "_") / name).read_bytes()
            assert made == (tmp_path / "table_parquet" / name).read_bytes(), (source, name)
    rows = read_rows(tmp_path / "table_csv")
    assert tuple(rows)[: len(COLUMNS)] == COLUMNS
    assert rows["split"].value_counts().to_dict() == {"train": 270, "val": 30}
    expected = frame.set_index("q").loc[rows["text"]]
    assert rows["preference_group"].tolist() == expected["g"].tolist()
    assert rows["truth"].tolist() == expected["wanted"].tolist(), "a date in JSON stays as written"
    assert (rows["data_source"] == "mine/" + rows["preference_group"]).all()
    assert {(len(messages), messages[0]["role"]) for messages in rows["prompt"]} == {(1, "user")}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1250"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_is_never_read_in_the_wrong_encoding(tmp_path: Path, capsys, encoding: str, suffix: str) -> None:
    texts = [f'Café {"Čapek" * (encoding == "cp1250")} {i}.5" disk' for i in range(20)]  # a quote in an unquoted field
    rows = [f"{q},é" if suffix == ".csv" else json.dumps({"q": q, "g": "é"}, ensure_ascii=False) for q in texts]
    lines = ["q,g"] * (suffix == ".csv") + rows
    (tmp_path / f"t{suffix}").write_bytes("".join(line + "\n" for line in lines).encode(encoding))
    status = run(tmp_path, f"t{suffix}")
    if encoding in ("latin-1", "cp1250"):  # any bytes are valid Latin-1, so a wrong guess would go unnoticed
        assert status == 2
        assert "--encoding" in error_of(capsys)
        assert run(tmp_path, f"t{suffix}", "--encoding", encoding) == 0
    made = read_rows(tmp_path / "out")
    assert (set(made["text"]), set(made["preference_group"])) == (set(texts), {"é"})


def test_a_pandas_index_is_a_column(tmp_path: Path, frame: pd.DataFrame, capsys) -> None:
    assert run(tmp_path, "t.parquet", "--user-column", "user", table=frame.set_index(["user", "g"])) == 0
    assert set(read_rows(tmp_path / "out")["preference_group"]) == {"rare", "common"}
    index = pd.RangeIndex(5, 5 + 3 * ROWS, 3, name="id")  # pandas stores its bounds only
    assert run(tmp_path, "t.parquet", "--user-column", "id", table=frame.set_index(index)) == 0
    assert set(read_rows(tmp_path / "out")["user"]) == set(map(str, index))
    periods = pd.period_range("2024-01", periods=ROWS, freq="M", name="id")
    assert run(tmp_path, "t.parquet", group="id", table=frame.set_index(periods)) == 2
    assert "pandas.period" in error_of(capsys)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("t.xlsx", b"", "unknown format"),
        ("t.csv", b"q,g\n", "no rows"),
        ("t.csv", b"q,q\na,b\n", "occur twice"),
        ("t.csv", b"q,g\na,b\nc,d,e\n", "row 2"),
        ("t.csv", b"q,g\na\0b,c\n", "zero bytes"),
        ("t.csv", b'q,g\na,"b\nc,d\n', "not closed"),
        ("t.csv", b'q,g\n"a,b\nc,d\n"e,f\n', "line 4"),  # rows would be joined, without an error
        ("t.jsonl", b"", "t.jsonl"),
        ("t.jsonl", b'[{"q": "a"}]', "JSON array"),
        ("t.jsonl", b'{"q": "a"}\n{"q": \n', "row 2"),
        ("t.jsonl", b'{"q": "a"}\n{"q": 1}\n', "row 2"),
        ("t.jsonl", b'{"q": "a", "g": [1]}\n', "expected text, numbers or dates"),
        ("t.jsonl", b'{"q": "a", "g": 9007199254740993}\n{"q": "b", "g": 0.5}\n', "not exact"),
        ("t.jsonl.gz", b"\x1f\x8b\x08 cut off", "cannot be read"),
        ("t.parquet", b"PAR1 no", "cannot be read"),
        ("folder/other.txt", b"{}", "not a dataset"),
        ("folder/dataset_info.json", b"{}", "not a dataset"),
        ("folder/state.json", b"{}", "not a dataset"),
    ],
)
def test_a_wrong_file_is_an_error(tmp_path: Path, capsys, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert run(tmp_path, name.partition("/")[0]) == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "out").exists()


# -- types and missing values

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
WHOLE_FLOATS = st.integers(-(2**20), 2**20)  # as pandas stores integers, some of them missing
SIGNED = {kind: st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
          for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())}  # fmt: skip
UNSIGNED = {kind: st.integers(0, 2**kind.bit_width - 1) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())}
VALUES = SIGNED | UNSIGNED | {
    pa.decimal128(20, 0): st.integers(-(2**63), 2**64 - 1), pa.float32(): WHOLE_FLOATS, pa.float64(): WHOLE_FLOATS,
    pa.bool_(): st.booleans(), pa.date32(): st.dates(date(1990, 1, 1), date(2030, 1, 1)), pa.string(): TEXTS,
    pa.large_string(): TEXTS, pa.dictionary(pa.int32(), pa.string()): TEXTS,
}  # fmt: skip


@st.composite
def columns(draw: st.DrawFn) -> tuple[pa.Array, list[str | None]]:
    """A column of 24 values of any type, some of them missing, and the text of each value."""
    kind = draw(st.sampled_from(list(VALUES)))
    values = draw(st.lists(st.none() | VALUES[kind], min_size=24, max_size=24))
    texts = [str(value).lower() if kind == pa.bool_() else str(value) for value in values]
    texts = [None if value is None or not text.strip() else text for value, text in zip(values, texts, strict=True)]
    if pa.types.is_floating(kind):
        values = [float("nan") if value is None else float(value) for value in values]
    return pa.array(values, kind), texts


def label(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(group=columns(), truth=columns(), user=columns())
def test_any_type_and_any_missing_value(tmp_path: Path, group, truth, user) -> None:
    """Every value arrives as its own text; a row with a missing one is an error, or dropped and counted."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"q": [str(i) for i in range(24)], "g": group[0], "t": truth[0], "u": user[0]}), path)
    good = [i for i in range(24) if None not in (group[1][i], truth[1][i], user[1][i])]
    options = dict(prompt_column="q", group_column="g", truth_column="t", user_column="u")
    if len(good) < 24:
        with pytest.raises(DataError, match=r"t\.parquet"):
            prepare(path, tmp_path / "out", TableOptions(**options))
    if len({label(user[1][i]) for i in good}) < 2:  # one user cannot be on both sides
        with pytest.raises(DataError):
            prepare(path, tmp_path / "out", TableOptions(**options, bad_rows="drop"))
        return
    summary = prepare(path, tmp_path / "out", TableOptions(**options, bad_rows="drop"))
    assert sum(summary.dropped.values()) == 24 - len(good)
    rows = read_rows(tmp_path / "out").sort_values("text", key=lambda number: number.astype(int))
    assert rows["text"].tolist() == [str(i) for i in good]
    assert rows["preference_group"].tolist() == [label(group[1][i]) for i in good]
    assert rows["truth"].tolist() == [truth[1][i] for i in good]
    assert rows["user"].tolist() == [label(user[1][i]) for i in good]


def test_text_in_types_that_parquet_does_not_have() -> None:
    text = pa.array(["a", None, " "])
    for column in (text.cast(pa.string_view()), text.cast(pa.binary()), pc.run_end_encode(text)):
        assert label_values(UserTable(pa.table({"c": column}), "t"), "c", "--group-column", []) == ["a", None, None]


@pytest.mark.parametrize("source", ["t.parquet", "t.jsonl", "absent.jsonl", "t.csv", "na.csv"])
def test_a_missing_value_is_an_error_or_a_counted_drop(tmp_path: Path, capsys, source: str) -> None:
    """In any used column, however the format spells it: the row never gets the text "None" or "nan", or a number."""
    table = pd.DataFrame({name: [f"{name} {i}" for i in range(40)] for name in "qtuk"}, dtype=object)
    table = table.assign(g=["a", "b"] * 20, time=range(40), x=range(40)).astype(object)
    for i, name in enumerate(table):
        table.loc[3 + 5 * i, name] = None
    if source == "na.csv":
        table.to_csv(tmp_path / source, index=False, na_rep="nan")
    else:
        WRITERS[Path(source).suffix](table, tmp_path / source)
    if source == "absent.jsonl":
        (tmp_path / source).write_text(re.sub(r',"\w+":null', "", (tmp_path / source).read_text()))
    columns = ("--truth-column", "t", "--user-column", "u", "--time-column", "time", "--keep", "k")
    for group, options, used in (("g", columns, 6), ("", ("--cluster-features", "x", "--groups", "2"), 2)):
        assert run(tmp_path, source, *options, group=group) == 2
        assert "row 4:" in error_of(capsys)
        assert run(tmp_path, source, *options, "--bad-rows", "drop", "--json", group=group) == 0
        assert list(json.loads(capsys.readouterr().out)["dropped"].values()) == [1] * used
        made = read_rows(tmp_path / "out")
        assert len(made) == 40 - used
        seen = set(made[["preference_group", "truth", "text"]].to_numpy().ravel())
        assert not {"none", "nan", "null", "<na>", "nat", "na"} & {str(text).lower() for text in seen}


def test_kept_columns_keep_their_type_and_structured_truths_become_json(tmp_path: Path) -> None:
    truths = [{"x": [1, 2.5], "y": i} if i % 2 else {"z": "é"} for i in range(20)]
    rows = [{"q": f"{i}", "g": "a", "n": i, "l": [{"a": i}], "t": truths[i]} for i in range(20)]
    assert run(tmp_path, "t.jsonl", "--truth-column", "t", table=pd.DataFrame(rows)) == 0
    made = read_rows(tmp_path / "out")
    assert [json.loads(truth) for truth in made["truth"]] == [truths[int(number)] for number in made["text"]]
    kept = pd.DataFrame(rows).astype({"n": "uint8"}).assign(c=pd.Categorical(["x"] * 20))
    assert run(tmp_path, "t.parquet", "--keep", "n,l,c", table=kept) == 0
    kind = pq.read_schema(tmp_path / "out" / "train.parquet").field("extra_info").type
    assert kind.field("n").type == pa.uint8()
    assert kind.field("l").type == pa.list_(pa.struct([("a", pa.int64())]))


def test_labels_are_normalized_and_look_alikes_reported(tmp_path: Path, capsys) -> None:
    nfc = "Pok\u00e9mon"
    alike = (nfc, unicodedata.normalize("NFD", nfc), " jazz ", "jazz\u200b", "nan")
    table = pd.DataFrame({"q": [f"q {i}" for i in range(40)], "g": alike * 8})
    assert run(tmp_path, "t.parquet", "--json", table=table) == 0
    summary = json.loads(capsys.readouterr().out)
    warnings, [note] = summary["warnings"], summary["notes"]
    assert note.count("8 rows") == 2, "the two spellings of Pokémon"
    assert "U+0301 COMBINING ACUTE ACCENT" in note
    assert set(read_rows(tmp_path / "out")["preference_group"]) == {nfc, "jazz", "jazz\u200b", "nan"}
    assert any("U+200B" in warning for warning in warnings)
    assert any("'nan'" in warning for warning in warnings), "text that spells a missing value"


def test_class_labels_are_written_by_name(tmp_path: Path) -> None:
    features = datasets.Features({"q": datasets.Value("string"), "g": datasets.ClassLabel(names=["jazz", "rock"])})
    rows = {"q": [f"q {i}" for i in range(40)], "g": [i % 2 for i in range(39)] + [None]}
    data = datasets.Dataset.from_dict(rows, features)
    data.to_parquet(tmp_path / "t.parquet")
    data.save_to_disk(tmp_path / "folder")
    for source in ("t.parquet", "folder"):
        assert run(tmp_path, source, "--bad-rows", "drop") == 0
        assert read_rows(tmp_path / "out")["preference_group"].value_counts().to_dict() == {"jazz": 20, "rock": 19}


# -- splits and groups


def test_no_user_or_prompt_is_on_both_sides_and_random_groups_have_the_true_sizes(tmp_path: Path, frame) -> None:
    assert run(tmp_path, "t.parquet", "--user-column", "user", table=frame) == 0
    made = read_rows(tmp_path / "out")
    users = made.drop_duplicates(["user", "split"])
    assert users["user"].is_unique
    assert users["split"].value_counts().to_dict() == {"train": users["user"].nunique() - 6, "val": 6}
    control = users[users["split"] == "train"]
    assert sorted(control["random_group"]) == sorted(control["preference_group"])
    assert run(tmp_path, "t.parquet", table=frame.assign(q=[f"{i % 50}?" for i in range(ROWS)])) == 0
    assert read_rows(tmp_path / "out").groupby("text")["split"].nunique().max() == 1


@pytest.mark.parametrize("kind", ["text", "date", "timestamp", "float", "large integer", "number as text", "time zone"])
def test_by_time_the_latest_are_for_validation(tmp_path: Path, frame: pd.DataFrame, kind: str) -> None:
    times = pd.to_datetime(frame["when"])
    when = {
        "text": times.dt.strftime("%Y-%m-%d %H:%M"), "date": (times + pd.to_timedelta(frame.index, unit="D")).dt.date,
        "timestamp": times, "float": times.astype("int64") / 1e9 + 0.25, "large integer": frame.index + 2**62,
        "number as text": [str(2**62 + i) for i in frame.index], "time zone": [f"{t.isoformat()}+05:30" for t in times],
    }[kind]  # fmt: skip
    shuffled = frame.assign(when=when, order=frame.index).sample(frac=1, random_state=0)
    assert run(tmp_path, "t.parquet", "--time-column", "when", "--keep", "order", table=shuffled) == 0
    made = read_rows(tmp_path / "out")
    assert sorted(made["order"][made["split"] == "val"]) == list(range(270, 300))


def test_clusters_use_the_training_side_only(tmp_path: Path, frame: pd.DataFrame) -> None:
    other = frame.copy()
    other.loc[270:, "x"] = 1e6
    other.loc[270:, "q"] = "something else"
    options = ("--cluster-features", "x,y", "--user-column", "user", "--time-column", "when", "--groups", "3")
    for out, table in (("a", frame), ("b", other)):
        assert run(tmp_path, "t.csv", *options, group="", out=out, table=table) == 0
    for name in ("train.parquet", "groups.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    a, b = (read_rows(tmp_path / out)["preference_group"].tolist() for out in "ab")
    assert a == b, "a user's group comes from the user's training rows"
    new_users = frame.assign(user=[f"new{i}" if i >= 270 else user for i, user in enumerate(frame["user"])])
    assert run(tmp_path, "t.csv", *options, group="", out="c", table=new_users) == 2
    assert not (tmp_path / "c" / "groups.json").exists(), "nothing is written if there is an error"


def test_a_grouping_made_elsewhere_is_applied_and_chat_messages_stay(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame.to_parquet(tmp_path / "table.parquet")
    grouping = tmp_path / "g.json"
    fit = ["groups", "fit", "--input", str(tmp_path / "table.parquet"), "--features", "x", "--groups", "3"]
    assert main([*fit, "--out", str(grouping)]) == 0
    chat = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": q}] for q in frame["q"]]
    for suffix, indent in ((".parquet", None), (".jsonl", None), (".csv", None), (".csv", 2)):
        prompts = [json.dumps(messages, indent=indent) for messages in chat] if suffix == ".csv" else chat
        table = frame.assign(q=list(prompts))
        assert run(tmp_path, f"t{suffix}", "--groups-file", str(grouping), group="", table=table) == 0
        made = read_rows(tmp_path / "out")
        assert [message["role"] for message in made["prompt"][0]] == ["system", "user"]
        assert set(made["preference_group"]) == {"g0", "g1", "g2"}


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        ("", [], "one of --group-column, --cluster-features, --groups-file"),
        ("g", ["--cluster-features", "x"], "one of --group-column"),
        ("", ["--cluster-features", "g"], "column 'g' is not a number"),
        ("nope", [], "no column 'nope'"),
        ("g", ["--time-column", "user"], "row 1: column 'user' is neither a number nor"),
        ("g", ["--val-fraction", "1"], "--val-fraction must be between 0 and 1"),
        ("g", ["--keep", "user"], "extra_info already has a field"),
        ("g", ["--encoding", "klingon"], "unknown encoding"),
        ("g", ["--min-size", "5"], "--min-size has no effect without --cluster-features"),
    ],
)
def test_a_wrong_option_is_an_error(tmp_path: Path, frame, capsys, group: str, options: list, message: str) -> None:
    assert run(tmp_path, "t.csv", *options, group=group, table=frame) == 2
    assert message in error_of(capsys)


@pytest.mark.parametrize(
    "inputs",
    ["table --prompt-column q --group-column g --input", "movielens --archive", "goodreads --reviews x --books"],
)
def test_an_input_is_not_overwritten(tmp_path: Path, capsys, inputs: str) -> None:
    for name in ("train.parquet", "val.parquet"):
        (tmp_path / name).write_text("mine")
        assert main(["data", *inputs.split(), str(tmp_path / name), "--out", str(tmp_path)]) == 2
        assert f"{name} is also an input" in error_of(capsys)
        assert (tmp_path / name).read_text() == "mine"
