# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Read the rollouts that verl dumps to `trainer.rollout_data_dir` (`<step>.jsonl`, one response per line).

verl's dumps have no column of the training data except the ground truth of the reward. The preference group of a
response is therefore looked up in the training data by ground truth and, where that is ambiguous, by the text of the
prompt; or it is read from a field of the dump.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verl_pgrpo.data.columns import without_nulls
from verl_pgrpo.data.schema import reading
from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.metrics_log import START_SECONDS, MetricsLog
from verl_pgrpo.evaluation.prompts import look_up
from verl_pgrpo.groups import group_label


@dataclass(frozen=True)
class Dumps:
    """Dump files of a run by step, ascending, and the steps left out because they belong to an abandoned branch."""

    files: dict[int, Path]
    abandoned: tuple[int, ...] = ()


def find_dumps(folder: Path, log: MetricsLog | None = None) -> Dumps:
    """Find the dumps of a run, without those of an abandoned branch.

    A run that is killed at step 10 and resumed from the checkpoint of step 5 overwrites the dumps of the steps that it
    reaches again. The dumps of the other steps are left over from the abandoned branch. They are recognized by the
    metrics log, if there is one, and by the times at which the dumps were written.

    Raises:
        DataError: the folder has no dumps, or all are of an abandoned branch.
    """
    files = {int(file.stem): file for file in folder.glob("*.jsonl") if file.stem.isdecimal()}
    if not files:
        raise DataError(f"{folder}: no <step>.jsonl found; was trainer.rollout_data_dir set to it?")
    steps = sorted(files)
    span = log.training_steps if log is not None and not log.abandoned else None
    complete = span is not None and span[0] <= steps[0] and span[1] >= steps[-1]
    end = min(_last_logged(steps, log), _last_written(files, steps, complete))
    if end < steps[0]:
        raise DataError(
            f"{folder}: its dumps, steps {steps[0]:,} to {steps[-1]:,}, are of an abandoned branch. The run was "
            f"resumed from an earlier checkpoint, and its log ends at step {end:,}"
        )
    return Dumps({step: files[step] for step in steps if step <= end}, tuple(step for step in steps if step > end))


def _last_logged(steps: Sequence[int], log: MetricsLog | None) -> int:
    """The log's last step, if the log is that of a resumed run; else the last dump."""
    if log is None or log.training_steps is None:
        return steps[-1]
    first, last = log.training_steps
    return last if log.abandoned or first > steps[0] else steps[-1]


def _last_written(files: dict[int, Path], steps: Sequence[int], complete: bool) -> int:
    """The step that was written last, if later steps are older than it; else the last step.

    Copies may lose modification times, and files may be edited. So times count only if they increase over the steps
    that would remain, and do not simply follow the order of file names, in which folders are usually copied. At least
    two remaining steps must be newer than all others. One is enough if it is newer by the time that verl takes to
    start, the times of all other steps increase, and the log is not that of a `complete` run.
    """
    written = {step: files[step].stat().st_mtime for step in steps}
    last = max(steps, key=lambda step: (written[step], step))
    abandoned = max((written[step] for step in steps if step > last), default=0.0)
    times = [written[step] for step in steps if step <= last]
    by_name = [written[step] for step in sorted(steps, key=lambda step: files[step].name)]
    others = [written[step] for step in steps if step != last]
    single = not complete and written[last] > abandoned + START_SECONDS and all(np.diff(others) > 0)
    newer = single or sum(time > abandoned for time in times) >= 2
    return last if newer and all(np.diff(times) >= 0) and any(np.diff(by_name) < 0) else steps[-1]


GroupLookup = Callable[[dict[str, Any]], str | None]
"""Returns the preference group of a dumped response; None if it is unknown or ambiguous."""


def groups_from_field(path: str) -> GroupLookup:
    """Look up preference groups in the dump itself: a field (`persona`) or a path into its JSON (`gts.persona`)."""
    return lambda row: _label(look_up(row, path))


