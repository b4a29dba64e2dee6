# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Validate a verl launch before it starts. Needs no GPU, no Ray and no weights.

    report = preflight(["algorithm.adv_estimator=pgrpo", "data.train_files=...", ...])     # main_ppo's arguments
    report.ok, report.diagnostics

The configuration is composed here. Everything else runs in a process of its own (`worker.py`), because it imports verl
and runs the user's code: dataset class, reward function, agent loops.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .command_line import compose_valid_part, parse
from .context import Settings
from .diagnostic import ERROR, SEVERITIES, Diagnostic, Diagnostics
from .isolated import IsolatedProcess

__all__ = ["CHECK_NAMES", "Report", "preflight"]

CHECK_NAMES = ("config", "model", "parallel", "data", "groups", "steps", "checkpoints", "reward")
RESULTS = "results.jsonl"


@dataclass(slots=True)
class Report:
    """The diagnostics, errors first; `facts` are sizes of the launch in words."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not any(diagnostic.severity == ERROR for diagnostic in self.diagnostics)

    def as_dict(self) -> dict[str, Any]:
        found = [diagnostic.as_dict() for diagnostic in self.diagnostics]
        return {"ok": self.ok, "diagnostics": found, "facts": self.facts, "seconds": round(self.seconds, 1)}


def preflight(arguments: Sequence[str], settings: Settings | None = None) -> Report:
    """Check a launch.

    Args:
        arguments: those of `python3 -m verl.trainer.main_ppo`.
        settings: None for the defaults.

    Raises:
        ConfigError: these are not arguments of one run.
    """
    started, settings = time.monotonic(), settings or Settings()
    found = Diagnostics("arguments")
    config = compose_valid_part(parse(arguments), found)
    report = Report(found.found)
    if config is not None:
        _run_isolated(config, settings, report)
    report.diagnostics.sort(key=lambda diagnostic: SEVERITIES.index(diagnostic.severity))
    report.seconds = time.monotonic() - started
    return report


def _run_isolated(config: DictConfig, settings: Settings, report: Report) -> None:
    environment = {**os.environ, "RAY_ENABLE_AUTO_CONNECT": "0", "TOKENIZERS_PARALLELISM": "false"}
    with IsolatedProcess("worker", environment=environment) as process:
        (process.folder / "config.yaml").write_text(OmegaConf.to_yaml(config), encoding="utf-8")
        (process.folder / "settings.json").write_text(json.dumps(asdict(settings)), encoding="utf-8")
        (process.folder / "ready").touch()
        seen: tuple[str, bool] = "", False
        since, late, limit = time.monotonic(), False, settings.timeout
        while not process.wait(time.monotonic() + 0.2):
            check, running = _last(_events(process.folder / RESULTS))
            if (check, running) != seen:
                seen, since = (check, running), time.monotonic()
            limit = settings.reward_timeout if check == "reward" and running else settings.timeout
            if late := time.monotonic() - since > limit:
                break
        events = _events(process.folder / RESULTS)
        last_line = process.last_output_line
        status = process.stop()
    report.diagnostics += [Diagnostic(**event["diagnostic"]) for event in events if "diagnostic" in event]
    report.facts = next((event["facts"] for event in events if "facts" in event), [])
    if not any("facts" in event for event in events):
        _report_end(
            events, f"did not finish in {limit:g} s" if late else f"ended with status {status}: {last_line}", report
        )


def _report_end(events: list[dict[str, Any]], how: str, report: Report) -> None:
    """Report a process that hung or crashed, with what it was doing."""
    check = next((event["check"] for event in reversed(events) if "check" in event), "config")
    doing = next((event["progress"] for event in reversed(events) if "progress" in event), "")
    subject = {"reward": "the reward function", "data": "the dataset class"}.get(check, f"the check '{check}'")
    found = Diagnostics(check)
    fix = "if it is only slow: --reward-timeout 120" if "finish" in how and check == "reward" else "see the message"
    found.error(f"{subject} {how}{f' ({doing})' if doing else ''}", doing or check, fix)
    report.diagnostics += found.found


def _last(events: list[dict[str, Any]]) -> tuple[str, bool]:
    """The check that is under way, and whether it has announced what it tries."""
    at = max((number for number, event in enumerate(events) if "check" in event), default=-1)
    return (events[at]["check"], any("progress" in event for event in events[at:])) if at >= 0 else ("", False)


def _events(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
