# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A split at one point in time, and sampling that treats groups equally."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from verl_pgrpo.errors import DataError


def cut_time(time: npt.NDArray[np.int64], test_fraction: float) -> int:
    """Return the first time of the test side, which has about this fraction of all events.

    Events at the same time stay together.
    """
    place = min(int(len(time) * (1 - test_fraction)), len(time) - 1)
    cut = int(np.partition(time, place)[place])
    if cut == time.min():
        raise DataError("no event precedes the test side: too few distinct times, or the test side is too large")
    return cut


def sample_evenly(labels: npt.NDArray[np.str_], size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return up to `size` indices in random order, with equally many of each label as far as available."""
    shuffled = rng.permutation(len(labels))
    turn = pd.Series(shuffled).groupby(labels[shuffled]).cumcount()
    return shuffled[np.argsort(turn.to_numpy(), kind="stable")[:size]]
