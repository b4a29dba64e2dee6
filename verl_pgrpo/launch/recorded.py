# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a recipe's script would launch, without launching it: its exact arguments, composed as verl composes them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from verl_pgrpo.errors import ConfigError

from .command_line import MAIN_PPO, compose, parse


def arguments_of(script: str | Path, *arguments: str, **environment: str) -> list[str]:
    """What `script` would give to `python3`, found by running it with a `python3` on PATH that writes that down, and a
    `mkdir` that does nothing.

    Of this process's environment the script sees nothing, so that what it would launch depends on its arguments alone.

    Raises:
        ConfigError: the script ended with an error, or launches nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        record, stub = Path(folder) / "argv", Path(folder) / "python3"
        stub.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >> '{record}'\n", encoding="utf-8")
        (Path(folder) / "mkdir").write_text("#!/bin/sh\n", encoding="utf-8")
        for program in Path(folder).iterdir():
            program.chmod(0o755)
        environment = {"PATH": f"{folder}:{os.defpath}", **environment}
        run = subprocess.run(["bash", script, *arguments], env=environment, capture_output=True, text=True, timeout=60)
        if run.returncode or not record.exists():
            raise ConfigError(f"{script} ended with status {run.returncode}: {run.stderr.strip()[-500:]}")
        return record.read_text(encoding="utf-8").split("\0")[:-1]


def composed(arguments: Sequence[str]) -> DictConfig:
    """verl's configuration tree with the arguments of a `python3 -m verl.trainer.main_ppo`."""
    if list(arguments[:2]) != MAIN_PPO:
        raise ConfigError(f"not a launch of verl.trainer.main_ppo: {' '.join(arguments[:2])}")
    return compose(parse(arguments[2:]))
