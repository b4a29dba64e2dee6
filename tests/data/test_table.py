# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""User tables: any format, any Arrow type, any missing value; splits without leaks; errors that name row and cause."""

from __future__ import annotations

import gzip
import json
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verl_pgrpo.cli import main
from verl_pgrpo.data.columns import label_values
from verl_pgrpo.data.schema import COLUMNS
from verl_pgrpo.data.table import TableOptions, prepare
from verl_pgrpo.data.user_table import UserTable
from verl_pgrpo.errors import DataError

ROWS = 300
NULL_TEXTS = {"none", "nan", "null", "<na>", "nat", "na"}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    user = rng.integers(60, size=ROWS)
    return pd.DataFrame(
        {
            "user": [f"user {i}" for i in user],
            "question": [f'Quéstion, with a "quote" {i}?\nAnd a second line.' for i in range(ROWS)],
            "segment": np.where(user % 3 == 0, "rare", "common"),
            "x": (user % 3) * 6 + rng.normal(size=ROWS),
            "y": rng.normal(size=ROWS),
            "when": pd.date_range("2024-01-01", periods=ROWS, freq="h").strftime("%Y-%m-%dT%H:%M:%S"),
            "wanted": [str(pd.Timestamp("2024-01-01").date() + pd.Timedelta(days=i)) for i in range(ROWS)],
        }
    )


@pytest.fixture
def folder(frame: pd.DataFrame, tmp_path: Path) -> Path:
    frame.to_parquet(tmp_path / "table.parquet")
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


def run(folder: Path, source: str, *arguments: str, out: str = "out", prompt: str = "question") -> int:
    files = ["--input", str(folder / source), "--out", str(folder / out)]
    return main(["data", "table", *files, "--prompt-column", prompt, *arguments])


def read(folder: Path, out: str = "out") -> dict[str, pd.DataFrame]:
    return {split: pd.read_parquet(folder / out / f"{split}.parquet") for split in ("train", "val")}


def all_rows(folder: Path, out: str = "out") -> pd.DataFrame:
    return pd.concat(read(folder, out).values())


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-pgrpo: error: ")
    return line


def test_every_format_gives_the_same_bytes(folder: Path, frame: pd.DataFrame) -> None:
    import datasets

    frame.to_csv(folder / "table.tsv", index=False, sep="\t")
    frame.to_json(folder / "table.jsonl", orient="records", lines=True, force_ascii=False)
    (folder / "table.jsonl.gz").write_bytes(gzip.compress((folder / "table.jsonl").read_bytes()))
    data = datasets.Dataset.from_pandas(frame)
    data.save_to_disk(folder / "table")
    datasets.DatasetDict(part=data).save_to_disk(folder / "several")
    data.select(range(ROWS - 1, -1, -1)).select(range(ROWS - 1, -1, -1)).save_to_disk(folder / "indices")
    files = [f"table.{kind}" for kind in ("parquet", "csv", "tsv", "jsonl", "jsonl.gz")]
    for source in (*files, "table", "several", "indices"):
        split = ["--split", "part"] if source == "several" else []
        arguments = ("--group-column", "segment", "--truth-column", "wanted", "--time-column", "when", "--task", "mine")
        assert run(folder, source, *arguments, *split, out=source + ".out") == 0
        for name in ("train.parquet", "val.parquet"):
            made = (folder / f"{source}.out" / name).read_bytes()
            assert made == (folder / "table.parquet.out" / name).read_bytes(), (source, name)
    rows = read(folder, "table.csv.out")
    assert tuple(rows["train"]) == COLUMNS
    assert (len(rows["train"]), len(rows["val"])) == (270, 30)
    for row in rows["val"].to_dict("records"):
        number = int(row["prompt"][0]["content"].split()[4].partition("?")[0])
        assert row["data_source"] == f"mine/{row['preference_group']}"
        assert row["reward_model"]["ground_truth"] == frame["wanted"][number], "a date in JSON stays as written"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1250"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_is_never_read_in_the_wrong_encoding(tmp_path: Path, capsys, encoding: str, suffix: str) -> None:
    texts = [f"Café {'Čapek' * (encoding == 'cp1250')} {i}" for i in range(20)]
    lines = [f"{q},é\n" if suffix == ".csv" else f'{{"q": "{q}", "g": "é"}}\n' for q in texts]
    content = "q,g\n" * (suffix == ".csv") + "".join(lines)
    (tmp_path / f"t{suffix}").write_bytes(content.encode(encoding))
    status = run(tmp_path, f"t{suffix}", "--group-column", "g", prompt="q")
    if encoding in ("latin-1", "cp1250"):  # any bytes are valid Latin-1, so a wrong guess would go unnoticed
        assert status == 2
        assert "--encoding" in error_of(capsys)
        assert run(tmp_path, f"t{suffix}", "--group-column", "g", "--encoding", encoding, prompt="q") == 0
    made = all_rows(tmp_path)
    assert {p[0]["content"] for p in made["prompt"]} == set(texts)
    assert set(made["preference_group"]) == {"é"}


