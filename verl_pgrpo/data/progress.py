# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A progress bar on a terminal, nothing elsewhere: a log file is no place for bars."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress(what: str, total: int | None = None, unit: str = "B") -> tqdm[Any]:
    """A `tqdm` on standard error, to be used as a context manager."""
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, dynamic_ncols=True, leave=False, disable=quiet)
