# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the review task: near to what the reader wrote, and in a mood that fits the stars they gave.

    score = length * (0.5 * closeness + 0.5 * sentiment)

`closeness` is ROUGE-L's F1 over words (longest common subsequence, by rapidfuzz), divided by 0.3 and cut at 1: two
people's reviews of one book rarely share more. `sentiment` is 1 - |mood - wanted|, at least 0: mood is VADER's compound
score, -1 to 1, averaged over sentences (over a long text at once it saturates); wanted goes from -0.6 at one star to
0.6 at five, about as far as such averages go. `length` is 1 between 5 words and what the prompt allows, and falls in
proportion outside, so that neither silence (a perfectly neutral mood) nor rambling pays.

Both libraries work offline and carry their own data. VADER knows English only. A policy can learn to please a word list
without pleasing anybody; `goodreads_judge` asks a model instead.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from verl_pgrpo.rewards.thoughts import without_thoughts

CLOSE_ENOUGH = 0.3
STRONGEST_MOOD = 0.6
FEWEST_WORDS = 5
_WORD = re.compile(r"[\w']+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs: object
) -> dict[str, float]:
    """verl's custom reward function: `score`, `closeness`, `sentiment` and `length`, each 0 to 1.

    `ground_truth` is a JSON object as text: `reference`, `rating` (1 to 5) and `max_words`.
    """
    truth = json.loads(ground_truth)
    text = without_thoughts(solution_str)
    length = length_fit(text, truth["max_words"])
    close = min(1.0, rouge_l(text, truth["reference"]) / CLOSE_ENOUGH)
    fit = sentiment_fit(text, truth["rating"]) if length else 0.0
    return {"score": length * (0.5 * close + 0.5 * fit), "closeness": close, "sentiment": fit, "length": length}


def length_fit(text: str, max_words: int) -> float:
    """1 from `FEWEST_WORDS` to `max_words`, less in proportion outside."""
    count = len(text.split())
    return min(1.0, count / FEWEST_WORDS, max_words / max(count, 1))


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1, whatever their case."""
    from rapidfuzz.distance import LCSseq

    words, wanted = _WORD.findall(text.lower()), _WORD.findall(reference.lower())
    return 2 * LCSseq.similarity(words, wanted) / (len(words) + len(wanted)) if words and wanted else 0.0


def sentiment_fit(text: str, rating: int) -> float:
    """1 if the mean mood of the sentences is the one that the stars ask for, falling to 0."""
    wanted = STRONGEST_MOOD * (rating - 3) / 2
    sentences = [sentence for sentence in _SENTENCE.findall(text) if sentence.strip()]
    moods = [_analyzer().polarity_scores(sentence)["compound"] for sentence in sentences]
    mood = sum(moods) / len(moods) if moods else 0.0
    return max(0.0, 1.0 - abs(mood - wanted))


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
