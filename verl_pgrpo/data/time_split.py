# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""One moment divides everything: what came before it may be used, what came after is only ever asked about.

A split at each user's own last ratings would be leakier than it looks: one user's training rows would then lie after
another's test rows, and popularity, clusters and features would know the future. So the cut is the same for all users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verl_pgrpo.data.errors import DataError, LeakError

Times = npt.NDArray[np.int64]


def cut_time(time: Times, test_fraction: float) -> int:
    """The first moment of the test side, so that about this fraction of all events is not before it.

    It depends on when things happened and on nothing else about them. Events of one moment stay together.

    Raises:
        DataError: the fraction is not between 0 and 1, or all events are of one moment.
    """
    if not 0 < test_fraction < 1:
        raise DataError(f"--test-fraction must be between 0 and 1, got {test_fraction}")
    place = min(int(len(time) * (1 - test_fraction)), len(time) - 1)
    cut = int(np.partition(time, place)[place])
    if cut == time.min():
        raise DataError("nothing came before the test side: too few different timestamps, or --test-fraction too large")
    return cut


@dataclass(frozen=True, slots=True)
class Evidence:
    """When what a split is made of happened: per row the newest event in its prompt (R,) and its answer (R,).

    `given_away` (R,) is true where a prompt holds its own answer: many events are of the same second, so times alone
    would not show it.
    """

    prompt: Times
    answer: Times
    given_away: npt.NDArray[np.bool_] | None = None


def check_no_leak(cut: int, features_until: int, train: Evidence, val: Evidence) -> None:
    """Hold finished splits against the cut, by timestamps alone and not by how they were made.

    Args:
        cut: first moment of the test side.
        features_until: newest event in any feature, cluster or candidate's popularity.
        train: of the training rows.
        val: of the validation rows.

    Raises:
        LeakError: something is on the wrong side; the message says what, and how often.
    """
    wrong = {
        "features or clusters from the test side": int(features_until >= cut),
        "training answers from the test side": int((train.answer >= cut).sum()),
        "training prompts with the test side in them": int((train.prompt >= cut).sum()),
        "training prompts that know what came after their answer": int((train.prompt > train.answer).sum()),
        "validation prompts with the test side in them": int((val.prompt >= cut).sum()),
        "validation answers from the training side": int((val.answer < cut).sum()),
    }
    for name, side in (("training", train), ("validation", val)):
        if side.given_away is not None:
            wrong[f"{name} prompts that hold their own answer"] = int(side.given_away.sum())
    found = [f"{what} ({count})" for what, count in wrong.items() if count]
    if found:
        raise LeakError(f"the split by time leaks: {'; '.join(found)}; nothing was written")
