# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A judge's answers on disk, JSON Lines: each is appended as it arrives, so an interrupted run loses none.

    {"key", "text", "finished", "input_tokens", "output_tokens"}

The key is the SHA-256 of the whole request, so another model, question or temperature asks again. A line that was cut
off is ignored.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

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


class JudgeCache(dict[str, Answer]):
    """Answers by key; `add` also appends to the file, which it creates."""

    def __init__(self, path: Path) -> None:
        """Raise DataError if the file is not a judge's cache."""
        super().__init__()
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        if content and not content.startswith(b'{"key"'):
            raise DataError(f"--cache {path}: not a judge's cache; name another file")
        self._end_of_cut_line = "\n" if content and not content.endswith(b"\n") else ""
        for line in content.splitlines():
            with contextlib.suppress(ValidationError):  # a line that was cut off; its question is asked again
                answer = _Line.model_validate_json(line)
                self[answer.key] = answer

    def add(self, key: str, answer: Answer) -> None:
        """Append an answer; it has left this process when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._end_of_cut_line + json.dumps({"key": key, **answer.model_dump()}) + "\n")
        self._end_of_cut_line = ""
        self[key] = answer
