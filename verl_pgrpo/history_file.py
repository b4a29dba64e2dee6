# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The history on disk: Parquet that pandas can read, checked to the last byte, replaced atomically.

One row per preference group with the columns `group, count, mean, m2`. The file's key-value metadata holds one JSON
object under the key `verl_pgrpo`: schema version, checksum, step, the config fingerprint with the options behind it,
and the statistics of all groups together (as exact hexadecimal floats).

The checksum is the SHA-256 of the whole file with its own 64 digits set to zero, so that it covers the Parquet
structure as well; no parser sees a file before it has passed. It finds damage, it does not prove who wrote the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import operator
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import (
    HistoryFileAltered,
    HistoryFileError,
    HistoryFileMissing,
    HistoryFileOtherConfig,
    HistoryFileTooNew,
    HistoryFileWrongStep,
)
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.moments import Moments

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["SCHEMA_VERSION", "read_header", "read_history", "write_history"]

SCHEMA_VERSION = 1

_KEY = b"verl_pgrpo"
_BLANK = "0" * 64
# These two fields come first in the JSON object, so that they can be found without parsing the file.
_HEAD = re.compile(rb'\{"schema_version": (\d{1,9}), "sha256": "([0-9a-f]{64})"')
_ROWS_AT_ONCE = 1 << 17

_REMEDY = (
    "Resume from an earlier checkpoint, or start this history anew on purpose with "
    "+algorithm.pgrpo.resume_without_history=true."
)


