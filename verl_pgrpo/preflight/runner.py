# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Validate a verl launch before it starts. Needs no GPU, no Ray and no weights.

    report = preflight(["algorithm.adv_estimator=pgrpo", "data.train_files=...", ...])     # main_ppo's arguments
    report.ok, report.diagnostics

The configuration is composed here. Everything else runs in a separate process (`checks.py`), because it imports verl
and runs the user's code: dataset class, reward function, agent loops.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .command_line import compose_valid_part, parse
from .context import Settings
from .diagnostic import ERROR, SEVERITIES, Diagnostic, Diagnostics
from .isolated import IsolatedProcess

__all__ = ["CHECK_NAMES", "Report", "preflight"]

CHECK_NAMES = ("config", "model", "parallel", "data", "groups", "steps", "checkpoints", "reward")
RESULTS = "results.jsonl"
USERS_CODE = {"reward": "the reward function", "data": "the dataset class"}  # by check


@dataclass(slots=True)
class Report:
    """The diagnostics, errors first; `facts` are sizes of the launch as text."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not any(diagnostic.severity == ERROR for diagnostic in self.diagnostics)

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self), "seconds": round(self.seconds, 1)}


def preflight(arguments: Sequence[str], settings: Settings | None = None) -> Report:
    """Check a launch.

    Args:
        arguments: those of `python3 -m verl.trainer.main_ppo`.
        settings: None for the defaults.

    Raises:
        ConfigError: these are not the arguments of a single run.
    """
    started = time.monotonic()
    found = Diagnostics("arguments")
    config = compose_valid_part(parse(arguments), found)
    report = Report(found.found)
    if config is not None:
        _run_checks(config, settings or Settings(), report)
    report.diagnostics.sort(key=lambda diagnostic: SEVERITIES.index(diagnostic.severity))
    report.seconds = time.monotonic() - started
    return report


def _run_checks(config: DictConfig, settings: Settings, report: Report) -> None:
    files = {"config.yaml": OmegaConf.to_yaml(config), "settings.json": json.dumps(asdict(settings))}
    environment = {**os.environ, "RAY_ENABLE_AUTO_CONNECT": "0", "TOKENIZERS_PARALLELISM": "false"}
    with IsolatedProcess("checks", files=files, environment=environment) as process:
        process.ends_by(math.inf)  # it enforces its limits itself
        events = [json.loads(line) for line in process.read(RESULTS).split("\n")[:-1]]
        late = re.search(r"^Timeout \(\d+:\d\d:\d\d", process.read(), re.MULTILINE)  # faulthandler's message
        last_line = process.last_output_line
    report.diagnostics += [Diagnostic(**event["diagnostic"]) for event in events if "diagnostic" in event]
    last: dict[str, Any] = {key: value for event in events for key, value in event.items()}
    if "facts" in last:
        report.facts = last["facts"]
        return
    check, doing = last.get("check", "config"), last.get("progress", "")
    how = f"did not finish in {last['limit']:g} s" if late else f"ended with status {process.returncode}: {last_line}"
    fix = "see the message"
    if late:
        fix = f"if it is only slow: {'--reward-timeout 120' if check == 'reward' else f'--skip {check}'}"
    found = Diagnostics(check)
    subject = USERS_CODE.get(check, f"the check '{check}'")
    found.error(f"{subject} {how}{f' ({doing})' if doing else ''}", doing or check, fix)
    report.diagnostics += found.found
