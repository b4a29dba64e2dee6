# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the personas task by a judge model (see `judge`) that knows the persona's taste.

    score = offset + scale * (length * mark + noise),    mark and length 0 to 1

The persona rates as in `personas`: on its own scale, with the same noise for the same answer. Only the utility is
replaced by the judge's mark. Answers that are too long lose in proportion, because judges tend to favor length. For
the english surface only: no model can judge the toy surface's closed vocabulary.
"""

from __future__ import annotations

import json
import math
from typing import Any

from verl_pgrpo.rewards.judge import QUESTION, ask_mark, escape_candidate
from verl_pgrpo.rewards.personas import length_fit, noise, utility
from verl_pgrpo.rewards.reasoning import strip_reasoning

PROMPT = """Somebody who loves {genre} music asked for music, and got this answer:
<candidate>{candidate}</candidate>

They want to be answered {style}, and to hear about {genre}. How well does the answer please them in both? {question}"""
STYLES = {
    "formal": "formally and courteously",
    "slang": "casually, in slang",
    "poetic": "poetically, in images",
    "playful": "playfully, with silly words",
}
GENRES = {"hiphop": "hip-hop"}


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    reasoning: bool = False,
    **judge: Any,
) -> dict[str, float]:
    """Return `score` in stars, `mark` (length * mark), `judged`, and `utility` by the rules of `personas`.

    For a malformed answer `judged` is 0, and `score` and `mark` are NaN. `utility` is reported only; training does not
    see it. `judge` has the keyword arguments of `ask_mark`, which also lists the errors.

    Raises:
        ValueError: The row is of the toy surface.
    """
    truth = json.loads(ground_truth)
    answer = strip_reasoning(solution_str, reasoning)
    mark = await ask_mark(judge_prompt(answer, ground_truth), **judge)
    mark *= length_fit(answer)
    return {
        "score": truth["offset"] + truth["scale"] * (mark + noise(answer, ground_truth)),
        "mark": mark,
        "judged": float(not math.isnan(mark)),
        "utility": utility(answer, ground_truth),
    }


def judge_prompt(solution_str: str, ground_truth: str) -> str:
    """Return the question to the judge.

    Raises:
        ValueError: The row is of the toy surface.
    """
    truth = json.loads(ground_truth)
    if truth["surface"] != "english":
        raise ValueError(f"a judge needs the english surface (got {truth['surface']!r}); build with --surface english")
    genre = GENRES.get(truth["genre"], truth["genre"])
    candidate = escape_candidate(solution_str)
    return PROMPT.format(genre=genre, style=STYLES[truth["style"]], candidate=candidate, question=QUESTION)