def test_a_pandas_index_is_a_column_and_a_folder_without_a_dataset_an_error(folder: Path, frame, capsys) -> None:
    frame.set_index(["user", "segment"]).to_parquet(folder / "index.parquet")
    assert run(folder, "index.parquet", "--group-column", "segment", "--user-column", "user") == 0
    assert set(all_rows(folder)["preference_group"]) == {"rare", "common"}
    index = pd.RangeIndex(5, 5 + 3 * ROWS, 3, name="id")  # pandas stores its bounds only
    frame.set_index(index).to_parquet(folder / "index.parquet")
    assert run(folder, "index.parquet", "--group-column", "segment", "--user-column", "id") == 0
    assert {row["user"] for row in all_rows(folder)["extra_info"]} == set(map(str, index))
    frame.set_index(pd.period_range("2024-01", periods=ROWS, freq="M", name="id")).to_parquet(folder / "index.parquet")
    assert run(folder, "index.parquet", "--group-column", "id") == 2
    assert "pandas.period" in error_of(capsys)
    for file in ("other.txt", "dataset_info.json", "state.json"):
        (folder / file).mkdir()
        (folder / file / file).write_text("{}")
        assert run(folder, file, "--group-column", "g") == 2
        assert "not a dataset" in error_of(capsys)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_long_fields_and_many_lines_are_read(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"q": ["word " * 600_000 if i == 3 else f"a\nb {i}" for i in range(40)], "g": ["a", "b"] * 20})
    write = {".csv": lambda p: frame.to_csv(p, index=False), ".parquet": frame.to_parquet,
             ".jsonl": lambda p: frame.to_json(p, orient="records", lines=True)}  # fmt: skip
    write[suffix](tmp_path / f"t{suffix}")
    assert run(tmp_path, f"t{suffix}", "--group-column", "g", prompt="q") == 0
    assert {p[0]["content"] for p in all_rows(tmp_path)["prompt"]} == set(frame["q"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"question": "a"}\n{"question": \n', "row 2"),
        ("t.jsonl", b'{"question": "a"}\n[1]\n', "row 2"),
        ("t.jsonl", b'{"question": "a"}\n{"question": 1}\n', "row 2"),
        ("t.jsonl", b"", "t.jsonl"),
        ("t.csv", b"question,segment\n", "no rows"),
        ("t.csv", b"question,segment\na\0b,c\n", "zero bytes"),
        ("t.csv", b'question,segment\na,"b\nc,d\n', "not closed"),
        ("t.csv", b'question,segment\n"a,b\nc,d\n"e,f\n', "line 4"),  # rows would be joined, without an error
        ("t.csv", b'question,segment\n"a \\"b\\" c",d\n', "line 2"),
        ("t.jsonl", b'[{"question": "a"}]', "JSON array"),
        ("t.csv", b"question,segment\na,b\nc,d,e\n", "row 2"),
        ("t.csv", b"question,question\na,b\n", "occur twice"),
        ("t.parquet", b"PAR1 no", "cannot be read"),
        ("t.jsonl.gz", b"\x1f\x8b\x08 cut off", "cannot be read"),
        ("t.xlsx", b"", "unknown format"),
        ("none.csv", None, "no such file"),
    ],
)
def test_a_wrong_file_is_an_error(tmp_path: Path, capsys, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(tmp_path, name, "--group-column", "segment") == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_a_quote_inside_a_field_without_quotes_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("q,g\n" + "".join(f'{i}.5" disk,a\n' for i in range(21)))
    assert run(tmp_path, "t.csv", "--group-column", "g", prompt="q") == 0
    assert {row[0]["content"] for row in all_rows(tmp_path)["prompt"]} == {f'{i}.5" disk' for i in range(21)}


# -- types and missing values

INTEGERS = st.sampled_from(
    [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
)


def small(kind: pa.DataType) -> st.SearchStrategy[int]:
    bits = kind.bit_width - (0 if str(kind).startswith("u") else 1)
    return st.integers(0 if str(kind).startswith("u") else -(2**bits), 2**bits - 1)


@st.composite
def columns(draw: st.DrawFn) -> tuple[pa.Array, list[str | None]]:
    """A column of 24 values of any type, some of them missing, and the text of each value."""
    choice = draw(st.sampled_from(["integer", "decimal", "whole float", "text", "categorical", "date", "boolean"]))
    kind = draw(INTEGERS)
    strategy = {
        "integer": small(kind), "decimal": small(kind), "whole float": st.integers(-(2**20), 2**20),
        "date": st.dates(pd.Timestamp("1990-01-01").date(), pd.Timestamp("2030-01-01").date()),
        "boolean": st.booleans(),
    }.get(choice, st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8))  # fmt: skip
    values = draw(st.lists(st.none() | strategy, min_size=24, max_size=24))
    texts = [None if one is None or not str(one).strip() else str(one) for one in values]
    if choice == "integer":
        return pa.array(values, kind), texts
    if choice == "decimal":
        return pa.array(values, kind).cast(pa.decimal128(20, 0)), texts
    if choice == "whole float":  # as pandas stores integers, some of them missing
        floats = [float("nan") if one is None else float(one) for one in values]
        return pa.array(floats, draw(st.sampled_from([pa.float32(), pa.float64()]))), texts
    if choice == "boolean":
        return pa.array(values, pa.bool_()), [one and one.lower() for one in texts]
    if choice == "date":
        return pa.array(values, pa.date32()), texts
    array = pa.array(values, draw(st.sampled_from([pa.string(), pa.large_string()])))
    return array.dictionary_encode() if choice == "categorical" else array, texts


def label(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(group=columns(), truth=columns(), user=columns())
def test_any_type_and_any_missing_value(tmp_path: Path, group, truth, user) -> None:
    """Every value arrives as its own text; a row with a missing one is an error, or dropped and counted."""
    table = pa.table({"q": [str(i) for i in range(24)], "g": group[0], "t": truth[0], "u": user[0]})
    pq.write_table(table, tmp_path / "t.parquet")
    good = [i for i in range(24) if None not in (group[1][i], truth[1][i], user[1][i])]
    options = dict(prompt_column="q", group_column="g", truth_column="t", user_column="u")
    users = {label(user[1][i]) for i in good}
    if len(good) < 24:
        with pytest.raises(DataError, match=r"t\.parquet"):
            prepare(tmp_path / "t.parquet", tmp_path / "out", TableOptions(**options))
    if len(users) < 2:  # one user cannot be on both sides
        with pytest.raises(DataError):
            prepare(tmp_path / "t.parquet", tmp_path / "out", TableOptions(**options, bad_rows="drop"))
        return
    summary = prepare(tmp_path / "t.parquet", tmp_path / "out", TableOptions(**options, bad_rows="drop"))
    assert sum(summary.dropped.values()) == 24 - len(good)
    rows = {int(row["prompt"][0]["content"]): row for row in all_rows(tmp_path).to_dict("records")}
    assert sorted(rows) == good
    for i, row in rows.items():
        assert row["preference_group"] == label(group[1][i])
        assert row["reward_model"]["ground_truth"] == truth[1][i]
        assert row["extra_info"]["user"] == label(user[1][i])


def test_types_that_parquet_does_not_have_and_columns_without_a_text_form() -> None:
    def labels(column: pa.Array) -> list[str | None]:
        return label_values(UserTable(pa.table({"c": column}), "t"), "c", "--group-column", [])

    text = pa.array(["a", None, " "])
    for column in (text.cast(pa.string_view()), text.cast(pa.binary()), pc.run_end_encode(text)):
        assert labels(column) == ["a", None, None]
    for column in (pa.array([[1], None]), pa.array([{"a": 1}, None]), pa.array([b"\xff", None])):
        with pytest.raises(DataError, match="expected text, numbers or dates"):
            labels(column)


@pytest.mark.parametrize("role", ["--group-column", "--truth-column", "--user-column", "--time-column", "--keep",
                                  "--cluster-features", "--prompt-column"])  # fmt: skip
@pytest.mark.parametrize("source", ["null.parquet", "nan.parquet", "null.jsonl", "empty.csv", "na.csv", "absent.jsonl"])
def test_a_missing_value_is_an_error_or_a_counted_drop(tmp_path: Path, capsys, role: str, source: str) -> None:
    """In any used column, however the format spells it: the row never gets the text "None" or "nan", or a number."""
    missing, number = range(3, 24, 5), role in ("--time-column", "--cluster-features")
    rows = [{"q": f"q {i}", "g": "ab"[i % 2], "c": i if number else f"text {i}"} for i in range(24)]
    rows = [{**row, "c": None} if i in missing else row for i, row in enumerate(rows)]
    path, frame = tmp_path / source, pd.DataFrame(rows)
    {
        "null.parquet": lambda: pq.write_table(pa.Table.from_pylist(rows), path),
        "nan.parquet": lambda: frame.to_parquet(path),
        "null.jsonl": lambda: write_lines(path, rows),
        "absent.jsonl": lambda: write_lines(path, [{k: v for k, v in r.items() if v is not None} for r in rows]),
        "empty.csv": lambda: frame.to_csv(path, index=False),
        "na.csv": lambda: frame.to_csv(path, index=False, na_rep="nan"),
    }[source]()
    arguments = [role, "c"] if role != "--prompt-column" else []
    arguments += ["--group-column", "g"] if role not in ("--group-column", "--cluster-features") else []
    arguments += ["--groups", "2"] if role == "--cluster-features" else []
    prompt = "c" if role == "--prompt-column" else "q"
    assert run(tmp_path, source, *arguments, prompt=prompt) == 2
    message = error_of(capsys)
    assert "row 4:" in message
    assert "prompt" in message or "'c'" in message
    assert run(tmp_path, source, *arguments, "--bad-rows", "drop", "--json", prompt=prompt) == 0
    assert sum(json.loads(capsys.readouterr().out)["dropped"].values()) == len(missing)
    made = all_rows(tmp_path)
    assert len(made) == 24 - len(missing)
    seen = json.dumps([*made["preference_group"], *[r["ground_truth"] for r in made["reward_model"]],
                       *[p[0]["content"] for p in made["prompt"]]])  # fmt: skip
    assert not NULL_TEXTS & set(seen.lower().replace('"', " ").replace(",", " ").split())


def test_large_integers_are_exact_or_an_error(tmp_path: Path, capsys) -> None:
    rows = [{"q": f"q {i}", "g": "a", "u": 2**53 + i} for i in range(20)]
    write_lines(tmp_path / "t.jsonl", rows)
    common = ("--group-column", "g", "--user-column", "u", "--truth-column", "u")
    assert run(tmp_path, "t.jsonl", *common, prompt="q") == 0
    made = all_rows(tmp_path)
    assert {info["user"] for info in made["extra_info"]} == {str(2**53 + i) for i in range(20)}
    assert {one["ground_truth"] for one in made["reward_model"]} == {str(2**53 + i) for i in range(20)}
    rows[7]["u"] = 0.5  # makes it a column of floats, in which neighbors are the same number
    write_lines(tmp_path / "t.jsonl", rows)
    assert run(tmp_path, "t.jsonl", *common, prompt="q") == 2
    assert "not exact" in error_of(capsys)


def test_kept_columns_keep_their_type_and_structured_truths_become_json(tmp_path: Path) -> None:
    truths = [json.dumps({"x": [1, 2.5], "y": i} if i % 2 else {"z": "é"}) for i in range(20)]
    rows = [{"q": f"q {i}", "g": "a", "n": i, "l": [{"a": i}], "t": json.loads(truths[i])} for i in range(20)]
    table = pa.Table.from_pylist(rows)
    table = table.set_column(2, "n", table["n"].cast(pa.uint8()))
    table = table.append_column("c", pa.array(["x"] * 20).dictionary_encode())
    pq.write_table(table, tmp_path / "t.parquet")
    assert run(tmp_path, "t.parquet", "--group-column", "g", "--keep", "n,l,c", prompt="q") == 0
    kind = pq.read_schema(tmp_path / "out" / "train.parquet").field("extra_info").type
    assert kind.field("n").type == pa.uint8()
    assert kind.field("l").type == pa.list_(pa.struct([("a", pa.int64())]))
    write_lines(tmp_path / "t.jsonl", rows)
    assert run(tmp_path, "t.jsonl", "--group-column", "g", "--truth-column", "t", prompt="q") == 0
    for row in all_rows(tmp_path).to_dict("records"):
        truth = json.loads(row["reward_model"]["ground_truth"])
        assert truth == json.loads(truths[int(row["prompt"][0]["content"][2:])])


def test_labels_are_normalized_and_look_alikes_reported(tmp_path: Path, capsys) -> None:
    nfc = "Pok\u00e9mon"
    alike = (nfc, unicodedata.normalize("NFD", nfc), " jazz ", "jazz\u200b", "nan")
    rows = [{"q": f"q {i}", "g": alike[i % 5]} for i in range(40)]
    write_lines(tmp_path / "t.jsonl", rows)
    assert run(tmp_path, "t.jsonl", "--group-column", "g", "--json", prompt="q") == 0
    summary = json.loads(capsys.readouterr().out)
    warnings, [note] = summary["warnings"], summary["notes"]
    assert note.count("8 rows") == 2, "the two spellings of Pokémon"
    assert "U+0301 COMBINING ACUTE ACCENT" in note
    assert set(all_rows(tmp_path)["preference_group"]) == {nfc, "jazz", "jazz\u200b", "nan"}
    assert any("U+200B" in warning for warning in warnings)
    assert any("'nan'" in warning for warning in warnings), "text that spells a missing value"


def test_class_labels_are_written_by_name(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"q": datasets.Value("string"), "g": datasets.ClassLabel(names=["jazz", "rock"])})
    rows = {"q": [f"q {i}" for i in range(40)], "g": [i % 2 for i in range(39)] + [None]}
    data = datasets.Dataset.from_dict(rows, features)
    data.to_parquet(tmp_path / "t.parquet")
    data.save_to_disk(tmp_path / "folder")
    for source in ("t.parquet", "folder"):
        assert run(tmp_path, source, "--group-column", "g", "--bad-rows", "drop", prompt="q") == 0
        assert all_rows(tmp_path)["preference_group"].value_counts().to_dict() == {"jazz": 20, "rock": 19}


# -- splits and groups


def test_no_user_or_prompt_is_on_both_sides_and_random_groups_have_the_true_sizes(folder: Path, frame) -> None:
    assert run(folder, "table.csv", "--group-column", "segment", "--user-column", "user") == 0
    made = read(folder)
    users = {split: {info["user"] for info in rows["extra_info"]} for split, rows in made.items()}
    assert not users["train"] & users["val"]
    assert len(users["val"]) == 6
    infos = pd.DataFrame(list(made["train"]["extra_info"]))[["user", "random_group"]]
    control = infos.assign(true=made["train"]["preference_group"]).drop_duplicates("user")
    assert control["random_group"].value_counts().to_dict() == control["true"].value_counts().to_dict()
    frame.assign(question=[f"{i % 50}?" for i in range(ROWS)]).to_csv(folder / "table.csv", index=False)
    assert run(folder, "table.csv", "--group-column", "segment") == 0
    prompts = {split: {row[0]["content"] for row in rows["prompt"]} for split, rows in read(folder).items()}
    assert not prompts["train"] & prompts["val"]


@pytest.mark.parametrize("kind", ["text", "date", "timestamp", "float", "large integer", "number as text", "time zone"])
def test_by_time_the_latest_are_for_validation(folder: Path, frame: pd.DataFrame, kind: str) -> None:
    times = pd.to_datetime(frame["when"])
    when = {
        "text": times.dt.strftime("%Y-%m-%d %H:%M"), "date": (times + pd.to_timedelta(frame.index, unit="D")).dt.date,
        "timestamp": times, "float": times.astype("int64") / 1e9 + 0.25, "large integer": frame.index + 2**62,
        "number as text": [str(2**62 + i) for i in frame.index], "time zone": [f"{t.isoformat()}+05:30" for t in times],
    }[kind]  # fmt: skip
    frame.assign(when=when, order=frame.index).sample(frac=1, random_state=0).to_parquet(folder / "t.parquet")
    arguments = ("--group-column", "segment", "--time-column", "when", "--keep", "order")
    assert run(folder, "t.parquet", *arguments) == 0
    order = {split: [info["order"] for info in rows["extra_info"]] for split, rows in read(folder).items()}
    assert sorted(order["val"]) == list(range(270, 300))


def test_clusters_use_the_training_side_only(folder: Path, frame: pd.DataFrame) -> None:
    arguments = ("--cluster-features", "x,y", "--user-column", "user", "--time-column", "when", "--groups", "3")
    assert run(folder, "table.csv", *arguments, "--task", "t") == 0
    other = frame.copy()
    other.loc[270:, "x"] = 1e6
    other.loc[270:, "question"] = "something else"
    other.to_csv(folder / "other.csv", index=False)
    assert run(folder, "other.csv", *arguments, "--task", "t", out="other") == 0
    for name in ("train.parquet", "groups.json"):
        assert (folder / "out" / name).read_bytes() == (folder / "other" / name).read_bytes()
    groups = [rows["val"]["preference_group"].tolist() for rows in (read(folder), read(folder, "other"))]
    assert groups[0] == groups[1], "a user's group comes from the user's training rows"


def test_a_grouping_made_elsewhere_is_applied_and_chat_messages_stay(folder: Path, frame: pd.DataFrame) -> None:
    fit = ["groups", "fit", "--input", str(folder / "table.csv"), "--features", "x", "--groups", "3"]
    assert main([*fit, "--out", str(folder / "g.json")]) == 0
    chat = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": q}] for q in frame["question"]]
    frame.assign(question=chat).to_parquet(folder / "chat.parquet")
    frame.assign(question=chat).to_json(folder / "chat.jsonl", orient="records", lines=True)
    frame.assign(question=[json.dumps(one) for one in chat]).to_csv(folder / "chat.csv", index=False)
    for source in ("chat.parquet", "chat.csv", "chat.jsonl"):
        assert run(folder, source, "--groups-file", str(folder / "g.json")) == 0
        made = read(folder)["train"]
        assert [message["role"] for message in made["prompt"][0]] == ["system", "user"]
        assert set(made["preference_group"]) == {"g0", "g1", "g2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --group-column, --cluster-features, --groups-file"),
        (["--group-column", "segment", "--cluster-features", "x"], "one of --group-column"),
        (["--group-column", "nope"], "no column 'nope'"),
        (["--group-column", "segment", "--time-column", "user"], "row 1: column 'user' is neither a number nor"),
        (["--group-column", "segment", "--val-fraction", "1"], "--val-fraction must be between 0 and 1"),
        (["--group-column", "segment", "--keep", "user"], "extra_info already has a field"),
        (["--cluster-features", "segment"], "column 'segment' is not a number"),
        (["--group-column", "segment", "--encoding", "klingon"], "unknown encoding"),
    ],
)
def test_a_wrong_option_is_an_error(folder: Path, capsys, arguments: list[str], message: str) -> None:
    assert run(folder, "table.csv", *arguments) == 2
    assert message in error_of(capsys)
