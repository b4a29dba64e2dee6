# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Checks before a run starts: its options, the installed verl, and the preference groups of its dataset."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterable
from itertools import chain, count
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import ConfigError, DataError, GroupLabelError, MissingGroupError, UnsupportedVerlError
from verl_pgrpo.integration.batch import GroupColumn, arrow_batches
from verl_pgrpo.integration.columns import check_columns, dataset_columns

__all__ = [
    "ESTIMATOR",
    "TESTED_VERSIONS",
    "check_config",
    "check_dataset_columns",
    "check_verl",
    "count_groups",
    "count_labels",
    "is_personalized",
    "require_hooks",
]

ESTIMATOR = "pgrpo"
TESTED_VERSIONS = ("0.9.0", "0.9.1")
_FIRST_ROWS = 8  # that show whether a dataset class changes the labels


def is_personalized(config: DictConfig) -> bool:
    """Return whether a verl config asks for P-GRPO."""
    return OmegaConf.select(config, "algorithm.adv_estimator") == ESTIMATOR


def check_config(config: DictConfig) -> PGRPOConfig:
    """Return the run's options.

    Raises:
        ConfigError: an option is invalid, or contradicts verl's own settings.
    """
    if OmegaConf.select(config, "algorithm.filter_groups.enable", default=False):
        raise ConfigError(
            "algorithm.filter_groups.enable=True contradicts adv_estimator=pgrpo: it drops prompts whose responses all "
            "earn the same reward. These have a signal under P-GRPO, and dropping them biases the history. Set it to "
            "False."
        )
    return PGRPOConfig.from_algorithm(config.algorithm)


def check_verl(config: DictConfig) -> None:
    """Check, in the launcher, that the installed verl has the trainers that the plugin hooks.

    Raises:
        UnsupportedVerlError: with verl's version and the versions known to work.
    """
    use_v1 = OmegaConf.select(config, "trainer.use_v1")
    if use_v1 is None:
        raise _unsupported("its config has no trainer.use_v1")
    # A verl without TransferQueue may still contain the V1 modules, but its launcher rejects them.
    if not hasattr(importlib.import_module("verl.trainer.main_ppo"), "TaskRunnerV1"):
        raise _unsupported("its launcher does not support the V1 trainers (it has no TaskRunnerV1)")
    if use_v1:
        # Before the trainers, because looking them up imports their package, which imports TransferQueue.
        if importlib.util.find_spec("transfer_queue") is None:
            raise _unsupported("its V1 trainers need the package TransferQueue: pip install TransferQueue")
        _require_module("verl.trainer.ppo.v1.trainer_base")
    else:
        _require_module("verl.trainer.main_ppo_v0")


def _require_module(name: str) -> None:
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise _unsupported(f"it has no module {name}")


def require_hooks(target: Any, *names: str) -> None:
    """Raise UnsupportedVerlError unless a class or module of verl has all of these attributes."""
    missing = [name for name in names if not hasattr(target, name)]
    if missing:
        where = target.__name__ if not isinstance(target, type) else f"{target.__module__}.{target.__qualname__}"
        raise _unsupported(f"{where} has no {', '.join(missing)}")


def _unsupported(reason: str) -> UnsupportedVerlError:
    import verl

    return UnsupportedVerlError(
        f"verl-pgrpo does not support the installed verl {verl.__version__}: {reason}. Tested: verl "
        f"{', '.join(TESTED_VERSIONS)}. Install one of these; other estimators are unaffected."
    )


def check_dataset_columns(dataset: Any, use_v1: bool) -> None:
    """Reject dataset columns that break verl or replace its values; warn about columns that verl replaces.

    Raises:
        DataError: naming the columns and what they collide with.
    """
    reserved = check_columns(dataset_columns(dataset), use_v1)
    errors = [str(name) for name in reserved if name.severity == "error"]
    if errors:
        raise DataError(f"the training data has columns that verl uses itself: {'; '.join(errors)}. Rename them.")
    for name in reserved:
        print(f"P-GRPO warning: the column {name}", flush=True)


def count_groups(dataset: Any, options: PGRPOConfig) -> tuple[GroupColumn | None, dict[str, int] | None]:
    """Count the rows per preference group of verl's training dataset, as labels that will reach the history.

    Args:
        dataset: verl's dataset object, after its own filters.
        options: the run's options.

    Returns:
        the group column (None if there is none and `default_group` is set), and rows per group (None if the dataset is
        not a table, or a class of the user that changes the labels of its table).

    Raises:
        MissingGroupError: the column is missing, or empty in some rows, and `default_group` is not set.
        GroupLabelError: a label is neither text nor an integer, or a number that stands for a name.
    """
    table: Any = getattr(dataset, "dataframe", None)
    if not hasattr(table, "select_columns") or not hasattr(table, "column_names"):
        return GroupColumn.parse(options.group_key), None
    column = GroupColumn.parse(options.group_key, table.column_names)
    if column.name not in table.column_names:
        if options.default_group is not None:
            return None, {options.default_group: len(table)}
        nearest = difflib.get_close_matches(column.name, table.column_names, n=1)
        raise MissingGroupError(
            f"the training data has no column {column.name!r} (group_key={options.group_key}); its columns are "
            f"{', '.join(table.column_names)}. Add it, name the right one with +algorithm.pgrpo.group_key="
            f"{nearest[0] if nearest else '<column>'}, or assign all rows to one group with "
            "+algorithm.pgrpo.default_group=<name>."
        )
    feature = getattr(table, "features", {}).get(column.name)
    for name in column.path:
        feature = feature.get(name) if isinstance(feature, dict) else None
    class_names = getattr(feature, "names", None)
    if isinstance(class_names, list):  # a datasets.ClassLabel
        raise GroupLabelError(
            f"the column {options.group_key!r} is a ClassLabel, and verl passes only its numbers on: the preference "
            f"groups would be '0', '1', ... instead of {', '.join(map(repr, class_names[:3]))}, ... Add a column "
            "with the names as text, and name it in group_key (`verl-pgrpo data table` writes names)."
        )
    first = range(min(len(table), _FIRST_ROWS) if hasattr(dataset, "__getitem__") else 0)
    if column.labels([table[row][column.name] for row in first]) != column.labels(
        [dataset[row].get(column.name) for row in first]
    ):
        return column, None
    batches = (batch.column(0).to_pylist() for batch in arrow_batches(table, [column.name]))
    return column, count_labels(chain.from_iterable(map(column.labels, batches)), options)


def count_labels(labels: Iterable[Any], options: PGRPOConfig, rows: Iterable[int] | None = None) -> dict[str, int]:
    """Count labels of training rows. `rows`: their numbers; default 0, 1, ...

    Raises:
        MissingGroupError, GroupLabelError: see `count_groups`.
    """
    counts: dict[str, int] = {}
    missing: list[int] = []
    for row, label in zip(count() if rows is None else rows, labels, strict=False):
        if label is None:
            missing.append(row)
        elif not isinstance(label, str):
            raise GroupLabelError(
                f"training row {row} has {options.group_key} {label!r} of type {type(label).__name__}: a preference "
                "group must be text or an integer. Cast the column."
            )
        else:
            counts[label] = counts.get(label, 0) + 1
    if missing and options.default_group is None:
        total = sum(counts.values()) + len(missing)
        raise MissingGroupError(
            f"{len(missing)} of {total} training rows have no {options.group_key!r} (first rows: {missing[:5]}). Fill "
            "them, or name a preference group for them with +algorithm.pgrpo.default_group=<name>."
        )
    if missing:
        counts[str(options.default_group)] = counts.get(str(options.default_group), 0) + len(missing)
    return counts
