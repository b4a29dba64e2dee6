# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Summarize a judge's verdicts: per preference group, overall, and the effect of the position.

`judged` has a row per pair with the columns prompt_id, preference_group, a_first and b_first (the verdicts with a and
with b shown first), and outcome (`a`, `b`, `tie`, or None if a verdict is missing).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pandas as pd

from verl_pgrpo.evaluation import statistics as st
from verl_pgrpo.evaluation.judge_requests import FIRST, MALFORMED, REFUSED, SECOND, TIE

_OUTCOMES = {(FIRST, SECOND): "a", (SECOND, FIRST): "b"}


def outcome(a_first: str, b_first: str) -> str | None:
    """Return `a` or `b` if both orders prefer it, else `tie`; None if a verdict is malformed or missing."""
    if {a_first, b_first} & {MALFORMED, REFUSED}:
        return None
    return _OUTCOMES.get((a_first, b_first), TIE)


def summarize(judged: pd.DataFrame) -> dict[str, Any]:
    """Return all reported numbers, NaN where unknown; `docs/evaluation.md` defines each."""
    lines = [{"group": group, **_preference(rows)} for group, rows in judged.groupby("preference_group")]
    st.correct(lines)
    verdicts = Counter([*judged["a_first"], *judged["b_first"]])
    return {
        "overall": _preference(judged),
        "groups": lines,
        "verdicts": {name: verdicts[name] for name in (FIRST, SECOND, TIE, MALFORMED, REFUSED)},
        "position": position_bias(judged),
    }


def _preference(judged: pd.DataFrame) -> dict[str, Any]:
    """Wins of a over b. Interval and test count prompts: the pairs of one prompt are not independent."""
    counts = {name: int((judged["outcome"] == name).sum()) for name in ("a", "b", TIE)}
    points = judged["outcome"].map({"a": 1.0, TIE: 0.5, "b": 0.0}).groupby(judged["prompt_id"]).mean().dropna()
    share = points.mean()
    return {
        "prompts": len(points),
        "pairs": len(judged),
        **counts,
        "undecided": len(judged) - sum(counts.values()),
        "win_rate": share,
        **st.wilson(share, len(points)),
        "p": st.sign_test(int((points > 0.5).sum()), int((points < 0.5).sum())) if len(points) else math.nan,
    }


def position_bias(judged: pd.DataFrame) -> dict[str, Any]:
    """Measure how often the response shown first was preferred. Each pair is shown in both orders: 0.5 means no bias.

    `share_first` counts all verdicts for one of the two, from pairs with two valid verdicts. `p` is a sign test over
    the pairs that contradict themselves: always the first against always the second.
    """
    valid = judged[judged["outcome"].notna()]
    first, second = ((valid[["a_first", "b_first"]] == name).sum(axis=1) for name in (FIRST, SECOND))
    decided = int(first.sum() + second.sum())
    share = float(first.sum() / decided) if decided else math.nan
    always_first, always_second = int((first == 2).sum()), int((second == 2).sum())
    agreeing = (valid["outcome"] != TIE) | (valid["a_first"] == TIE) & (valid["b_first"] == TIE)
    return {
        "share_first": share,
        **st.wilson(share, decided),
        "decided": decided,
        "always_first": always_first,
        "always_second": always_second,
        "p": st.sign_test(always_first, always_second) if always_first + always_second else math.nan,
        "consistency": agreeing.mean(),
    }
