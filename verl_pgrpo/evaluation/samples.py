# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The lines that `verl-pgrpo eval --out` writes, a response each, and that `--scored` and the judge read.

    {"prompt_id", "preference_group", "prompt", "response", "sample", "model", "score", "values"}

`values` has all numbers of the reward function, `score` among them. The judge needs only the first four.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.moments import MAX_MAGNITUDE


@dataclass
class Sample:
    """A response to a prompt. `score` and `values` are empty until it is scored."""

    prompt_id: str
    preference_group: str
    prompt: str
    response: str
    sample: int = 0
    model: str = ""
    score: float | None = None
    values: dict[str, float] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """One of its numbers; None where it has none of that name."""
        return self.values.get(name, self.score if name == "score" else None)


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """A file that appears under its name only when it is whole."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(_line(sample) + "\n" for sample in samples)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _line(sample: Sample) -> str:
    # What `str.splitlines` takes for the end of a line is escaped: others read these files too.
    text = json.dumps(asdict(sample), ensure_ascii=False)
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def read_samples(path: Path) -> list[Sample]:
    """The lines of a file, in its order.

    Raises:
        DataError: no such file, no lines, or a line that is none of these; it is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error
    samples = [_sample(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not samples:
        raise DataError(f"{path}: has no lines")
    return samples


def _sample(line: str, where: str) -> Sample:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object")
    names = ("prompt_id", "preference_group", "prompt", "response")
    if missing := [name for name in names if row.get(name) is None]:
        raise DataError(f"{where}: no {missing[0]!r}; a line needs {', '.join(names)}")
    for name in ("preference_group", "response"):
        if not isinstance(row[name], str):
            raise DataError(f"{where}: {name!r} must be text, not {row[name]!r:.60}")
    try:
        number = int(row.get("sample") or 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: 'sample' must be a whole number, not {row['sample']!r:.60}") from error
    values = _numbers(row.get("values") or {}, where)
    score = _numbers({"score": row.get("score", values.get("score"))}, where).get("score")
    texts = (str(row["prompt_id"]), row["preference_group"], _text(row["prompt"]), row["response"])
    name, group, prompt, response = map(_encodable, texts)
    return Sample(name, group, prompt, response, number, _encodable(str(row.get("model") or "")), score, values)


def _encodable(text: str) -> str:
    """JSON can name half a character (a lone surrogate), which no request and no file could hold: as its escape, so
    that two ids stay two."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _numbers(values: Any, where: str) -> dict[str, float]:
    if not isinstance(values, dict):
        raise DataError(f"{where}: 'values' must be an object of numbers")
    for name, value in values.items():
        if value is None:
            continue
        if not isinstance(value, (int, float)) or not abs(value) <= MAX_MAGNITUDE:  # squares must fit a float
            raise DataError(f"{where}: {name!r} must be a finite number up to {MAX_MAGNITUDE:g}, not {value!r:.60}")
    return {name: float(value) for name, value in values.items() if value is not None}


def _text(prompt: Any) -> str:
    """A prompt as text, also where somebody wrote chat messages."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and all(isinstance(one, dict) for one in prompt):
        return messages_text(prompt)
    return json.dumps(prompt, ensure_ascii=False)


def messages_text(messages: list[dict[str, Any]]) -> str:
    """What was said; with the roles in front where there is more than one message."""
    if len(messages) == 1:
        return str(messages[0].get("content", ""))
    return "\n\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in messages)
