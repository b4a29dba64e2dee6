# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of an evaluation other than bad input files (`verl_pgrpo.errors.DataError`)."""

from __future__ import annotations

from verl_pgrpo.errors import PGRPOError

__all__ = ["GenerationError", "JudgeError", "RewardError"]


class GenerationError(PGRPOError, RuntimeError):
    """A model cannot be loaded, or vLLM failed."""


class RewardError(PGRPOError, RuntimeError):
    """A reward function cannot be loaded, raises, or returns no finite number."""


class JudgeError(PGRPOError, RuntimeError):
    """A judge is unreachable, rejects every request, or would cost more than allowed."""
