# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run the checks of a launch in this process: `python -m verl_pgrpo.preflight.worker FOLDER`.

FOLDER holds `config.yaml` and `settings.json`. What is found is appended to `results.jsonl`, a line at a time, so that
the parent process knows what was found and tried if this one hangs or crashes.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from .checks import run_checks
from .context import PreflightContext, Settings
from .runner import RESULTS


def main(folder: Path) -> None:
    while not (folder / "ready").exists():
        time.sleep(0.05)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    settings["skip"] = tuple(settings["skip"])
    config: Any = OmegaConf.load(folder / "config.yaml")
    OmegaConf.set_struct(config, True)
    with open(folder / RESULTS, "w", encoding="utf-8", buffering=1) as results:
        run_checks(PreflightContext(config, Settings(**settings)), lambda event: print(json.dumps(event), file=results))


if __name__ == "__main__":
    status: object = 0
    try:
        main(Path(sys.argv[1]))
    except SystemExit as end:  # the user's code
        status = 0 if end.code is None else end.code
    if not isinstance(status, int):
        print(status, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)  # at once: verl and torch take seconds to shut down
