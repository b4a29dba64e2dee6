# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A split's data files as verl reads them, looked into without loading them: some columns, a batch at a time."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_pgrpo.errors import PGRPOError

__all__ = ["BadFile", "DataFiles", "Unreadable"]

BATCH = 1 << 16  # rows


class BadFile(PGRPOError):
    """A data file that verl could not read."""


class Unreadable(PGRPOError):
    """A data file that verl reads, and that cannot be a table here."""


class DataFiles:
    """The rows of some Parquet or JSON-lines files, one file after the other, as verl's dataset numbers them.

    Attributes:
        paths: the files; names with `*` are resolved as verl's dataset does.
        schema: the columns of all of them; those that several have, as the first of these has them.
        rows: of all together.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Open the files; of Parquet only the footers are read.

        Raises:
            BadFile: one is missing, is of a kind that verl does not read, is damaged, or differs from the first.
            Unreadable: one has values of several types in one field.
        """
        self.paths = [path for name in names for path in _resolved(name)]
        self._open = [_opened(path) for path in self.paths]
        if not self._open:
            raise BadFile("no file is named")
        schemas = [
            _plain(file.schema_arrow if isinstance(file, pq.ParquetFile) else file.schema) for file in self._open
        ]
        self.schema: pa.Schema = schemas[0]
        for schema in schemas[1:]:  # verl's library fills the rows of the others with nulls
            for field in schema:
                if field.name not in self.schema.names:
                    self.schema = self.schema.append(field)
        self.rows = sum(
            file.metadata.num_rows if isinstance(file, pq.ParquetFile) else file.num_rows for file in self._open
        )
        for path, schema in zip(self.paths[1:], schemas[1:], strict=True):
            for field in schema:
                first = self.schema.field(field.name).type if field.name in self.schema.names else field.type
                if not _fit_together(first, field.type):
                    raise BadFile(
                        f"{path}: column {field.name} is {field.type}, but {first} in {self.paths[0]}. Write both with "
                        "the same type: verl puts the files together into one table"
                    )

    def __str__(self) -> str:
        return str(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0]} and {len(self.paths) - 1} more"

    def type_of(self, column: str) -> pa.DataType | None:
        """The type of a top-level column; None if there is none."""
        return self.schema.field(column).type if column in self.schema.names else None

    def has(self, column: str, path: Sequence[str]) -> bool:
        """Whether a path leads to a field of a nested column."""
        kind = self.type_of(column)
        for name in path:
            if kind is None or not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
                return False
            kind = kind.field(name).type
        return kind is not None

    def batches(self, columns: Sequence[str], size: int = BATCH) -> Iterator[pa.RecordBatch]:
        """All rows, with these columns only; of a nested one, `column.field` is read alone."""
        for path, file in zip(self.paths, self._open, strict=True):
            if isinstance(file, pq.ParquetFile):
                there = [column for column in columns if _leads(file.schema_arrow, column)]
                lacking = {column.partition(".")[0] for column in columns} - {c.partition(".")[0] for c in there}
                for batch in _read(path, file.iter_batches(batch_size=size, columns=there)):
                    for number, column in enumerate(batch.columns):
                        if pa.types.is_dictionary(column.type):
                            name = batch.schema.names[number]
                            batch = batch.set_column(number, name, column.dictionary_decode())
                    for name in sorted(lacking):
                        kind = self.type_of(name)
                        batch = batch.append_column(
                            name, pa.nulls(batch.num_rows, kind if kind is not None else pa.null())
                        )
                    yield batch
            else:
                yield from file.select([name.partition(".")[0] for name in columns]).to_batches(max_chunksize=size)

    def leaf(self, column: str, field: str) -> str:
        """The name by which `batches` reads one field of a nested column alone, of messages in a list for example."""
        for file in self._open:
            if isinstance(file, pq.ParquetFile) and file.metadata.num_row_groups:
                group = file.metadata.row_group(0)
                paths = [group.column(i).path_in_schema for i in range(group.num_columns)]
                return next((p for p in paths if p.startswith(f"{column}.") and p.endswith(f".{field}")), column)
        return column

    def nulls(self, leaf: str) -> int | None:
        """Nulls of a field by the footers' statistics, which count a null or empty parent too; None if unknown."""
        total = 0
        for file in self._open:
            if not isinstance(file, pq.ParquetFile):
                return None
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                found = [c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema == leaf]
                if not found or found[0].statistics is None or not found[0].statistics.has_null_count:
                    return None
                total += found[0].statistics.null_count
        return total

    def take(self, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """These rows, in ascending order; nothing after the last of them is read."""
        wanted, parts, start = sorted(rows), [], 0
        for batch in self.batches(columns, 1024):
            here = [row - start for row in wanted if start <= row < start + batch.num_rows]
            if here:
                parts.append(pa.Table.from_batches([batch.take(pa.array(here))]))
            start += batch.num_rows
            if not wanted or start > wanted[-1]:
                break
        if len({part.schema for part in parts}) > 1:  # a file's records have their fields in an order of their own
            return pa.Table.from_pylist([row for part in parts for row in part.to_pylist()])
        return pa.concat_tables(parts)

    def as_dataset(self, column: str, path: Sequence[str]) -> Any:
        """What `integration.checks.dataset_groups` reads of verl's dataset, with this column only."""
        whole = not path or not self.has(column, path)
        return _Dataset(_Frame(self, column if whole else ".".join([column, *path])))


def _leads(schema: pa.Schema, column: str) -> bool:
    """Whether a file has this column; of a nested one, this field."""
    name, *path = column.split(".")
    kind = schema.field(name).type if name in schema.names else None
    for field in path:
        if kind is None or not pa.types.is_struct(kind):
            break  # a list's field, by Parquet's own name for it
        kind = kind.field(field).type if kind.get_field_index(field) >= 0 else None
    return kind is not None


class _Dataset:
    def __init__(self, dataframe: _Frame) -> None:
        self.dataframe = dataframe


class _Frame:
    """Of `datasets.Dataset` the part that reads one column a batch at a time."""

    def __init__(self, files: DataFiles, leaf: str) -> None:
        self._files, self._leaf = files, leaf
        self.column_names = files.schema.names

    def __len__(self) -> int:
        return self._files.rows

    def select_columns(self, columns: Sequence[str]) -> _Frame:
        return self

    def with_format(self, kind: str) -> _Frame:
        return self

    def iter(self, batch_size: int) -> Iterator[pa.RecordBatch]:
        return self._files.batches([self._leaf], batch_size)


def _fit_together(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether verl's library can put one column under the other; it is asked with one null each."""
    if one == other:
        return True
    import datasets

    try:
        datasets.concatenate_datasets(
            [datasets.Dataset(pa.table({"column": pa.nulls(1, kind)})) for kind in (one, other)]
        )
    except (ValueError, TypeError, pa.ArrowException):
        return False
    return True


def _resolved(name: str) -> list[Path]:
    if any(sign in name for sign in "*?[") and not Path(name).exists():
        found = sorted(glob.glob(name))
        if not found:
            raise BadFile(f"no file is named {name}. Mend the path")
        return [Path(path) for path in found]
    return [Path(name)]


def _opened(path: Path) -> Any:
    if not path.exists():
        hint = "verl does not expand ~: write $HOME" if str(path).startswith("~") else "mend the path, or make the file"
        raise BadFile(f"{path}: no such file, seen from {Path.cwd()}. {hint[0].upper()}{hint[1:]}")
    if path.suffix not in (".parquet", ".json", ".jsonl"):
        raise BadFile(f"{path}: verl reads .parquet, .json and .jsonl. Convert it, and name it so")
    try:
        return pq.ParquetFile(path) if path.suffix == ".parquet" else _json(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _json(path: Path) -> pa.Table:
    """As verl reads it: lines of records, or one list of them."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    with tempfile.TemporaryDirectory() as folder:
        try:
            loaded = datasets.load_dataset(
                "json", data_files=str(path), split="train", cache_dir=folder, keep_in_memory=True
            )
        except (DatasetGenerationError, ValueError, TypeError) as error:
            raise _damaged(path, error.__cause__ or error) from error
        return _typed(path, loaded).combine_chunks()


def _typed(path: Path, loaded: Any) -> pa.Table:
    """Columns whose records differ come as JSON text; where their values have one type, that is undone."""
    table: pa.Table = loaded.data.table
    for number, field in enumerate(table.schema):
        if not _has_json(field.type):
            continue
        try:
            table = table.set_column(number, field.name, pa.array(loaded[field.name][:]))
        except pa.ArrowException as error:
            raise Unreadable(f"{path}: the values of {field.name} have several types ({error})") from error
    return table


def _has_json(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return True
    return any(_has_json(kind.field(number).type) for number in range(kind.num_fields))


def _read(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A file's footer may be whole, and what it describes not."""
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> BadFile:
    words = " ".join(str(error).split()).rstrip(".")[:300]
    return BadFile(f"{path} is damaged, or no {path.suffix} file ({words}). Write it again")


def _plain(schema: pa.Schema) -> pa.Schema:
    """Of columns that are stored as a dictionary (pandas' categories), as verl's library reads them: their values."""
    for number, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(number, field.with_type(field.type.value_type))
    return schema
