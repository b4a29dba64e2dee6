# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Responses of the arms side by side: to the same prompt where they had the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from verl_pgrpo.evaluation.rollouts import read_dump
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.loading import values_of

LONGEST = 1200  # characters of a text
RESPONSES = 2  # per arm and prompt
FROM_START, FROM_END = 1, 2  # prompts per group from the first and from the last fifth of the steps


@dataclass(frozen=True)
class Response:
    """A response, its reward, and what is compared (None if that is the reward)."""

    text: str
    score: float
    value: float | None


@dataclass(frozen=True)
class Sample:
    """A prompt of a step and the responses of each arm (by index) that had it."""

    step: int
    prompt: str
    responses: dict[int, list[Response]]


def groups_to_show(comparison: Comparison, wanted: Sequence[int] = ()) -> list[int]:
    """Choose groups: all if there are few; else those asked for, the worst, the most changed and the largest."""
    largest = np.argsort(-comparison.share, kind="stable").tolist()
    found = [*wanted, comparison.focus]
    if len(comparison.labels) > 12:
        found += [comparison.worst(arm) for arm in range(len(comparison.arms))]
        if comparison.ours is not None:
            change, _ = comparison.change(comparison.ours)
            moved = [g for g in change.argsort().tolist() if comparison.ranked[g] and np.isfinite(change[g])]
            found += [*moved[-1:], *moved[:1]]
        largest = largest[:3]
    return list(dict.fromkeys([*found, *largest]))[:24]


def find_samples(comparison: Comparison, chosen: Sequence[int]) -> dict[int, list[Sample]]:
    """Find samples of the chosen groups in the first run of each arm."""
    dumps = {
        i: (run.folder.dumps.files, run.groups)
        for i, run in enumerate(arm.runs[0] for arm in comparison.arms)
        if run.groups is not None and run.folder.dumps is not None
    }

    @lru_cache(maxsize=1)
    def read(step: int) -> dict[int, pd.DataFrame]:
        return {arm: read_dump(files[step], groups) for arm, (files, groups) in dumps.items() if step in files}

    found: dict[int, list[Sample]] = {group: [] for group in chosen}
    for steps, wanted in ((comparison.first, FROM_START), (comparison.last[::-1], FROM_END)):
        samples: dict[int, list[Sample]] = {group: [] for group in chosen}
        shared = dict.fromkeys(chosen, 0)  # number of prompts that all arms had
        for step in steps.tolist():
            for group in (group for group in chosen if shared[group] < wanted):
                rows = {arm: rows[rows["group"] == comparison.labels[group]] for arm, rows in read(step).items()}
                prompts = [set(own["input"]) for own in rows.values()]
                common = sorted(set.intersection(*prompts)) if prompts and len(prompts) == len(dumps) else []
                if common and not shared[group]:
                    samples[group] = []  # better than what only some arms had
                for prompt in common[: wanted - shared[group]]:
                    samples[group].append(_sample(comparison, step, prompt, rows))
                shared[group] += len(common)
                missing = rows.keys() - {arm for sample in samples[group] for arm in sample.responses}
                for arm in (arm for arm in sorted(missing) if len(rows[arm])):
                    samples[group].append(_sample(comparison, step, rows[arm]["input"].iloc[0], {arm: rows[arm]}))
            if all(count >= wanted for count in shared.values()):
                break
        for group in chosen:
            found[group] += samples[group]
    return {group: samples for group, samples in found.items() if samples}


def _sample(comparison: Comparison, step: int, prompt: str, rows: dict[int, pd.DataFrame]) -> Sample:
    responses = {arm: _responses(comparison, own[own["input"] == prompt]) for arm, own in rows.items()}
    return Sample(step, _short(prompt), responses)


def _responses(comparison: Comparison, rows: pd.DataFrame) -> list[Response]:
    rows = rows.head(RESPONSES)
    same = comparison.value in ("score", "standardized")
    values = [None] * len(rows) if same else values_of(rows, comparison.value).tolist()
    return [
        Response(_short(text), float(score), value)
        for text, score, value in zip(rows["output"], rows["score"], values, strict=True)
    ]


def _short(text: str) -> str:
    text, rest = str(text), len(str(text)) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]} … ({rest:,} more characters)"
