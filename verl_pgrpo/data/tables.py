# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the user's own: JSON Lines, CSV, Parquet, or a Hugging Face dataset on disk, each with where its rows are.

Errors name the line of the file (JSON Lines, CSV) or the row (formats without lines). A Hugging Face dataset is read as
the Arrow files that it is made of; no code of a dataset is run.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from verl_pgrpo.data.errors import DataError

FORMATS = ".jsonl, .csv, .tsv (each also .gz), .parquet, or a folder that Dataset.save_to_disk wrote"


@dataclass(frozen=True)
class Source:
    """A table and where it came from. `lines` holds the line of each row; None for a format without lines.

    `text_only` says that every cell is text, as in CSV, so that numbers are still to be read from it.
    """

    frame: pd.DataFrame
    name: str
    lines: list[int] | None
    text_only: bool = False

    def where(self, row: int) -> str:
        """Where a row is, counted from 0, as a person would look it up."""
        return f"{self.name}, line {self.lines[row]}" if self.lines is not None else f"{self.name}, row {row + 1}"

    def column(self, name: str, option: str) -> pd.Series:
        """A column.

        Raises:
            DataError: there is none of that name; the message lists those there are.
        """
        if name not in self.frame.columns:
            there = ", ".join(map(str, self.frame.columns[:20]))
            raise DataError(f"{self.name}: no column {name!r} ({option}); it has {there}")
        return self.frame[name]

    def take(self, rows: Any) -> Source:
        """The same with these rows (places) only."""
        lines = [self.lines[i] for i in rows] if self.lines is not None else [int(i) + 1 for i in rows]
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return Source(frame, self.name, lines, self.text_only)


def read_table(path: Path, split: str | None = None) -> Source:
    """Read a table by its suffix; a folder is a Hugging Face dataset, `split` one of its splits.

    Raises:
        DataError: no such file, unknown format, or a line that cannot be read; the message names it.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = (suffixes[-2:-1] or [""])[0] if suffixes[-1:] == [".gz"] else (suffixes[-1:] or [""])[0]
    reader = _hugging_face if path.is_dir() else READERS.get(kind)
    if reader is None:
        raise DataError(f"{path}: unknown format; expected {FORMATS}")
    try:
        source = reader(path, split)
    except (pa.ArrowInvalid, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged, or not of the format that its name says ({str(error)[:200]})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}: {error.reason}); convert it first") from error
    if not len(source.frame):
        raise DataError(f"{path}: no rows")
    return source


def _open(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _json_lines(path: Path, split: str | None) -> Source:
    rows, lines = [], []
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path.name}, line {number}: not JSON ({error}): {line.strip()[:80]!r}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path.name}, line {number}: expected a JSON object, found {line.strip()[:80]!r}")
            rows.append(row)
            lines.append(number)
    return Source(pd.DataFrame(rows), path.name, lines)


def _csv(path: Path, split: str | None) -> Source:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    rows: list[list[str]] = []
    lines: list[int] = []
    with _open(path) as file:
        reader = csv.reader(_no_nul(file, path.name), delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise DataError(f"{path.name}, line 1: a column name occurs twice: {', '.join(header)[:200]}")
            begin = reader.line_num + 1
            for row in reader:
                if row and len(row) != len(header):
                    raise DataError(f"{path.name}, line {begin}: {len(row)} fields, the header has {len(header)}")
                if row:
                    rows.append(row)
                    lines.append(begin)
                begin = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path.name}, line {reader.line_num}: {error}") from error
    return Source(pd.DataFrame(rows, columns=header), path.name, lines, text_only=True)


def _no_nul(file: Iterable[str], name: str) -> Iterable[str]:
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise DataError(f"{name}, line {number}: a zero byte; this is no text file")
        yield line


def _parquet(path: Path, split: str | None) -> Source:
    return Source(_frame(pq.ParquetFile(path).read()), path.name, None)


def _hugging_face(path: Path, split: str | None) -> Source:
    """`Dataset.save_to_disk` writes Arrow streams and a `state.json` listing them; a `DatasetDict` folders of these."""
    folder = path
    listing = _json(path / "dataset_dict.json")
    if listing is not None:
        splits = [str(name) for name in listing.get("splits", [])]
        if split not in splits:
            asked = f"no split {split!r}" if split else "several splits; name one with --split"
            raise DataError(f"{path}: {asked}; it has {', '.join(splits)}")
        folder = path / Path(str(split)).name
    state = _json(folder / "state.json")
    if state is None:
        raise DataError(f"{folder}: not a dataset that Dataset.save_to_disk wrote (no state.json in it)")
    try:
        names = [Path(file["filename"]).name for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'state.json'}: lists no data files") from error
    parts = []
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: missing, though state.json lists it")
        with pa.memory_map(str(folder / name)) as file:
            parts.append(pa.ipc.open_stream(file).read_all())
    if not parts:
        raise DataError(f"{path}: no rows")
    return Source(_frame(pa.concat_tables(parts)), path.name, None)


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    return content if isinstance(content, dict) else None


def _frame(table: pa.Table) -> pd.DataFrame:
    """To pandas with whole numbers kept whole where some are missing."""
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}.get)


READERS: dict[str, Callable[[Path, str | None], Source]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".pq": _parquet,
}
