# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Fit a grouping: scale, choose K, cluster, merge what is too small, name by size.

K is chosen by two questions. Do fits of different seeds on different four fifths of the users agree (adjusted Rand
index)? Are users nearer to their own group than to the next (silhouette)? Among the K that are stable the best
separated wins; a K whose smallest cluster would be merged away is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.grouping.clusterers import fit_clusters
from verl_pgrpo.data.grouping.model import GroupModel, Indices, Matrix, id_hashes

SMALLEST_SHARE = 0.01  # default of min_size: of 1024 responses a step, ten are such a group's
SEEDS = 5
STABLE = 0.75  # adjusted Rand index from which two clusterings are usually called alike
SAMPLE = 5000  # users that silhouette and stability are measured on: their cost is quadratic


def fit_groups(
    values: Matrix,
    features: Sequence[str],
    *,
    algorithm: str = "kmeans",
    k: int | None = None,
    k_range: tuple[int, int] = (2, 10),
    min_size: int | None = None,
    scale: bool = True,
    seed: int = 0,
    id_column: str | None = None,
) -> GroupModel:
    """Find preference groups.

    Args:
        values: (N, D) finite features, a row per user.
        features: their names.
        algorithm: `kmeans`, `minibatch-kmeans`, `gaussian-mixture` or `hdbscan`.
        k: number of groups; None chooses it (and must be None for hdbscan, which finds its own).
        k_range: first and last k to try.
        min_size: users of the smallest group; smaller ones are merged with the nearest. Default: one per cent.
        scale: bring all features to mean 0 and std 1. For embeddings, whose axes mean nothing alone, rather not.
        seed: of everything random.
        id_column: remembered, for `groups assign`.

    Raises:
        DataError: too few users, equal ones only, or an option out of range.
    """
    users = len(values)
    size = max(2, round(users * SMALLEST_SHARE)) if min_size is None else min_size
    _check(values, algorithm, k, k_range, size, seed)
    mean = values.mean(0) if scale else np.zeros(values.shape[1])
    spread = values.std(0) if scale else np.ones(values.shape[1])
    spread[spread <= 1e-12 * (1 + np.abs(mean))] = 1.0  # a constant feature tells nothing, and must not divide
    blank = GroupModel(
        algorithm=algorithm, features=tuple(features), columns=tuple(features), mean=mean, scale=spread, parameters={},
        cluster_group=np.empty(0, np.int64), groups=(), sizes=(), seed=seed, id_column=id_column,
    )  # fmt: skip
    scaled = (values - mean) / spread

    choice: list[dict[str, Any]] = []
    if algorithm != "hdbscan" and k is None:
        k, choice = _choose_k(blank, scaled, k_range, size)
    model = replace(blank, parameters=fit_clusters(scaled, algorithm, k or 0, seed, size), choice=choice)
    groups, names, sizes = _merge_small(scaled, model.clusters(scaled), _clusters_of(model), size)
    if len(names) < 2:
        raise DataError(
            f"only one group of at least {size} users: nothing to personalize; lower --min-size or --groups"
        )
    return replace(model, cluster_group=groups, groups=names, sizes=sizes)


def randomize(model: GroupModel, assigned: npt.NDArray[np.str_], ids: Sequence[object], seed: int) -> GroupModel:
    """The control of a grouping: the same groups and sizes, given to the same users by chance.

    Args:
        model: the true grouping.
        assigned: (N,) its groups.
        ids: (N,) of the users, each once; new ones are later drawn by a hash of theirs, in the same proportions.
        seed: of the permutation.

    Raises:
        DataError: an id occurs twice.
    """
    if len(set(map(str, ids))) < len(ids):
        raise DataError("the users' ids are not unique, so random groups cannot go by them; one row per user, please")
    control = random_groups(assigned, ids, seed, model.groups)
    return replace(control, features=model.features, columns=model.columns, mean=model.mean, scale=model.scale,
                   id_column=model.id_column)  # fmt: skip


def random_groups(
    assigned: npt.NDArray[np.str_], ids: Sequence[object], seed: int, groups: Sequence[str] | None = None
) -> GroupModel:
    """Random groups with the sizes of these, over different ids: an id that occurs again counts where it came first."""
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


