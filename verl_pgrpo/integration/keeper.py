# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What every trainer of verl's needs to keep a reward history: made or restored at the start, saved with a checkpoint.

The history lives in the process that runs the trainer (verl's TaskRunner, or fully-async's trainer actor), as P-GRPO
needs it in one place only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import HistoryFileWrongStep
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.integration.checks import HISTORY_FILE, is_personalized, restored_history
from verl_pgrpo.integration.estimator import batch_of_run
from verl_pgrpo.integration.plugin import check_run
from verl_pgrpo.integration.rows import Column, Rows
from verl_pgrpo.run_log import RunLog

__all__ = ["HistoryKeeper"]


class HistoryKeeper:
    """Goes in front of one of verl's trainers. In a run of another estimator it does nothing but call verl's methods.

    Attributes:
        pgrpo_history: the history, None in a run of another estimator; a trainer's own code may read it.
    """

    pgrpo_history: GroupHistoryManager | None
    _pgrpo_trainer: str  # a key of `compat.TRAINERS`

    def __init__(self, config: DictConfig, *args: Any, **kwargs: Any) -> None:
        self.pgrpo_history = None
        if is_personalized(config):
            check_run(config, self._pgrpo_trainer)
            self._pgrpo_options = PGRPOConfig.from_algorithm(config.algorithm)
            self.pgrpo_history, self._pgrpo_step = restored_history(config, self._pgrpo_options)
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]

    def _pgrpo_begin(self, sizes: Mapping[str, int] | None) -> None:
        """The training set is known; `sizes` has its rows per preference group, if they can be counted."""
        assert self.pgrpo_history is not None
        self._pgrpo_log = RunLog(self.pgrpo_history, sizes)

    def _pgrpo_advantage(self, rows: Rows, compute: Callable[[], Any], column: Column | None = None) -> Any:
        """verl's own advantage step `compute`, on a batch of `rows`, with the history at hand.

        `column`: where verl itself hands over the rows' groups, which `rows` then lacks.
        """
        assert self.pgrpo_history is not None
        self.pgrpo_history.prepare(rows.groups)
        with batch_of_run(self.pgrpo_history, rows, column) as run:
            result = compute()
        assert run.outcome is not None  # batch_of_run has seen to it
        self._pgrpo_log.add(*run.outcome)
        return result

    def _pgrpo_checkpoint(self) -> int:
        """The number in the name of the checkpoint that verl is about to write, or has just read."""
        return self.global_steps  # type: ignore[attr-defined]

    def _save_checkpoint(self) -> None:
        if self.pgrpo_history is not None:
            # Before verl's own files: its tracker, written last, must never name a checkpoint without a history.
            step = self._pgrpo_checkpoint()
            folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{step}")  # type: ignore[attr-defined]
            os.makedirs(folder, exist_ok=True)
            self.pgrpo_history.save(os.path.join(folder, HISTORY_FILE), step=step)
        super()._save_checkpoint()  # type: ignore[misc]

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()  # type: ignore[misc]
        self._pgrpo_check_step()

    def _pgrpo_check_step(self) -> None:
        if self.pgrpo_history is not None and self._pgrpo_checkpoint() != self._pgrpo_step:
            raise HistoryFileWrongStep(
                f"verl resumed from step {self._pgrpo_checkpoint()}, the reward history is of step "
                f"{self._pgrpo_step}: the checkpoint folder changed while the run was starting. Start it again."
            )