def groups_from_data(
    files: Sequence[Path], key: str = "preference_group", default_group: str | None = None
) -> GroupLookup:
    """Look up preference groups in the training data, by ground truth and, where that is ambiguous, by prompt.

    Prompts, most of the data, are only read if there are ambiguous ground truths.

    Args:
        files: Parquet files in verl's format.
        key: column of the preference group, or a dotted path into one.
        default_group: preference group of the rows without one.

    Raises:
        DataError: a file cannot be read, or a column is missing.
    """
    by_truth: defaultdict[str, set[str | None]] = defaultdict(set)
    for truth, group, _ in _data_rows(files, key, with_prompt=False):
        by_truth[truth].add(group or default_group)
    by_prompt: defaultdict[str, list[tuple[list[str], str | None]]] = defaultdict(list)
    if any(len(groups) > 1 for groups in by_truth.values()):
        for truth, group, prompt in _data_rows(files, key, with_prompt=True):
            if len(by_truth[truth]) > 1:
                by_prompt[truth].append((prompt, group or default_group))

    @functools.cache  # responses share their prompts
    def match(truth: str, text: str) -> str | None:
        text = _without_space(text)
        sizes = [(sum(map(len, prompt)), group) for prompt, group in by_prompt[truth] if all(m in text for m in prompt)]
        longest = max((size for size, _ in sizes), default=0)  # one prompt may be part of another
        groups = {group for size, group in sizes if size == longest}
        return groups.pop() if len(groups) == 1 else None

    def look_up_group(row: dict[str, Any]) -> str | None:
        truth = _text(row.get("gts"))
        groups = by_truth.get(truth, {None})
        return next(iter(groups)) if len(groups) == 1 else match(truth, str(row.get("input", "")))

    return look_up_group


def read_dump(path: Path, group_of: GroupLookup) -> pd.DataFrame:
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
            row = {"input": "", "gts": None, **json.loads(line.decode())}
            row["score"] = float(row["score"])
            if not isinstance(row["output"], str):
                raise TypeError("its output is not text")
            row["input"], row["output"] = _without_surrogates(str(row["input"])), _without_surrogates(row["output"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
                break
            raise DataError(f"{path}, line {number}: not a rollout of verl ({error!r})") from error
        session, output = _session(row, number)
        if session is not None and (session not in sessions or sessions[session][0] < output):
            sessions[session] = (output, row)
    rows = [row for _, row in sessions.values()]
    columns = dict.fromkeys(["input", "gts", "output", "score", *(name for row in rows for name in row)])
    # dtype=object: pandas' string type cannot hold lone surrogates, which other fields may contain.
    frame = pd.DataFrame(rows, columns=list(columns), dtype=object)
    groups = [group_of(row) for row in rows]
    # Without uids, equal prompts of two groups differ only in the group.
    prompts = [
        p if row.get("uid") is not None else f"{group}: {p}"
        for (p, _), group, row in zip(sessions, groups, rows, strict=True)
    ]
    return frame.assign(
        score=frame["score"].astype("float64"),
        step=int(path.stem),
        prompt_id=pd.Series(prompts, dtype=object),
        group=pd.Series(groups, dtype=object),
    )


def _session(row: dict[str, Any], number: int) -> tuple[Any, int]:
    """Return (prompt, session) and the index of the output in the session; None for padding.

    verl's V1 trainers write `<uid>_<session>_<output>`. Older trainers write no uid: their prompts are identified by
    text, ground truth and preference group, and every line is a session. A row of the data that is drawn twice in a
    step is then one prompt.
    """
    uid = row.get("uid")
    if uid is None:
        return (json.dumps([row["input"], _text(row["gts"])]), number), 0
    if str(uid).startswith("pad"):
        return None, 0
    parts = re.fullmatch(r"(.*)_([0-9]+)_([0-9]+)", str(uid), re.DOTALL)
    return ((parts[1], int(parts[2])), int(parts[3])) if parts else ((str(uid), number), 0)


def _data_rows(files: Sequence[Path], key: str, with_prompt: bool) -> Iterator[tuple[str, str | None, list[str]]]:
    """Ground truth, preference group and message texts of each row of the training data."""
    for path in files:
        with reading(path) as file:
            names = file.schema_arrow.names
            group = key if key in names else key.partition(".")[0]
            columns = [group, "reward_model", *(["prompt"] if with_prompt else [])]
            for name in columns:
                if name not in names:
                    raise DataError(f"{path}: no column {name!r}; the columns are {', '.join(names)}")
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    texts = _texts(row.get("prompt") or [], path)
                    yield _text(look_up(row, "reward_model.ground_truth")), _label(look_up(row, key)), texts


def _texts(prompt: Any, path: Path) -> list[str]:
    messages = [{"content": prompt}] if isinstance(prompt, str) else prompt
    try:
        return [_without_space(str(message.get("content", ""))) for message in messages]
    except AttributeError as error:
        raise DataError(f"{path}: a prompt is not a list of chat messages") from error


def _label(value: Any) -> str | None:
    label = group_label(value)
    if not isinstance(label, str):
        return None
    return sys.intern(_without_surrogates(label))


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which neither files nor Arrow can hold, by question marks."""
    return text.encode("utf-8", "replace").decode()


def _text(truth: Any) -> str:
    return truth if isinstance(truth, str) else json.dumps(without_nulls(truth), sort_keys=True, default=str)


def _without_space(text: str) -> str:
    """Normalize white space, which tokenizers do not always reproduce."""
    return "".join(text.split())
