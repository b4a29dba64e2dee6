# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the review task by a judge model (see `judge`), which is given the stars and the reader's own review."""

from __future__ import annotations

import json
import math
from typing import Any

from verl_pgrpo.rewards.judge import QUESTION, ask_mark, escape_candidate
from verl_pgrpo.rewards.reasoning import strip_reasoning

PROMPT = """A reader gave the book "{title}" {rating} of 5 stars and wrote this review:
<reference>{reference}</reference>

Somebody else wrote this review in their name:
<candidate>{candidate}</candidate>

How well does the candidate say what this reader thinks, in a mood that fits {rating} of 5 stars? {question}"""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    reasoning: bool = False,
    **judge: Any,
) -> dict[str, float]:
    """Return `score` (0 to 1, NaN for a malformed answer) and `judged` (0 for a malformed answer, else 1).

    `judge` has the keyword arguments of `ask_mark`, which also lists the errors.
    """
    mark = await ask_mark(judge_prompt(strip_reasoning(solution_str, reasoning), ground_truth), **judge)
    return {"score": mark, "judged": float(not math.isnan(mark))}


def judge_prompt(solution_str: str, ground_truth: str) -> str:
    """Return the question to the judge."""
    return PROMPT.format(**json.loads(ground_truth), candidate=escape_candidate(solution_str), question=QUESTION)
