# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command `verl-pgrpo`.

What a command works with is imported when it runs, so `--help` is immediate. Results go to standard output, a mistake
of the caller's to standard error in one line with exit status 2, progress to a terminal only.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import verl_pgrpo
from verl_pgrpo.commands import data, doctor, evaluate, groups, history, judge, preflight, replay, report
from verl_pgrpo.errors import PGRPOError

BAD_INPUT = 2
EXAMPLE = "verl-pgrpo data movielens --archive ml-1m.zip --out data/movielens --groups 8 --seed 0"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="verl-pgrpo",
        description="Personalized GRPO for verl: data and preference groups.",
        epilog=f"example:\n  {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"verl-pgrpo {verl_pgrpo.__version__}")
    commands = top.add_subparsers(
        dest="area", required=True, metavar="data|groups|history|replay|report|eval|judge|doctor|preflight"
    )
    data.add_parser(commands)
    groups.add_parser(commands)
    history.add_parser(commands)
    doctor.add_parser(commands)
    preflight.add_parser(commands)
    replay.add_parser(commands)
    report.add_parser(commands)
    evaluate.add_parser(commands)
    judge.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    args = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a group's name that the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = args.run(args)
        print(_json(result.data) if args.json else result.text, flush=True)
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written was left under its final name", 130)
    except PGRPOError as error:
        return _fail(str(error), BAD_INPUT)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        return _fail(f"{error.filename}: {error.strerror}", BAD_INPUT)
    except OSError as error:  # a full disk is not the caller's mistake
        return _fail(str(error), 1)
    return result.status


def _json(data: Any) -> str:
    # What the stream cannot hold is escaped here, as its own escapes are not always JSON's.
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(_finite(data), ensure_ascii=not unicode, allow_nan=False, indent=1)


def _finite(data: Any) -> Any:
    """With null for NaN and infinities, of which JSON has none."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _fail(message: str, status: int) -> int:
    print(f"verl-pgrpo: error: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
