# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A judge's answers on disk: a line each, appended as it comes, so that whatever ends a run loses none.

    {"key", "answer", "finished", "input_tokens", "output_tokens"}

A key is the SHA-256 of the whole request, so another model, question or temperature asks again. A line that a kill has
cut off is passed over.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from verl_pgrpo.data.errors import DataError


@dataclass(frozen=True)
class Answer:
    """What the judge said. `finished` is false where it was cut off; tokens are None where the server does not say."""

    text: str | None
    finished: bool
    input_tokens: int | None = None
    output_tokens: int | None = None


def whole(number: Any) -> int | None:
    """A count of tokens; None for what cannot be counted, as some servers say."""
    return number if type(number) is int else None


def key_of(request: dict[str, Any]) -> str:
    """The key of a request: its content in one spelling."""
    return sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


class Cache:
    """Answers by key. A context manager; the file is opened, and made, by the first answer that is added."""

    def __init__(self, path: Path) -> None:
        """Raises DataError for a file that is no cache."""
        self.path = path
        self.answers: dict[str, Answer] = {}
        self._file: BinaryIO | None = None
        self._whole = True
        if path.exists():
            self._read(path.read_bytes())

    def _read(self, content: bytes) -> None:
        self._whole = content.endswith(b"\n") or not content
        for number, line in enumerate(content.split(b"\n"), 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            try:
                key = row.pop("key")
                text = row.pop("answer")
                tokens = whole(row.get("input_tokens")), whole(row.get("output_tokens"))
                self.answers[key] = Answer(text, row["finished"], *tokens)
            except (AttributeError, KeyError, TypeError) as error:
                raise DataError(
                    f"--cache {self.path}, line {number}: no answer of a judge; name another file"
                ) from error
        if content.strip() and not self.answers and not content.startswith(b'{"key": '):
            raise DataError(f"--cache {self.path}: not a cache of this command's; name another file")

    def add(self, key: str, answer: Answer) -> None:
        """Remember an answer; it has left this process when this returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        row = asdict(answer)
        line = json.dumps({"key": key, "answer": row.pop("text"), **row}).encode() + b"\n"
        line = line if self._whole else b"\n" + line
        self._whole = False
        while line:  # in one piece, also beside another writer, but where the disk is full
            line = line[self._file.write(line) :]
        self._whole = True
        self.answers[key] = answer

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