def write_history(history: GroupHistoryManager, path: str | os.PathLike[str], step: int) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, rename it over `path`.

    Whenever the process dies, `path` is the old file or the new one, whole.

    Raises:
        HistoryFileError: the file cannot be written (no permission, disk full); an older one at `path` is untouched.
    """
    import pyarrow.parquet as pq

    path, step = Path(path), operator.index(step)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with (
            open(temporary, "xb") as file,
            # The Arrow schema would repeat the metadata, encoded, where the checksum could not be filled in.
            pq.ParquetWriter(file, _schema(), store_schema=False, use_dictionary=False) as writer,
        ):
            for batch in _batches(history):
                writer.write_batch(batch)
            writer.add_key_value_metadata({_KEY: _header(history, step)})
        with open(temporary, "r+b") as whole:
            with mmap.mmap(whole.fileno(), 0) as content:
                start = _find_head(content).start(2)
                content[start : start + 64] = hashlib.sha256(content).hexdigest().encode()
                content.flush()
            os.fsync(whole.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except (OSError, ValueError) as error:
        raise HistoryFileError(
            f"the reward history could not be written to {path}: {error}. Free space or mend the permissions there; "
            "the previous file, if any, is as it was."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_history(
    path: str | os.PathLike[str], config: PGRPOConfig | None = None, step: int | None = None
) -> GroupHistoryManager:
    """Read and check everything that `write_history` wrote; what comes back is bit for bit what was saved.

    Args:
        path: the file.
        config: options of the run that goes on with this history; None takes those it was kept under.
        step: the training step it must belong to; None takes any.

    Raises:
        HistoryFileMissing, HistoryFileAltered, HistoryFileTooNew, HistoryFileWrongStep, HistoryFileOtherConfig:
            see `verl_pgrpo.errors`. Nothing is loaded half.
        HistoryFileError: the file cannot be read (no permission, an I/O error).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise HistoryFileMissing(
            f"there is no reward history at {path}: the file was removed, or the checkpoint's run was trained with "
            f"another estimator. {_REMEDY}"
        ) from error
    except OSError as error:
        raise HistoryFileError(f"the reward history {path} cannot be read: {error}. {_REMEDY}") from error
    _check_bytes(content, path)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        header = json.loads(file.metadata.metadata[_KEY])
        if config is None:
            config = PGRPOConfig.from_mapping(header["options"])
        _check_header(header, path, config, step)
        return _history(file, header, config)
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, HistoryFileError):
            raise
        raise HistoryFileAltered(
            f"{path} is not a reward history that this package wrote: {error}. {_REMEDY}"
        ) from error


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a history file says of itself: `schema_version, sha256, step, fingerprint, options, all_groups`.

    Checks nothing; that is `read_history`'s work.
    """
    import pyarrow.parquet as pq

    header: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[_KEY])
    return header


def _header(history: GroupHistoryManager, step: int) -> bytes:
    pool = history._pool
    header = {
        "schema_version": SCHEMA_VERSION,
        "sha256": _BLANK,
        "step": step,
        "fingerprint": history.config.fingerprint(),
        "options": history.config.as_dict(),
        "all_groups": [int(pool.count[0]), pool.mean[0].hex(), pool.m2[0].hex()],
    }
    return json.dumps(header).encode()


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [("group", pa.large_string()), ("count", pa.int64()), ("mean", pa.float64()), ("m2", pa.float64())]
    )


def _batches(history: GroupHistoryManager) -> Iterator[pa.RecordBatch]:
    """The history in pieces, so that a large one is not in memory twice."""
    import pyarrow as pa

    moments = history._moments
    for start in range(0, history.num_groups, _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, history.num_groups)
        offsets, text = history._labels.encoded(start, end)
        columns = [
            pa.LargeStringArray.from_buffers(end - start, pa.py_buffer(offsets), pa.py_buffer(text)),
            *(pa.array(array[start:end]) for array in (moments.count, moments.mean, moments.m2)),
        ]
        yield pa.record_batch(columns, schema=_schema())


def _history(file: pq.ParquetFile, header: dict[str, Any], config: PGRPOConfig) -> GroupHistoryManager:
    history, moments = GroupHistoryManager(config), Moments(file.metadata.num_rows, config.half_life)
    history._labels.reserve(len(moments))
    start = 0
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
        labels = batch["group"].to_pylist()
        if len(set(labels)) < len(labels):
            raise ValueError("a preference group appears twice")
        history._labels.add(labels)
        end = start + len(batch)
        for name in ("count", "mean", "m2"):
            getattr(moments, name)[start:end] = batch[name]
        start = end
    if history.num_groups != start:
        raise ValueError("a preference group appears twice")
    history._moments = moments
    count, mean, m2 = header["all_groups"]
    pool: Moments = history._pool
    pool.count[0], pool.mean[0], pool.m2[0] = count, float.fromhex(mean), float.fromhex(m2)
    if int(moments.count.sum()) != count:
        raise ValueError("the counts of the preference groups do not add up to that of all groups")
    return history


def _find_head(content: bytes | mmap.mmap) -> re.Match[bytes]:
    # The last one: Parquet's footer puts the metadata behind all data, whatever the labels look like.
    head = _HEAD.match(content, max(0, content.rfind(b'{"schema_version": ')))
    if head is None:
        raise ValueError("it has no header of this package")
    return head


def _check_bytes(content: bytes, path: Path) -> None:
    try:
        head = _find_head(content)
    except ValueError as error:
        raise HistoryFileAltered(f"{path} is damaged or no reward history: {error}. {_REMEDY}") from error
    if int(head[1]) > SCHEMA_VERSION:
        raise HistoryFileTooNew(
            f"{path} has schema version {int(head[1])}, this package reads up to {SCHEMA_VERSION}. "
            "Install the version of verl-pgrpo that wrote it, or a later one."
        )
    digest = hashlib.sha256(content[: head.start(2)])
    digest.update(_BLANK.encode())
    digest.update(memoryview(content)[head.end(2) :])
    if digest.hexdigest().encode() != head[2]:
        raise HistoryFileAltered(
            f"{path} is truncated or was altered since it was written (its checksum does not match). {_REMEDY}"
        )


def _check_header(header: dict[str, Any], path: Path, config: PGRPOConfig, step: int | None) -> None:
    if step is not None and header["step"] != step:
        raise HistoryFileWrongStep(
            f"{path} is the reward history of step {header['step']}, not of step {step}. {_REMEDY}"
        )
    if header["fingerprint"] != config.fingerprint():
        now, then = config.history_options(), header["options"]
        changed = ", ".join(
            f"{key} (saved {then.get(key)!r}, now {now[key]!r})" for key in now if then.get(key) != now[key]
        )
        raise HistoryFileOtherConfig(
            f"{path} was kept under other options: {changed or 'fingerprint differs'}. Set them back, or: {_REMEDY}"
        )


def _sync_directory(folder: Path) -> None:
    """Make the rename itself survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
