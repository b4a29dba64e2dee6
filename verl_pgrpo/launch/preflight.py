# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Everything of a launch that would fail late, found before it: without a GPU, without Ray, without the weights.

    report = preflight(["algorithm.adv_estimator=pgrpo", "data.train_files=...", ...])     # main_ppo's arguments
    report.ok, report.findings

Each check is a function of what is known of the launch so far (`run.py`) and says what it found. None stops another: a
check that fails itself is a warning that it could not be made.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pgrpo.errors import PGRPOError

from .check_checkpoints import check_checkpoints
from .check_config import check_config, check_values
from .check_data import check_data
from .check_groups import check_groups
from .check_model import check_model
from .check_names import check_names
from .check_reward import finish_trial, start_trial
from .check_reward_model import check_reward_model
from .check_sizes import check_memory, check_parallel, check_steps
from .command_line import CommandLine, compose, parse
from .data_files import BadFile
from .finding import ERROR, NOTE, WARNING, Finding, Found
from .phases import Estimate
from .run import Run, Settings

__all__ = ["CHECKS", "Report", "preflight"]

# In this order, as later ones go by what earlier ones have found.
CHECKS: tuple[tuple[str, Callable[[Run, Found], None]], ...] = (
    ("config", check_values),
    ("data", check_data),
    ("reward", start_trial),  # goes on beside those that follow
    ("groups", check_groups),
    ("config", check_config),
    ("config", check_names),
    ("config", check_reward_model),  # which `--skip reward` does not mean
    ("steps", check_steps),
    ("model", check_model),
    ("parallel", check_parallel),
    ("memory", check_memory),
    ("checkpoints", check_checkpoints),
    ("reward", finish_trial),
)
OF_SIZES = ("steps", "parallel", "memory")


@dataclass(slots=True)
class Report:
    """What was found, errors first; `facts` are sizes of the launch in words."""

    findings: list[Finding] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    memory: Estimate | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not any(finding.severity == ERROR for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "findings": [finding.as_dict() for finding in self.findings],
            "memory": None if self.memory is None else self.memory.as_dict(),
            "facts": self.facts,
            "seconds": round(self.seconds, 1),
        }


def preflight(arguments: Sequence[str], settings: Settings | None = None) -> Report:
    """Check a launch.

    Args:
        arguments: those of `python3 -m verl.trainer.main_ppo`.
        settings: what is known beside them; None: nothing.

    Raises:
        ConfigError: these are not arguments of one run, or a setting is wrong.
    """
    started, report = time.monotonic(), Report()
    line = parse(arguments)
    with _quiet():
        config = _composed(line, report)
        if config is not None:
            _check(Run(config, settings or Settings()), report)
    report.findings.sort(key=lambda finding: (ERROR, WARNING, NOTE).index(finding.severity))
    report.seconds = time.monotonic() - started
    return report


def _check(run: Run, report: Report) -> None:
    try:
        for name, check in CHECKS:
            if name in run.settings.skip or (not run.sound and name in OF_SIZES):
                continue
            found = Found(name)
            try:
                check(run, found)
            except BadFile as error:
                found.raised(error, "the data files", "write the file again")
            except Exception as error:
                if run.sound:  # else it is said already why
                    found.unchecked(error)
            report.findings += [one for one in found.findings if one not in report.findings]
    finally:
        if run.trial is not None:
            run.trial.child.end()
    report.facts, report.memory = run.facts, run.memory


def _composed(line: CommandLine, report: Report) -> DictConfig | None:
    """verl's configuration; overrides that Hydra refuses are found and left out, so that the rest can be checked."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    refused: list[tuple[str, Exception]] = []
    config = None
    while config is None:
        try:
            config = compose(line)
            OmegaConf.to_container(config, resolve=True)
        except (HydraException, OmegaConfBaseException, PGRPOError) as error:
            config = None
            culprit = _culprit(error, line)
            if culprit is None:
                found = Found("arguments")
                found.raised(error, "the command line", "Hydra's message says what it looked for")
                report.findings += found.findings
                break
            refused.append((culprit, error))
            line = line.without(culprit)
    found = Found("arguments")
    for override, refusal in refused:
        found.error(str(refusal).partition("\n")[0], override, _remedy(override, refusal, config))
    report.findings += found.findings
    return config


def _culprit(error: Exception, line: CommandLine) -> str | None:
    """The override that Hydra complains of, if it is one key and not a choice of a whole file."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for override in line.overrides:
        try:
            key = OverridesParser.create().parse_overrides([override])[0].key_or_group
        except HydraException:
            return override
        if re.search(rf"'{re.escape(key)}['=]", str(error)):
            return override
    missing = re.match(r"Interpolation key '(.*)' not found", str(error))
    return next((o for o in line.overrides if missing and f"${{{missing[1]}}}" in o), None)


def _remedy(override: str, error: Exception, config: DictConfig | None) -> str:
    key = override.lstrip("+~").partition("=")[0]
    if "Interpolation" in str(error):
        return "write out what it refers to"
    if "Could not append" in str(error):
        return f"it is there already: {override.lstrip('+')}"
    parent, _, name = key.rpartition(".")
    node: Any = config if config is None or not parent else OmegaConf.select(config, parent)
    near = difflib.get_close_matches(name, [str(known) for known in node], n=1) if OmegaConf.is_dict(node) else []
    if near and near[0] != name:
        return f"did you mean {parent + '.' if parent else ''}{near[0]}?"
    if "Could not override" in str(error):
        return f"to add a key of your own: +{override}"
    return "key=value; put a value with special signs into quotes of its own: \"key='~/value'\""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what verl and its libraries print."""
    nowhere = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
