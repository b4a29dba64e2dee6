# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Read user tables: JSON Lines, CSV, TSV, Parquet, or a Hugging Face dataset on disk, as typed Arrow tables.

CSV has no types, so its fields stay text until a column is used as a number or a time. An empty field, and an unquoted
field that spells a missing value (NA, NaN, null, None, ...), is missing.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from verl_pgrpo.errors import DataError

FORMATS = ".jsonl, .csv, .tsv (each also .gz), .parquet, or a folder written by Dataset.save_to_disk"
LARGEST_BLOCK = 2**31 - 1  # bytes; Arrow infers types from one block, and a field must fit into it
NULLS = [*pa.csv.ConvertOptions().null_values, "<NA>", "NaT", "None"]


@dataclass(frozen=True)
class UserTable:
    """A table and its name. `text_only`: every column is text, as in CSV, and numbers are still to be parsed."""

    data: pa.Table
    name: str
    text_only: bool = False

    def __len__(self) -> int:
        return len(self.data)

    def where(self, index: int) -> str:
        """Return file and row of a row index, for messages. Rows count from 1, without a header."""
        return f"{self.name}, row {index + 1}"

    def column(self, name: str, option: str) -> pa.Array:
        """Return a column without dictionary or run-length encoding."""
        names = self.data.column_names
        if names.count(name) != 1:
            found = "no column" if name not in names else f"{names.count(name)} columns are named"
            raise DataError(f"{self.name}: {found} {name!r} ({option}); its columns are {', '.join(names[:20])}")
        field = self.data.schema.field(name)  # if pandas is not imported, its types are only known by their metadata
        kind = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
        kind = getattr(field.type, "extension_name", kind)
        if kind.startswith("pandas."):  # Arrow sees the numbers in it, such as months since 1970
            raise DataError(f"{self.name}: column {name!r} ({option}) holds {kind}; convert it to text")
        array = self.data.column(name).combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
        if pa.types.is_run_end_encoded(array.type):
            array = pa.compute.run_end_decode(array)
        return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def read_user_table(path: Path, split: str | None = None, encoding: str | None = None) -> UserTable:
    """Read a table. The suffix sets the format; a folder is a Hugging Face dataset; its `split` is read.

    Text is UTF-8, or UTF-16 with a byte order mark, unless `encoding` is given.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    suffix = (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()
    try:
        if path.is_dir():
            table = _read_hugging_face(path, split)
        elif suffix in (".parquet", ".pq"):
            table = _with_range_index(_with_class_names(pq.ParquetFile(path).read()))
        elif suffix in (".jsonl", ".ndjson"):
            table = _read_json(_read_text(path, encoding))
        elif suffix in (".csv", ".tsv"):
            table = _read_csv(_read_text(path, encoding), path.name, "\t" if suffix == ".tsv" else ",")
        else:
            raise DataError(f"{path}: unknown format; expected {FORMATS}")
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise DataError(f"{path}: cannot be read ({_first_row_is_1(str(error))[:300]})") from error
    if not len(table):
        raise DataError(f"{path}: no rows")
    return UserTable(table, path.name, text_only=suffix in (".csv", ".tsv"))


def _read_text(path: Path, encoding: str | None) -> bytes:
    """Return the file's text as UTF-8 without a byte order mark."""
    with pa.input_stream(str(path), compression="gzip" if path.suffix.lower() == ".gz" else None) as file:
        raw = file.read()
    if encoding is None and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = raw.decode(encoding or "utf-8-sig")
    except LookupError as error:
        raise DataError(f"--encoding {encoding}: unknown encoding") from error
    except UnicodeDecodeError as error:
        reason = f"not {encoding or 'UTF-8'} (byte {error.start:,}: {error.reason})"
        raise DataError(f"{path}: {reason}; name its encoding with --encoding, for example latin-1") from error
    if "\0" in text:
        raise DataError(f"{path}: contains zero bytes: not a text file, or UTF-16 (--encoding utf-16-le)")
    return raw if encoding is None and not raw.startswith(codecs.BOM_UTF8) else text.encode()


