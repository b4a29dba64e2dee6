# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo doctor`: one screen on whether this machine or cluster can run verl with the plugin."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from verl_pgrpo.commands.arguments import Result, add_command

if TYPE_CHECKING:
    from verl_pgrpo.launch.vital import Vital

HELP = "versions, the plugin in every kind of process, accelerators, shared memory, disks"
EXAMPLE = "verl-pgrpo doctor"
COLOURS = {"ok": "32", "warn": "33", "FAIL": "31"}
BROKEN = 1  # exit status


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, "doctor", HELP, EXAMPLE)
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS"),
        help="of a Ray cluster (default: RAY_ADDRESS, or a private Ray)",
    )
    parser.add_argument("--timeout", type=float, default=90.0, metavar="SECONDS", help="default: %(default)g")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.set_defaults(run=doctor_command)


def doctor_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.launch.doctor import examine

    vitals = examine(args.address, args.timeout, lambda words: print(f"doctor: {words}", file=sys.stderr, flush=True))
    good = not any(vital.status == "FAIL" for vital in vitals)
    checks = [{"name": v.name, "status": v.status, "value": v.value, "fix": v.fix} for v in vitals]
    return Result(_text(vitals), {"ok": good, "checks": checks}, status=0 if good else BROKEN)


def _text(vitals: list[Vital]) -> str:
    width = max(len(vital.name) for vital in vitals)
    lines = []
    for vital in vitals:
        lines.append(f"{_coloured(vital.status)} {vital.name:<{width}}  {vital.value}")
        if vital.fix:
            lines.append(f"     {'':<{width}}  -> {vital.fix}")
    counted = {status: sum(vital.status == status for vital in vitals) for status in COLOURS}
    return "\n".join([*lines, f"{counted['FAIL']} FAIL, {counted['warn']} warn, {counted['ok']} ok"])


def _coloured(status: str) -> str:
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return f"\033[{COLOURS[status]}m{status:<4}\033[0m"
    return f"{status:<4}"
