# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Options and output shared by `verl-pgrpo data` and `verl-pgrpo groups`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from typing import Any, get_type_hints

from verl_pgrpo.cli.output import emit, format_table
from verl_pgrpo.data.summary import Summary


def with_options(cls: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the fields of a dataclass to a command as options; the command receives them as its argument `options`."""
    hints, keyword = get_type_hints(cls, include_extras=True), inspect.Parameter.KEYWORD_ONLY
    own = []
    for field in sorted(fields(cls), key=lambda field: field.name not in cls.__annotations__):  # inherited ones last
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        own.append(inspect.Parameter(field.name, keyword, default=default, annotation=hints[field.name]))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**given: Any) -> None:
            command(options=cls(**{one.name: given.pop(one.name) for one in own}), **given)

        parameters = []
        for one in inspect.signature(command, eval_str=True).parameters.values():
            parameters += own if one.name == "options" else [one.replace(kind=keyword)]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return called

    return decorate


def emit_summary(summary: Summary, as_json: bool, **more: Any) -> None:
    """Print a summary as text, or as JSON with the fields in `more`."""
    lines = [summary.title]
    for heading, counts in (("read", summary.read), ("dropped", summary.dropped), ("written", summary.files)):
        lines += [f"  {heading:<8}{count:>12,}  {what}" for what, count in counts.items()]
    if summary.groups:
        lines += [f"  {line}" for line in format_table(summary.groups).splitlines()]
    lines += [f"  note: {note}" for note in summary.notes] + [f"  warning: {warning}" for warning in summary.warnings]
    emit("\n".join(lines), {**asdict(summary), **more}, as_json)
