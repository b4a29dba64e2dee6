# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What sets preference groups apart, as text and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.group_model import GroupModel, Matrix
from verl_pgrpo.errors import DataError

POINTS = 5000
FEATURES = 16


def profiles(model: GroupModel, values: Matrix, assigned: npt.NDArray[np.str_]) -> Matrix:
    """Return each group's mean distance from the average user in standard deviations, (groups, D)."""
    scaled = _standardize(values)
    inside = [assigned == name for name in model.groups]
    return np.stack([scaled[rows].mean(0) if rows.any() else np.zeros(scaled.shape[1]) for rows in inside])


def distinctive_features(model: GroupModel, values: Matrix, assigned: npt.NDArray[np.str_]) -> list[str]:
    """Return for each group the three features in which it differs most, such as `share_Horror +1.8`."""
    return [
        ", ".join(f"{model.features[i]} {row[i]:+.1f}" for i in np.argsort(-np.abs(row), kind="stable")[:3])
        for row in profiles(model, values, assigned)
    ]


def draw_groups(model: GroupModel, values: Matrix, assigned: npt.NDArray[np.str_], path: Path) -> None:
    """Write a picture: users on the two principal axes, and the groups' profiles. The suffix sets the format."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError(f'--picture needs matplotlib: pip install "verl-pgrpo[data]" ({error})') from error
    rows = np.sort(np.random.default_rng(0).choice(len(values), min(POINTS, len(values)), replace=False))
    scaled = _standardize(values)[rows]
    _, _, axes = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
    flat = scaled @ axes[:2].T if len(axes) > 1 else np.column_stack([scaled[:, 0], np.zeros(len(rows))])

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
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
    try:
        figure.savefig(path, dpi=110)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _standardize(values: Matrix) -> Matrix:
    return (values - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1.0)
