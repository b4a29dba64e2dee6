# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command `verl-pgrpo`.

A command's module is imported when the command is called, so `--help` is immediate. Results go to standard output,
errors to standard error in one line. Exit status: 0 success, 1 failure, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
import typer

import verl_pgrpo
from verl_pgrpo.errors import PGRPOError

__all__ = ["COMMANDS", "main"]

BAD_INPUT = 2

# Command -> module of this package with its typer app, and the line in `verl-pgrpo --help`.
COMMANDS = {
    "data": ("data", "Build verl's train.parquet and val.parquet from archives, tables or personas."),
    "groups": ("groups", "Cluster users into preference groups, and assign new users to them."),
    "preflight": ("preflight", "Validate a verl launch before it starts. Needs no GPU."),
    "doctor": ("doctor", "Check that this machine or cluster can run verl with the plugin."),
    "report": ("report", "Render one HTML page that shows what each preference group got from each run."),
    "replay": ("replay", "Compare the advantages of GRPO and P-GRPO on the rollouts of a finished run."),
    "eval": ("evaluate", "Score a model per preference group, or compare two models."),
    "judge": ("judge", "Let a judge model compare the responses of two models, per preference group."),
    "history": ("history", "Show, compare, merge and convert history files."),
}


class _LazyGroup(click.Group):
    """A group that imports a command's module only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"verl_pgrpo.cli.{COMMANDS[cmd_name][0]}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a label that the terminal cannot show must not end the command
        sys.stdout.reconfigure(errors="backslashreplace")
    group = _LazyGroup("verl-pgrpo", help="Personalized GRPO for verl.", no_args_is_help=True)
    group = click.version_option(verl_pgrpo.__version__, prog_name="verl-pgrpo")(group)
    try:
        status: Any = group.main(
            args=None if argv is None else list(argv), prog_name="verl-pgrpo", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return BAD_INPUT
    except click.ClickException as error:
        error.show()
        return BAD_INPUT
    except BrokenPipeError:  # the reader of our output is gone, as with `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted; no partly written file remains under its final name", 130)
    except PGRPOError as error:
        return _fail(str(error), BAD_INPUT)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        return _fail(f"{error.filename}: {error.strerror}", BAD_INPUT)
    except OSError as error:  # a full disk is not bad input
        return _fail(str(error), 1)


def _fail(message: str, status: int) -> int:
    print(f"verl-pgrpo: error: {' '.join(message.split())}", file=sys.stderr)
    return status
