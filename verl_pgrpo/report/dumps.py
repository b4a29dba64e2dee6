# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The rollouts that any verl run writes to `trainer.rollout_data_dir`, each response with its preference group.

verl's dumps have no column of the data set but the reward's ground truth, so a response is found in the data by that,
and, where it stands for several groups, by the prompt's text as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.integration.rows import group_label, nested_value


@dataclass(frozen=True)
class Step:
    """The responses of one training step that count (no padding, the last output of each session).

    `groups` and `prompts` (which prompt is answered; verl's uid) have N labels, `rewards` is (N,) float64, `rows` the
    dump's own objects. `unknown` counts responses whose preference group was not found; they are left out.
    """

    number: int
    groups: list[str]
    prompts: list[str]
    rewards: NDArray[np.float64]
    rows: list[dict[str, Any]]
    unknown: int


@dataclass
class GroupsOfData:
    """Preference groups by ground truth, and by ground truth and prompt where the former is not enough."""

    by_truth: dict[str, set[str | None]] = field(default_factory=dict)
    by_prompt: dict[str, list[tuple[tuple[str, ...], str | None]]] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Sequence[Path], key: str = "preference_group", missing: str | None = None) -> GroupsOfData:
        """Read the training parquet of a run, once or, if ground truths are ambiguous, twice.

        Args:
            files: Parquet, as verl trained on them.
            key: the column of the preference group, or a path into one.
            missing: the preference group of rows that have none (`missing_group`).

        Raises:
            DataError: a file or a column is missing, or no column of verl's.
        """
        found = cls()
        for truth, _, group in _data_rows(files, key, missing):
            found.by_truth.setdefault(truth, set()).add(group)
        if any(len(groups) > 1 for groups in found.by_truth.values()):
            for truth, prompt, group in _data_rows(files, key, missing, with_prompt=True):
                if len(found.by_truth[truth]) > 1:
                    found.by_prompt.setdefault(truth, []).append((prompt, group))
        return found

    def group(self, row: dict[str, Any]) -> str | None:
        """Of a dumped response; None where the data does not tell."""
        truth = _text(row.get("gts"))
        groups = self.by_truth.get(truth, {None})
        if len(groups) > 1:
            asked = _squeezed(str(row.get("input", "")))
            sizes = [
                (sum(map(len, prompt)), group)
                for prompt, group in self.by_prompt[truth]
                if all(message in asked for message in prompt)
            ]
            # Of prompts that are a part of one another it is the longest.
            groups = {group for size, group in sizes if size == max(sizes, key=lambda one: one[0])[0]}
        return next(iter(groups)) if len(groups) == 1 else None


@dataclass(frozen=True)
class GroupsOfField:
    """Preference groups that stand in the dump itself: in a field (`persona`), or in a field's JSON (`gts.persona`)."""

    path: str

    def group(self, row: dict[str, Any]) -> str | None:
        value: Any = row
        for name in self.path.split("."):
            if isinstance(value, str):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    return None
            value = value.get(name) if isinstance(value, dict) else None
        label = group_label(value)
        return label if isinstance(label, str) else None


def dump_files(folder: Path) -> list[Path]:
    """`<step>.jsonl` in order of the steps.

    Raises:
        DataError: there are none.
    """
    files = sorted((path for path in folder.glob("*.jsonl") if path.stem.isdecimal()), key=lambda path: int(path.stem))
    if not files:
        raise DataError(f"{folder}: no <step>.jsonl in it; was trainer.rollout_data_dir set to it?")
    return files


def read_step(path: Path, groups: GroupsOfData | GroupsOfField) -> Step:
    """One step's dump. Its last line may be cut off, as a killed run leaves it.

    Raises:
        DataError: another line is not a rollout; the message names it.
    """
    last: dict[Any, tuple[int, dict[str, Any]]] = {}
    # Bytes, as the cut may be within a character; by "\n" alone, as responses may hold other ends of lines.
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines if lines != [b""] else [], start=1):
        try:
            row = json.loads(line.decode())
            float(row["score"])
            if not isinstance(row["output"], str):
                raise TypeError("its output is not text")
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            if number == len(lines) and isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
                break
            raise DataError(f"{path}, line {number}: not a rollout of verl's ({error!r})") from error
        session, index = _session(row, number)
        if session is not None and (session not in last or last[session][0] < index):
            last[session] = (index, row)
    rows, labels, prompts, unknown = [], [], [], 0
    for session, (_, row) in last.items():
        group = groups.group(row)
        if group is None:
            unknown += 1
            continue
        rows.append(row)
        labels.append(group)
        prompts.append(session[0])
    rewards = np.array([float(row["score"]) for row in rows], dtype=np.float64)
    return Step(int(path.stem), labels, prompts, rewards, rows, unknown)


def _session(row: dict[str, Any], number: int) -> tuple[Any, int]:
    """Which prompt and session a row is of, and which of the session's outputs; None for padding.

    verl's later trainers write `<uid>_<session>_<output>`. The older ones write no uid: there a prompt is its text, and
    every line a session.
    """
    uid = row.get("uid")
    if uid is None:
        return (str(row.get("input")), number), 0
    parts = str(uid).rsplit("_", 2)
    if parts[0].startswith("pad"):
        return None, 0
    if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
        return (parts[0], int(parts[1])), int(parts[2])
    return (str(uid), number), 0


def _data_rows(
    files: Sequence[Path], key: str, missing: str | None, with_prompt: bool = False
) -> Iterator[tuple[str, tuple[str, ...], str | None]]:
    """Ground truth, squeezed texts of the messages, and group of each row of the data."""
    for path in files:
        try:
            file = pq.ParquetFile(path)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a Parquet file, or a damaged one ({error})") from error
        there = file.schema_arrow.names
        column, *inner = [key] if key in there else key.split(".")
        for name in (column, "reward_model", "prompt"):
            if name not in there:
                raise DataError(f"{path}: no column {name!r}; it has {', '.join(there)}")
        columns = [column, "reward_model", *(["prompt"] if with_prompt else [])]
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                label = group_label(nested_value(row[column], inner, key))
                try:
                    truth = _text((row["reward_model"] or {}).get("ground_truth"))
                    texts = tuple(_squeezed(str(part.get("content", ""))) for part in row.get("prompt") or ())
                except AttributeError as error:
                    raise DataError(f"{path}: its prompt or reward_model is not of the kind that verl reads") from error
                yield truth, texts, label if isinstance(label, str) else missing


def _text(truth: Any) -> str:
    return truth if isinstance(truth, str) else json.dumps(_bare(truth), sort_keys=True, default=str)


def _bare(truth: Any) -> Any:
    """Without the fields that Parquet has filled in, because other rows have them."""
    if isinstance(truth, dict):
        return {key: _bare(value) for key, value in truth.items() if value is not None}
    return [_bare(value) for value in truth] if isinstance(truth, list) else truth


def _squeezed(text: str) -> str:
    """Without white space, which tokenizers do not always give back."""
    return "".join(text.split())
