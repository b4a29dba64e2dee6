# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The history file: Parquet that pandas can read, verified to the last byte, replaced atomically.

One row per preference group with the columns `group, count, mean, m2, within, within_dof` (see `moments`). The Parquet
metadata holds one JSON object under the key `verl_pgrpo`: schema version, checksum, step, config fingerprint and the
options behind it.

The checksum is the SHA-256 of the whole file with its own 64 digits set to zero, so it also covers the Parquet
structure, and no file is parsed before its checksum is verified. It detects damage; it does not authenticate the
writer.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import (
    ConfigError,
    HistoryFileAltered,
    HistoryFileError,
    HistoryFileMissing,
    HistoryFileOtherConfig,
    HistoryFileTooNew,
    HistoryFileWrongStep,
)
from verl_pgrpo.files import atomic_write
from verl_pgrpo.moments import FIELDS, Floats, Integers, Moments

__all__ = ["SCHEMA_VERSION", "read", "read_header", "write"]

SCHEMA_VERSION = 1
OPTIONAL = ("within", "within_dof")  # absent in files from before baseline=shrinkage

_KEY = b"verl_pgrpo"
_BLANK = "0" * 64
# The version comes first and the checksum second, so both can be found without parsing the file. Later versions may
# change everything after the version.
_VERSION = re.compile(rb'\{"schema_version": (\d{1,9})[,}]')
_CHECKSUM = re.compile(rb' "sha256": "([0-9a-f]{64})"')


def write(
    path: str | os.PathLike[str],
    labels: list[str],
    moments: Moments,
    config: PGRPOConfig,
    step: int | None,
) -> None:
    """Write a history file. Called by `GroupHistoryManager.save`.

    Raises:
        HistoryFileError: the file cannot be written. An existing file is unchanged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    header = {
        "schema_version": SCHEMA_VERSION,
        "sha256": _BLANK,
        "step": None if step is None else operator.index(step),
        "fingerprint": config.fingerprint(),
        "options": config.as_dict(),
    }
    columns = [pa.array(labels, pa.large_string()), *(pa.array(getattr(moments, name)) for name in FIELDS)]
    table = pa.table(columns, names=["group", *FIELDS])
    buffer = pa.BufferOutputStream()
    # Storing the Arrow schema would repeat the metadata, encoded, where the checksum could not be filled in.
    with pq.ParquetWriter(buffer, table.schema, store_schema=False, use_dictionary=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: json.dumps(header).encode()})
    content = buffer.getvalue().to_pybytes()
    start = _find_version(content).end() + len(' "sha256": "')
    digest = hashlib.sha256(content).hexdigest().encode()
    try:
        with atomic_write(path, "wb") as file:
            file.write(content[:start])
            file.write(digest)
            file.write(memoryview(content)[start + 64 :])
    except OSError as error:
        cause = error.strerror or error  # str(error) would name the temporary file
        fix = "Free space or fix the permissions there; the previous file, if any, is unchanged."
        if not (folder := Path(path).parent).is_dir():
            cause, fix = f"the folder {folder} does not exist", "Create it first."
        raise HistoryFileError(f"cannot write the reward history to {path}: {cause}. {fix}") from error


def read(
    path: str | os.PathLike[str], config: PGRPOConfig | None, step: int | None
) -> tuple[list[str], Moments, PGRPOConfig]:
    """Read and verify a history file. Called by `GroupHistoryManager.load`, which documents the errors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise HistoryFileMissing(f"no reward history at {path}: the file does not exist.") from error
    except OSError as error:
        raise HistoryFileError(f"cannot read the reward history {path}: {error}.") from error
    _verify_bytes(content, path)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        header = json.loads(file.metadata.metadata[_KEY])
        if config is None:
            config = _saved_config(header, path)
        _verify_header(header, path, config, step)
        table = file.read()
        labels = table["group"].to_pylist()
        if len(set(labels)) < len(labels) or None in labels:
            raise ValueError("group labels are not distinct")
        if "" in map(str.strip, labels):
            raise ValueError("a group label is blank")
        moments = Moments(len(labels), config.half_life)
        for name in FIELDS:
            if name in table.column_names or name not in OPTIONAL:
                getattr(moments, name)[:] = _numbers(table[name], name)
        if (moments.within_dof > moments.count).any():
            raise ValueError("column within_dof exceeds count")
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, HistoryFileError):
            raise
        raise HistoryFileAltered(f"{path} is not a history file of this package: {error}.") from error
    return labels, moments, config


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a history file's metadata: `schema_version, sha256, step, fingerprint, options`. Verifies nothing."""
    import pyarrow.parquet as pq

    header: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[_KEY])
    return header


def _find_version(content: bytes) -> re.Match[bytes]:
    # The last occurrence: Parquet's footer holds the metadata after all data, whatever the labels contain.
    version = _VERSION.match(content, max(0, content.rfind(b'{"schema_version": ')))
    if version is None:
        raise ValueError("it has no header of this package")
    return version


def _verify_bytes(content: bytes, path: Path) -> None:
    try:
        version = _find_version(content)
    except ValueError as error:
        raise HistoryFileAltered(f"{path} is damaged or not a history file: {error}.") from error
    if int(version[1]) > SCHEMA_VERSION:
        raise _too_new(path, f"schema version {int(version[1])}; this package reads up to {SCHEMA_VERSION}")
    checksum = _CHECKSUM.match(content, version.end())
    digest = hashlib.sha256()
    if checksum is not None:
        digest.update(memoryview(content)[: checksum.start(1)])
        digest.update(_BLANK.encode())
        digest.update(memoryview(content)[checksum.end(1) :])
    if checksum is None or digest.hexdigest().encode() != checksum[1]:
        raise HistoryFileAltered(f"{path} is truncated or was altered (its checksum does not match).")


def _saved_config(header: dict[str, Any], path: Path) -> PGRPOConfig:
    try:
        return PGRPOConfig(**header["options"])
    except (ConfigError, TypeError) as error:  # intact, so a later version wrote an option that is unknown here
        raise _too_new(path, f"options that this package does not know ({error})") from error


def _numbers(column: Any, name: str) -> Floats | Integers:
    """Return a column's values. Impossible ones are an error: a checksum does not tell who computed it."""
    values: Floats | Integers = column.to_numpy()
    if column.null_count or str(column.type) != ("int64" if name == "count" else "double"):
        raise ValueError(f"column {name} has missing values or another type")
    if not np.isfinite(values).all() or (name != "mean" and (values < 0).any()):
        raise ValueError(f"column {name} has values that are not finite, or negative")
    return values


def _too_new(path: Path, what: str) -> HistoryFileTooNew:
    return HistoryFileTooNew(
        f"{path} has {what}. Install the version of verl-pgrpo that wrote the file, or a later one."
    )


def _verify_header(header: dict[str, Any], path: Path, config: PGRPOConfig, step: int | None) -> None:
    if step is not None and header["step"] != step:
        raise HistoryFileWrongStep(f"{path} holds the history of step {header['step']}, not of step {step}.")
    if header["fingerprint"] != config.fingerprint():
        now, saved = config.history_options(), header["options"]
        unknown = [key for key in saved if not hasattr(config, key)]
        changed = [f"{key} (saved {saved.get(key)!r}, now {now[key]!r})" for key in now if saved.get(key) != now[key]]
        if unknown and not changed:
            raise _too_new(path, f"options that this package does not know ({', '.join(unknown)})")
        raise HistoryFileOtherConfig(
            f"{path} was recorded under other options: {', '.join(changed) or 'the fingerprint differs'}."
        )
