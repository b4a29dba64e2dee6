# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands share, and what a command gives back."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

ALGORITHMS = ("kmeans", "minibatch-kmeans", "gaussian-mixture", "hdbscan")


@dataclass(frozen=True)
class Result:
    """What a command has to say: for people, and as JSON; and its exit status."""

    text: str
    data: dict[str, Any]
    status: int = 0


def add_command(inner: Any, name: str, help: str, example: str) -> argparse.ArgumentParser:
    """A command whose help ends in an example that can be copied."""
    raw = argparse.RawDescriptionHelpFormatter  # else the example would be wrapped
    return inner.add_parser(name, help=help, description=help, epilog=f"example:\n  {example}", formatter_class=raw)


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="equal arguments give equal bytes (default: %(default)s)")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the summary as JSON")


def add_clustering(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--groups", default="auto", metavar="K", help="how many, or auto (default: %(default)s)")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="kmeans", help="default: %(default)s")
    parser.add_argument("--k-min", type=int, default=2, help="first K that auto tries (default: %(default)s)")
    parser.add_argument("--k-max", type=int, default=10, help="last K that auto tries (default: %(default)s)")
    parser.add_argument("--min-size", type=int, help="users of the smallest group (default: one per cent)")


def whole(text: str) -> int:
    """A number from 0, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def number_of_groups(text: str) -> int | None:
    """`--groups`: a number, or None for auto.

    Raises:
        DataError: neither.
    """
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError as error:
        from verl_pgrpo.data.errors import DataError

        raise DataError(f"--groups must be a number or auto, got {text!r}") from error
