# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Read the rollouts that verl dumps to `trainer.rollout_data_dir` (`<step>.jsonl`, one response per line).

verl's dumps have no column of the training data except the ground truth of the reward. The preference group of a
response is therefore looked up in the training data by ground truth and, where that is ambiguous, by the text of the
prompt; or it is read from a field of the dump.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.metrics_log import MetricsLog
from verl_pgrpo.evaluation.prompts import look_up, open_parquet
from verl_pgrpo.groups import group_label


@dataclass(frozen=True)
class Dumps:
    """Dump files of a run by step, ascending, and the steps that were left out as those of an abandoned branch."""

    files: dict[int, Path]
    abandoned: tuple[int, ...] = ()


def find_dumps(folder: Path, log: MetricsLog | None = None) -> Dumps:
    """Find the dumps of a run, without those of an abandoned branch.

    A run that is killed at step 10 and resumed from the checkpoint of step 5 overwrites the dumps of the steps that it
    reaches again. What it has not reached is left over from the abandoned branch. It is recognized by the metrics log,
    if there is one, and by the times at which the dumps were written.

    Raises:
        DataError: the folder has no dumps.
    """
    files = {int(file.stem): file for file in folder.glob("*.jsonl") if file.stem.isdecimal()}
    if not files:
        raise DataError(f"{folder}: no <step>.jsonl found; was trainer.rollout_data_dir set to it?")
    steps = sorted(files)
    end = min(_last_logged(steps, log), _last_written(files, steps))
    return Dumps({step: files[step] for step in steps if step <= end}, tuple(step for step in steps if step > end))


def _last_logged(steps: Sequence[int], log: MetricsLog | None) -> int:
    """The log's last step, if the log is that of a resumed run; else the last dump."""
    if log is None or log.training_steps is None:
        return steps[-1]
    first, last = log.training_steps
    return last if log.abandoned or first > steps[0] else steps[-1]


def _last_written(files: dict[int, Path], steps: Sequence[int]) -> int:
    """The step that was written last, if later steps are older than it; else the last step.

    Copies do not always keep modification times, and a file may be edited. So they only count if they increase over
    the remaining steps, at least two of which are newer than all others, and are not in the order of file names, in
    which folders are usually copied.
    """
    written = {step: files[step].stat().st_mtime_ns for step in steps}
    last = max(steps, key=lambda step: (written[step], step))
    abandoned = max((written[step] for step in steps if step > last), default=0)
    times = [written[step] for step in steps if step <= last]
    by_name = [written[step] for step in sorted(steps, key=lambda step: files[step].name)]
    resumed = sum(time > abandoned for time in times) >= 2 and all(np.diff(times) >= 0) and any(np.diff(by_name) < 0)
    return last if resumed else steps[-1]


@dataclass(frozen=True)
class GroupsFromField:
    """Looks up preference groups in the dump itself: a field (`persona`) or a path into its JSON (`gts.persona`)."""

    path: str

    def lookup(self, row: dict[str, Any]) -> str | None:
        """Return the preference group of a dumped response, or None."""
        return _label(look_up(row, self.path))


@dataclass
class GroupsFromData:
    """Looks up preference groups in the training data, by ground truth and, where that is ambiguous, by prompt."""

    by_truth: dict[str, set[str | None]] = field(default_factory=dict)
    by_prompt: dict[str, list[tuple[tuple[str, ...], str | None]]] = field(default_factory=dict)
    _found: dict[tuple[str, str], str | None] = field(default_factory=dict)  # responses share their prompts

    @classmethod
    def read(
        cls, files: Sequence[Path], key: str = "preference_group", default_group: str | None = None
    ) -> GroupsFromData:
        """Read the training data of a run; a second time if ground truths are ambiguous.

        Args:
            files: Parquet files in verl's format.
            key: column of the preference group, or a dotted path into one.
            default_group: preference group of the rows without one.

        Raises:
            DataError: a file or a column is missing, or not in verl's format.
        """
        groups = cls()
        for truth, _, group in _data_rows(files, key, with_prompt=False):
            groups.by_truth.setdefault(truth, set()).add(group or default_group)
        if any(len(found) > 1 for found in groups.by_truth.values()):
            for truth, prompt, group in _data_rows(files, key, with_prompt=True):
                if len(groups.by_truth[truth]) > 1:
                    groups.by_prompt.setdefault(truth, []).append((prompt, group or default_group))
        return groups

    def lookup(self, row: dict[str, Any]) -> str | None:
        """Return the preference group of a dumped response, or None if unknown or ambiguous."""
        truth = _text(row.get("gts"))
        groups = self.by_truth.get(truth, {None})
        if len(groups) == 1:
            return next(iter(groups))
        key = (truth, str(row.get("input", "")))
        if key not in self._found:
            self._found[key] = self._by_prompt(*key)
        return self._found[key]

    def _by_prompt(self, truth: str, text: str) -> str | None:
        text = _without_space(text)
        matches = [
            (sum(map(len, prompt)), group)
            for prompt, group in self.by_prompt[truth]
            if all(message in text for message in prompt)
        ]
        longest = max((size for size, _ in matches), default=0)  # one prompt may be part of another
        groups = {group for size, group in matches if size == longest}
        return groups.pop() if len(groups) == 1 else None


