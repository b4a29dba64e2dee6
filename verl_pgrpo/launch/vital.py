# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A line of what `doctor` says."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, BAD = "ok", "warn", "FAIL"


@dataclass(frozen=True, slots=True)
class Vital:
    """`name: value`, how good that is, and what to do about it."""

    name: str
    status: str
    value: str
    fix: str = ""
