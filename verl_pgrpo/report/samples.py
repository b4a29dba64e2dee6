# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Responses of the arms side by side, to the same prompt if they have prompts in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from verl_pgrpo.evaluation.rollouts import read_dump
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.loading import values_of

LONGEST = 1200  # characters of a text
RESPONSES = 2  # per arm and prompt
FROM_START, FROM_END = 1, 2  # prompts per group from the first and from the last fifth of the steps
LOOKED_AT = 50  # steps searched in each fifth


def groups_to_show(comparison: Comparison, wanted: Sequence[int] = ()) -> list[int]:
    """Choose groups: all if there are few; else those asked for, the worst, the most changed and the largest."""
    if len(comparison.labels) <= 12:
        return list(dict.fromkeys([*wanted, *comparison.notable]))
    moved: list[int] = []
    if comparison.ours is not None:
        change, _ = comparison.change(comparison.ours)
        moved = [g for g in change.argsort().tolist() if comparison.ranked[g] and np.isfinite(change[g])]
    worst = comparison.notable[: len(comparison.arms) + 3]  # and the largest
    return list(dict.fromkeys([*wanted, comparison.focus, *moved[-1:], *moved[:1], *worst]))[:24]


def find_samples(comparison: Comparison, chosen: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Find samples of the chosen groups in the first run of each arm.

    Returns:
        By group a list of `step`, `prompt`, and `responses`: per arm its responses, each with `text`, `score` and
        `value`, which is compared (None if that is the score).
    """
    dumps = {
        arm: (run.folder.dumps.files, run.groups)
        for arm, run in enumerate(arm.runs[0] for arm in comparison.arms)
        if run.groups is not None and run.folder.dumps is not None
    }
    found: dict[int, list[dict[str, Any]]] = {group: [] for group in chosen}
    ends = [(comparison.first, FROM_START), (comparison.last[::-1], FROM_END)]
    for steps, wanted in ends if len(comparison.steps) > 1 else ends[:1]:
        frames = [
            read_dump(files[step], group_of).assign(arm=arm)
            for step in steps[:LOOKED_AT].tolist()
            for arm, (files, group_of) in dumps.items()
            if step in files
        ]
        if not frames:
            continue
        everything = pd.concat(frames)
        for group in chosen:
            rows = everything[everything["group"] == comparison.labels[group]]
            arms = rows.groupby(["step", "input"], sort=False)["arm"].nunique()
            shared = arms.index[arms == len(dumps)][:wanted]
            alone = rows.drop_duplicates("arm").set_index(["step", "input"]).index.unique()
            for step, prompt in shared if len(shared) else alone:
                same = rows[(rows["step"] == step) & (rows["input"] == prompt)]
                found[group].append(_sample(comparison, step, prompt, same))
    return {group: samples for group, samples in found.items() if samples}


def _sample(comparison: Comparison, step: int, prompt: str, rows: pd.DataFrame) -> dict[str, Any]:
    responses = {}
    for arm, own in rows.groupby("arm"):
        own = own.head(RESPONSES)
        compared = comparison.value not in ("score", "standardized")
        values = values_of(own, comparison.value).tolist() if compared else [None] * len(own)
        responses[arm] = [
            {"text": _short(text), "score": float(score), "value": value}
            for text, score, value in zip(own["output"], own["score"], values, strict=True)
        ]
    return {"step": step, "prompt": _short(prompt), "responses": responses}


def _short(text: Any) -> str:
    text, rest = str(text), len(str(text)) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]} … ({rest:,} more characters)"
