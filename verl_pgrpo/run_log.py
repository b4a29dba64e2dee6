# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a run says of its preference groups: a line at its start, numbers after every step, warnings when due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.factor import Factor
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.metrics import StepMetrics
from verl_pgrpo.results import AdvantageResult
from verl_pgrpo.watch import HistoryWatch

__all__ = ["RunLog", "describe"]

_NAMED = 8


class RunLog:
    """Of one run with this history.

    Args:
        history: the run's history, as it is when the run starts.
        sizes: rows per preference group in the training set; None where that cannot be known.
    """

    def __init__(self, history: GroupHistoryManager, sizes: Mapping[str, int] | None) -> None:
        self._metrics = StepMetrics(history)
        self._watch = HistoryWatch(history, sizes)
        print(describe(history, sizes), flush=True)

    def add(self, groups: Sequence[str] | Factor[str], rewards: ArrayLike, result: AdvantageResult) -> None:
        """One batch's rows, as they went to `GroupHistoryManager.advantages`."""
        self._metrics.add(groups, rewards, result)
        self._watch.add(groups, rewards, result)

    def flush(self) -> dict[str, float]:
        """End of a training step: its metrics. What there is to warn of is printed."""
        for line in self._watch.flush():
            print(f"P-GRPO warning: {line}", flush=True)
        return self._metrics.flush()


def describe(history: GroupHistoryManager, sizes: Mapping[str, int] | None) -> str:
    """One line: what is normalised over what."""
    if sizes is None:
        data = "groups unknown until the first rollout (the dataset is not a table)"
    else:
        total = sum(sizes.values())
        ordered = sorted(sizes, key=lambda group: -sizes[group])
        shown = ordered if len(ordered) <= _NAMED else [*ordered[:_NAMED], ordered[-1]]
        parts = [f"{group!r:.50} {sizes[group]} ({sizes[group] / total:.1%})" for group in shown]
        if len(shown) < len(ordered):
            parts.insert(_NAMED, "...")
        data = f"{len(sizes)} preference groups in {total} training rows: {', '.join(parts)}"
    options, default = history.config.as_dict(), PGRPOConfig().as_dict()
    changed = {key: value for key, value in options.items() if value != default[key]}
    return (
        f"P-GRPO: each response's reward is normalised by the reward history of its {history.config.group_key!r}: "
        f"{data}; history so far: {history.total_count} rewards of {history.num_groups} groups; "
        f"options: {changed or 'all default'}"
    )