def _check(values: Matrix, algorithm: str, k: int | None, k_range: tuple[int, int], min_size: int, seed: int) -> None:
    if values.ndim != 2 or not values.shape[1]:
        raise DataError("no features to cluster by")
    if seed < 0:
        raise DataError(f"--seed must be >= 0, got {seed}")
    if min_size < 1 or 2 * min_size > len(values):
        raise DataError(f"--min-size {min_size}: two such groups need {2 * min_size} users, there are {len(values)}")
    if algorithm == "hdbscan" and k is not None:
        raise DataError("hdbscan finds the number of groups itself: leave --groups at auto")
    largest = k_range[1] if k is None else k
    if (k is None and not 2 <= k_range[0] <= k_range[1]) or largest < 2:
        raise DataError("at least two groups, please: --groups 2 or more, --k-min 2 or more and at most --k-max")
    distinct = len(np.unique(values[:100_000], axis=0))
    if distinct < (k or 2) and (len(values) <= 100_000 or len(np.unique(values, axis=0)) < (k or 2)):
        raise DataError(f"the users have only {distinct} different feature rows, too few for {k or 2} groups")


def _choose_k(blank: GroupModel, scaled: Matrix, k_range: tuple[int, int], size: int) -> tuple[int, list[dict]]:
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    rng = np.random.default_rng([blank.seed, 0])
    sample = scaled[np.sort(rng.choice(len(scaled), min(SAMPLE, len(scaled)), replace=False))]
    distinct = len(np.unique(sample, axis=0))
    smallest = size / len(scaled) * len(sample)
    lines: list[dict[str, Any]] = []
    for k in range(k_range[0], min(k_range[1], distinct - 1) + 1):
        labels: list[Indices] = []
        for trial in range(SEEDS):
            part = np.sort(rng.choice(len(sample), max(k, len(sample) * 4 // 5), replace=False))
            fitted = replace(blank, parameters=fit_clusters(sample[part], blank.algorithm, k, blank.seed + trial, size))
            labels.append(fitted.clusters(sample))
        stability = float(np.mean([adjusted_rand_score(a, b) for a, b in combinations(labels, 2)]))
        apart = [silhouette_score(sample, one) for one in labels if 1 < len(np.unique(one)) < len(sample)]
        fewest = min(int(np.bincount(one, minlength=k).min()) for one in labels)
        lines.append(
            {
                "k": k,
                "silhouette": float(np.mean(apart)) if apart else -1.0,
                "stability": stability,
                "smallest": fewest,
                "large_enough": bool(fewest >= smallest),
            }
        )
    if not lines:
        raise DataError(f"too few different users ({distinct}) to choose the number of groups; name it with --groups")
    able = [line for line in lines if line["large_enough"]] or lines[:1]
    most = max(line["stability"] for line in able)
    stable = [line for line in able if line["stability"] >= min(STABLE, most)]
    best = max(stable, key=lambda line: (line["silhouette"], -line["k"]))
    return int(best["k"]), lines


def _clusters_of(model: GroupModel) -> int:
    if model.algorithm == "hdbscan":
        return int(model.parameters["example_cluster"].max()) + 1
    return len(model.parameters["centers"])


def _merge_small(
    scaled: Matrix, clusters: Indices, count: int, min_size: int
) -> tuple[Indices, tuple[str, ...], tuple[int, ...]]:
    """Each cluster's group, the groups' names and sizes: the smallest joins its nearest until all are large enough."""
    group = np.arange(count)
    sizes = np.bincount(clusters, minlength=count).astype(np.int64)
    sums = np.stack([np.bincount(clusters, weights=column, minlength=count) for column in scaled.T], axis=1)
    while True:
        alive = np.unique(group)
        small = alive[np.argmin(sizes[alive])]
        if len(alive) == 1 or sizes[small] >= min_size:
            break
        others = alive[alive != small]
        others = others[sizes[others] > 0]
        here = sums[small] / max(sizes[small], 1)
        target = others[np.argmin(((sums[others] / sizes[others, None] - here) ** 2).sum(1))]
        group[group == small] = target
        sizes[target] += sizes[small]
        sums[target] += sums[small]
    by_size = alive[np.argsort(-sizes[alive], kind="stable")]
    width = len(str(len(by_size) - 1))
    place = {int(cluster): i for i, cluster in enumerate(by_size)}
    names = tuple(f"g{i:0{width}d}" for i in range(len(by_size)))
    return np.array([place[int(one)] for one in group]), names, tuple(int(sizes[one]) for one in by_size)
