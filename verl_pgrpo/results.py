# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the history answers: one array per quantity, one element per row asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AdvantageResult", "GroupStatistics"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """A preference group's history, per row asked for: each (N,) float64; count 0, mean and std NaN if unknown."""

    count: Floats
    mean: Floats
    std: Floats


@dataclass(frozen=True, slots=True)
class AdvantageResult:
    """What a batch was given, per row, each (N,).

    `advantages = (reward - mean) / (std + epsilon)`, unscaled where std is 0, and with baseline=blended less what the
    prompt's other responses say (`verl_pgrpo.advantage.prompt_blend`). `mean` and `std` are the ones that were
    used, cold start included; `count` is the number of rewards of the row's own group behind them. `scale` and `shift`
    are the terms of Corollary 3.1, None without generation groups. `cold`: the group's own history was not enough (no
    spread, fewer rewards than `min_count`, or fewer than the prior's pseudo-observations). `skipped`: the reward was
    not finite, the advantage is 0, the statistics are NaN, and the history was left alone.
    """

    advantages: Floats
    mean: Floats
    std: Floats
    count: Floats
    scale: Floats | None
    shift: Floats | None
    cold: NDArray[np.bool_]
    skipped: NDArray[np.bool_]

    def spread(self, kept: NDArray[np.bool_]) -> AdvantageResult:
        """This result at the rows where `kept` (N,) holds; skipped rows, with nothing known of them, at the others."""

        def spread(values: Floats | None, empty: float) -> Floats | None:
            if values is None:
                return None
            out = np.full(len(kept), empty)
            out[kept] = values
            return out

        full = {name: spread(getattr(self, name), np.nan) for name in ("mean", "std", "scale", "shift")}
        cold = np.zeros(len(kept), dtype=np.bool_)
        cold[kept] = self.cold
        advantages, count = spread(self.advantages, 0.0), spread(self.count, 0.0)
        return AdvantageResult(advantages=advantages, count=count, cold=cold, skipped=~kept, **full)  # type: ignore[arg-type]
