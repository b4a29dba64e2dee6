# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Options and output that `verl-pgrpo data` and `verl-pgrpo groups` share."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from verl_pgrpo.cli.output import emit, format_table
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.errors import DataError

GroupsOption = Annotated[str, typer.Option("--groups", metavar="K|auto", help="Number of groups.")]
AlgorithmOption = Annotated[
    Literal["kmeans", "minibatch-kmeans", "gaussian-mixture"],
    typer.Option("--algorithm", help="scikit-learn estimator."),
]
KMinOption = Annotated[int, typer.Option(help="First K that --groups auto tries.")]
KMaxOption = Annotated[int, typer.Option(help="Last K that --groups auto tries.")]
MinSizeOption = Annotated[int | None, typer.Option(help="Users of the smallest group; default 1% of the users.")]
SplitOption = Annotated[str | None, typer.Option("--split", help="Split of a Hugging Face DatasetDict.")]
EncodingOption = Annotated[
    str | None, typer.Option(help="Encoding of a text file; default UTF-8, or UTF-16 with a byte order mark.")
]


def clustering(groups: str, algorithm: str, k_min: int, k_max: int, min_size: int | None, seed: int) -> dict[str, Any]:
    """Return the fields of `verl_pgrpo.data.options.Clustering`."""
    return {"groups": number_of_groups(groups), "algorithm": algorithm, "k_range": (k_min, k_max),
            "min_size": min_size, "seed": seed}  # fmt: skip


def number_of_groups(text: str) -> int | None:
    """Return the number in --groups, None for auto.

    Raises:
        DataError: neither a number nor auto.
    """
    try:
        return None if text == "auto" else int(text)
    except ValueError as error:
        raise DataError(f"--groups must be a number or auto (got {text!r})") from error


def names(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def emit_summary(summary: Summary, as_json: bool, **more: Any) -> None:
    """Print a summary as text, or as JSON with the fields in `more`."""
    lines = [summary.title]
    for heading, counts in (("read", summary.read), ("dropped", summary.dropped), ("written", summary.files)):
        lines += [f"  {heading:<8}{count:>12,}  {what}" for what, count in counts.items()]
    if summary.groups:
        lines += [f"  {line}" for line in format_table(summary.groups).splitlines()]
    lines += [f"  note: {note}" for note in summary.notes] + [f"  warning: {warning}" for warning in summary.warnings]
    emit("\n".join(lines), {**asdict(summary), **more}, as_json)
