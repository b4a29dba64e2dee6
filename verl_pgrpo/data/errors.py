# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with input data. Both are said in one line: what, where (file and line), and what to do."""

from __future__ import annotations

from verl_pgrpo.errors import PGRPOError

__all__ = ["DataError", "LeakError"]


class DataError(PGRPOError, ValueError):
    """A file, line, column or option from which no data set can be made."""


class LeakError(DataError):
    """Something of the test side of a split has reached a prompt, a cluster or a feature."""
