# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The context that the checks of a launch share: each check adds to it, and later ones read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pgrpo.config import PGRPOConfig

__all__ = ["PreflightContext", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `preflight` in addition to the launch's arguments."""

    model_config: str | None = None  # path of a config.json, for a model that is not on this machine
    reward_timeout: float = 10.0  # seconds for all calls of the reward function, its import included
    skip: tuple[str, ...] = ()  # names of checks, e.g. of a reward function whose calls cost money
    timeout: float = 600.0  # seconds for each other check


@dataclass(slots=True)
class PreflightContext:
    """A composed launch and the objects of verl that were built for it."""

    config: DictConfig
    settings: Settings = field(default_factory=Settings)
    sizes_valid: bool = True  # whether the keys needed for arithmetic are numbers
    options: PGRPOConfig | None = None  # options of P-GRPO, if the run uses it and they are valid
    trainer: Any = None  # one of verl's trainers, with tokenizer and dataloaders only
    hf_config: Any = None  # the model's configuration
    groups: dict[str, int] | None = None  # training rows of each preference group
    columns_valid: bool = True  # whether no column has a name that verl uses
    facts: list[str] = field(default_factory=list)  # sizes of the launch as text
    emit: Callable[[dict[str, Any]], None] = lambda _: None  # informs the parent process of the next attempt

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the configuration by its dotted key."""
        value = OmegaConf.select(self.config, key, throw_on_missing=False)
        return default if value is None else value
