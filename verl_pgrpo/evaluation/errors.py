# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of an evaluation other than bad input files (`verl_pgrpo.errors.DataError`)."""

from __future__ import annotations

from importlib.util import find_spec

from verl_pgrpo.errors import PGRPOError

__all__ = ["GenerationError", "JudgeError", "NotInstalledError", "RewardError", "require"]


class NotInstalledError(PGRPOError, ImportError):
    """An optional library is missing."""


class GenerationError(PGRPOError, RuntimeError):
    """A model cannot be loaded, or vLLM failed."""


class RewardError(PGRPOError, RuntimeError):
    """A reward function cannot be loaded, raises, or returns no finite number."""


class JudgeError(PGRPOError, RuntimeError):
    """A judge is unreachable, rejects every request, or would cost more than allowed."""


def require(*modules: str, remedy: str = 'pip install "verl-pgrpo[eval]"') -> None:
    """Raise NotInstalledError for the first of these modules that is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise NotInstalledError(f"{module} is not installed: {remedy}")
