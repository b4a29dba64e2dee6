# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's clustering, each reduced to the arrays that `GroupModel` applies.

On one thread: the sums of several come in another order each time, and equal seeds would not give equal bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.grouping.model import Matrix

Parameters = dict[str, npt.NDArray[Any]]

# Rows that are fitted at most, drawn at random; all others are assigned. More changes centres by next to nothing.
FIT_ROWS = {"kmeans": 200_000, "minibatch-kmeans": 1_000_000, "gaussian-mixture": 100_000, "hdbscan": 20_000}
EXAMPLES = 2000  # labelled rows kept of a density clustering, which has no centres


def fit_clusters(scaled: Matrix, algorithm: str, k: int, seed: int, min_size: int) -> Parameters:
    """The parameters of one clustering; k does not count for `hdbscan`, min_size only for it.

    Raises:
        DataError: unknown algorithm, scikit-learn is not installed, or no cluster was found.
    """
    if algorithm not in FITTERS:
        raise DataError(f"unknown algorithm {algorithm!r}; one of {', '.join(FITTERS)}")
    if len(scaled) > FIT_ROWS[algorithm]:
        chosen = np.random.default_rng([seed, 1]).choice(len(scaled), FIT_ROWS[algorithm], replace=False)
        scaled = scaled[np.sort(chosen)]
    try:
        import sklearn  # noqa: F401
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise DataError(f'clustering needs scikit-learn: pip install "verl-pgrpo[data]" ({error})') from error
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: silhouette and stability judge the result
        return FITTERS[algorithm](scaled, k, seed, min_size)


def _kmeans(scaled: Matrix, k: int, seed: int, min_size: int) -> Parameters:
    from sklearn.cluster import KMeans

    return {"centers": KMeans(k, n_init=4, random_state=seed).fit(scaled).cluster_centers_}


def _minibatch(scaled: Matrix, k: int, seed: int, min_size: int) -> Parameters:
    from sklearn.cluster import MiniBatchKMeans

    return {"centers": MiniBatchKMeans(k, n_init=4, batch_size=4096, random_state=seed).fit(scaled).cluster_centers_}


def _mixture(scaled: Matrix, k: int, seed: int, min_size: int) -> Parameters:
    """Axis-parallel components: full covariances have D * D numbers each, more than small groups can support."""
    from sklearn.mixture import GaussianMixture

    found = GaussianMixture(k, covariance_type="diag", reg_covar=1e-3, n_init=2, random_state=seed).fit(scaled)
    return {"centers": found.means_, "variances": found.covariances_, "weights": np.maximum(found.weights_, 1e-12)}


def _hdbscan(scaled: Matrix, k: int, seed: int, min_size: int) -> Parameters:
    """A group for everybody: whoever the algorithm calls noise goes with the nearest labelled example."""
    from sklearn.cluster import HDBSCAN

    labels = HDBSCAN(min_cluster_size=min(max(min_size, 5), max(len(scaled) // 2, 2)), copy=True).fit(scaled).labels_
    found = np.unique(labels[labels >= 0])
    if not len(found):
        raise DataError("hdbscan finds no dense region in these features; try kmeans, or a smaller --min-size")
    rng = np.random.default_rng([seed, 2])
    quota = max(1, EXAMPLES // len(found))
    kept = [np.flatnonzero(labels == label) for label in found]
    kept = [np.sort(rng.choice(rows, min(quota, len(rows)), replace=False)) for rows in kept]
    rows = np.concatenate(kept)
    return {"examples": scaled[rows], "example_cluster": labels[rows].astype(np.int64)}


FITTERS: dict[str, Callable[[Matrix, int, int, int], Parameters]] = {
    "kmeans": _kmeans,
    "minibatch-kmeans": _minibatch,
    "gaussian-mixture": _mixture,
    "hdbscan": _hdbscan,
}
