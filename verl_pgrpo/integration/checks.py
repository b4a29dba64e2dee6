# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What can be known to be wrong with a run before anything expensive starts."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import (
    ConfigError,
    GroupLabelError,
    HistoryFileError,
    MissingGroupError,
    UnsupportedVerlError,
)
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.integration.estimator import NAME
from verl_pgrpo.integration.rows import group_label, nested_value

__all__ = [
    "HISTORY_FILE",
    "check_config",
    "dataset_groups",
    "group_column",
    "is_personalized",
    "restored_history",
    "resumed_checkpoint",
    "trainer_of_main_ppo",
]

HISTORY_FILE = "pgrpo_history.parquet"


def is_personalized(config: DictConfig) -> bool:
    """Does this run ask for P-GRPO?"""
    return OmegaConf.select(config, "algorithm.adv_estimator") == NAME


def trainer_of_main_ppo(config: DictConfig) -> str:
    """Which trainers `verl.trainer.main_ppo` takes for this configuration (a key of `compat.TRAINERS`).

    Raises:
        UnsupportedVerlError: it does not say; verl 0.9's always does.
    """
    use_v1 = OmegaConf.select(config, "trainer.use_v1")
    if use_v1 is None:
        raise UnsupportedVerlError(
            "the configuration has no trainer.use_v1, so that it is unknown which of verl's trainers will run: set "
            "trainer.use_v1=True (verl's default) for algorithm.adv_estimator=pgrpo"
        )
    return "v1" if use_v1 else "v0"


def check_config(config: DictConfig) -> PGRPOConfig:
    """The run's options, if this configuration can be personalized.

    Raises:
        ConfigError: an option is wrong, or `filter_groups` is on.
    """
    check_filter_groups(config)
    return PGRPOConfig.from_algorithm(config.algorithm)


def check_filter_groups(config: DictConfig) -> None:
    """Raises ConfigError if `filter_groups` is on."""
    if OmegaConf.select(config, "algorithm.filter_groups.enable", default=False):
        raise ConfigError(
            "algorithm.filter_groups.enable=True contradicts adv_estimator=pgrpo: it drops the prompts whose responses "
            "all earn the same reward, which still teach under P-GRPO, and would bias the reward history. Set it to "
            "False."
        )


def resumed_checkpoint(config: DictConfig) -> str | None:
    """The folder `global_step_N` that verl will resume from (as PPOTrainer._load_checkpoint finds it), or None."""
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    trainer = config.trainer
    if trainer.resume_mode == "auto":
        return find_latest_ckpt_path(os.path.abspath(trainer.default_local_dir))
    if trainer.resume_mode == "resume_path" and isinstance(trainer.resume_from_path, str):
        return os.path.abspath(trainer.resume_from_path)
    return None


def restored_history(config: DictConfig, options: PGRPOConfig) -> tuple[GroupHistoryManager, int]:
    """The history that this run starts with, and the training step it belongs to (0: from scratch).

    Raises:
        HistoryFileError: the checkpoint's history is missing, damaged, or of another step or configuration.
    """
    folder = resumed_checkpoint(config)
    if folder is None:
        _warn_of_passed_over(config)
        return GroupHistoryManager(options), 0
    match = re.search(r"global_step_(\d+)/*$", folder)
    if match is None:
        raise ConfigError(
            f"trainer.resume_from_path={folder} does not end in global_step_<N>, as verl's checkpoints do"
        )
    step = int(match[1])
    try:
        return GroupHistoryManager.load(os.path.join(folder, HISTORY_FILE), options, step=step), step
    except HistoryFileError as error:
        if not options.resume_without_history:
            raise
        print(f"P-GRPO: an empty reward history, as resume_without_history asks, because: {error}", flush=True)
        return GroupHistoryManager(options), step


def _warn_of_passed_over(config: DictConfig) -> None:
    """verl starts from scratch where its tracker file is missing, as after `async_save`, and says so in passing."""
    folder = Path(config.trainer.default_local_dir)
    left = sorted(path.parent.name for path in folder.glob(f"global_step_*/{HISTORY_FILE}"))
    if config.trainer.resume_mode == "auto" and left:
        print(
            f"P-GRPO warning: verl starts from scratch, with an empty reward history, though {folder} has checkpoints "
            f"({', '.join(left)}): its tracker file latest_checkpointed_iteration.txt is missing or names none of "
            "them. To go on from one, set trainer.resume_mode=resume_path and trainer.resume_from_path.",
            flush=True,
        )


def group_column(key: str, columns: Sequence[str] = ()) -> tuple[str, list[str]]:
    """`group_key` as a column and a path into it; a column that has dots in its name goes first."""
    if key in columns:
        return key, []
    column, *path = key.split(".")
    return column, path


def dataset_groups(dataset: Any, options: PGRPOConfig) -> dict[str, int] | None:
    """Rows per preference group of verl's training dataset; None if it is not a table that can be looked into.

    Raises:
        MissingGroupError: the group column is missing, or empty in some rows, and no `missing_group` is set.
    """
    table: Any = getattr(dataset, "dataframe", None)
    if not hasattr(table, "select_columns") or not hasattr(table, "column_names"):
        return None
    column, path = group_column(options.group_key, table.column_names)
    if column not in table.column_names:
        if options.missing_group is not None:
            return {options.missing_group: len(table)}
        near = difflib.get_close_matches(column, table.column_names, n=1)
        raise MissingGroupError(
            f"the training data has no column {column!r} (group_key={options.group_key}); its columns are "
            f"{', '.join(table.column_names)}. Add it, or name the right one with "
            f"+algorithm.pgrpo.group_key={near[0] if near else '<column>'}, or put all rows into one group with "
            "+algorithm.pgrpo.missing_group=<name>."
        )
    counts: dict[str, int] = {}
    empty: list[int] = []
    row = 0
    for chunk in table.select_columns([column]).with_format("arrow").iter(batch_size=1 << 16):
        for value in chunk[column].to_pylist():
            label = group_label(nested_value(value, path, options.group_key))
            if label is None:
                empty.append(row)
            elif not isinstance(label, str):
                raise GroupLabelError(
                    f"training row {row} has the {options.group_key!r} {label!r} of type {type(label).__name__}: a "
                    "preference group is text or a whole number; cast the column"
                )
            else:
                counts[label] = counts.get(label, 0) + 1
            row += 1
    if empty and options.missing_group is None:
        raise MissingGroupError(
            f"{len(empty)} of {row} training rows have no {options.group_key!r} (first rows: {empty[:5]}). Fill them, "
            "or name a preference group for them with +algorithm.pgrpo.missing_group=<name>."
        )
    if empty:
        counts[str(options.missing_group)] = counts.get(str(options.missing_group), 0) + len(empty)
    return counts
