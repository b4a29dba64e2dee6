# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a launch so far: each check adds to it, and later ones go by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_pgrpo.config import PGRPOConfig

from .data_files import DataFiles
from .models import Model
from .phases import Estimate
from .settings import Launch

__all__ = ["Run", "Settings", "Split"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What `preflight` is told beside the launch."""

    gpu: float | None = None  # GiB of one
    model_config: Path | None = None  # a config.json, where the model is not on this machine
    reward_timeout: float = 10.0  # seconds for the reward function on all rows, its imports included
    skip: tuple[str, ...] = ()  # names of checks: of a reward that costs money, for example


@dataclass(slots=True)
class Split:
    """Training or validation data that could be opened."""

    name: str
    key: str  # data.train_files or data.val_files
    files: DataFiles
    prompts: str | None = None  # the column, if it holds chat messages
    scorable: bool = False  # whether rows have what a reward function is called with
    sources: Counter[str | None] = field(default_factory=Counter)  # rows of each data_source
    first_rows: dict[str, int] = field(default_factory=dict)  # the first row of some of them
    groups: dict[str, int] | None = None  # rows of each preference group

    @property
    def where(self) -> str:
        return f"{self.key}: {self.files}"


@dataclass(slots=True)
class Run:
    """A composed launch."""

    config: DictConfig
    settings: Settings
    sound: bool = True  # whether sizes are numbers and paths are texts
    splits: dict[str, Split] = field(default_factory=dict)  # training, validation
    options: PGRPOConfig | None = None  # of P-GRPO, if this is a run of it and they are good
    launch: Launch | None = None
    model: Model | None = None
    tokenizer: Any = None
    steps: int | None = None  # of the whole run
    memory: Estimate | None = None
    trial: Any = None  # the reward function's, while it goes on
    facts: list[str] = field(default_factory=list)  # sizes in words

    @property
    def on_cpu(self) -> bool:
        return str(self.config.trainer.device) == "cpu"
