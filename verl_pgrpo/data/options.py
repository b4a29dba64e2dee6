# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the options of several data sets share. A task's own `Options` come on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.grouping.fit import fit_groups
from verl_pgrpo.data.grouping.model import GroupModel, Matrix


@dataclass(frozen=True, kw_only=True, slots=True)
class Clustering:
    """How users are clustered into preference groups."""

    # None chooses the number by silhouette and stability
    groups: int | None = None
    k_range: tuple[int, int] = (2, 10)
    algorithm: str = "kmeans"
    # users of the smallest group; None is one per cent
    min_size: int | None = None
    seed: int = 0

    def fit(self, values: Matrix, features: Sequence[str], id_column: str | None) -> GroupModel:
        """The groups of these users: values (N, D), a row per user, and the D features' names."""
        return fit_groups(
            values, features, algorithm=self.algorithm, k=self.groups, k_range=self.k_range, min_size=self.min_size,
            seed=self.seed, id_column=id_column,
        )  # fmt: skip

    def at_least(self, **lowest: int) -> None:
        """Hold options of these names against their lowest values; one that is None is left to be chosen.

        Raises:
            DataError: an option is lower; the message names it.
        """
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise DataError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive(Clustering):
    """How a public archive becomes two splits."""

    # of everything that happened, the latest
    test_fraction: float = 0.1
    # rows, at most: 64 steps of 256 prompts an epoch
    train_size: int = 16384
    # at most, as equally divided among the groups as they allow
    val_size: int = 1024
