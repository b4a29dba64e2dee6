# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Atomic file writes."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_write"]


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w", **kwargs: Any) -> Iterator[IO[Any]]:
    """Open a temporary file next to `path`; on success, flush it to disk and rename it to `path`.

    Whenever the process dies, `path` is the complete old file or the complete new one. If the block raises, the
    temporary file is removed and `path` is unchanged.

    Args:
        path: the file to replace. Its directory must exist.
        mode: "w" (UTF-8 unless `encoding` is given) or "wb".
        kwargs: passed to `open`.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    if "b" not in mode:
        kwargs.setdefault("encoding", "utf-8")
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, mode.replace("w", "x"), **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(folder: Path) -> None:
    """Make the rename survive a power failure if the file system supports it. The file itself is already complete."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
