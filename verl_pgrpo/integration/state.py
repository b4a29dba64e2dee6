# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The state of one P-GRPO run: its reward history, its monitor, and the checkpoint of both.

It belongs to the process that runs the trainer (verl's TaskRunner, or fully-async's trainer actor), because that is
where all advantages are computed.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import ConfigError, HistoryFileError, HistoryFileWrongStep, UnsupportedVerlError
from verl_pgrpo.groups import shortened
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.integration.batch import BatchRows
from verl_pgrpo.integration.resume import compare_groups
from verl_pgrpo.monitoring import HistoryMonitor, describe_run

__all__ = ["HISTORY_FILE", "PGRPOState", "resume_checkpoint"]

HISTORY_FILE = "pgrpo_history.parquet"

_FIX_RESUME = (
    "Restore the file or the option, resume from an earlier checkpoint, or start with the history of a new run on "
    "purpose (for example if the checkpoint was trained with another estimator) with "
    "+algorithm.pgrpo.on_missing_history=reset."
)
_FIX_INITIAL = (
    "Create the file with `verl-pgrpo history convert`, with the run's --half-life, --group-key and --use-kl-in-reward."
)

T = TypeVar("T")


class PGRPOState:
    """History and monitor of one run. The trainer mixin owns it; the registered estimator delegates to it.

    Args:
        config: the run's options.
        history: the history at the start of the run; None for an empty one.
        step: the training step that it belongs to; 0 for a new run.
    """

    _active: ClassVar[PGRPOState | None] = None  # the state whose trainer is currently in verl's advantage step

    def __init__(self, config: PGRPOConfig, history: GroupHistoryManager | None = None, step: int = 0) -> None:
        self.config = config
        self.history = history if history is not None else GroupHistoryManager(config)
        self.step = step
        self._rows: BatchRows | None = None
        self._computed = False

    @classmethod
    def active(cls) -> PGRPOState:
        """Return the state whose trainer is in verl's advantage step.

        Raises:
            UnsupportedVerlError: no trainer with a reward history is.
        """
        if cls._active is None:
            raise UnsupportedVerlError(
                "adv_estimator=pgrpo needs a trainer with a reward history. verl's V1 trainers and, from verl's own "
                "launchers, its older ones (trainer.use_v1=False, one-step-off, fully-async) have one. For a V1 "
                "trainer class of your own, use verl_pgrpo.with_history(cls)."
            )
        return cls._active

    @classmethod
    def restore(cls, config: DictConfig) -> PGRPOState:
        """Create the state that a run with this verl config starts with: new, or from the checkpoint it resumes.

        Raises:
            ConfigError: an option is invalid.
            HistoryFileError: the checkpoint's history is missing, damaged, or from another step or configuration.
        """
        options = PGRPOConfig.from_algorithm(config.algorithm)
        folder = resume_checkpoint(config)
        if folder is None:
            _warn_about_ignored_checkpoints(config)
            return cls(options, _initial_history(options))
        match = re.search(r"global_step_(\d+)/*$", folder)
        if match is None:
            raise ConfigError(f"trainer.resume_from_path={folder} must end in global_step_<N>, like verl's checkpoints")
        step = int(match[1])
        try:
            return cls(options, GroupHistoryManager.load(os.path.join(folder, HISTORY_FILE), options, step), step)
        except HistoryFileError as error:
            if options.on_missing_history == "error":
                raise type(error)(f"{error} {_FIX_RESUME}") from error
            start = "an empty history" if options.initial_history is None else "initial_history"
            print(f"P-GRPO: starting with {start} (on_missing_history=reset), because: {error}", flush=True)
            return cls(options, _initial_history(options), step)

    @functools.cached_property
    def _monitor(self) -> HistoryMonitor:
        # Not built before `start`, which sets one that knows the data: each warns of labels that look alike.
        return HistoryMonitor(self.history)

    def start(self, sizes: Mapping[str, int] | None) -> None:
        """Announce the run, once its training set is known.

        Args:
            sizes: training rows per preference group; None if the dataset cannot be counted.

        Raises:
            ConfigError: the history that the run starts with has no group in common with the data.
        """
        difference = compare_groups(self.history.groups, sizes or ())
        if difference is not None and difference.severity == "error":
            raise ConfigError(
                f"{difference.message}. Check algorithm.pgrpo.group_key and data.train_files, or start with an empty "
                "history: trainer.resume_mode=disable, without initial_history."
            )
        if difference is not None:
            print(f"P-GRPO {difference.severity}: {difference.message}", flush=True)
        self._monitor = HistoryMonitor(self.history, sizes)
        print(describe_run(self.history, sizes), flush=True)

    def advantage_step(self, rows: BatchRows, step: Callable[[], T]) -> T:
        """Run verl's own advantage step, in which verl calls the registered estimator once for these rows.

        Raises:
            UnsupportedVerlError: verl did not call the estimator.
        """
        self._rows, self._computed, PGRPOState._active = rows, False, self
        try:
            result = step()
        finally:
            self._rows, PGRPOState._active = None, None
        if not self._computed:
            raise UnsupportedVerlError("verl's advantage step did not call the estimator pgrpo")
        return result

    def compute(self, token_level_rewards: Tensor, response_mask: Tensor, index: Sequence[Any] | None) -> Tensor:
        """Return the advantages (N, T) of the announced rows, and add their rewards to the history.

        The last output of each session counts. Every row gets the advantage of its session; padding, and sessions
        whose last output has no trained token, get zero. Arguments and errors: `compute_pgrpo_outcome_advantage`.
        """
        rows = self._rows
        if rows is None or self._computed:
            raise UnsupportedVerlError(
                "verl called the estimator pgrpo twice for one batch, which would count it twice"
            )
        if len(token_level_rewards) != len(rows.uids) or not (index is None or list(index) == rows.uids):
            raise UnsupportedVerlError(
                "verl's advantage step has other rows, or another order, than the batch's keys, so advantages would be "
                "assigned to the wrong responses"
            )
        with torch.no_grad():
            scores = token_level_rewards.sum(dim=-1)
            rewards = scores.double().cpu().numpy()
            counted = rows.counted(response_mask)
            result = self.history.compute_advantages(
                [rows.groups[row] for row in counted], rewards[counted], [rows.uids[row] for row in counted]
            )
            self._computed = True
            self._monitor.add(rewards[counted], result)
            of_session = np.zeros(len(rewards))
            of_session[counted] = result.advantages
            dtype = scores.dtype if scores.is_floating_point() else torch.float32
            per_row = torch.from_numpy(of_session[rows.last_output]).to(response_mask.device, dtype)
            return per_row.unsqueeze(-1) * response_mask

    def end_step(self) -> dict[str, float]:
        """Return the metrics of the training step, and print the warnings that are due."""
        return self._monitor.end_step()

    def save(self, folder: str | os.PathLike[str], step: int) -> None:
        """Write the history into a checkpoint folder, which is created if needed."""
        os.makedirs(folder, exist_ok=True)
        self.history.save(os.path.join(folder, HISTORY_FILE), step)

    def check_step(self, step: int) -> None:
        """Raise HistoryFileWrongStep unless verl resumed from the step that the history belongs to."""
        if step != self.step:
            raise HistoryFileWrongStep(
                f"verl resumed from step {step}, but the reward history is from step {self.step}: the checkpoint "
                "folder changed while the run was starting. Start it again."
            )


