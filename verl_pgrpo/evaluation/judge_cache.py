# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A judge's answers on disk, JSON Lines: each is appended as it arrives, so an interrupted run loses none.

    {"key", "text", "finished", "input_tokens", "output_tokens"}

The key is the SHA-256 of the whole request, so another model, question or temperature asks again. A line that was cut
off is ignored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ValidationError

from verl_pgrpo.errors import DataError


class Answer(BaseModel):
    """A judge's answer. `finished` is false if it was cut off; tokens are None if the server does not count them."""

    text: str | None
    finished: bool
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Line(Answer):
    key: str


class JudgeCache:
    """Answers by key. A context manager; the file is opened (and created) when the first answer is added."""

    def __init__(self, path: Path) -> None:
        """Raise DataError if the file is not a judge's cache."""
        self.path = path
        self.answers: dict[str, Answer] = {}
        self._file: TextIO | None = None
        content = path.read_bytes() if path.exists() else b""
        if content and not content.startswith(b'{"key"'):
            raise DataError(f"--cache {path}: not a judge's cache; name another file")
        self._cut_off = not content.endswith(b"\n") and bool(content)
        for line in content.splitlines():
            try:
                answer = _Line.model_validate_json(line)
            except ValidationError:
                continue  # a line that was cut off; its question is asked again
            self.answers[answer.key] = answer

    def add(self, key: str, answer: Answer) -> None:
        """Append an answer; it has left this process when this returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
            self._file.write("\n" * self._cut_off)
        self._file.write(json.dumps({"key": key, **answer.model_dump()}) + "\n")
        self._file.flush()
        self.answers[key] = answer

    def __enter__(self) -> JudgeCache:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
