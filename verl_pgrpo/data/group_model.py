# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A fitted grouping: assigns users to preference groups, and is stored as JSON with a checksum.

The file contains arrays and names, so reading it runs no code and does not depend on the scikit-learn version of the
fit. JSON keeps a float64 exactly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verl_pgrpo.errors import DataError
from verl_pgrpo.files import atomic_write

Matrix = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FORMAT = {"format": "verl-pgrpo preference groups", "version": 2}


@dataclass(frozen=True)
class GroupModel:
    """Maps features of users to preference groups.

    `mean` and `scale` (D,) standardize the D features; `parameters` are in standardized units. `cluster_group` maps
    each cluster to an index into `groups`: small clusters share a group with their nearest neighbor. `sizes` counts the
    users of the fit, `choice` has one row per number of clusters that was tried. `columns` are the table's columns that
    `features` came from; a column of lists gives several features.
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
        """Return the group of each user (N,) from raw features (N, D). A random grouping needs ids (N,)."""
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise DataError(f"expected {len(self.features)} features ({', '.join(self.features[:6])}, ...)")
        if self.algorithm != "random":
            clusters = self.clusters((values - self.mean) / self.scale)
        elif ids is not None:
            clusters = self._random_clusters(ids)
        else:
            raise DataError("a random grouping is assigned by user id; name the id column with --id-column")
        return np.array(self.groups)[self.cluster_group[clusters]]

    def clusters(self, scaled: Matrix) -> Indices:
        """Return the cluster of each row of standardized features, (N,)."""
        from sklearn.metrics import pairwise_distances_argmin
        from sklearn.mixture import GaussianMixture

        if not len(scaled):
            return np.empty(0, np.int64)
        p = self.parameters
        if self.algorithm == "gaussian-mixture":
            mixture = GaussianMixture(len(p["weights"]), covariance_type="diag")
            mixture.weights_, mixture.means_, mixture.covariances_ = p["weights"], p["means"], p["variances"]
            mixture.precisions_cholesky_ = 1 / np.sqrt(p["variances"])
            return mixture.predict(scaled)
        return pairwise_distances_argmin(scaled, p["centers"])

    def _random_clusters(self, ids: Sequence[object]) -> Indices:
        """Known users keep their cluster. Others draw one by a hash of their id, in the same proportions."""
        p = self.parameters
        hashed, last = id_hashes(ids, self.seed), len(p["shares"]) - 1
        drawn = np.minimum(np.searchsorted(np.cumsum(p["shares"]), hashed / 2.0**63, side="right"), last)
        place = np.minimum(np.searchsorted(p["known"], hashed), len(p["known"]) - 1)
        return np.where(p["known"][place] == hashed, p["known_cluster"][place], drawn)


def id_hashes(ids: Sequence[object], seed: int) -> Indices:
    """Return a 63-bit hash of each id, (N,), the same in every process and on every machine."""
    key = seed.to_bytes(8, "little")
    digests = (hashlib.blake2b(str(one).encode(), digest_size=8, key=key).digest() for one in ids)
    return (np.frombuffer(b"".join(digests), "<u8") >> np.uint64(1)).astype(np.int64)


def random_groups(
    assigned: npt.NDArray[np.str_], ids: Sequence[object], seed: int, groups: Sequence[str] | None = None
) -> GroupModel:
    """Return the control of a grouping: its groups and sizes, given to the same users at random.

    `assigned` (N,) has the true group and `ids` (N,) the user of each row. A user that occurs several times counts
    once, with the first row's group. `groups` are the names in order; default: the sorted names in `assigned`.
    """
    names = tuple(groups) if groups is not None else tuple(np.unique(assigned).tolist())
    hashed, first = np.unique(id_hashes(ids, seed), return_index=True)
    place = {name: i for i, name in enumerate(names)}
    shuffled = np.random.default_rng([seed, 3]).permutation(np.array([place[name] for name in assigned[first]]))
    sizes = np.bincount(shuffled, minlength=len(names))
    return GroupModel(
        algorithm="random", features=(), mean=np.empty(0), scale=np.empty(0), seed=seed,
        parameters={"known": hashed, "known_cluster": shuffled, "shares": sizes / sizes.sum()},
        cluster_group=np.arange(len(names)), groups=names, sizes=tuple(sizes.tolist()),
    )  # fmt: skip


def save_groups(model: GroupModel, path: Path) -> None:
    """Write a grouping as JSON, atomically."""
    content = json.loads(json.dumps(FORMAT | asdict(model), default=np.ndarray.tolist))
    content["parameters"] = content.pop("parameters")  # the longest part goes last
    content["sha256"] = checksum(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps(content, allow_nan=False, indent=1) + "\n")


def load_groups(path: Path) -> GroupModel:
    """Read a grouping."""
    if not path.is_file():
        raise DataError(f"{path}: no such file (`verl-pgrpo groups fit` writes it)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        unaltered = content.pop("sha256") == checksum(content)
        found = {name: content.pop(name) for name in FORMAT}
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a file of `verl-pgrpo groups fit`, or truncated ({str(error)[:120]})") from error
    if found != FORMAT:
        raise DataError(f"{path}: {found['format']} {found['version']}, but this program reads {FORMAT['version']}")
    if not unaltered:
        raise DataError(f"{path}: altered or damaged (its checksum does not match); run `groups fit` again")
    arrays: dict[str, Any] = {name: np.array(content[name]) for name in ("mean", "scale", "cluster_group")}
    arrays["parameters"] = {name: np.array(values) for name, values in content["parameters"].items()}
    tuples = {name: tuple(content[name]) for name in ("features", "columns", "groups", "sizes")}
    return GroupModel(**(content | arrays | tuples))


def checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
