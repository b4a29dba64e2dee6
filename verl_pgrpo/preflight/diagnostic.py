# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The record type of preflight and doctor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from verl_pgrpo.errors import PGRPOError

__all__ = ["ERROR", "NOTE", "SEVERITIES", "WARNING", "Diagnostic", "Diagnostics", "one_line"]

ERROR = "error"  # the run would stop, or train on something other than requested
WARNING = "warning"  # the run continues but may not do what is expected, or a check could not run
NOTE = "note"  # for information
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A preflight or doctor diagnostic. `location`: configuration keys, a file or a row. `fix`: empty for a note."""

    severity: str
    check: str
    message: str
    location: str = ""
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(slots=True)
class Diagnostics:
    """Collect the diagnostics of one check."""

    check: str
    found: list[Diagnostic] = field(default_factory=list)

    def add(self, severity: str, message: str, location: str, fix: str = "") -> None:
        # Messages of user code may contain lone surrogates, which cannot be printed.
        texts = (text.encode("utf-8", "backslashreplace").decode() for text in (message, location, fix))
        diagnostic = Diagnostic(severity, self.check, *texts)
        if diagnostic not in self.found:
            self.found.append(diagnostic)

    def error(self, message: str, location: str, fix: str) -> None:
        self.add(ERROR, message, location, fix)

    def warning(self, message: str, location: str, fix: str) -> None:
        self.add(WARNING, message, location, fix)

    def note(self, message: str, location: str) -> None:
        self.add(NOTE, message, location)

    @contextmanager
    def reporting(self, location: str, fix: str = "", prefix: str = "") -> Iterator[None]:
        """Report an exception in the block, which would stop the run. Our own errors include a fix."""
        try:
            yield
        except Exception as error:
            fix = "see the message" if isinstance(error, PGRPOError) else fix
            self.error(prefix + one_line(error), location, fix)


def one_line(error: BaseException, limit: int = 600) -> str:
    """Return the exception and its cause as one line."""
    text = " ".join(str(error).split())
    if not isinstance(error, PGRPOError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        if (cause := error.__cause__) is not None:
            text = f"{text} (from {type(cause).__name__}: {' '.join(str(cause).split())})"
    return text if len(text) <= limit else f"{text[:limit]}..."
