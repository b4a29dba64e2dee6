# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run all checks of a launch, in their order: `python -m verl_pgrpo.preflight.checks FOLDER`.

FOLDER holds `config.yaml` and `settings.json`. Results are appended to `results.jsonl` line by line, so the parent
process knows what was found and tried if this process hangs or crashes. A check that takes longer than its limit ends
this process with a traceback.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from .checkpoints import check_checkpoints
from .config import check_config
from .context import PreflightContext, Settings
from .data import check_data, check_steps
from .diagnostic import Diagnostics, one_line
from .groups import check_groups
from .model import check_model, check_trainer
from .reward import check_reward
from .runner import RESULTS
from .sizes import check_sizes
from .values import check_values
from .weight_sync import check_weight_sync

__all__ = ["CHECKS", "run_checks"]

# In this order: later checks use objects that earlier ones have built.
CHECKS: tuple[tuple[str, Callable[[PreflightContext, Diagnostics], None]], ...] = (
    ("config", check_values),
    ("config", check_config),
    ("config", check_trainer),
    ("model", check_model),
    ("parallel", check_sizes),
    ("parallel", check_weight_sync),
    ("data", check_data),
    ("groups", check_groups),
    ("steps", check_steps),
    ("checkpoints", check_checkpoints),
    ("reward", check_reward),
)


def run_checks(context: PreflightContext, emit: Callable[[dict[str, Any]], None]) -> None:
    """Run the checks in this process, and emit each result immediately."""
    context.emit = emit
    for name, check in CHECKS:
        skipped = name in context.settings.skip
        if skipped and check is not check_trainer:  # other checks need it
            continue
        emit({"check": name, "progress": "", "limit": context.settings.timeout})
        found = Diagnostics(name)
        try:
            check(context, found)
        except Exception as error:  # in the check itself, so it says nothing about the run
            if context.sizes_valid:  # otherwise the reason has been reported
                found.warning(f"could not be checked: {one_line(error)}", f"check '{name}'", "check it by hand")
        for diagnostic in [] if skipped else found.found:
            emit({"diagnostic": diagnostic.as_dict()})
    emit({"facts": context.facts})


def main(folder: Path) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    config: Any = OmegaConf.load(folder / "config.yaml")
    OmegaConf.set_struct(config, True)
    with open(folder / RESULTS, "w", encoding="utf-8", buffering=1) as results:

        def emit(event: dict[str, Any]) -> None:
            print(json.dumps(event), file=results)
            if "limit" in event:
                faulthandler.dump_traceback_later(event["limit"], exit=True, file=2)

        run_checks(PreflightContext(config, Settings(**settings)), emit)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # immediately: verl and torch take seconds to shut down
