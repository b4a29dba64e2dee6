# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: where things are, and verl's configuration composed as its command line composes it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no error of the code under test.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell starts background jobs with SIGINT ignored, and whatever they start inherits that: the tests of Ctrl-C would
# then test nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def compose():
    """`compose("key=value", ...)`: the configuration of `main_ppo --config-dir verl_cpu/presets --config-name cpu`."""
    import verl
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    def composed(*overrides: str, config_name: str = "cpu"):
        search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
        with initialize_config_dir(str(ROOT / "verl_cpu" / "presets"), version_base=None):
            return hydra_compose(config_name, overrides=[search, "actor_rollout_ref.model.path=tiny", *overrides])

    return composed
