# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Cluster users into preference groups with scikit-learn: standardize, choose K, fit, merge small clusters.

K is chosen by two measures. Stability: do fits with different seeds on different 80% of the users agree (adjusted Rand
index)? Separation: are users closer to their own cluster than to the next one (silhouette)? Among the stable K, the
best separated one wins. A K is not considered if its smallest cluster would be merged.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.group_model import GroupModel, Indices, Matrix, random_groups
from verl_pgrpo.errors import DataError

ALGORITHMS = ("kmeans", "minibatch-kmeans", "gaussian-mixture")
SMALLEST_SHARE = 0.01  # default min_size: such a group gets ten of 1024 responses per step
SEEDS = 5
STABLE = 0.75  # adjusted Rand index above which two clusterings are commonly called alike
SAMPLE = 5000  # users for choosing K: the cost of the silhouette is quadratic
FIT_ROWS = 200_000  # users for the fit; the rest are assigned. More users hardly move the centers


def fit_groups(
    values: Matrix,
    features: Sequence[str],
    *,
    algorithm: str = "kmeans",
    k: int | None = None,
    k_range: tuple[int, int] = (2, 10),
    min_size: int | None = None,
    scale: bool = True,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    id_column: str | None = None,
) -> GroupModel:
    """Cluster users into preference groups, named g0, g1, ... from the largest to the smallest.

    Args:
        values: (N, D) finite features, one row per user.
        features: (D,) their names.
        algorithm: one of `ALGORITHMS`.
        k: number of clusters; None chooses it from `k_range` (first and last).
        min_size: users of the smallest group. Smaller clusters are merged with the nearest. Default: 1% of the users.
        scale: standardize the features. Not useful for embeddings, whose axes have no individual meaning.
        weights: (D,) of the features in squared distances, after standardizing; default 1.
        seed: equal arguments give an identical model.
        id_column: stored for `groups assign`.

    Raises:
        DataError: no features, too few distinct users, or an invalid number of groups.
    """
    from sklearn.preprocessing import StandardScaler

    size = max(2, round(len(values) * SMALLEST_SHARE)) if min_size is None else min_size
    _check(values, k, k_range, size)
    scaler = StandardScaler().fit(values)
    mean, spread = (scaler.mean_, scaler.scale_) if scale else (np.zeros(values.shape[1]), np.ones(values.shape[1]))
    spread = spread if weights is None else spread / np.sqrt(weights)
    scaled = (values - mean) / spread
    choice: list[dict[str, Any]] = []
    if k is None:
        k, choice = _choose_k(scaled, algorithm, k_range, size, seed)
    model = replace(_fit(scaled, algorithm, k, seed), mean=mean, scale=spread, choice=choice, id_column=id_column,
                    features=tuple(features), columns=tuple(features))  # fmt: skip
    group, names, sizes = _merge_small(scaled, model.clusters(scaled), k, size)
    if len(names) < 2:
        raise DataError(f"only one group has {size} users or more; lower --min-size or --groups")
    return replace(model, cluster_group=group, groups=names, sizes=sizes)


def randomize(model: GroupModel, assigned: npt.NDArray[np.str_], ids: Sequence[object], seed: int) -> GroupModel:
    """Return the control of a grouping, which takes the same features: see `random_groups`."""
    if len(set(map(str, ids))) < len(ids):
        raise DataError("user ids are not unique, so random groups cannot be assigned by id; give one row per user")
    control = random_groups(assigned, ids, seed, model.groups)
    return replace(control, features=model.features, columns=model.columns, mean=model.mean, scale=model.scale,
                   id_column=model.id_column)  # fmt: skip


