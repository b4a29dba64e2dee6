# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a judge's verdicts add up to: per preference group, in all, and how much the position decided."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from verl_pgrpo.evaluation import statistics as st
from verl_pgrpo.evaluation.judging import MALFORMED, REFUSED, Judged
from verl_pgrpo.evaluation.verdicts import FIRST, SECOND, TIE

POINTS = {"a": 1.0, TIE: 0.5, "b": 0.0}


def summarize(judged: Sequence[Judged]) -> dict[str, Any]:
    """Everything that is reported; `docs/evaluation.md` defines each number."""
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        groups[one.pair.group].append(one)
    lines = [{"group": group, **_preference(groups[group])} for group in sorted(groups)]
    for line, corrected in zip(lines, st.holm([line["p"] for line in lines]), strict=True):
        line["p_holm"] = corrected
        line["significant"] = None if corrected is None else corrected < 1 - st.LEVEL
    verdicts = Counter(verdict for one in judged for verdict in one.verdicts)
    return {
        "overall": _preference(judged),
        "groups": lines,
        "verdicts": {name: verdicts[name] for name in (FIRST, SECOND, TIE, MALFORMED, REFUSED)},
        "position": position_bias(judged),
    }


def _preference(judged: Iterable[Judged]) -> dict[str, Any]:
    """Wins of a over b. The unit of interval and test is the prompt, whose pairs are not independent."""
    outcomes: defaultdict[str, list[str]] = defaultdict(list)
    pairs = undecided = 0
    for one in judged:
        pairs += 1
        if one.outcome is None:
            undecided += 1
        else:
            outcomes[one.pair.prompt_id].append(one.outcome)
    counts = Counter(outcome for several in outcomes.values() for outcome in several)
    points = [sum(POINTS[outcome] for outcome in several) / len(several) for several in outcomes.values()]
    share = sum(points) / len(points) if points else None
    interval = None if share is None else st.wilson(share, len(points))
    ahead, behind = sum(point > 0.5 for point in points), sum(point < 0.5 for point in points)
    return {
        "prompts": len(points),
        "pairs": pairs,
        "a": counts["a"],
        "b": counts["b"],
        "tie": counts[TIE],
        "undecided": undecided,
        "win_rate": share,
        "low": interval[0] if interval else None,
        "high": interval[1] if interval else None,
        "p": st.sign_test(ahead, behind) if points else None,
    }


def position_bias(judged: Iterable[Judged]) -> dict[str, Any]:
    """How often the response in front was preferred. Each pair was shown both ways, so one half is no bias.

    `share_first` is of all verdicts for one of the two, from pairs with two valid verdicts. `p` is a sign test over the
    pairs that contradict themselves: were they for the front one both times as often as for the other both times?
    """
    valid = [one for one in judged if one.valid]
    verdicts = Counter(verdict for one in valid for verdict in one.verdicts)
    decided = verdicts[FIRST] + verdicts[SECOND]
    share = verdicts[FIRST] / decided if decided else None
    interval = None if share is None else st.wilson(share, decided)
    both = Counter(one.verdicts for one in valid)
    fronts, backs = both[FIRST, FIRST], both[SECOND, SECOND]
    agreeing = both[FIRST, SECOND] + both[SECOND, FIRST] + both[TIE, TIE]
    return {
        "share_first": share,
        "low": interval[0] if interval else None,
        "high": interval[1] if interval else None,
        "decided": decided,
        "always_first": fronts,
        "always_second": backs,
        "p": st.sign_test(fronts, backs) if fronts + backs else None,
        "consistency": agreeing / len(valid) if valid else None,
    }
