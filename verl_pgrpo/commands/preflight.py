# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo preflight`: what of a launch would fail late, found in seconds and without a GPU."""

from __future__ import annotations

import argparse
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from verl_pgrpo.commands.arguments import Result, add_command
from verl_pgrpo.errors import ConfigError, UnsupportedVerlError

if TYPE_CHECKING:
    from verl_pgrpo.launch.preflight import Report

HELP = "check a launch before it: data, groups, batches, parallel sizes, memory, checkpoints, reward"
EXAMPLE = r"""verl-pgrpo preflight --gpu H100 -- algorithm.adv_estimator=pgrpo \
    data.train_files=data/personas_english/train.parquet data.val_files=data/personas_english/val.parquet \
    reward.custom_reward_function.path=pkg://verl_pgrpo.rewards.personas actor_rollout_ref.model.path=Qwen/Qwen3-1.7B \
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.actor.use_dynamic_bsz=True"""
FOUND = 1  # exit status


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, "preflight", HELP, EXAMPLE)
    parser.add_argument("--gpu", metavar="NAME", help="H100, A100-40GB, ..., or GiB: its memory (default: 80 GB)")
    parser.add_argument("--model-config", type=Path, metavar="FILE", help="config.json of a model that is not here")
    parser.add_argument(
        "--reward-timeout", type=float, default=10.0, metavar="SECONDS", help="for all its calls (default: %(default)g)"
    )
    parser.add_argument("--skip", action="append", default=[], metavar="CHECK", help="one of them by name, e.g. reward")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--json", action="store_true", help="the report as JSON, for CI")
    parser.add_argument("arguments", nargs="*", metavar="-- ARGUMENTS", help="those of verl.trainer.main_ppo")
    parser.set_defaults(run=preflight_command)


def preflight_command(args: argparse.Namespace) -> Result:
    for needed in ("verl", "hydra"):
        if find_spec(needed) is None:
            raise UnsupportedVerlError(f"{needed} is not installed here; `verl-pgrpo doctor` says what else is missing")
    from verl_pgrpo.launch.gpus import gpu_gib
    from verl_pgrpo.launch.preflight import CHECKS, preflight
    from verl_pgrpo.launch.run import Settings

    if not args.reward_timeout > 0:  # nor is NaN
        raise ConfigError(f"--reward-timeout {args.reward_timeout:g}: must be more than 0 seconds")
    gpu = None if args.gpu is None else gpu_gib(args.gpu)
    names = list(dict(CHECKS))
    if unknown := [name for name in args.skip if name not in names]:
        raise ConfigError(f"--skip {unknown[0]}: the checks are {', '.join(names)}")
    settings = Settings(gpu, args.model_config, args.reward_timeout, tuple(args.skip))
    report = preflight(args.arguments, settings)
    good = report.ok and not (args.strict and any(finding.severity == "warning" for finding in report.findings))
    return Result(_text(report), {**report.as_dict(), "ok": good}, status=0 if good else FOUND)


def _text(report: Report) -> str:
    lines = []
    for finding in report.findings:
        lines += textwrap.wrap(
            finding.what,
            116,
            initial_indent=f"{finding.severity:<8} ",
            subsequent_indent=" " * 9,
            break_long_words=False,
        )
        lines.append(f"         where: {finding.where}  [{finding.check}]")
        if finding.severity != "note":
            lines.append(f"         fix:   {finding.fix}")
    if report.memory is not None:
        lines += ["", *report.memory.describe().splitlines()]
    number = {kind: sum(f.severity == kind for f in report.findings) for kind in ("error", "warning")}
    counted = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in number.items()]
    return "\n".join([*lines, "", *report.facts, f"{' and '.join(counted)} in {report.seconds:.0f} s"])
