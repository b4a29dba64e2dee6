# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Base trainer mixin: restore the reward history, and save it with each checkpoint."""

from __future__ import annotations

import os
from typing import Any

import verl
from omegaconf import DictConfig

from verl_pgrpo.integration.checks import TESTED_VERSIONS, check_config, check_verl, is_personalized
from verl_pgrpo.integration.state import PGRPOState

__all__ = ["PGRPOTrainerMixin"]


class PGRPOTrainerMixin:
    """Trainer mixin that owns the reward history. No-op unless adv_estimator=pgrpo.

    Attributes:
        pgrpo: the run's state; None in a run with another estimator.
    """

    pgrpo: PGRPOState | None = None

    def __init__(self, config: DictConfig, *args: Any, **kwargs: Any) -> None:
        if is_personalized(config):
            check_verl(config)  # again: not every launcher of verl validates its config
            check_config(config)
            if verl.__version__ not in TESTED_VERSIONS:
                print(f"P-GRPO warning: verl {verl.__version__} is not tested ({', '.join(TESTED_VERSIONS)} are)")
            self.pgrpo = PGRPOState.restore(config)
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]

    def _pgrpo_checkpoint_step(self) -> int:
        """Return the number in the name of the checkpoint that verl is about to write, or has just read."""
        return self.global_steps  # type: ignore[attr-defined]

    def _save_checkpoint(self) -> None:
        if self.pgrpo is not None:
            # Before verl's own files: its tracker, written last, must never name a checkpoint without a history.
            step = self._pgrpo_checkpoint_step()
            self.pgrpo.save(os.path.join(self.config.trainer.default_local_dir, f"global_step_{step}"), step)  # type: ignore[attr-defined]
        super()._save_checkpoint()  # type: ignore[misc]

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()  # type: ignore[misc]
        if self.pgrpo is not None:
            self.pgrpo.check_step(self._pgrpo_checkpoint_step())
