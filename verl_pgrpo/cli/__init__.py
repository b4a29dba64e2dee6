# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command `verl-pgrpo`.

A command's module is imported when the command is called, so `--help` is immediate. Results go to standard output,
errors to standard error in one line. Exit status: 0 success, 1 failure, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import typer

import verl_pgrpo
from verl_pgrpo.errors import PGRPOError

__all__ = ["COMMANDS", "main"]

BAD_INPUT = 2


class Command(NamedTuple):
    """A command: its module in this package with a typer app, the extra that it needs, and its summary."""

    module: str
    extra: str
    summary: str


COMMANDS = {
    "data": Command("data", "data", "Build train.parquet and val.parquet from archives, tables or personas."),
    "groups": Command("groups", "data", "Cluster users into preference groups; assign new users to them."),
    "preflight": Command("preflight", "vllm", "Validate a verl launch before it starts. Needs no GPU."),
    "doctor": Command("doctor", "vllm", "Check that this machine or cluster can run verl with the plugin."),
    "report": Command("report", "report", "Render an HTML page: what each preference group got from each run."),
    "replay": Command("replay", "report", "Compare GRPO's and P-GRPO's advantages on a finished run's rollouts."),
    "eval": Command("evaluate", "eval", "Score a model per preference group, or compare two models."),
    "judge": Command("judge", "eval", "Let a judge model compare two models, per preference group."),
    "history": Command("history", "data", "Show, compare, merge and convert history files."),
}
_UsageError: Any = typer.BadParameter.__base__  # of click, which newer versions of typer have a copy of


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a label that the terminal cannot print must not stop the command
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else BAD_INPUT
    name, *rest = arguments
    if name == "--version":
        print(f"verl-pgrpo {verl_pgrpo.__version__}")
        return 0
    if name not in COMMANDS:
        hint = "".join(f"; did you mean {near}?" for near in difflib.get_close_matches(name, COMMANDS, n=1))
        return _fail(f"unknown command {name!r}{hint} (commands: {', '.join(COMMANDS)})", BAD_INPUT)
    try:
        module = importlib.import_module(f"verl_pgrpo.cli.{COMMANDS[name].module}")
        command = typer.main.get_command(module.app)
        status = command.main(args=rest, prog_name=f"verl-pgrpo {name}", standalone_mode=False)
        if status == 130:  # typer's status for Ctrl-C
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except _UsageError as error:
        error.show()
        return BAD_INPUT
    except BrokenPipeError:  # the reader of our output has exited, e.g. `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; no partly written file remains under its final name", 130)
    except PGRPOError as error:
        return _fail(str(error), BAD_INPUT)
    except ModuleNotFoundError as error:
        extra = f"[{COMMANDS[name].extra}]'"
        hint = f"pip install 'verl-pgrpo{extra} (from a clone: pip install '.{extra})"
        return _fail(f"{error.name} is not installed: {hint}", BAD_INPUT)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), BAD_INPUT)
    except OSError as error:  # a full disk is not bad input
        return _fail(str(error), 1)


def _help() -> str:
    lines = [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    usage = "Usage: verl-pgrpo COMMAND [ARGUMENTS]   (verl-pgrpo COMMAND --help; verl-pgrpo --version)"
    return "\n".join([usage, "", "Personalized GRPO for verl.", "", *lines])


def _fail(message: str, status: int) -> int:
    print(f"verl-pgrpo: error: {' '.join(message.split())}", file=sys.stderr)
    return status
