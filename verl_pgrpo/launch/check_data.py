# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The data files of a launch: there, readable, with the columns that verl's dataset and rewards take for granted."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .data_files import BadFile, DataFiles, Unreadable
from .finding import Found
from .run import Run, Split

PROMPT_REMEDY = "a list of messages: [{'role': 'user', 'content': ...}]"
MOST_TRIED = 64  # data_sources of which a row is remembered, for the trial of the reward function

# verl hands a row's columns on as arguments, beside these (AgentLoopWorker._run_agent_loop).
TAKEN = ("trajectory", "trace", "sampling_params")
# Its V1 trainers have more of them (trainer/ppo/v1/agent_loop_tq.py), and then write the columns over what a rollout
# has brought (AgentLoopOutput.as_dict).
TAKEN_BY_V1 = ("session_id", "validate")
OUTPUTS = ("prompts", "responses", "response_mask", "rm_scores", "rollout_log_probs", "routed_experts", "extra_fields")


def check_data(run: Run, found: Found) -> None:
    """Opens both splits, which later checks look into."""
    data = run.config.data
    if data.custom_cls.get("path") is not None:
        found.note(
            f"not looked into: rows come from {data.custom_cls.name}", f"data.custom_cls.path={data.custom_cls.path}"
        )
        return
    for name, key in (("training", "train_files"), ("validation", "val_files")):
        listed = data[key] if not isinstance(data[key], str) else [data[key]]
        names = [str(file) for file in listed or []]
        if remote := [file for file in names if "://" in file]:
            found.warning(f"not looked into: {remote[0]} is not on this machine", f"data.{key}", "check a local copy")
            continue
        try:
            files = DataFiles(names)
        except Unreadable as error:
            found.warning(f"not looked into: {error}", f"data.{key}", "give the values of a field one type")
            continue
        except BadFile as error:
            found.raised(error, f"data.{key}", "name existing files")
            continue
        if files.rows == 0:
            found.error(f"the {name} data has no rows", f"data.{key}: {files}", "verl would stop at it: fill the file")
            continue
        split = Split(name, f"data.{key}", files)
        try:
            _check_prompts(split, str(data.prompt_key), found)
            _check_sources(split, found)
            _check_truths(split, found)
        except BadFile as error:  # its footer is whole, and the rest is not
            found.raised(error, f"data.{key}", "write it again")
            continue
        run.splits[name] = split
        _check_extra_info(split, found)
        _check_taken(split, run.config.trainer.use_v1, found)


def _check_taken(split: Split, v1: bool, found: Found) -> None:
    """Columns under names that verl has uses for."""
    there = split.files.schema.names
    if taken := [column for column in (*TAKEN, *(TAKEN_BY_V1 if v1 else ())) if column in there]:
        said = (
            f"the {split.name} data has a column {taken[0]!r}, which verl's agent loop takes for an argument of its own"
        )
        found.error(f"{said}: every rollout would fail", split.where, "give it another name")
    if v1 and (written := [column for column in OUTPUTS if column in there]):
        said = f"the {split.name} data has a column {written[0]!r}, which verl would write over the rollout's own"
        found.error(said, split.where, "give it another name")


def _missing(split: Split, column: str, why: str, remedy: str, found: Found) -> bool:
    if split.files.type_of(column) is not None:
        return False
    have = ", ".join(split.files.schema.names)
    found.error(f"the {split.name} data has no column {column!r}, {why}; its columns are {have}", split.where, remedy)
    return True


