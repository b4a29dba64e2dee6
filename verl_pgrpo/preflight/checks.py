# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""All checks of a launch, in their order. Importing them imports torch; verl is imported when they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .checkpoints import check_checkpoints
from .config import check_config
from .context import PreflightContext
from .data import check_data, check_steps
from .diagnostic import Diagnostics
from .groups import check_groups
from .model import check_model, check_trainer
from .reward import check_reward
from .sizes import check_sizes
from .values import check_values

__all__ = ["CHECKS", "run_checks"]

# In this order: later ones read what earlier ones have built.
CHECKS: tuple[tuple[str, Callable[[PreflightContext, Diagnostics], None]], ...] = (
    ("config", check_values),
    ("config", check_config),
    ("config", check_trainer),
    ("model", check_model),
    ("parallel", check_sizes),
    ("data", check_data),
    ("groups", check_groups),
    ("steps", check_steps),
    ("checkpoints", check_checkpoints),
    ("reward", check_reward),
)
NEEDS_SIZES = {check_steps, check_sizes}


def run_checks(context: PreflightContext, emit: Callable[[dict[str, Any]], None]) -> None:
    """Run the checks in this process, and emit what they find as it is found."""
    context.progress = lambda text: emit({"progress": text})
    for name, check in CHECKS:
        skipped = name in context.settings.skip
        if (skipped and check is not check_trainer) or (check in NEEDS_SIZES and not context.sizes_valid):
            continue
        emit({"check": name})
        found = Diagnostics(name)
        try:
            check(context, found)
        except Exception as error:
            if context.sizes_valid:  # otherwise the reason has been reported
                found.unchecked(error)
        for diagnostic in [] if skipped else found.found:
            emit({"diagnostic": diagnostic.as_dict()})
    emit({"facts": context.facts})
