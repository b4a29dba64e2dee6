# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo preflight`: validate a launch before it starts."""

from __future__ import annotations

import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from verl_pgrpo.cli.output import JsonOption, emit
from verl_pgrpo.errors import ConfigError, UnsupportedVerlError
from verl_pgrpo.preflight import runner

app = typer.Typer(add_completion=False)
EXAMPLE = r"""Example: verl-pgrpo preflight -- algorithm.adv_estimator=pgrpo data.train_files=data/train.parquet
data.val_files=data/val.parquet actor_rollout_ref.model.path=Qwen/Qwen3-1.7B
reward.custom_reward_function.path=pkg://verl_pgrpo.rewards.personas"""


@app.command(epilog=EXAMPLE)
def preflight(
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments of verl.trainer.main_ppo, after --.")] = None,
    model_config: Annotated[Path | None, typer.Option(help="config.json of a model that is elsewhere.")] = None,
    reward_timeout: Annotated[float, typer.Option(help="Seconds for all calls of the reward function.")] = 10.0,
    skip: Annotated[list[str] | None, typer.Option(help="Leave out a check by name, e.g. reward. Repeatable.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Validate a verl launch before it starts. Needs no GPU."""
    if find_spec("verl") is None:
        raise UnsupportedVerlError("verl is not installed; run `verl-pgrpo doctor`")
    if not reward_timeout > 0:  # also true for NaN
        raise ConfigError(f"--reward-timeout {reward_timeout:g}: must be > 0 seconds")
    if unknown := [name for name in skip or () if name not in runner.CHECK_NAMES]:
        raise ConfigError(f"--skip {unknown[0]}: the checks are {', '.join(runner.CHECK_NAMES)}")
    path = None if model_config is None else str(model_config.absolute())
    report = runner.preflight(arguments or (), runner.Settings(path, reward_timeout, tuple(skip or ())))
    ok = report.ok and not (strict and any(one.severity == "warning" for one in report.diagnostics))
    emit(_text(report), {**report.as_dict(), "ok": ok}, as_json)
    return 0 if ok else 1


def _text(report: Any) -> str:
    lines = []
    for one in report.diagnostics:
        first, rest = f"{one.severity:<8} ", " " * 9
        lines += textwrap.wrap(one.message, 116, initial_indent=first, subsequent_indent=rest, break_long_words=False)
        lines.append(f"         at:  {one.location}  [{one.check}]")
        if one.fix:
            lines.append(f"         fix: {one.fix}")
    number = {kind: sum(one.severity == kind for one in report.diagnostics) for kind in ("error", "warning")}
    counted = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in number.items()]
    return "\n".join([*lines, "", *report.facts, f"{' and '.join(counted)} in {report.seconds:.0f} s"])
