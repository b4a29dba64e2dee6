# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The arguments of `python3 -m verl.trainer.main_ppo`, composed as Hydra composes them there.

Nothing of verl is imported for this: it takes a second, and `import verl` several.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

from verl_pgrpo.errors import ConfigError, UnsupportedVerlError

MAIN_PPO = ["-m", "verl.trainer.main_ppo"]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Hydra's arguments: which configuration, where besides verl's own folder to look for it, and the overrides."""

    config_name: str
    config_path: str
    config_dir: str | None
    overrides: tuple[str, ...]

    def without(self, override: str) -> CommandLine:
        return replace(self, overrides=tuple(other for other in self.overrides if other != override))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"not arguments that main_ppo takes for one run: {message}")


def parse(arguments: Sequence[str]) -> CommandLine:
    """What follows `python3 -m verl.trainer.main_ppo`; these words themselves may be there, too.

    Raises:
        ConfigError: an option that Hydra does not have, or that does not run anything.
    """
    arguments = list(arguments)
    if MAIN_PPO[1] in arguments:
        arguments = arguments[arguments.index(MAIN_PPO[1]) + 1 :]
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-name", "-cn", default="ppo_trainer")
    parser.add_argument("--config-path", "-cp", default="config")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args(arguments)
    return CommandLine(options.config_name, options.config_path, options.config_dir, tuple(options.overrides))


def compose(line: CommandLine) -> DictConfig:
    """verl's configuration tree.

    Raises:
        hydra.errors.HydraException: what Hydra would say.
        ConfigError: there is no folder of that name.
        UnsupportedVerlError: verl is not installed.
    """
    main = trainer_folder() / line.config_path  # an absolute one stands for itself
    if not main.is_dir():
        raise ConfigError(f"--config-path {line.config_path}: there is no folder {main}")
    if line.config_dir is not None and not Path(line.config_dir).is_dir():
        raise ConfigError(f"--config-dir {line.config_dir}: there is no folder {Path(line.config_dir).absolute()}")
    Plugins.instance().register(_ExtraFolder)
    _ExtraFolder.path = None if line.config_dir is None else os.path.abspath(line.config_dir)
    try:
        with hydra.initialize_config_dir(str(main), version_base=None):
            return hydra.compose(line.config_name, list(line.overrides))
    finally:
        _ExtraFolder.path = None


class _ExtraFolder(SearchPathPlugin):
    """`--config-dir`, which Hydra's functions do not take: at the same place of the search path."""

    path: str | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.path is not None:
            search_path.append("command-line", f"file://{self.path}")


def trainer_folder() -> Path:
    """verl's folder `trainer`, found without importing verl."""
    spec = find_spec("verl")
    if spec is None or spec.origin is None:
        raise UnsupportedVerlError("verl is not installed here; `verl-pgrpo doctor` says what is missing")
    return Path(spec.origin).parent / "trainer"
