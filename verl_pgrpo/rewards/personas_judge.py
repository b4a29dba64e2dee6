# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the personas task by a judge model (`judge`), which is told what the persona wants and marks the answer.

    score = offset + scale * (length * mark + noise),    mark and length 0 to 1

The persona rates as in `personas`: on its own scale, with the same noise for the same answer; only what it rates is
the judge's mark and no longer a count of words. Too long an answer loses in proportion, as judges are known to favour
length. For the english surface: no model can judge the toy's closed vocabulary.
"""

from __future__ import annotations

import json

from verl_pgrpo.rewards.judge import QUESTION, ask, candidate
from verl_pgrpo.rewards.personas import length_fit, noise, utility

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
    reward_router_address: str = "",
    judge_model: str = "",
    **kwargs: object,
) -> dict[str, float]:
    """verl's custom reward function.

    `score` in stars, `mark` (the judge's, less what is lost by length, 0 to 1), `judged`: 0 where the judge's answer
    was no number, which counts as a mark of 0; and `utility` by the rules of `personas`, which nobody trains on here.

    Raises:
        RuntimeError: there is no judge, or it does not answer.
        ValueError: the row is of the toy surface.
    """
    truth = json.loads(ground_truth)
    said = await ask(judge_prompt(solution_str, ground_truth), reward_router_address, judge_model)
    mark = length_fit(solution_str) * (said or 0.0)
    return {
        "score": truth["offset"] + truth["scale"] * (mark + noise(solution_str, ground_truth)),
        "mark": mark,
        "judged": float(said is not None),
        "utility": utility(solution_str, ground_truth),
    }


def judge_prompt(solution_str: str, ground_truth: str) -> str:
    """What the judge is asked.

    Raises:
        ValueError: the row is of the toy surface.
    """
    truth = json.loads(ground_truth)
    if truth["surface"] != "english":
        raise ValueError(f"a judge reads english, this row is of the surface {truth['surface']!r}; --surface english")
    genre = GENRES.get(truth["genre"], truth["genre"])
    style = STYLES[truth["style"]]
    return PROMPT.format(genre=genre, style=style, candidate=candidate(solution_str), question=QUESTION)
