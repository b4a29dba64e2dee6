# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the review task: close to the reader's own review, in a mood that fits the reader's stars.

    score = length * (0.5 * closeness + 0.5 * sentiment)

`closeness` is ROUGE-L's F1 over words, divided by 0.3 and capped at 1: two people's reviews of one book rarely share
more. `sentiment` is max(0, 1 - |mood - target|). The mood is VADER's compound score (-1 to 1), averaged over sentences
because it saturates on long texts; the target goes from -0.6 at one star to 0.6 at five, about the range of such
averages. `length` is 1 between 5 words and the prompt's limit and falls in proportion outside, so neither silence (a
perfectly neutral mood) nor rambling is rewarded.

rapidfuzz and vaderSentiment work offline. VADER knows English only. A policy can learn to satisfy the word list without
pleasing any reader; `goodreads_judge` asks a model instead.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from verl_pgrpo.rewards.reasoning import strip_reasoning

FULL_CLOSENESS = 0.3
STRONGEST_MOOD = 0.6
MIN_WORDS = 5
_WORD = re.compile(r"[\w']+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    reasoning: bool = False,
    **kwargs: object,
) -> dict[str, float]:
    """Return `score`, `closeness`, `sentiment` and `length`, each 0 to 1.

    `ground_truth` is a JSON object as text: `reference`, `rating` (1 to 5) and `max_words`.
    """
    truth = json.loads(ground_truth)
    text = strip_reasoning(solution_str, reasoning)
    length = length_fit(text, truth["max_words"])
    closeness = min(1.0, rouge_l(text, truth["reference"]) / FULL_CLOSENESS)
    sentiment = sentiment_fit(text, truth["rating"]) if length else 0.0
    score = length * (0.5 * closeness + 0.5 * sentiment)
    return {"score": score, "closeness": closeness, "sentiment": sentiment, "length": length}


def length_fit(text: str, max_words: int) -> float:
    """Return 1 from `MIN_WORDS` to `max_words` words, less in proportion outside."""
    count = len(text.split())
    return min(1.0, count / MIN_WORDS, max_words / max(count, 1))


def rouge_l(text: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words, 0 to 1, ignoring case."""
    from rapidfuzz.distance import LCSseq

    words, target = _WORD.findall(text.lower()), _WORD.findall(reference.lower())
    return 2 * LCSseq.similarity(words, target) / (len(words) + len(target)) if words and target else 0.0


def sentiment_fit(text: str, rating: int) -> float:
    """Return 1 if the mean mood of the sentences is the target of `rating` stars, falling to 0."""
    target = STRONGEST_MOOD * (rating - 3) / 2
    sentences = [sentence for sentence in _SENTENCE.findall(text) if sentence.strip()]
    moods = [_analyzer().polarity_scores(sentence)["compound"] for sentence in sentences]
    mood = sum(moods) / len(moods) if moods else 0.0
    return max(0.0, 1.0 - abs(mood - target))


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
