# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's V1 trainers with a reward history: advantage, metrics, save and load.

A subclass of each of verl's trainers takes its place in verl's registry, under the same name, so that a user's command
stays as it is. In a run of another estimator each method does nothing but call verl's.

The history lives in the process that runs the trainer (verl's TaskRunner), as P-GRPO needs it in one place only.
"""

from __future__ import annotations

import os
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, PPOTrainer

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import HistoryFileWrongStep, MissingGroupError
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.integration.checks import (
    HISTORY_FILE,
    dataset_groups,
    group_column,
    is_personalized,
    restored_history,
)
from verl_pgrpo.integration.estimator import batch_of_run
from verl_pgrpo.integration.plugin import check_run
from verl_pgrpo.integration.rows import Rows, nested_value
from verl_pgrpo.run_log import RunLog

__all__ = ["PersonalizedTrainer", "personalize_registry", "with_history"]


class PersonalizedTrainer:
    """Goes in front of one of verl's trainers (`with_history`) and keeps its reward history.

    Attributes:
        pgrpo_history: the history, None in a run of another estimator; a trainer's own code may read it.
    """

    pgrpo_history: GroupHistoryManager | None

    def __init__(self, config: DictConfig, *args: Any, **kwargs: Any) -> None:
        self.pgrpo_history = None
        if is_personalized(config):
            check_run(config)
            self._pgrpo_options = PGRPOConfig.from_algorithm(config.algorithm)
            self._pgrpo_column: tuple[str, list[str]] | None = group_column(self._pgrpo_options.group_key)
            self.pgrpo_history, self._pgrpo_step = restored_history(config, self._pgrpo_options)
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]

    def _init_dataloader(self) -> None:
        super()._init_dataloader()  # type: ignore[misc]
        if self.pgrpo_history is None:
            return
        dataset = self.train_dataset  # type: ignore[attr-defined]
        sizes = dataset_groups(dataset, self._pgrpo_options)
        if sizes is not None:
            columns = dataset.dataframe.column_names
            column, path = group_column(self._pgrpo_options.group_key, columns)
            self._pgrpo_column = (column, path) if column in columns else None
        self._pgrpo_log = RunLog(self.pgrpo_history, sizes)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self.pgrpo_history is None:
            return super()._compute_advantage(batch, metrics)  # type: ignore[misc]
        rows = Rows.of(batch.keys, batch.tags, preference_groups(batch, self._pgrpo_column))
        self.pgrpo_history.prepare(rows.groups)
        with batch_of_run(self.pgrpo_history, rows) as run:
            batch = super()._compute_advantage(batch, metrics)  # type: ignore[misc]
        assert run.outcome is not None  # batch_of_run has seen to it
        self._pgrpo_log.add(*run.outcome)
        return batch

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, Any]) -> KVBatchMeta:
        batch = super().step(metrics, timing_raw)  # type: ignore[misc]
        if self.pgrpo_history is not None:
            # Here, and not in _compute_advantage's `metrics`: verl aggregates those over a step's local updates by
            # guessing from their names, and would add up `observed_total`.
            metrics.update(self._pgrpo_log.flush())
        return batch

    def _save_checkpoint(self) -> None:
        if self.pgrpo_history is not None:
            # Before verl's own files: its tracker, written last, must never name a checkpoint without a history.
            step = self.global_steps  # type: ignore[attr-defined]
            folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{step}")  # type: ignore[attr-defined]
            os.makedirs(folder, exist_ok=True)
            self.pgrpo_history.save(os.path.join(folder, HISTORY_FILE), step=step)
        super()._save_checkpoint()  # type: ignore[misc]

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()  # type: ignore[misc]
        step = self.global_steps  # type: ignore[attr-defined]
        if self.pgrpo_history is not None and step != self._pgrpo_step:
            raise HistoryFileWrongStep(
                f"verl resumed from step {step}, the reward history is of step {self._pgrpo_step}: the checkpoint "
                "folder changed while the run was starting. Start it again."
            )


def with_history(stock: type[PPOTrainer]) -> type[PPOTrainer]:
    """A subclass of a V1 trainer that keeps a reward history when a run asks for `adv_estimator=pgrpo`."""
    if issubclass(stock, PersonalizedTrainer):
        return stock
    return type(stock.__name__, (PersonalizedTrainer, stock), {"__doc__": stock.__doc__, "__module__": __name__})


def personalize_registry() -> None:
    """Put `with_history(cls)` in the place of each trainer that verl has registered."""
    for name, cls in TRAINER_REGISTRY.items():
        TRAINER_REGISTRY[name] = with_history(cls)


def preference_groups(batch: KVBatchMeta, where: tuple[str, list[str]] | None) -> list[Any]:
    """The raw group of each row, by its key: a dataset's columns lie in TransferQueue beside the response.

    Args:
        where: the column and the path into it; None if the training data has no such column (`missing_group` is set).

    Raises:
        MissingGroupError: the rollouts do not carry the column.
    """
    if where is None:
        return [None] * len(batch.keys)
    column, path = where
    try:
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[column])
    except (ValueError, KeyError) as error:
        raise MissingGroupError(
            f"the rollouts carry no field {column!r}: {error}. The training data, or the agent loop in use, must put "
            "the preference group beside each prompt; algorithm.pgrpo.group_key names another field."
        ) from error
    values = data[column]
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    return [nested_value(value, path, column) for value in values]