def _initial_history(options: PGRPOConfig) -> GroupHistoryManager | None:
    if options.initial_history is None:
        return None
    try:
        history = GroupHistoryManager.load(options.initial_history, options)
    except HistoryFileError as error:
        raise type(error)(f"initial_history: {error} {_FIX_INITIAL}") from error
    statistics = history.statistics(history.groups)
    unknown = int(np.isnan(statistics.within_std).sum())
    if options.baseline == "shrinkage" and unknown:
        print(
            f"P-GRPO warning: {options.initial_history} has no spread within prompts for {unknown} of "
            f"{history.num_groups} groups. Until their new rewards outnumber the old ones, baseline=shrinkage counts a "
            "difference between the old and the new spread as a difference between prompts. Create it from ratings "
            "with their prompts, or give it the columns within and within_dof.",
            flush=True,
        )
    return history


def resume_checkpoint(config: DictConfig) -> str | None:
    """Return the folder global_step_N that verl will resume from (see verl's PPOTrainer._load_checkpoint), or None."""
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    trainer = config.trainer
    if trainer.resume_mode == "auto":
        return find_latest_ckpt_path(os.path.abspath(trainer.default_local_dir))
    if trainer.resume_mode == "resume_path" and isinstance(trainer.resume_from_path, str):
        return os.path.abspath(trainer.resume_from_path)
    return None


def _warn_about_ignored_checkpoints(config: DictConfig) -> None:
    """Warn if verl starts from scratch although there are checkpoints: its tracker file is missing."""
    folder = Path(config.trainer.default_local_dir)
    found = (path.parent.name for path in folder.glob(f"global_step_*/{HISTORY_FILE}"))
    ignored = sorted(found, key=lambda name: (len(name), name))
    if config.trainer.resume_mode == "auto" and ignored:
        print(
            f"P-GRPO warning: verl starts from scratch, and so does the reward history, although {folder} has "
            f"checkpoints ({shortened(ignored)}): its tracker file latest_checkpointed_iteration.txt is missing or "
            "names none of them. To resume one, set trainer.resume_mode=resume_path and trainer.resume_from_path.",
            flush=True,
        )
