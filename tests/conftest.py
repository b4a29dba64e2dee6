# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: paths, and verl's configuration composed as on its command line."""

from __future__ import annotations

import copy
import functools
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is not a failure of the code under test.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell starts background jobs with SIGINT ignored, and their children inherit that. The tests of Ctrl-C would then
# have no effect.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def composed(config_name: str):
    """The configuration of `main_ppo --config-dir verl_cpu/presets --config-name cpu`."""
    import hydra
    import verl

    search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
    with hydra.initialize_config_dir(str(ROOT / "verl_cpu" / "presets"), version_base=None):
        return hydra.compose(config_name, overrides=[search, "actor_rollout_ref.model.path=tiny"])


def overridden(config, *overrides: str):
    """Return a copy with overrides applied as Hydra does, in a tenth of the time of composing."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser

    config = copy.deepcopy(config)
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides([*overrides]), config)
    return config


@pytest.fixture
def short_tmpdir():
    """A TMPDIR of its own; `tmp_path` is too long for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def compose():
    """`compose("key=value", ...)`: a configuration as main_ppo composes it."""
    return lambda *overrides, config_name="cpu": overridden(composed(config_name), *overrides)
