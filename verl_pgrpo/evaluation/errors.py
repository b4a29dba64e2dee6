# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in an evaluation beyond its input files, said in one line."""

from __future__ import annotations

from importlib.util import find_spec

from verl_pgrpo.errors import PGRPOError

__all__ = ["GenerationError", "JudgeError", "NotInstalledError", "RewardError", "require"]


class NotInstalledError(PGRPOError, ImportError):
    """A library that only some commands need."""


def require(*modules: str, remedy: str = 'pip install "verl-pgrpo[eval]"') -> None:
    """Raises NotInstalledError for the first of these modules that is not there."""
    for module in modules:
        if find_spec(module) is None:
            raise NotInstalledError(f"{module} is not installed: {remedy}")


class GenerationError(PGRPOError, RuntimeError):
    """A model that cannot be loaded, or did not generate."""


class RewardError(PGRPOError, RuntimeError):
    """A reward function that cannot be loaded, raises, or gives no finite number."""


class JudgeError(PGRPOError, RuntimeError):
    """A judge that cannot be reached, refuses, or costs more than allowed."""