def _read_json(text: bytes) -> pa.Table:
    """Read JSON Lines. Arrow turns columns of ISO dates into timestamps; they are read again as text."""
    if text.lstrip().startswith(b"["):
        raise pa.ArrowInvalid("a JSON array; expected one object per line")
    read = pa.json.ReadOptions(block_size=min(len(text) + 1, LARGEST_BLOCK))
    table = pa.json.read_json(pa.BufferReader(text), read_options=read)
    as_written = pa.schema([pa.field(field.name, _without_times(field.type)) for field in table.schema])
    if as_written == table.schema:
        return table
    parse = pa.json.ParseOptions(explicit_schema=as_written)
    return pa.json.read_json(pa.BufferReader(text), read_options=read, parse_options=parse)


def _without_times(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _without_times(field.type)) for field in kind])
    return kind


def _read_csv(text: bytes, name: str, delimiter: str) -> pa.Table:
    if b'"' in text:
        _check_quotes(text, name, delimiter)
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = pa.csv.ReadOptions(use_threads=False, block_size=min(max(len(text), 1), LARGEST_BLOCK))
    names = pa.csv.open_csv(pa.BufferReader(text), read, parse).schema.names
    repeated = sorted({column for column in names if names.count(column) > 1})
    if repeated:
        raise DataError(f"{name}: column names occur twice: {', '.join(repeated)[:200]}")
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), null_values=NULLS,
                                    strings_can_be_null=True, quoted_strings_can_be_null=False)  # fmt: skip
    return pa.csv.read_csv(pa.BufferReader(text), read, parse, convert)


def _check_quotes(text: bytes, name: str, delimiter: str) -> None:
    """Raise DataError for a quoted field that does not end or goes on after its end: Arrow would join rows."""
    limit = csv.field_size_limit(LARGEST_BLOCK)
    rows = csv.reader(io.TextIOWrapper(io.BytesIO(text), "utf-8", newline=""), delimiter=delimiter, strict=True)
    try:
        deque(rows, maxlen=0)
    except csv.Error as error:
        raise DataError(f'{name}, line {rows.line_num}: a quote (") is not closed or not followed by the next field '
                        f"({error}); a quote inside a quoted field is written twice") from error  # fmt: skip
    finally:
        csv.field_size_limit(limit)


def _read_hugging_face(path: Path, split: str | None) -> pa.Table:
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
        raise DataError(f"{path}: not a dataset written by Dataset.save_to_disk ({str(error)[:200]})") from error
    if isinstance(data, datasets.DatasetDict):
        if split not in data:
            problem = f"no split {split!r}" if split else "several splits; choose one with --split"
            raise DataError(f"{path}: {problem}; it has {', '.join(data)}")
        data = data[split]
    return _with_class_names(data.with_format("arrow")[:])


def _with_class_names(table: pa.Table) -> pa.Table:
    """Replace the numbers in `ClassLabel` columns by names, which the Hugging Face library stores as metadata."""
    if b"huggingface" not in (table.schema.metadata or {}):
        return table
    import datasets

    for name, feature in datasets.Features.from_arrow_schema(table.schema).items():
        if isinstance(feature, datasets.ClassLabel):
            values = [None if code is None or code < 0 else feature.names[code] for code in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table


def _with_range_index(table: pa.Table) -> pa.Table:
    """Add a named RangeIndex as a column: pandas stores only its bounds, as metadata."""
    for index in (table.schema.pandas_metadata or {}).get("index_columns", []):
        if isinstance(index, dict) and index["name"] is not None:
            table = table.append_column(index["name"], pa.array(range(index["start"], index["stop"], index["step"])))
    return table


def _first_row_is_1(message: str) -> str:
    """Arrow counts the rows of JSON from 0 and the header of CSV as row 1; count rows from 1, without a header."""
    message = re.sub(r"in row (\d+)", lambda match: f"in row {int(match[1]) + 1}", message)
    return " ".join(re.sub(r"Row #(\d+)", lambda match: f"row {int(match[1]) - 1}", message).split())
