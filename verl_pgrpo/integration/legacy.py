# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's older trainers with a reward history: `trainer.use_v1=False`, one-step-off and fully-async.

As in `trainers.py` a subclass takes the place of each trainer, here in the module that verl's launcher takes it from,
and in a run of another estimator its methods do nothing but call verl's.

These trainers lose a dataset's columns on the way: what the rollout brings back does not have them. The preference
group is therefore set aside before the rollout and laid beside its result, under a name of its own, as a reward
function's outputs land in the same batch and may have the dataset's. Each row is one session, and none is padding.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from omegaconf import DictConfig

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import UnsupportedVerlError
from verl_pgrpo.integration.checks import dataset_groups, group_column, is_personalized
from verl_pgrpo.integration.keeper import HistoryKeeper
from verl_pgrpo.integration.rows import Rows, nested_value

__all__ = [
    "FullyAsyncTrainer",
    "GroupCarrier",
    "LegacyTrainer",
    "OneStepOffTrainer",
    "V0Trainer",
    "personalize_module",
]

_GROUP = "pgrpo_preference_group"


class LegacyTrainer(HistoryKeeper):
    """Goes in front of one of verl's older trainers and keeps its reward history. What they have in common."""

    def __init__(self, config: DictConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if self.pgrpo_history is not None:
            self._pgrpo_begin(dataset_groups(getattr(self, "train_dataset", None), self._pgrpo_options))

    def _get_gen_batch(self, batch: Any) -> Any:
        if self.pgrpo_history is None:
            return super()._get_gen_batch(batch)  # type: ignore[misc]
        groups = groups_of(batch, self._pgrpo_options)  # before verl hands the columns over to the rollout
        rollout = super()._get_gen_batch(batch)  # type: ignore[misc]
        batch.non_tensor_batch[_GROUP] = groups
        return rollout

    def _pgrpo_batch_advantage(self, compute: Callable[[Any], Any], batch: Any) -> Any:
        """verl's own advantage step `compute` on `batch` (a DataProto), with the history at hand."""
        columns = batch.non_tensor_batch
        if _GROUP not in columns:
            raise UnsupportedVerlError("the rollouts came back without the preference groups that went with them")
        rows = Rows.of_sessions(columns["uid"].tolist(), columns.pop(_GROUP).tolist())
        return self._pgrpo_advantage(rows, lambda: compute(batch))


class V0Trainer(LegacyTrainer):
    """In front of RayPPOTrainer, which `main_ppo` takes with `trainer.use_v1=False`."""

    _pgrpo_trainer = "v0"

    def fit(self) -> None:
        if self.pgrpo_history is None:
            return super().fit()  # type: ignore[misc]
        # verl's loop calls a function of its module, where the later trainers have a method to override.
        from verl.trainer.ppo import ray_trainer

        stock = ray_trainer.compute_advantage

        def compute_advantage(data: Any, *args: Any, **kwargs: Any) -> Any:
            return self._pgrpo_batch_advantage(lambda batch: stock(batch, *args, **kwargs), data)

        ray_trainer.compute_advantage = compute_advantage
        try:
            return super().fit()  # type: ignore[misc]
        finally:
            ray_trainer.compute_advantage = stock

    def _update_actor(self, batch: Any) -> Any:
        output = super()._update_actor(batch)  # type: ignore[misc]
        if self.pgrpo_history is not None:
            # The loop's metrics are a local variable of it; these find their way there. verl takes their mean (or
            # maximum, or minimum, by their names), which of one number is that number.
            output.meta_info["metrics"].update(self._pgrpo_log.flush())
        return output


class _SeparateTrainer(LegacyTrainer):
    def _fit_compute_advantage(self, batch: Any) -> Any:
        compute = super()._fit_compute_advantage  # type: ignore[misc]
        return compute(batch) if self.pgrpo_history is None else self._pgrpo_batch_advantage(compute, batch)


class OneStepOffTrainer(_SeparateTrainer):
    """In front of OneStepOffRayTrainer."""

    _pgrpo_trainer = "one_step_off"

    def _fit_collect_metrics(self, batch: Any) -> None:
        super()._fit_collect_metrics(batch)  # type: ignore[misc]
        if self.pgrpo_history is not None:
            self.metrics.update(self._pgrpo_log.flush())  # type: ignore[attr-defined]


class FullyAsyncTrainer(_SeparateTrainer):
    """In front of the class behind the Ray actor FullyAsyncTrainer.

    Its checkpoints are numbered by the version of the rollouts' weights, several local steps each. The training data is
    in another process, so that what is wrong with its groups is found at the first advantage.
    """

    _pgrpo_trainer = "fully_async"

    def _pgrpo_checkpoint(self) -> int:
        return self.current_param_version  # type: ignore[attr-defined]

    async def load_checkpoint(self) -> Any:
        version = await super().load_checkpoint()  # type: ignore[misc]
        self._pgrpo_check_step()
        return version

    def _fit_log_aggregated_training_metrics(self, rollout_reset_timing_raw: dict[str, Any]) -> None:
        super()._fit_log_aggregated_training_metrics(rollout_reset_timing_raw)  # type: ignore[misc]
        if self.pgrpo_history is not None:
            # Not through verl's aggregator: it guesses from names (and would add up `observed_total`), and leaves each
            # version's last step to the next version.
            self.logger.log(data=self._pgrpo_log.flush(), step=self.current_param_version)  # type: ignore[attr-defined]


class GroupCarrier:
    """In front of FullyAsyncAgentLoopManager: the preference groups come back with the rollouts of a prompt."""

    async def generate_sequences_single(self, prompts: Any) -> Any:
        output = await super().generate_sequences_single(prompts)  # type: ignore[misc]
        if is_personalized(self.config):  # type: ignore[attr-defined]
            options = PGRPOConfig.from_algorithm(self.config.algorithm)  # type: ignore[attr-defined]
            output.non_tensor_batch[_GROUP] = groups_of(prompts, options)
        return output


def groups_of(batch: Any, options: PGRPOConfig) -> np.ndarray:
    """The raw group of each row of a batch that has the dataset's columns; blank text where there is none."""
    columns = batch.non_tensor_batch
    column, path = group_column(options.group_key, list(columns))
    groups = np.full(len(batch), "", dtype=object)
    for row, value in enumerate(columns.get(column, ())):
        group = nested_value(value, path, options.group_key)
        groups[row] = "" if group is None else group
    return groups


def personalize_module(module: ModuleType) -> None:
    """Put the classes above in front of verl's, in a module of verl's that has just been imported."""
    if module.__name__ == "verl.trainer.main_ppo_v0":
        _replace(module, "RayPPOTrainer", V0Trainer)
    elif module.__name__ == "verl.experimental.one_step_off_policy.ray_trainer":
        _replace(module, "OneStepOffRayTrainer", OneStepOffTrainer)
    elif module.__name__ == "verl.experimental.fully_async_policy.fully_async_rollouter":
        _replace(module, "FullyAsyncAgentLoopManager", GroupCarrier)
    elif module.__name__ == "verl.experimental.fully_async_policy.fully_async_trainer":
        _replace(module, "FullyAsyncTrainer", FullyAsyncTrainer)


def _replace(module: ModuleType, name: str, front: type) -> None:
    stock = getattr(module, name)
    if isinstance(stock, type):
        setattr(module, name, _in_front(front, stock, module))
        return
    # A Ray actor class, which has no subclasses: the class behind it has, with the same resources.
    import ray

    plain = stock.__ray_metadata__.modified_class.__ray_actor_class__
    setattr(module, name, ray.remote(**stock._default_options)(_in_front(front, plain, module)))


def _in_front(front: type, stock: type, module: ModuleType) -> type:
    # Under the name that it has in verl's module, so that pickles refer to it by that name.
    return type(stock.__name__, (front, stock), {"__doc__": stock.__doc__, "__module__": module.__name__})
