# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Every error that this package raises on purpose, so that a caller can name it."""

__all__ = [
    "ConfigError",
    "GroupLabelError",
    "HistoryFileAltered",
    "HistoryFileError",
    "HistoryFileMissing",
    "HistoryFileOtherConfig",
    "HistoryFileTooNew",
    "HistoryFileWrongStep",
    "MissingGroupError",
    "NonFiniteRewardError",
    "PGRPOError",
    "UnsupportedVerlError",
]


class PGRPOError(Exception):
    """Base of all errors below."""


class ConfigError(PGRPOError, ValueError):
    """An option that is unknown, of the wrong type, out of range, or contradicts another one."""


class MissingGroupError(PGRPOError, ValueError):
    """A row without a preference group, and no `missing_group` to put it in."""


class GroupLabelError(PGRPOError, ValueError):
    """A preference group whose label is not text."""


class NonFiniteRewardError(PGRPOError, ValueError):
    """A reward that is NaN, infinite, or too large to be squared, with `nonfinite=error`."""


class UnsupportedVerlError(PGRPOError, RuntimeError):
    """This verl lacks something that the plugin hooks, or the run is of a kind that it cannot personalize."""


class HistoryFileError(PGRPOError):
    """A history file that cannot be written or read."""


class HistoryFileMissing(HistoryFileError, FileNotFoundError):
    """There is no history file where a checkpoint should have one."""


class HistoryFileAltered(HistoryFileError):
    """Truncated, damaged or edited since it was written, or no history file at all."""


class HistoryFileTooNew(HistoryFileError):
    """Written by a later version of this package."""


class HistoryFileWrongStep(HistoryFileError):
    """A history of another training step than the checkpoint's."""


class HistoryFileOtherConfig(HistoryFileError, ConfigError):
    """A history whose numbers mean something else under the options of this run."""
