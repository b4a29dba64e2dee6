# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The file of responses that `verl-pgrpo eval --out` writes and that `eval --scored` and `judge` read: JSON Lines.

    {"prompt_id", "preference_group", "prompt", "response", "sample", "model", "score", "values"}

`values` has all numbers of the reward function, null where it returned NaN. The first four fields are required.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from verl_pgrpo.errors import DataError
from verl_pgrpo.files import atomic_write
from verl_pgrpo.moments import MAX_MAGNITUDE


def _prompt_text(prompt: Any) -> Any:
    if isinstance(prompt, list) and all(isinstance(message, dict) for message in prompt):
        return messages_text(prompt)
    return prompt if isinstance(prompt, str) or prompt is None else json.dumps(prompt, ensure_ascii=False)


Number = Annotated[float, Field(ge=-MAX_MAGNITUDE, le=MAX_MAGNITUDE)] | None  # which excludes NaN


class Sample(BaseModel):
    """A response to a prompt. `score` and `values` are empty until it is scored."""

    prompt_id: Annotated[str, Field(coerce_numbers_to_str=True)]
    preference_group: str
    prompt: Annotated[str, BeforeValidator(_prompt_text)]
    response: str
    sample: int = 0
    model: str = ""
    score: Number = None
    values: dict[str, Number] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, row: Any) -> Any:
        return {name: value for name, value in row.items() if value is not None} if isinstance(row, dict) else row

    def value(self, name: str) -> float | None:
        """Return one of its numbers by name; None if there is no such number."""
        return self.values.get(name, self.score if name == "score" else None)


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write a file of responses atomically."""
    with atomic_write(path) as file:
        for sample in samples:
            line = json.dumps(sample.model_dump(), ensure_ascii=False)
            # Escape the characters that `str.splitlines` treats as line ends.
            file.write(re.sub("[\x85\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", line) + "\n")


def read_samples(path: Path) -> list[Sample]:
    """Return the responses of a file, in its order.

    Raises:
        DataError: The file is empty, a line is invalid (the message names it), or a prompt_id has two prompts or two
            preference groups.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error
    samples: list[Sample] = []
    prompts: dict[str, Sample] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            sample = Sample.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            field = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
            raise DataError(f"{path}, line {number}: {field}{first['msg']}") from error
        known = prompts.setdefault(sample.prompt_id, sample)
        if (known.prompt, known.preference_group) != (sample.prompt, sample.preference_group):
            raise DataError(f"{path}, line {number}: prompt_id {sample.prompt_id!r} has two prompts or two groups")
        samples.append(sample)
    if not samples:
        raise DataError(f"{path}: no responses in it")
    return samples


def to_frame(samples: Iterable[Sample], value: str = "score") -> pd.DataFrame:
    """Return prompt_id, sample, preference_group, prompt, response and one of the numbers (`value`) as columns."""
    names = ["prompt_id", "sample", "preference_group", "prompt", "response"]
    rows = [[*(getattr(sample, name) for name in names), sample.value(value)] for sample in samples]
    return pd.DataFrame(rows, columns=[*names, "value"])


def check_same_prompts(joined: pd.DataFrame, one: str, other: str) -> None:
    """Raise DataError if two files share no prompt, or if a prompt or group differs (columns with `_other`)."""
    if joined.empty:
        raise DataError(f"{one} and {other} share no prompt_id: were they made from the same data?")
    for name in ("prompt", "preference_group"):
        for _, row in joined[joined[name] != joined[f"{name}_other"]].iterrows():
            raise DataError(
                f"prompt_id {row['prompt_id']!r} has a different {name} in {one} and {other} "
                f"({row[name]!r:.60}, {row[f'{name}_other']!r:.60}): were they made from different data?"
            )


def messages_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of chat messages; with their roles if there are several."""
    if len(messages) == 1:
        return str(messages[0].get("content", ""))
    return "\n\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in messages)


def read_pairs(a: Path, b: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Pair the responses of two files by prompt_id; several to one prompt are paired in their order.

    Returns:
        The pairs in the order of the first file, with the columns prompt_id, sample (counts a prompt's pairs),
        preference_group, prompt, a and b (the responses); and the number of responses without a partner, by file.

    Raises:
        DataError: A file cannot be read, they share no prompt_id, or one has another prompt or group in each file.
    """
    frames = {}
    for name, path in (("a", a), ("b", b)):
        frame = to_frame(read_samples(path)).rename(columns={"response": name})
        frame["sample"] = frame.sort_values("sample", kind="stable").groupby("prompt_id").cumcount()
        frames[name] = frame
    pairs = frames["a"].merge(frames["b"], on=["prompt_id", "sample"], suffixes=("", "_other"))
    check_same_prompts(pairs, str(a), str(b))
    columns = ["prompt_id", "sample", "preference_group", "prompt", "a", "b"]
    return pairs[columns].copy(), {name: len(frame) - len(pairs) for name, frame in frames.items()}
