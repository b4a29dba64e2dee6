# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Describe how preference groups differ, as text and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from verl_pgrpo.data.group_model import GroupModel, Matrix

POINTS = 5000
FEATURES = 16


def profiles(model: GroupModel, values: Matrix, assigned: npt.NDArray[np.str_]) -> Matrix:
    """Return each group's mean distance from the average user in standard deviations, (groups, D)."""
    from sklearn.preprocessing import StandardScaler

    means = pd.DataFrame(StandardScaler().fit_transform(values)).groupby(assigned).mean()
    return means.reindex(model.groups, fill_value=0.0).to_numpy()


def distinctive_features(model: GroupModel, values: Matrix, assigned: npt.NDArray[np.str_]) -> list[str]:
    """Return for each group the three features in which it differs most, such as `share_Horror +1.8`."""
    return [
        ", ".join(f"{model.features[i]} {row[i]:+.1f}" for i in np.argsort(-np.abs(row), kind="stable")[:3])
        for row in profiles(model, values, assigned)
    ]


def draw_groups(model: GroupModel, values: Matrix, assigned: npt.NDArray[np.str_], path: Path) -> None:
    """Write a picture: users on the two principal axes, and the groups' profiles. The suffix sets the format."""
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    rows = np.sort(np.random.default_rng(0).choice(len(values), min(POINTS, len(values)), replace=False))
    flat = np.zeros((len(rows), 2))
    axes = min(2, *values.shape)
    flat[:, :axes] = PCA(axes, svd_solver="full").fit_transform(StandardScaler().fit_transform(values)[rows])
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    users, heat = figure.subplots(1, 2)
    for name in model.groups:
        here = assigned[rows] == name
        users.scatter(flat[here, 0], flat[here, 1], s=6, alpha=0.5, label=f"{name} ({(assigned == name).sum():,})")
    users.set(title=f"{len(values):,} users, {model.algorithm}", xlabel="principal axis 1", ylabel="principal axis 2")
    users.legend(markerscale=2, fontsize=8)
    profile = profiles(model, values, assigned)
    widest = np.argsort(-np.abs(profile).max(0), kind="stable")[:FEATURES]
    limit = max(float(np.abs(profile).max()), 1e-9)
    image = heat.imshow(profile[:, widest], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    heat.set(title="difference from the average user (standard deviations)")
    heat.set_yticks(range(len(model.groups)), model.groups)
    heat.set_xticks(range(len(widest)), [model.features[i] for i in widest], rotation=70, ha="right", fontsize=8)
    figure.colorbar(image, ax=heat)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
