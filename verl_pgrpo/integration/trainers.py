# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's V1 trainers with a reward history: advantage, metrics, save and load.

A subclass of each of verl's trainers takes its place in verl's registry, under the same name, so that a user's command
stays as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, PPOTrainer

from verl_pgrpo.factor import Factor
from verl_pgrpo.integration.checks import dataset_groups, group_column
from verl_pgrpo.integration.compat import has_batch_fields
from verl_pgrpo.integration.keeper import HistoryKeeper
from verl_pgrpo.integration.rows import Column, Rows, no_such_field, raw_groups

__all__ = ["PersonalizedTrainer", "personalize_registry", "with_history"]


class PersonalizedTrainer(HistoryKeeper):
    """Goes in front of one of verl's V1 trainers (`with_history`) and keeps its reward history."""

    _pgrpo_trainer = "v1"

    def _init_dataloader(self) -> None:
        super()._init_dataloader()  # type: ignore[misc]
        if self.pgrpo_history is None:
            return
        dataset = self.train_dataset  # type: ignore[attr-defined]
        self._pgrpo_column: Column | None = group_column(self._pgrpo_options.group_key)
        sizes = dataset_groups(dataset, self._pgrpo_options)
        if sizes is not None:
            columns = dataset.dataframe.column_names
            column, path = group_column(self._pgrpo_options.group_key, columns)
            self._pgrpo_column = (column, path) if column in columns else None
        self._pgrpo_begin(sizes)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        compute = super()._compute_advantage  # type: ignore[misc]
        if self.pgrpo_history is None:
            return compute(batch, metrics)
        if self._pgrpo_column is not None and has_batch_fields(core_algos):  # verl fetches what we have declared
            rows = Rows.of(batch.keys, batch.tags, [None] * len(batch.keys))
            return self._pgrpo_advantage(rows, lambda: compute(batch, metrics), self._pgrpo_column)
        rows = Rows.of(batch.keys, batch.tags, preference_groups(batch, self._pgrpo_column))
        return self._pgrpo_advantage(rows, lambda: compute(batch, metrics))

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, Any]) -> KVBatchMeta:
        batch = super().step(metrics, timing_raw)  # type: ignore[misc]
        if self.pgrpo_history is not None:
            # Here, and not in _compute_advantage's `metrics`: verl aggregates those over a step's local updates by
            # guessing from their names, and would add up `observed_total`.
            metrics.update(self._pgrpo_log.flush())
        return batch


def with_history(stock: type[PPOTrainer]) -> type[PPOTrainer]:
    """A subclass of a V1 trainer that keeps a reward history when a run asks for `adv_estimator=pgrpo`."""
    if issubclass(stock, PersonalizedTrainer):
        return stock
    return type(stock.__name__, (PersonalizedTrainer, stock), {"__doc__": stock.__doc__, "__module__": __name__})


def personalize_registry() -> None:
    """Put `with_history(cls)` in the place of each trainer that verl has registered."""
    for name, cls in TRAINER_REGISTRY.items():
        TRAINER_REGISTRY[name] = with_history(cls)


def preference_groups(batch: KVBatchMeta, where: Column | None) -> list[Any]:
    """The raw group of each row, by its key: a dataset's columns lie in TransferQueue beside the response.

    Args:
        where: the column and the path into it; None if the training data has no such column (`missing_group` is set).

    Raises:
        MissingGroupError: the rollouts do not carry the column.
    """
    if where is None:
        return [None] * len(batch.keys)
    column = where[0]
    # A group belongs to the prompt's user, and TransferQueue takes longest of all: one row of each prompt will do.
    prompts = Factor.of([key.rsplit("_", 2)[0] for key in batch.keys])
    first = np.unique(prompts.codes, return_index=True)[1]
    keys = [batch.keys[row] for row in first.tolist()]
    try:
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=[column])
    except (ValueError, KeyError) as error:
        raise no_such_field(column, error) from error
    groups = raw_groups(data[column], where)
    return [groups[prompt] for prompt in prompts.codes.tolist()]


personalize_registry()  # the plugin's hook has been and gone if this module was what imported verl's trainers
