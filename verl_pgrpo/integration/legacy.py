# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Trainer mixins for verl's older trainers: trainer.use_v1=False, one-step-off and fully-async.

None of them has a registry. A subclass of each replaces it in the module from which verl's launcher imports it. All
mixins are no-ops unless adv_estimator=pgrpo.

These trainers lose a dataset's columns, because the rollout does not return them. The preference group is therefore
saved before the rollout and added to its result, under a unique name, because a reward function's outputs are put into
the same batch and may have the name of a dataset column. Each row is one session; none is padding.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from omegaconf import DictConfig

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import UnsupportedVerlError
from verl_pgrpo.integration.batch import BatchRows, GroupColumn
from verl_pgrpo.integration.checks import check_dataset_columns, count_groups, is_personalized, require_hooks
from verl_pgrpo.integration.mixin import PGRPOTrainerMixin

__all__ = [
    "FullyAsyncRollouterMixin",
    "FullyAsyncTrainerMixin",
    "LegacyTrainerMixin",
    "OneStepOffTrainerMixin",
    "PreferenceGroupMixin",
    "V0TrainerMixin",
    "personalize_module",
]

_GROUP = "pgrpo_preference_group"


class LegacyTrainerMixin(PGRPOTrainerMixin):
    """Base class of the mixins for the older trainers."""

    def __init__(self, config: DictConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        dataset = getattr(self, "train_dataset", None)
        if self.pgrpo is not None and dataset is not None:  # fully-async: see `set_rollouter`
            self.pgrpo.start(_check_dataset(dataset, self.pgrpo.config))

    def _get_gen_batch(self, batch: Any) -> Any:
        if self.pgrpo is None:
            return super()._get_gen_batch(batch)  # type: ignore[misc]
        groups = preference_groups(batch, self.pgrpo.config)  # before verl moves the columns to the rollout
        rollout = super()._get_gen_batch(batch)  # type: ignore[misc]
        batch.non_tensor_batch[_GROUP] = groups
        return rollout

    def _pgrpo_advantage_step(self, step: Callable[[Any], Any], batch: Any) -> Any:
        """Run verl's own advantage step on `batch`, a DataProto."""
        assert self.pgrpo is not None
        columns = batch.non_tensor_batch
        if _GROUP not in columns:
            raise UnsupportedVerlError("the rollouts came back without their preference groups")
        groups = [None if isinstance(group, str) and not group else group for group in columns.pop(_GROUP).tolist()]
        return self.pgrpo.advantage_step(BatchRows.from_sessions(columns["uid"].tolist(), groups), lambda: step(batch))


class V0TrainerMixin(LegacyTrainerMixin):
    """For RayPPOTrainer, which main_ppo uses with trainer.use_v1=False."""

    def fit(self) -> None:
        if self.pgrpo is None:
            return super().fit()  # type: ignore[misc]
        # verl's loop calls a function of its module; later trainers have a method to override instead.
        from verl.trainer.ppo import ray_trainer

        stock = ray_trainer.compute_advantage

        def compute_advantage(data: Any, *args: Any, **kwargs: Any) -> Any:
            return self._pgrpo_advantage_step(lambda batch: stock(batch, *args, **kwargs), data)

        ray_trainer.compute_advantage = compute_advantage
        try:
            return super().fit()  # type: ignore[misc]
        finally:
            ray_trainer.compute_advantage = stock

    def _update_actor(self, batch: Any) -> Any:
        output = super()._update_actor(batch)  # type: ignore[misc]
        if self.pgrpo is not None:
            # The loop keeps its metrics in a local variable and adds those returned here. verl reduces them by mean,
            # maximum or minimum, depending on their names; for a single number the results are equal.
            output.meta_info["metrics"].update(self.pgrpo.end_step())
        return output


class _SeparateTrainerMixin(LegacyTrainerMixin):
    def _fit_compute_advantage(self, batch: Any) -> Any:
        compute = super()._fit_compute_advantage  # type: ignore[misc]
        return compute(batch) if self.pgrpo is None else self._pgrpo_advantage_step(compute, batch)


class OneStepOffTrainerMixin(_SeparateTrainerMixin):
    """For OneStepOffRayTrainer."""

    def _fit_collect_metrics(self, batch: Any) -> None:
        super()._fit_collect_metrics(batch)  # type: ignore[misc]
        if self.pgrpo is not None:
            self.metrics.update(self.pgrpo.end_step())  # type: ignore[attr-defined]


class FullyAsyncTrainerMixin(_SeparateTrainerMixin):
    """For the class of the Ray actor FullyAsyncTrainer.

    Its checkpoints are numbered by the version of the rollout weights, with several local steps per version. The
    rollouter, another process, has the training data; it checks the data and counts its groups.
    """

    async def set_rollouter(self, rollouter: Any) -> None:
        if self.pgrpo is not None:
            self.pgrpo.start(await rollouter.pgrpo_group_sizes.remote())
        await super().set_rollouter(rollouter)  # type: ignore[misc]

    def _pgrpo_checkpoint_step(self) -> int:
        return self.current_param_version  # type: ignore[attr-defined]

    async def load_checkpoint(self) -> Any:
        version = await super().load_checkpoint()  # type: ignore[misc]
        if self.pgrpo is not None:
            self.pgrpo.check_step(self._pgrpo_checkpoint_step())
        return version

    def _fit_log_aggregated_training_metrics(self, *args: Any, **kwargs: Any) -> None:
        super()._fit_log_aggregated_training_metrics(*args, **kwargs)  # type: ignore[misc]
        if self.pgrpo is not None:
            # Not through verl's aggregator, which chooses a reduction by name (it would sum up `observed_total`) and
            # assigns each version's last step to the next version.
            self.logger.log(data=self.pgrpo.end_step(), step=self.current_param_version)  # type: ignore[attr-defined]


class FullyAsyncRollouterMixin:
    """For the class of the Ray actor FullyAsyncRollouter, which has the training data. verl creates it last."""

    _pgrpo_sizes: dict[str, int] | None = None

    def _create_dataloader(self, train_dataset: Any, *args: Any, **kwargs: Any) -> None:
        if is_personalized(self.config):  # type: ignore[attr-defined]
            options = PGRPOConfig.from_algorithm(self.config.algorithm)  # type: ignore[attr-defined]
            self._pgrpo_sizes = _check_dataset(train_dataset, options)
        super()._create_dataloader(train_dataset, *args, **kwargs)  # type: ignore[misc]

    def pgrpo_group_sizes(self) -> dict[str, int] | None:
        """Return the training rows per preference group; None if the dataset is not a table."""
        return self._pgrpo_sizes


class PreferenceGroupMixin:
    """For FullyAsyncAgentLoopManager: a prompt's preference group returns with its rollouts."""

    async def generate_sequences_single(self, prompts: Any) -> Any:
        output = await super().generate_sequences_single(prompts)  # type: ignore[misc]
        if is_personalized(self.config):  # type: ignore[attr-defined]
            options = PGRPOConfig.from_algorithm(self.config.algorithm)  # type: ignore[attr-defined]
            output.non_tensor_batch[_GROUP] = preference_groups(prompts, options)
        return output


def _check_dataset(dataset: Any, options: PGRPOConfig) -> dict[str, int] | None:
    """Check the columns of a training dataset, and count its rows per preference group (see `count_groups`)."""
    check_dataset_columns(dataset, use_v1=False)
    return count_groups(dataset, options)[1]


def preference_groups(batch: Any, options: PGRPOConfig) -> np.ndarray:
    """Return the group of each row of a batch that has the dataset's columns; blank text where there is none."""
    columns = batch.non_tensor_batch
    column = GroupColumn.parse(options.group_key, list(columns))
    labels = column.labels(columns[column.name]) if column.name in columns else [None] * len(batch)
    groups = np.full(len(batch), "", dtype=object)
    for row, label in enumerate(labels):
        groups[row] = "" if label is None else label
    return groups


_TRAINER_METHODS = ("_get_gen_batch", "_save_checkpoint", "_load_checkpoint")
_ASYNC_METHODS = ("_save_checkpoint", "load_checkpoint", "set_rollouter", "_fit_compute_advantage")
# Module of verl -> classes in it, the mixin of each, and the methods that the mixin overrides.
_REPLACED: dict[str, dict[str, tuple[type, tuple[str, ...]]]] = {
    "verl.trainer.main_ppo_v0": {
        "RayPPOTrainer": (V0TrainerMixin, (*_TRAINER_METHODS, "fit", "_update_actor")),
    },
    "verl.experimental.one_step_off_policy.ray_trainer": {
        "OneStepOffRayTrainer": (
            OneStepOffTrainerMixin,
            (*_TRAINER_METHODS, "_fit_compute_advantage", "_fit_collect_metrics"),
        ),
    },
    "verl.experimental.fully_async_policy.fully_async_trainer": {
        "FullyAsyncTrainer": (
            FullyAsyncTrainerMixin,
            (*_ASYNC_METHODS, "_fit_log_aggregated_training_metrics"),
        ),
    },
    "verl.experimental.fully_async_policy.fully_async_rollouter": {
        "FullyAsyncAgentLoopManager": (PreferenceGroupMixin, ("generate_sequences_single",)),
        "FullyAsyncRollouter": (FullyAsyncRollouterMixin, ("_create_dataloader",)),
    },
}


def personalize_module(module: ModuleType) -> None:
    """Replace the classes in one of verl's modules by subclasses with the mixins.

    Raises:
        UnsupportedVerlError: a class lacks a method that the mixin overrides.
    """
    import ray

    for name, (mixin, methods) in _REPLACED[module.__name__].items():
        require_hooks(module, name)
        stock = getattr(module, name)
        if isinstance(stock, type):
            setattr(module, name, _subclass(mixin, stock, module, methods))
        else:
            # A Ray actor class cannot be subclassed. The class behind it can, with the same resources.
            plain = stock.__ray_metadata__.modified_class.__ray_actor_class__
            setattr(module, name, ray.remote(**stock._default_options)(_subclass(mixin, plain, module, methods)))


def _subclass(mixin: type, stock: type, module: ModuleType, methods: tuple[str, ...]) -> type:
    require_hooks(stock, *methods)
    # Assigned under its name in verl's module, so that pickles refer to it by that name.
    return type(stock.__name__, (mixin, stock), {"__doc__": stock.__doc__, "__module__": module.__name__})
