# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a check has to say: one thing that is wrong with a launch, where it is, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from verl_pgrpo.errors import PGRPOError

__all__ = ["ERROR", "NOTE", "WARNING", "Finding", "Found"]

ERROR = "error"  # the run would stop, or train on something else than asked for
WARNING = "warning"  # the run goes on, to somebody's surprise; or: could not be checked
NOTE = "note"  # good to know, nothing to do


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is the name of the check that says so; `where` a configuration key, a file or a row."""

    severity: str
    check: str
    what: str
    where: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(slots=True)
class Found:
    """Collects the findings of one check."""

    check: str
    findings: list[Finding] = field(default_factory=list)

    def error(self, what: str, where: str, fix: str) -> None:
        self._add(ERROR, what, where, fix)

    def warning(self, what: str, where: str, fix: str) -> None:
        self._add(WARNING, what, where, fix)

    def note(self, what: str, where: str, fix: str = "nothing") -> None:
        self._add(NOTE, what, where, fix)

    def raised(self, error: BaseException, where: str, fix: str) -> None:
        """An exception that would stop the run. Our own messages end in the remedy, which then goes before `fix`."""
        what, remedy = _one_line(error), ""
        if isinstance(error, PGRPOError):
            what, _, remedy = what.partition(". ")
        self.error(what, where, remedy or fix)

    def unchecked(self, error: BaseException) -> None:
        """A check that failed itself, which says nothing about the run."""
        self.warning(
            f"this could not be checked: {type(error).__name__}: {_one_line(error)}",
            f"the check '{self.check}'",
            "look at it by hand; if the configuration is good, please report this",
        )

    def _add(self, severity: str, what: str, where: str, fix: str) -> None:
        texts = (text.encode("utf-8", "backslashreplace").decode() for text in (what, where, fix))  # lone surrogates
        self.findings.append(Finding(severity, self.check, *texts))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
