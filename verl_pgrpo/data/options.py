# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Options of the datasets. Each is declared once: its type, range, default, and help on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from typer import Option

from verl_pgrpo.data.cluster import fit_groups
from verl_pgrpo.data.group_model import GroupModel, Matrix
from verl_pgrpo.errors import DataError

CLUSTERING = ("groups", "algorithm", "k_min", "k_max", "min_size")

SplitOption = Annotated[str | None, Option("--split", help="Split of a Hugging Face DatasetDict.")]
EncodingOption = Annotated[
    str | None, Option("--encoding", help="Encoding of a text file; default UTF-8, or UTF-16 with a byte order mark.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clustering:
    """Options for clustering users into preference groups."""

    groups: Annotated[str, Option(metavar="K|auto", help="Number of groups; auto: chosen by silhouette.")] = "auto"
    algorithm: Annotated[
        Literal["kmeans", "minibatch-kmeans", "gaussian-mixture"], Option(help="scikit-learn estimator.")
    ] = "kmeans"
    k_min: Annotated[int, Option(help="First K that --groups auto tries.")] = 2
    k_max: Annotated[int, Option(help="Last K that --groups auto tries.")] = 10
    min_size: Annotated[int | None, Option(help="Users of the smallest group; default 1% of the users.")] = None
    seed: Annotated[int, Option(min=0, help="Equal arguments give equal bytes.")] = 0

    @property
    def k(self) -> int | None:
        """The number of groups; None for auto."""
        try:
            return None if self.groups == "auto" else int(self.groups)
        except ValueError as error:
            raise DataError(f"--groups must be a number or auto (got {self.groups!r})") from error

    def fit(
        self, values: Matrix, features: Sequence[str], id_column: str | None, scale: bool = True,
        weights: Sequence[float] | None = None,
    ) -> GroupModel:  # fmt: skip
        """Cluster users by `values` (users, features)."""
        return fit_groups(
            values, features, algorithm=self.algorithm, k=self.k, k_range=(self.k_min, self.k_max),
            min_size=self.min_size, scale=scale, weights=weights, seed=self.seed, id_column=id_column,
        )  # fmt: skip

    def check(self) -> None:
        """Raise DataError if an option is out of range."""
        if self.k is not None and self.k < 2:
            raise DataError(f"--groups must be at least 2 (got {self.groups})")
        if self.k is not None:
            self.check_unused("with a fixed --groups", "k_min", "k_max")
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            (kind, info), value, option = get_args(hint), getattr(self, name), f"--{name.replace('_', '-')}"
            if get_origin(kind) is Literal and value not in get_args(kind):
                raise DataError(f"{option} must be one of {', '.join(get_args(kind))} (got {value!r})")
            if info.min is not None and value is not None and value < info.min:
                raise DataError(f"{option} must be at least {info.min} (got {value})")

    def check_unused(self, reason: str, *names: str) -> None:
        """Raise DataError if one of these options has been changed, because it has no effect for this `reason`."""
        for field in fields(self):
            if field.name in names and getattr(self, field.name) != field.default:
                raise DataError(f"--{field.name.replace('_', '-')} has no effect {reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive(Clustering):
    """Options for splitting a public archive into training and validation."""

    test_fraction: Annotated[float, Option(help="Latest events that a split in time holds out.")] = 0.1
    # 64 steps of 256 prompts per epoch
    train_size: Annotated[int, Option(min=1, help="Training rows, at most.")] = 16384
    val_size: Annotated[int, Option(min=1, help="Validation rows, at most; divided equally among the groups.")] = 1024

    def check(self) -> None:
        Clustering.check(self)
        if not 0 < self.test_fraction < 1:
            raise DataError(f"--test-fraction must be between 0 and 1 (got {self.test_fraction})")


def names(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
