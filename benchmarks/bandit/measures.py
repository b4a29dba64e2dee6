# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Measures of a run, and their intervals: Student's t, 95 %, over seeds; differences are paired by seed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from benchmarks.bandit.train import Outcome, final_utility

Floats = NDArray[np.float64]
# Utility in hundredths at the end (last tenth of the steps) and over all steps (AUC). Mean: every group counts once.
# Weighted: every group counts in proportion to its share of the prompts. Worst: each seed's own worst group.
MEASURES = ("mean", "worst", "AUC mean", "AUC worst", "weighted")


def measures(outcome: Outcome, at_grpos: bool = False) -> Floats:
    """(seeds, len(MEASURES)) of an entrant, with its own step size or with `grpo`'s."""
    curves = outcome.curves_at_grpos if at_grpos else outcome.curves
    assert curves is not None
    end, area = final_utility(curves), curves.mean(1)
    weighted = (end * torch.tensor(outcome.shares)).sum(-1)
    parts = [end.mean(-1), end.min(-1).values, area.mean(-1), area.min(-1).values, weighted]
    return 100 * torch.stack(parts, -1).double().numpy()


def reached(curves: Tensor, goal: Tensor) -> float:
    """Median over seeds of the first step at which the mean over groups equals what `goal` (curves too) ends with.

    Infinite if most seeds never reach it.
    """
    there = curves.mean(-1) >= final_utility(goal).mean(-1, keepdim=True)
    first = torch.where(there.any(-1), there.int().argmax(-1).double(), float("inf"))
    return float(np.median(first.numpy()))


def half_width(values: Floats) -> Floats:
    """Half-width of the interval of the mean over the first axis."""
    return np.asarray(stats.t.ppf(0.975, len(values) - 1) * values.std(0, ddof=1) / len(values) ** 0.5)


def signed(values: Floats) -> str:
    """A difference with its interval; bold if the interval excludes 0."""
    mean, half = values.mean(), half_width(values)
    text = f"{mean:+.1f} ± {half:.1f}"
    return f"**{text}**" if abs(mean) > half else text


def signed_pair(values: Floats) -> str:
    """Differences (seeds, measures) of the mean over groups / of the worst group."""
    return f"{signed(values[:, 0])} / {signed(values[:, 1])}"
