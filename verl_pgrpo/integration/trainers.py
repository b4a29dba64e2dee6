# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Trainer mixins that own the reward history. No-ops unless adv_estimator=pgrpo.

A subclass of each of verl's V1 trainers replaces it in verl's registry under the same name, so users' commands stay
unchanged.
"""

from __future__ import annotations

from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, PPOTrainer

from verl_pgrpo.errors import MissingGroupError
from verl_pgrpo.integration.batch import BatchRows, GroupColumn
from verl_pgrpo.integration.checks import check_dataset_columns, count_groups, require_hooks
from verl_pgrpo.integration.mixin import PGRPOTrainerMixin

__all__ = ["PGRPOV1TrainerMixin", "personalize_registry", "with_history"]


class PGRPOV1TrainerMixin(PGRPOTrainerMixin):
    """Trainer mixin for verl's V1 trainers. No-op unless adv_estimator=pgrpo."""

    _pgrpo_column: GroupColumn | None = None

    def _init_dataloader(self) -> None:
        super()._init_dataloader()  # type: ignore[misc]
        if self.pgrpo is not None:
            check_dataset_columns(self.train_dataset, use_v1=True)  # type: ignore[attr-defined]
            self._pgrpo_column, sizes = count_groups(self.train_dataset, self.pgrpo.config)  # type: ignore[attr-defined]
            self.pgrpo.start(sizes)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        compute = super()._compute_advantage  # type: ignore[misc]
        if self.pgrpo is None:
            return compute(batch, metrics)
        rows = BatchRows.from_keys(batch.keys, batch.tags, preference_groups(batch, self._pgrpo_column))
        return self.pgrpo.advantage_step(rows, lambda: compute(batch, metrics))

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, Any]) -> KVBatchMeta:
        batch = super().step(metrics, timing_raw)  # type: ignore[misc]
        if self.pgrpo is not None:
            # Not through the `metrics` of _compute_advantage: verl aggregates those over a step's local updates by
            # their names, and would sum up `observed_total`.
            metrics.update(self.pgrpo.end_step())
        return batch


def with_history(trainer: type[PPOTrainer]) -> type[PPOTrainer]:
    """Return a subclass of a V1 trainer class that keeps a reward history if a run asks for adv_estimator=pgrpo.

    Raises:
        UnsupportedVerlError: the class lacks a method that the history needs.
    """
    if issubclass(trainer, PGRPOV1TrainerMixin):
        return trainer
    require_hooks(trainer, "_init_dataloader", "_compute_advantage", "step", "_save_checkpoint", "_load_checkpoint")
    return type(trainer.__name__, (PGRPOV1TrainerMixin, trainer), {"__doc__": trainer.__doc__, "__module__": __name__})


def personalize_registry() -> None:
    """Replace each trainer that verl has registered by `with_history` of it."""
    for name, trainer in TRAINER_REGISTRY.items():
        TRAINER_REGISTRY[name] = with_history(trainer)


def preference_groups(batch: KVBatchMeta, column: GroupColumn | None) -> list[Any]:
    """Return the preference group of each row: a dataset's columns are in TransferQueue next to the response.

    Args:
        batch: keys and partition of the rows.
        column: the group column; None if the training data has none (`default_group` is set).

    Raises:
        MissingGroupError: the rollouts do not carry the column.
    """
    if column is None:
        return [None] * len(batch.keys)
    uids = [key.rsplit("_", 2)[0] for key in batch.keys]
    # Fetching is the slowest part, and all rows of a prompt have the same group, so fetch one row per prompt.
    first = {uid: key for uid, key in reversed(list(zip(uids, batch.keys, strict=True)))}
    try:
        data = tq.kv_batch_get(keys=list(first.values()), partition_id=batch.partition_id, select_fields=[column.name])
    except (ValueError, KeyError) as error:
        raise MissingGroupError(
            f"the rollouts carry no field {column.name!r}: {error}. The training data, or the agent loop in use, must "
            "provide the preference group of each prompt; algorithm.pgrpo.group_key names another field."
        ) from error
    group_of = dict(zip(first, column.labels(data[column.name]), strict=True))
    return [group_of[uid] for uid in uids]


personalize_registry()  # the plugin's hook has already run if this module was the first to import verl's trainers