Groups = GroupsFromField | GroupsFromData


def read_dump(path: Path, groups: Groups) -> pd.DataFrame:
    """Read one step: the responses that count, without padding and all but the last output of each session.

    Returns:
        A row per response and a column per field of the dump, of dtype object, except `score` (float64, the reward).
        Three columns are added: `step`; `prompt_id`, equal for responses to the same prompt; and `group`, None if
        unknown. A cut-off last line, which a killed run leaves behind, is skipped.

    Raises:
        DataError: another line is not a rollout. The message names file and line.
    """
    sessions: dict[Any, tuple[int, dict[str, Any]]] = {}
    # Split at "\n" only: responses may contain other line separators, and the cut may be within a character.
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines if lines != [b""] else [], start=1):
        try:
            row = json.loads(line.decode())
            row["score"] = float(row["score"])
            if not isinstance(row["output"], str):
                raise TypeError("its output is not text")
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
                break
            raise DataError(f"{path}, line {number}: not a rollout of verl ({error!r})") from error
        session, output = _session(row, number)
        if session is not None and (session not in sessions or sessions[session][0] < output):
            sessions[session] = (output, row)
    rows = [row for _, row in sessions.values()]
    # dtype=object: pandas' string type cannot hold lone surrogates, which responses may contain.
    frame = pd.DataFrame([{"input": "", "gts": None, **row} for row in rows], dtype=object)
    if frame.empty:
        frame = pd.DataFrame(columns=["input", "gts", "output", "score"], dtype=object)
    computed: dict[str, Any] = {
        "step": int(path.stem),
        "prompt_id": pd.Series([prompt for prompt, _ in sessions], dtype=object),
        "group": pd.Series([groups.lookup(row) for row in rows], dtype=object),
    }
    return frame.assign(score=frame["score"].astype("float64"), **computed)


def _session(row: dict[str, Any], number: int) -> tuple[Any, int]:
    """Return (prompt, session) and the index of the output in the session; None for padding.

    verl's V1 trainers write `<uid>_<session>_<output>`. Older trainers write no uid: there the text of the prompt
    identifies the prompt, and every line is a session.
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


def _data_rows(files: Sequence[Path], key: str, with_prompt: bool) -> Iterator[tuple[str, tuple[str, ...], str | None]]:
    """Ground truth, message texts and preference group of each row of the training data."""
    for path in files:
        file = open_parquet(path)
        names = file.schema_arrow.names
        column = key if key in names else key.partition(".")[0]
        for name in (column, "reward_model", "prompt"):
            if name not in names:
                raise DataError(f"{path}: no column {name!r}; the columns are {', '.join(names)}")
        for batch in file.iter_batches(columns=[column, "reward_model", *(["prompt"] if with_prompt else [])]):
            for row in batch.to_pylist():
                try:
                    truth = _text((row["reward_model"] or {}).get("ground_truth"))
                    texts = tuple(_without_space(str(part.get("content", ""))) for part in row.get("prompt") or ())
                except AttributeError as error:
                    raise DataError(f"{path}: prompt or reward_model is not in verl's format") from error
                yield truth, texts, _label(look_up(row, key))


def _label(value: Any) -> str | None:
    label = group_label(value)
    if not isinstance(label, str):
        return None
    return sys.intern(label.encode("utf-8", "replace").decode())  # no lone surrogates, which files cannot hold


def _text(truth: Any) -> str:
    return truth if isinstance(truth, str) else json.dumps(_without_none(truth), sort_keys=True, default=str)


def _without_none(truth: Any) -> Any:
    """Drop the fields that Parquet filled in because other rows have them."""
    if isinstance(truth, dict):
        return {key: _without_none(value) for key, value in truth.items() if value is not None}
    return [_without_none(value) for value in truth] if isinstance(truth, list) else truth


def _without_space(text: str) -> str:
    """Tokenizers do not always reproduce white space."""
    return "".join(text.split())
