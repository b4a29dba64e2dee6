# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Options that several datasets share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verl_pgrpo.data.cluster import fit_groups
from verl_pgrpo.data.group_model import GroupModel, Matrix
from verl_pgrpo.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Clustering:
    """How users are clustered into preference groups."""

    # None: chosen by silhouette and stability
    groups: int | None = None
    k_range: tuple[int, int] = (2, 10)
    algorithm: str = "kmeans"
    # users of the smallest group; None: one percent of all
    min_size: int | None = None
    seed: int = 0

    def fit(self, values: Matrix, features: Sequence[str], id_column: str | None) -> GroupModel:
        """Cluster users by `values` (users, features)."""
        return fit_groups(values, features, algorithm=self.algorithm, k=self.groups, k_range=self.k_range,
                          min_size=self.min_size, seed=self.seed, id_column=id_column)  # fmt: skip

    def check_minimum(self, **lowest: int) -> None:
        """Raise DataError if an option of these names is below its lowest value. Options that are None pass."""
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise DataError(f"--{name.replace('_', '-')} must be at least {least} (got {value})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive(Clustering):
    """How a public archive becomes a training and a validation split."""

    # share of all events that is held out by a split in time, the latest ones
    test_fraction: float = 0.1
    # at most; 64 steps of 256 prompts per epoch
    train_size: int = 16384
    # at most; divided among the groups as equally as they allow
    val_size: int = 1024

    def check(self) -> None:
        """Raise DataError if an option is out of range."""
        self.check_minimum(groups=2, seed=0, train_size=1, val_size=1)
        if not 0 < self.test_fraction < 1:
            raise DataError(f"--test-fraction must be between 0 and 1 (got {self.test_fraction})")
