# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Check the preference groups of the rows that will be trained on."""

from __future__ import annotations

import contextlib
import io
import random
from collections import defaultdict
from itertools import chain
from types import SimpleNamespace
from typing import Any

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.groups import describe_code_points, look_alikes, shortened, spells_missing
from verl_pgrpo.integration.batch import GroupColumn, arrow_batches
from verl_pgrpo.integration.checks import count_groups, count_labels, is_personalized
from verl_pgrpo.shrinkage import UNTESTED_SHARE

from . import data
from .context import PreflightContext
from .data import where
from .diagnostic import Diagnostics

FEW = 8  # rewards per epoch; with fewer, the standard deviation is a guess
DOMINANT = 0.9  # share of the rows
ABSENT = "(none)"  # a default group for validation rows


def check_groups(context: PreflightContext, diagnostics: Diagnostics) -> None:
    trainer = context.trainer
    if not is_personalized(context.config) or trainer.train_dataset is None:
        return
    # If another option is invalid, which the configuration check reports, use only the options of the groups.
    chosen = {name: context.get(f"algorithm.pgrpo.{name}") for name in ("group_key", "default_group")}
    options = PGRPOConfig.from_mapping({name: str(value) for name, value in chosen.items() if value is not None})
    location = f"{where(context, 'train')}, {options.group_key}"
    with diagnostics.reporting(location):
        context.groups = _count(trainer.train_dataset, options, location, diagnostics)
    if not (groups := context.groups):
        return
    groups = context.groups = _after_filter(trainer.train_dataset, groups, options, location, diagnostics)
    smallest = min(groups.values())
    context.facts.append(f"{len(groups):,} preference groups, the smallest with {smallest:,} training rows")
    _check_sizes(context, groups, location, diagnostics)
    _check_balance(context, groups, diagnostics)
    _check_labels(groups, location, diagnostics)
    if trainer.val_dataset is not None:
        _check_validation(context, groups, options.group_key, diagnostics)


def _count(dataset: Any, options: PGRPOConfig, location: str, diagnostics: Diagnostics) -> dict[str, int]:
    """Count the rows of each group: from the table of verl's own dataset, or from the rows of another class."""
    counts = count_groups(dataset, options)[1]
    if counts is not None:
        return counts
    size, limit = len(dataset), data.FILTER_LIMIT
    numbers = range(size) if size <= limit else sorted(random.Random(0).sample(range(size), limit))
    if size > limit:
        diagnostics.note(f"rows of each group are estimated from {limit:,} of {size:,} rows", location)
    column = GroupColumn.parse(options.group_key, list(dataset[0]))
    labels = (label for row in numbers for label in column.labels([dataset[row].get(column.name)]))
    counts = count_labels(labels, options, numbers)
    return {name: round(rows * size / len(numbers)) for name, rows in counts.items()}


def _after_filter(
    dataset: Any, groups: dict[str, int], options: PGRPOConfig, location: str, diagnostics: Diagnostics
) -> dict[str, int]:
    """Estimate the rows of each group that verl's filter of overlong prompts keeps, where it ran on a sample only."""
    each = data.FILTER_SAMPLE // len(groups)
    table: Any = getattr(dataset, "dataframe", None)
    filters = getattr(dataset, "filter_overlong_prompts", False) and hasattr(table, "select_columns")
    if not filters or len(dataset) <= data.FILTER_LIMIT or each < FEW:
        return groups
    column = GroupColumn.parse(options.group_key, table.column_names)
    labels: list[Any] = [None] * len(table) if column.name not in table.column_names else []
    if not labels:
        for batch in arrow_batches(table, [column.name]):
            labels += column.labels(batch.column(0).to_pylist())
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows[str(options.default_group) if label is None else label].append(row)
    if set(rows) != set(groups):  # a dataset class of the user changes the labels
        return groups
    drawn = {name: random.Random(0).sample(of_group, min(each, len(of_group))) for name, of_group in rows.items()}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        kept = dataset.maybe_filter_out_long_prompts(table.select(sorted(chain.from_iterable(drawn.values()))))
    left = count_groups(SimpleNamespace(dataframe=kept), options)[1] or {}
    diagnostics.note(f"rows that the filter keeps are estimated from up to {each} rows of each group", location)
    if gone := [name for name in groups if name not in left]:
        message = f"all sampled rows of {len(gone):,} preference groups are longer than data.max_prompt_length"
        diagnostics.warning(f"{message}: {shortened(gone)}", location, "raise data.max_prompt_length")
    return {name: max(1, round(size * left.get(name, 0) / len(drawn[name]))) for name, size in groups.items()}


