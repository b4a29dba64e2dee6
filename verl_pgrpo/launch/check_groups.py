# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The preference groups of a launch's data: every row has one, each is large enough to be known, both splits agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from omegaconf import OmegaConf

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import ConfigError, PGRPOError
from verl_pgrpo.integration.checks import dataset_groups, group_column, is_personalized
from verl_pgrpo.watch import DOMINANT_SHARE

from .data_files import BadFile
from .finding import Found
from .run import Run, Split

FEW = 8  # rewards an epoch: a standard deviation of fewer is a guess
MISSING = ("nan", "none", "null", "<na>", "n/a")
KEY = "+algorithm.pgrpo.group_key"


def check_groups(run: Run, found: Found) -> None:
    if not is_personalized(run.config):
        return
    options = _group_options(run)
    training, validation = run.splits.get("training"), run.splits.get("validation")
    if training is not None:
        try:
            training.groups = _count(training, options)
        except BadFile:
            raise
        except PGRPOError as error:
            found.raised(error, f"{training.where}, {options.group_key}", "give every row its user's preference group")
        else:
            smallest = min(training.groups.values())
            run.facts.append(
                f"{len(training.groups):,} preference groups, the smallest with {smallest:,} training rows"
            )
            if run.sound:
                _check_sizes(training, run.config.actor_rollout_ref.rollout.n, found)
            _check_spelling(training, found)
            _check_missing(training, found)
    if validation is not None and training is not None and training.groups:
        _compare(training, validation, options, found)


def _group_options(run: Run) -> PGRPOConfig:
    """Where the groups are, even if another option is wrong (which another check says)."""
    try:
        return PGRPOConfig.from_algorithm(run.config.algorithm)
    except ConfigError:
        select = {
            name: OmegaConf.select(run.config, f"algorithm.pgrpo.{name}") for name in ("group_key", "missing_group")
        }
        return PGRPOConfig.from_mapping({name: str(value) for name, value in select.items() if value})


def _count(split: Split, options: PGRPOConfig) -> dict[str, int]:
    column, path = group_column(options.group_key, split.files.schema.names)
    return dataset_groups(split.files.as_dataset(column, path), options) or {}


def _check_sizes(split: Split, n: int, found: Found) -> None:
    groups, rows = split.groups or {}, split.files.rows
    small = {name: count for name, count in groups.items() if count * n < FEW}
    if small:
        found.warning(
            f"{len(small):,} of {len(groups):,} preference groups get fewer than {FEW} rewards an epoch (rows x {n}): "
            + _named(f"{name} {small[name]:,}" for name in sorted(small, key=lambda name: small[name]))
            + " rows",
            split.where,
            "merge them into larger ones, or shrink them toward all with +algorithm.pgrpo.cold_start.prior_strength=16",
        )
    largest = max(groups, key=lambda name: groups[name])
    if len(groups) == 1:
        said = f"all {rows:,} training rows are of one preference group, {largest!r}: there is nobody to tell apart"
        found.warning(said, split.where, f"name the column with the groups: {KEY}=<column>")
    elif groups[largest] > DOMINANT_SHARE * rows:
        said = f"preference group {largest!r} has {groups[largest] / rows:.0%} of the training rows"
        found.warning(said, split.where, "split it, if it hides groups of different taste")


def _check_spelling(split: Split, found: Found) -> None:
    """Labels that only blanks or case tell apart."""
    alike = defaultdict(list)
    for name in split.groups or {}:
        alike[" ".join(name.split()).casefold()].append(name)
    if doubles := [" / ".join(map(repr, names)) for names in alike.values() if len(names) > 1]:
        said = f"preference groups that only blanks or case tell apart: {_named(doubles)}"
        found.warning(said, split.where, "spell each in one way, or they have a history each")


def _check_missing(split: Split, found: Found) -> None:
    """Labels that a missing value becomes when it is made text."""
    if odd := sorted(name for name in split.groups or {} if name.strip().casefold() in MISSING):
        rows = sum((split.groups or {})[name] for name in odd)
        said = f"{rows:,} training rows have the preference group {_named(map(repr, odd))}: a missing label as text"
        found.warning(said, split.where, "fill them, or drop the rows; they would be a group of their own")


def _compare(training: Split, validation: Split, options: PGRPOConfig, found: Found) -> None:
    """By the group column, and by `data_source`, under which verl reports: `<task>/<group>`."""
    known = set(training.groups or {})
    column, path = group_column(options.group_key, validation.files.schema.names)
    if validation.files.has(column, path):
        try:
            validation.groups = _count(validation, PGRPOConfig(group_key=options.group_key, missing_group="(none)"))
        except PGRPOError as error:
            found.raised(error, f"{validation.where}, {options.group_key}", "make it text")
            return
        ours = set(validation.groups) - {"(none)"}
        if strange := sorted(ours - known):
            said = f"{len(strange):,} preference groups of the validation data are not in the training data"
            found.warning(f"{said}: {_named(strange)}", validation.where, "spell them as there, or train them")
        if unseen := sorted(known - ours):
            said = f"{len(unseen):,} of {len(known):,} preference groups are never validated"
            found.warning(f"{said}: {_named(unseen)}", validation.where, "add validation rows of them")
    named = {source: str(source).partition("/")[2] for source in validation.sources}
    if not known & set(named.values()):
        found.note(
            "validation is not reported by preference group: its data_source names none of them",
            f"{validation.where}, column data_source",
            "to see it, give validation rows the data_source '<task>/<preference group>'",
        )
    elif strange := sorted(str(source) for source, group in named.items() if group not in known):
        said = f"{len(strange):,} data_sources of the validation data name no preference group of the training data"
        found.warning(f"{said}: {_named(strange)}", f"{validation.where}, column data_source", "spell them as there")


def _named(names: Iterable[str], most: int = 8) -> str:
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
