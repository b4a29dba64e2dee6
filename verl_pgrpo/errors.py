# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Every error that this package raises on purpose. All derive from `PGRPOError`."""

__all__ = [
    "ConfigError",
    "DataError",
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
    """Base class of all errors below."""


class ConfigError(PGRPOError, ValueError):
    """An option is unknown, has the wrong type, is out of range, or contradicts another option."""


class DataError(PGRPOError, ValueError):
    """An input file is missing, malformed or unsuitable."""


class MissingGroupError(PGRPOError, ValueError):
    """A row has no preference group, and `default_group` is not set."""


class GroupLabelError(PGRPOError, ValueError):
    """A preference group's label is not text."""


class NonFiniteRewardError(PGRPOError, ValueError):
    """A reward is NaN, infinite, or too large to be squared, with `on_nonfinite=error`."""


class UnsupportedVerlError(PGRPOError, RuntimeError):
    """The installed verl lacks something that the plugin hooks, or the run cannot be personalized."""


class HistoryFileError(PGRPOError):
    """A history file cannot be written or read."""


class HistoryFileMissing(HistoryFileError, FileNotFoundError):
    """The history file does not exist."""


class HistoryFileAltered(HistoryFileError):
    """The file is truncated, damaged, edited, or not a history file."""


class HistoryFileTooNew(HistoryFileError):
    """The file was written by a later version of this package."""


class HistoryFileWrongStep(HistoryFileError):
    """The history belongs to another training step than the checkpoint."""


class HistoryFileOtherConfig(HistoryFileError, ConfigError):
    """The history was recorded with options that give its numbers a different meaning."""
