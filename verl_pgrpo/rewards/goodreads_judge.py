# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the review task by a judge model (`judge`), which sees the stars and the reader's own review."""

from __future__ import annotations

import json

from verl_pgrpo.rewards.judge import QUESTION, ask, candidate

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
    reward_router_address: str = "",
    judge_model: str = "",
    **kwargs: object,
) -> dict[str, float]:
    """verl's custom reward function: `score`, 0 to 1, and `judged`, 0 where the judge's answer was no number.

    Raises:
        RuntimeError: there is no judge, or it does not answer.
    """
    mark = await ask(judge_prompt(solution_str, ground_truth), reward_router_address, judge_model)
    return {"score": mark or 0.0, "judged": float(mark is not None)}


def judge_prompt(solution_str: str, ground_truth: str) -> str:
    """What the judge is asked."""
    return PROMPT.format(**json.loads(ground_truth), candidate=candidate(solution_str), question=QUESTION)