def _check_prompts(split: Split, column: str, found: Found) -> None:
    why = "the prompts (data.prompt_key)"
    if _missing(split, column, why, f"add it ({PROMPT_REMEDY}), or name yours with data.prompt_key=<column>", found):
        return
    kind: Any = split.files.type_of(column)
    element = kind.value_type if _is_list(kind) else None
    if element is None or not pa.types.is_struct(element) or {"role", "content"} - {f.name for f in element}:
        said = f"column {column!r} of the {split.name} data is {kind}, not chat messages"
        found.error(f"{said}: every rollout would fail in the chat template", split.where, f"make it {PROMPT_REMEDY}")
        return
    split.prompts = column
    leaf = split.files.leaf(column, "role")
    if split.files.nulls(leaf) == 0:
        return
    empty = _rows_where(split.files, leaf, lambda array: pc.equal(pc.fill_null(pc.list_value_length(array), 0), 0))
    _report_empty(split, column, empty, "have no prompt", found)


def _check_sources(split: Split, found: Found) -> None:
    why = "by which verl chooses the reward and reports validation"
    if _missing(split, "data_source", why, "add it: text, '<task>/<preference group>' for example", found):
        return
    kind: Any = split.files.type_of("data_source")
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        found.error(f"data_source of the {split.name} data is {kind}, not text", split.where, "cast the column to text")
        return
    start = 0
    for batch in split.files.batches(["data_source"]):
        column = batch.column(0).cast(pa.string())
        for entry in pc.value_counts(column).to_pylist():
            source = entry["values"]
            if source is not None and source not in split.first_rows and len(split.first_rows) < MOST_TRIED:
                split.first_rows[source] = start + pc.index(column, source).as_py()
            split.sources[source] += entry["counts"]
        start += batch.num_rows
    _report_empty(split, "data_source", (split.sources.pop(None, 0), []), "have no data_source", found)


def _check_truths(split: Split, found: Found) -> None:
    why = "whose ground_truth verl's reward managers hand to the reward function"
    remedy = "add it: {'style': 'rule', 'ground_truth': ...}; the truth may be an empty text"
    if _missing(split, "reward_model", why, remedy, found):
        return
    if not split.files.has("reward_model", ["ground_truth"]):
        said = f"reward_model of the {split.name} data is {split.files.type_of('reward_model')}, without ground_truth"
        found.error(said, split.where, remedy)
        return
    split.scorable = True
    leaf = split.files.leaf("reward_model", "ground_truth")
    if split.files.nulls(leaf) == 0:
        return
    _report_empty(split, "reward_model", _rows_where(split.files, leaf, pc.is_null), "have no reward_model", found)
    count, first = _rows_where(split.files, leaf, lambda array: pc.and_(array.is_valid(), pc.is_null(array.field(0))))
    if count:
        said = f"{count:,} of {split.files.rows:,} {split.name} rows have a reward_model without ground_truth"
        found.warning(f"{said} (first rows: {first})", split.where, "fill it, unless the reward function takes None")


def _check_extra_info(split: Split, found: Found) -> None:
    kind = split.files.type_of("extra_info")
    if kind is not None and not pa.types.is_struct(kind) and not pa.types.is_null(kind):
        said = f"extra_info of the {split.name} data is {kind}, and verl's dataset calls its .get()"
        found.error(said, split.where, "make it a record with named fields, or leave the column out")


def _is_list(kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _rows_where(files: DataFiles, column: str, condition: Any) -> tuple[int, list[int]]:
    """How many rows meet a condition on a column, and the first five of them."""
    first: list[int] = []
    count = start = 0
    for batch in files.batches([column]):
        hits = condition(batch.column(0))
        number = pc.sum(hits).as_py() or 0
        if number and len(first) < 5:
            first += [start + row for row in pc.indices_nonzero(hits).to_pylist()[: 5 - len(first)]]
        count, start = count + number, start + batch.num_rows
    return count, first


def _report_empty(split: Split, column: str, empty: tuple[int, list[int]], what: str, found: Found) -> None:
    count, first = empty
    if count:
        rows = f" (first rows: {first})" if first else ""
        said = f"{count:,} of {split.files.rows:,} {split.name} rows {what}{rows}"
        found.error(said, f"{split.where}, column {column}", "fill them, or drop the rows")
