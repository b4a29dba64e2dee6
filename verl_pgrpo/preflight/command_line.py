# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Compose the arguments of `python3 -m verl.trainer.main_ppo` as Hydra does, without importing verl."""

from __future__ import annotations

import difflib
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_pgrpo.errors import ConfigError, PGRPOError, UnsupportedVerlError

from .diagnostic import Diagnostics, one_line

__all__ = ["compose", "compose_valid_part", "parse"]

MAIN_PPO = "verl.trainer.main_ppo"


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"not arguments of one main_ppo run: {message}")


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse what follows `python3 -m verl.trainer.main_ppo`; the words up to main_ppo may be included.

    Returns config_name, config_path, config_dir and overrides.

    Raises:
        ConfigError: an option that Hydra does not have, or with which Hydra does not start a run.
    """
    arguments = list(arguments)
    if MAIN_PPO in arguments:
        arguments = arguments[arguments.index(MAIN_PPO) + 1 :]
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-name", "-cn", default="ppo_trainer")
    parser.add_argument("--config-path", "-cp", default="config")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("overrides", nargs="*")
    return parser.parse_args(arguments)


def compose(line: Namespace) -> DictConfig:
    """Return verl's configuration.

    Raises:
        hydra.errors.HydraException: an override that Hydra rejects.
        ConfigError: a configuration folder does not exist.
        UnsupportedVerlError: verl is not installed.
    """
    spec = find_spec("verl")
    if spec is None or spec.origin is None:
        raise UnsupportedVerlError("verl is not installed here; run `verl-pgrpo doctor`")
    main = Path(spec.origin).parent / "trainer" / line.config_path  # an absolute path replaces what precedes it
    _ExtraFolder.path = None if line.config_dir is None else os.path.abspath(line.config_dir)
    for option, given, folder in (("path", line.config_path, main), ("dir", line.config_dir, _ExtraFolder.path)):
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"--config-{option} {given}: no such folder: {folder}")
    Plugins.instance().register(_ExtraFolder)
    try:
        with hydra.initialize_config_dir(str(main), version_base=None):
            return hydra.compose(line.config_name, line.overrides)
    finally:
        _ExtraFolder.path = None


class _ExtraFolder(SearchPathPlugin):
    """Apply `--config-dir`, which Hydra's compose API does not support."""

    path: str | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.path is not None:
            search_path.append("command-line", f"file://{self.path}")


def compose_valid_part(line: Namespace, diagnostics: Diagnostics) -> DictConfig | None:
    """Compose without the overrides that Hydra rejects, which are reported; None if nothing can be composed."""
    rejected: dict[str, Exception] = {}
    config = None
    while config is None:
        try:
            config = compose(line)
            OmegaConf.to_container(config, resolve=True)
        except (HydraException, OmegaConfBaseException, PGRPOError) as error:
            config = None
            culprit = _culprit(error, line.overrides)
            if culprit is None:
                diagnostics.error(one_line(error), "the command line", "see the message")
                break
            rejected[culprit] = error
            line.overrides = [override for override in line.overrides if override != culprit]
    for override, rejection in rejected.items():
        diagnostics.error(one_line(rejection), override, _fix(override, rejection, config))
    return config


def _culprit(error: Exception, overrides: Sequence[str]) -> str | None:
    """Return the override that Hydra rejects, unless it selects a whole file."""
    missing = re.match(r"Interpolation key '(.*)' not found", str(error))
    for override in overrides:
        try:
            key = OverridesParser.create().parse_overrides([override])[0].key_or_group
        except HydraException:
            return override
        if re.search(rf"'{re.escape(key)}['=]", str(error)) or (missing and f"${{{missing[1]}}}" in override):
            return override
    return None


def _fix(override: str, error: Exception, config: DictConfig | None) -> str:
    if "Interpolation" in str(error):
        return "write out the value that it refers to"
    if "Could not append" in str(error):
        return f"the key exists already: {override.lstrip('+')}"
    parent, dot, name = override.lstrip("+~").partition("=")[0].rpartition(".")
    node: Any = OmegaConf.select(config, parent) if config is not None and parent else config
    near = difflib.get_close_matches(name, map(str, node), n=1) if OmegaConf.is_dict(node) else []
    if near and near[0] != name:
        return f"did you mean {parent}{dot}{near[0]}?"
    if "Could not override" in str(error):
        return f"to add a key of your own: +{override}"
    return "write key=value; quote a value with special characters twice: \"key='~/value'\""
