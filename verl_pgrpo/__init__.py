# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Personalized GRPO (P-GRPO, arXiv 2603.10009) for verl.

Importing this package imports nothing else: verl loads the plugin in every process, most of which need none of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verl_pgrpo.advantage import personalized_advantage
    from verl_pgrpo.config import PGRPOConfig
    from verl_pgrpo.history import GroupHistoryManager

__all__ = ["GroupHistoryManager", "PGRPOConfig", "personalized_advantage"]
__version__ = "0.1.0"

_HOME = {"GroupHistoryManager": "history", "PGRPOConfig": "config", "personalized_advantage": "advantage"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"verl_pgrpo.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