def _fit(scaled: Matrix, algorithm: str, k: int, seed: int) -> GroupModel:
    """Fit one clustering; every cluster is a group."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    if len(scaled) > FIT_ROWS:
        chosen = np.random.default_rng([seed, 1]).choice(len(scaled), FIT_ROWS, replace=False)
        scaled = scaled[np.sort(chosen)]
    # One thread: with several, the order of additions varies, and equal seeds would not give identical results.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stability and silhouette measure the result
        if algorithm == "gaussian-mixture":
            # Full covariances have D * D numbers per group, more than small groups can support.
            fit = GaussianMixture(k, covariance_type="diag", reg_covar=1e-3, n_init=2, random_state=seed).fit(scaled)
            weights = np.maximum(fit.weights_, 1e-12)
            parameters = {"means": fit.means_, "variances": fit.covariances_, "weights": weights}
        else:
            kind = {"kmeans": KMeans, "minibatch-kmeans": partial(MiniBatchKMeans, batch_size=4096)}[algorithm]
            parameters = {"centers": kind(k, n_init=4, random_state=seed).fit(scaled).cluster_centers_}
    return GroupModel(
        algorithm=algorithm, features=(), mean=np.empty(0), scale=np.empty(0), parameters=parameters,
        cluster_group=np.arange(k), groups=tuple(map(str, range(k))), sizes=(), seed=seed,
    )  # fmt: skip


def _check(values: Matrix, k: int | None, k_range: tuple[int, int], min_size: int) -> None:
    if values.ndim != 2 or not values.shape[1]:
        raise DataError("there are no features to cluster by")
    if min_size < 1 or 2 * min_size > len(values):
        raise DataError(f"--min-size {min_size}: two such groups need {2 * min_size} users (got {len(values)})")
    if not (2 <= k_range[0] <= k_range[1] if k is None else k >= 2):
        raise DataError("at least two groups are needed: --groups >= 2, and 2 <= --k-min <= --k-max")
    distinct = len(np.unique(values[:FIT_ROWS], axis=0))
    if distinct < (k or 3):
        needed = f"--groups {k} needs {k}" if k else "--groups auto needs 3"
        raise DataError(f"the users have only {distinct} distinct feature rows; {needed}")


def _choose_k(
    scaled: Matrix, algorithm: str, k_range: tuple[int, int], size: int, seed: int
) -> tuple[int, list[dict[str, Any]]]:
    """Return the number of clusters, and the measures of every number that was tried."""
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    rng = np.random.default_rng([seed, 0])
    sample = scaled[np.sort(rng.choice(len(scaled), min(SAMPLE, len(scaled)), replace=False))]
    most_clusters = min(k_range[1], len(np.unique(sample, axis=0)) - 1)
    rows: list[dict[str, Any]] = []
    for k in range(k_range[0], most_clusters + 1):
        labels: list[Indices] = []
        for trial in range(SEEDS):
            part = np.sort(rng.choice(len(sample), max(k, len(sample) * 4 // 5), replace=False))
            labels.append(_fit(sample[part], algorithm, k, seed + trial).clusters(sample))
        apart = [silhouette_score(sample, one) for one in labels if 1 < len(np.unique(one)) < len(sample)]
        fewest = min(int(np.bincount(one, minlength=k).min()) for one in labels)
        row = {"k": k, "silhouette": float(np.mean(apart)) if apart else -1.0}
        row["stability"] = float(np.mean([adjusted_rand_score(a, b) for a, b in combinations(labels, 2)]))
        rows.append(row | {"smallest": fewest, "large_enough": fewest >= size / len(scaled) * len(sample)})
    if not rows:
        raise DataError(f"too few distinct users to choose from --k-min {k_range[0]} groups on; set --groups")
    able = [row for row in rows if row["large_enough"]] or rows[:1]
    threshold = min(STABLE, max(row["stability"] for row in able))
    stable = [row for row in able if row["stability"] >= threshold]
    return int(max(stable, key=lambda row: (row["silhouette"], -row["k"]))["k"]), rows


def _merge_small(
    scaled: Matrix, clusters: Indices, k: int, min_size: int
) -> tuple[Indices, tuple[str, ...], tuple[int, ...]]:
    """Merge the smallest cluster into its nearest until all have `min_size` users.

    Returns the group of each cluster (k,), the groups' names and their sizes, the largest first.
    """
    merged = np.arange(k)
    while True:
        alive, sizes = np.unique(merged[clusters], return_counts=True)
        small = sizes.argmin()
        if len(alive) == 1 or sizes[small] >= min_size:
            break
        centers = np.stack([scaled[merged[clusters] == one].mean(0) for one in alive])
        distance = ((centers - centers[small]) ** 2).sum(1)
        distance[small] = np.inf
        merged[merged == alive[small]] = alive[distance.argmin()]
    order = np.argsort(-sizes, kind="stable")
    width = len(str(len(order) - 1))
    names = tuple(f"g{i:0{width}d}" for i in range(len(order)))
    # The fit may use a sample of the users. A cluster to which no user is assigned belongs to the largest group.
    return np.argmax(merged[:, None] == alive[order], axis=1), names, tuple(sizes[order].tolist())
