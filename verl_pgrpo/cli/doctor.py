# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo doctor`: can this machine or cluster run verl with the plugin?"""

from __future__ import annotations

import math
import os
import sys
from typing import Annotated

import typer

from verl_pgrpo.cli.output import JsonOption, emit
from verl_pgrpo.errors import ConfigError
from verl_pgrpo.preflight.diagnostic import ERROR, NOTE, WARNING, Diagnostic
from verl_pgrpo.preflight.doctor import examine

app = typer.Typer(add_completion=False)
LABELS = {NOTE: ("ok", "32"), WARNING: ("warn", "33"), ERROR: ("FAIL", "31")}  # with colors


@app.command(epilog="Example: verl-pgrpo doctor. With the packages of a launch: verl-pgrpo doctor -- ARGUMENTS")
def doctor(
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments of verl.trainer.main_ppo, after --.")] = None,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Address of a Ray cluster (HOST:6379).")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for all processes together.")] = 90.0,
    as_json: JsonOption = False,
) -> int:
    """Check that this machine or cluster can run verl with the plugin."""
    if not 0 < timeout < math.inf:  # also true for NaN
        raise ConfigError(f"--timeout {timeout:g}: must be a finite number > 0")
    if address and address.startswith(("http://", "https://")):
        raise ConfigError(
            f"{address} is an address for Ray jobs; on a node of the cluster set RAY_ADDRESS (or --address) to "
            "<head>:6379, or unset RAY_ADDRESS to check this machine"
        )
    found = examine(
        address, timeout, lambda text: print(f"doctor: {text}", file=sys.stderr, flush=True), arguments or ()
    )
    ok = not any(one.severity == ERROR for one in found)
    emit(_text(found), {"ok": ok, "checks": [one.as_dict() for one in found]}, as_json)
    return 0 if ok else 1


def _text(found: list[Diagnostic]) -> str:
    width = max(len(one.check) for one in found)
    lines = []
    for one in found:
        lines.append(f"{_label(one.severity)} {one.check:<{width}}  {one.message}")
        if one.fix:
            lines.append(f"     {'':<{width}}  -> {one.fix}")
    number = {severity: sum(one.severity == severity for one in found) for severity in LABELS}
    return "\n".join([*lines, f"{number[ERROR]} FAIL, {number[WARNING]} warn, {number[NOTE]} ok"])


def _label(severity: str) -> str:
    text, color = LABELS[severity]
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return f"\033[{color}m{text:<4}\033[0m"
    return f"{text:<4}"
