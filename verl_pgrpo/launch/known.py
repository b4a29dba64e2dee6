# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Is a name one of those that verl knows, and does verl take a value?"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from .finding import Found


def known(what: str, name: Any, names: Iterable[str], where: str, found: Found) -> bool:
    """Say so if a name is none of these."""
    names = list(names)
    if name in names:
        return True
    near = difflib.get_close_matches(str(name), names, n=1)
    fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"
    found.error(f"no {what} is called {str(name)!r}", where, fix)
    return False


def taken(ask: Callable[[], object], where: str, what: str, fix: str, found: Found) -> None:
    """Ask verl for something, and say so if it refuses. Some of its refusals have no words."""
    try:
        ask()
    except Exception as error:
        words = " ".join(str(error).split()).partition(". ")[0]
        found.error(f"{what}: {words[:200] or 'verl does not know it'} ({type(error).__name__})", where, fix)