def _check_sizes(context: PreflightContext, groups: dict[str, int], location: str, diagnostics: Diagnostics) -> None:
    rows, largest = sum(groups.values()), max(groups, key=lambda name: groups[name])
    n = context.get("actor_rollout_ref.rollout.n") if context.sizes_valid else FEW
    if small := sorted((name for name in groups if groups[name] * n < FEW), key=lambda name: groups[name]):
        named = shortened(f"{name}: {groups[name]} rows" for name in small)
        message = f"{len(small):,} of {len(groups):,} preference groups get fewer than {FEW} rewards an epoch"
        fix = "merge them into larger ones; if all groups rate on one scale, +algorithm.pgrpo.min_count=32 helps too"
        diagnostics.warning(f"{message} (rows x {n}): {named}", location, fix)
    if len(groups) == 1:
        message = f"all {rows:,} training rows belong to one preference group, {largest!r}"
        diagnostics.warning(message, location, "name the column with the groups: +algorithm.pgrpo.group_key=<column>")
    elif groups[largest] > DOMINANT * rows:
        message = f"preference group {largest!r} has {groups[largest] / rows:.0%} of the training rows"
        diagnostics.warning(message, location, "split it, if it hides groups with different preferences")


def _check_balance(context: PreflightContext, groups: dict[str, int], diagnostics: Diagnostics) -> None:
    """Report groups whose few responses would weigh more than in any test, and so may dominate the gradient's noise."""
    alpha = context.options.group_balance if context.options is not None else 0.0
    rows = sum(groups.values())
    rare = sorted((g for g in groups if groups[g] * len(groups) < UNTESTED_SHARE * rows), key=lambda g: groups[g])
    if alpha > 0.5 and rare:
        named = shortened(f"{name}: {groups[name] / rows:.1%}" for name in rare)
        message = f"group_balance={alpha:g} was not tested with groups this rare, whose responses then weigh a lot"
        fix = "+algorithm.pgrpo.group_balance=0.5, or sample the groups equally (verl-pgrpo data equalize)"
        diagnostics.warning(f"{message}: {named} of the rows", "algorithm.pgrpo.group_balance", fix)


def _check_labels(groups: dict[str, int], location: str, diagnostics: Diagnostics) -> None:
    if alike := look_alikes(groups):
        named = shortened(" / ".join(map(describe_code_points, labels)) for labels in alike)
        fix = "spell each group in one way: each spelling has its own history"
        diagnostics.warning(f"preference groups look alike: {named}", location, fix)
    if odd := sorted(name for name in groups if spells_missing(name)):
        rows = sum(groups[name] for name in odd)
        message = (
            f"{rows:,} training rows have the preference group {shortened(map(repr, odd))}, probably a missing value"
        )
        diagnostics.warning(message, location, "fill them, or drop the rows")


def _check_validation(context: PreflightContext, known: dict[str, int], key: str, diagnostics: Diagnostics) -> None:
    """Compare both splits by the group column, and by `data_source` (`<task>/<group>`), by which verl reports."""
    table: Any = getattr(context.trainer.val_dataset, "dataframe", None)
    names, location = getattr(table, "column_names", []), where(context, "val")
    if GroupColumn.parse(key, names).name in names:
        with diagnostics.reporting(f"{location}, {key}"):
            lenient = PGRPOConfig(group_key=key, default_group=ABSENT)
            groups = set(_count(context.trainer.val_dataset, lenient, location, diagnostics)) - {ABSENT}
            if strange := sorted(groups - set(known)):
                message = f"{len(strange):,} preference groups of the validation data are not in the training data"
                diagnostics.warning(f"{message}: {shortened(strange)}", location, "spell them alike, or train on them")
            if groups and (unseen := sorted(set(known) - groups)):
                message = (
                    f"{len(unseen):,} of {len(known):,} preference groups are never validated: {shortened(unseen)}"
                )
                diagnostics.warning(message, location, "add validation rows of them")
    if "data_source" not in names:
        return
    sources = list(map(str, table.unique("data_source")))
    strange = sorted(source for source in sources if source.partition("/")[2] not in known)
    location = f"{location}, column data_source"
    if len(strange) == len(sources):
        message = "validation is not reported by preference group: data_source is not '<task>/<preference group>'"
        diagnostics.note(message, location)
    elif strange:
        message = f"{len(strange):,} data_sources of the validation data name no preference group of the training data"
        diagnostics.warning(f"{message}: {shortened(strange)}", location, "spell them alike")
