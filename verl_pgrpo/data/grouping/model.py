# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A finished grouping: from the features of a user to a preference group, without the library that found it.

Every algorithm ends in arrays that numpy can apply (centres, components, labelled examples), so nothing has to be
pickled and the grouping does not depend on the version of scikit-learn that made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.errors import DataError

Matrix = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

PARAMETERS = {
    "kmeans": ("centers",),
    "minibatch-kmeans": ("centers",),
    "gaussian-mixture": ("centers", "variances", "weights"),
    "hdbscan": ("examples", "example_cluster"),
    "random": ("known", "known_cluster", "shares"),
}
CHUNK = 1 << 22  # numbers in the largest temporary array


@dataclass(frozen=True)
class GroupModel:
    """Which group a user belongs to.

    `parameters` are in scaled features, (x - mean) / scale. `cluster_group` maps each cluster to the place of its
    group in `groups`: small clusters share one with their nearest neighbour. `sizes` counts the users it was fitted on.
    `choice` has a line per number of clusters that was tried. `columns` are the table's columns that `features` came
    from: fewer, where a column holds lists.
    """

    algorithm: str
    features: tuple[str, ...]
    mean: Matrix
    scale: Matrix
    parameters: dict[str, npt.NDArray[Any]]
    cluster_group: Indices
    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    seed: int
    id_column: str | None = None
    choice: list[dict[str, Any]] = field(default_factory=list)
    columns: tuple[str, ...] = ()

    def assign(self, values: Matrix, ids: Sequence[object] | None = None) -> npt.NDArray[np.str_]:
        """The group of each row, (N,).

        Args:
            values: (N, D) features in the order of `features`, not scaled.
            ids: of the rows; a random grouping goes by them and by nothing else.

        Raises:
            DataError: another number of features, or no ids for a random grouping.
        """
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise DataError(f"expected {len(self.features)} features ({', '.join(self.features[:6])}, ...)")
        if self.algorithm == "random":
            if ids is None:
                raise DataError("a random grouping goes by the users' ids; name their column with --id-column")
            clusters = self._random_clusters(ids)
        else:
            clusters = self.clusters((values - self.mean) / self.scale)
        return np.array(self.groups)[self.cluster_group[clusters]]

    def clusters(self, scaled: Matrix) -> Indices:
        """The cluster of each row of scaled features, (N,)."""
        p = self.parameters
        if self.algorithm == "gaussian-mixture":
            precision = 1 / p["variances"]
            constant = np.log(p["weights"]) + 0.5 * (np.log(precision) - p["centers"] ** 2 * precision).sum(1)
            linear, square = (p["centers"] * precision).T, -0.5 * precision.T
            step = max(1, CHUNK // len(constant))
            parts = [scaled[i : i + step] for i in range(0, len(scaled), step)]
            found = [(x @ linear + x**2 @ square + constant).argmax(1) for x in parts]
            return np.concatenate(found) if found else np.empty(0, np.int64)
        if self.algorithm == "hdbscan":
            return p["example_cluster"][nearest(scaled, p["examples"])]
        return nearest(scaled, p["centers"])

    def _random_clusters(self, ids: Sequence[object]) -> Indices:
        """Known users keep what they were given; others draw by a hash of their id, in the same proportions."""
        p = self.parameters
        hashed = id_hashes(ids, self.seed)
        place = np.minimum(np.searchsorted(p["known"], hashed), max(len(p["known"]) - 1, 0))
        drawn = np.minimum(
            np.searchsorted(np.cumsum(p["shares"]), hashed / 2.0**63, side="right"), len(p["shares"]) - 1
        )
        if not len(p["known"]):
            return drawn
        return np.where(p["known"][place] == hashed, p["known_cluster"][place], drawn)


def nearest(rows: Matrix, points: Matrix) -> Indices:
    """The place of the nearest point for each row, (N,); a chunk at a time."""
    squares = (points**2).sum(1)
    step = max(1, CHUNK // len(points))
    parts = [(squares - 2 * rows[i : i + step] @ points.T).argmin(1) for i in range(0, len(rows), step)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def id_hashes(ids: Sequence[object], seed: int) -> Indices:
    """A number of 63 bits for each id, the same in every process and on every machine."""
    key = seed.to_bytes(8, "little")
    digests = (hashlib.blake2b(str(one).encode(), digest_size=8, key=key).digest() for one in ids)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).__rshift__(1).astype(np.int64)
