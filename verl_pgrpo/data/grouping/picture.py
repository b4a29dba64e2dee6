# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A picture of preference groups: users on the two axes of largest variance, and what sets each group apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.grouping.model import GroupModel, Matrix

POINTS = 5000
SHOWN = 16  # features


def profiles(model: GroupModel, values: Matrix, assigned: npt.NDArray[np.str_]) -> Matrix:
    """Mean of each group's scaled features, (groups, D): how far from the average user, in standard deviations."""
    scaled = (values - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1.0)
    inside = [assigned == name for name in model.groups]
    return np.stack([scaled[rows].mean(0) if rows.any() else np.zeros(scaled.shape[1]) for rows in inside])


def telling(model: GroupModel, profile: Matrix, count: int = 3) -> list[str]:
    """For each group the features in which it differs most, such as `share_Horror +1.8`."""
    return [
        ", ".join(f"{model.features[i]} {row[i]:+.1f}" for i in np.argsort(-np.abs(row), kind="stable")[:count])
        for row in profile
    ]


def draw_groups(model: GroupModel, values: Matrix, assigned: npt.NDArray[np.str_], path: Path) -> None:
    """Write the picture (PNG, or whatever the suffix says).

    Raises:
        DataError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError(f'a picture needs matplotlib: pip install "verl-pgrpo[data]" ({error})') from error
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(values), min(POINTS, len(values)), replace=False))
    scaled = (values[rows] - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1.0)
    _, _, axes = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
    flat = scaled @ axes[:2].T if len(axes) > 1 else np.column_stack([scaled[:, 0], np.zeros(len(rows))])

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    users, heat = figure.subplots(1, 2)
    for name in model.groups:
        here = assigned[rows] == name
        users.scatter(flat[here, 0], flat[here, 1], s=6, alpha=0.5, label=f"{name} ({(assigned == name).sum():,})")
    users.set(title=f"{len(values):,} users, {model.algorithm}", xlabel="first axis of variance", ylabel="second")
    users.legend(markerscale=2, fontsize=8)
    profile = profiles(model, values, assigned)
    widest = np.argsort(-np.abs(profile).max(0), kind="stable")[:SHOWN]
    limit = max(float(np.abs(profile).max()), 1e-9)
    image = heat.imshow(profile[:, widest], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    heat.set(title="what sets them apart (standard deviations)", yticks=range(len(model.groups)))
    heat.set_yticklabels(model.groups)
    heat.set_xticks(range(len(widest)), [model.features[i] for i in widest], rotation=70, ha="right", fontsize=8)
    figure.colorbar(image, ax=heat)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=110)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
