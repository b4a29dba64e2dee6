# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Summarize a judge's verdicts: per preference group, overall, and how much the position decided."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from verl_pgrpo.evaluation import statistics as st
from verl_pgrpo.evaluation.judge_requests import JudgedPair
from verl_pgrpo.evaluation.verdict import FIRST, MALFORMED, REFUSED, SECOND, TIE

POINTS = {"a": 1.0, TIE: 0.5, "b": 0.0}


def summarize(judged: Sequence[JudgedPair]) -> dict[str, Any]:
    """Return all reported numbers; `docs/evaluation.md` defines each."""
    groups: defaultdict[str, list[JudgedPair]] = defaultdict(list)
    for one in judged:
        groups[one.pair.group].append(one)
    lines = [{"group": group, **_preference(groups[group])} for group in sorted(groups)]
    for line, corrected in zip(lines, st.holm([line["p"] for line in lines]), strict=True):
        line["p_holm"] = corrected
        line["significant"] = None if corrected is None else corrected < st.SIGNIFICANCE
    verdicts = Counter(verdict for one in judged for verdict in one.verdicts)
    return {
        "overall": _preference(judged),
        "groups": lines,
        "verdicts": {name: verdicts[name] for name in (FIRST, SECOND, TIE, MALFORMED, REFUSED)},
        "position": position_bias(judged),
    }


def _preference(judged: Iterable[JudgedPair]) -> dict[str, Any]:
    """Wins of a over b. Interval and test count prompts: the pairs of one prompt are not independent."""
    outcomes: defaultdict[str, list[str]] = defaultdict(list)
    counts: Counter[str | None] = Counter(one.outcome for one in judged)
    for one in judged:
        if one.outcome is not None:
            outcomes[one.pair.prompt_id].append(one.outcome)
    points = [sum(POINTS[outcome] for outcome in several) / len(several) for several in outcomes.values()]
    share = sum(points) / len(points) if points else None
    low, high = _interval(share, len(points))
    ahead, behind = sum(point > 0.5 for point in points), sum(point < 0.5 for point in points)
    return {
        "prompts": len(points),
        "pairs": sum(counts.values()),
        "a": counts["a"],
        "b": counts["b"],
        "tie": counts[TIE],
        "undecided": counts[None],
        "win_rate": share,
        "low": low,
        "high": high,
        "p": st.sign_test(ahead, behind) if points else None,
    }


def position_bias(judged: Iterable[JudgedPair]) -> dict[str, Any]:
    """Measure how often the response shown first was preferred. Each pair is shown both ways: one half is no bias.

    `share_first` counts all verdicts for one of the two, from pairs with two valid verdicts. `p` is a sign test over
    the pairs that contradict themselves: always the first against always the second.
    """
    valid = [one for one in judged if one.valid]
    verdicts = Counter(verdict for one in valid for verdict in one.verdicts)
    decided = verdicts[FIRST] + verdicts[SECOND]
    share = verdicts[FIRST] / decided if decided else None
    low, high = _interval(share, decided)
    both = Counter(one.verdicts for one in valid)
    always_first, always_second = both[FIRST, FIRST], both[SECOND, SECOND]
    agreeing = both[FIRST, SECOND] + both[SECOND, FIRST] + both[TIE, TIE]
    return {
        "share_first": share,
        "low": low,
        "high": high,
        "decided": decided,
        "always_first": always_first,
        "always_second": always_second,
        "p": st.sign_test(always_first, always_second) if always_first + always_second else None,
        "consistency": agreeing / len(valid) if valid else None,
    }


def _interval(share: float | None, count: int) -> tuple[float | None, float | None]:
    interval = None if share is None else st.wilson(share, count)
    return interval if interval is not None else (None, None)
