# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Personalized GRPO (P-GRPO, arXiv 2603.10009) for verl.

Importing this package loads no other module: verl loads the plugin in every process, and most processes do not need it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verl_pgrpo.advantage import personalized_advantage
    from verl_pgrpo.config import PGRPOConfig
    from verl_pgrpo.errors import (
        ConfigError,
        DataError,
        GroupLabelError,
        HistoryFileAltered,
        HistoryFileError,
        HistoryFileMissing,
        HistoryFileOtherConfig,
        HistoryFileTooNew,
        HistoryFileWrongStep,
        MissingGroupError,
        NonFiniteRewardError,
        PGRPOError,
        UnsupportedVerlError,
    )
    from verl_pgrpo.history import GroupHistoryManager
    from verl_pgrpo.integration.trainers import with_history as with_history

__all__ = [
    "ConfigError",
    "DataError",
    "GroupHistoryManager",
    "GroupLabelError",
    "HistoryFileAltered",
    "HistoryFileError",
    "HistoryFileMissing",
    "HistoryFileOtherConfig",
    "HistoryFileTooNew",
    "HistoryFileWrongStep",
    "MissingGroupError",
    "NonFiniteRewardError",
    "PGRPOConfig",
    "PGRPOError",
    "UnsupportedVerlError",
    "personalized_advantage",
]
__version__ = "0.1.0"

# `with_history` needs verl, so it is not in __all__: a star import must work without verl.
_MODULE_OF = {
    "GroupHistoryManager": "history",
    "PGRPOConfig": "config",
    "personalized_advantage": "advantage",
    "with_history": "integration.trainers",
}


def __getattr__(name: str) -> Any:
    if name in __all__ or name in _MODULE_OF:
        return getattr(importlib.import_module(f"verl_pgrpo.{_MODULE_OF.get(name, 'errors')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
