# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the personas task: a persona's rating in stars (the reward) and how well it was served (the utility).

    reward = offset + scale * (utility + noise),        noise ~ Normal(0, noise_std^2)

Training sees the reward only. Reports use the utility, 0 to 1, which does not depend on a persona's scale, offset or
noise. The noise is in units of the persona's scale: a user who rates between 3.5 and 4.3 stars does not vary by two
stars. It is a hash of seed, row and answer, so a replayed run gets the same rewards in any order and any process.

`ground_truth` is a JSON object as text, which survives Parquet and the rollout dumps: `surface`, `persona`, `style`,
`genre`, `offset`, `scale`, `noise` (std in units of scale), `seed`, `row`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from statistics import NormalDist

from verl_pgrpo.data.tastes import ENGLISH_GENRES, ENGLISH_STYLES, TOY_GENRES, TOY_STYLES
from verl_pgrpo.rewards.reasoning import strip_reasoning

TOY_MIN_WORDS = 8  # shorter toy answers count as if padded with useless words
ENGLISH_MARKERS = 3  # this many different markers (or genre words) give full credit
ENGLISH_MAX_WORDS = 80  # the prompts' limit; longer answers lose in proportion


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    reasoning: bool = False,
    **kwargs: object,
) -> dict[str, float]:
    """Return `score`, the reward in stars, and `utility`, 0 to 1, which verl adds to its validation metrics."""
    truth = _parse(ground_truth)
    answer = strip_reasoning(solution_str, reasoning)
    served = utility(answer, ground_truth)
    score = truth["offset"] + truth["scale"] * (served + noise(answer, ground_truth))
    return {"score": score, "utility": served}


def utility(text: str, ground_truth: str) -> float:
    """Return how well a response serves the persona, 0 to 1: half for its style, half for its genre. No noise."""
    truth = _parse(ground_truth)
    score = _toy_utility if truth["surface"] == "toy" else _english_utility
    return score(strip_reasoning(text), truth["style"], truth["genre"])


def noise(text: str, ground_truth: str) -> float:
    """Return the rating's noise in units of the persona's scale: normal, equal for equal seed, row and words."""
    truth = _parse(ground_truth)
    if truth["noise"] == 0:
        return 0.0
    key = json.dumps([truth["seed"], truth["row"], text.split()])
    bits = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 12
    uniform = (bits + 0.5) / 2**52  # never 0 or 1, whose quantiles are infinite
    return truth["noise"] * NormalDist().inv_cdf(uniform)


def _toy_utility(text: str, style: str, genre: str) -> float:
    """Return the share of style words plus that of genre words, each at most 0.5; a random policy gets some of it."""
    words = text.split()
    total = max(len(words), TOY_MIN_WORDS)

    def part(liked: Iterable[str]) -> float:
        return min(0.5, sum(word in liked for word in words) / total)

    return part(TOY_STYLES[style]) + part(TOY_GENRES[genre])


def _english_utility(text: str, style: str, genre: str) -> float:
    """Return, per taste, the number of different markers (up to 3) times the persona's share of all markers found."""

    def part(taste: str, markers: dict[str, tuple[str, ...]]) -> float:
        found = {name: count_markers(text, words) for name, words in markers.items()}
        own, every = found[taste], sum(found.values())
        return 0.5 * min(1.0, own / ENGLISH_MARKERS) * own / every if own else 0.0

    fit = part(style, ENGLISH_STYLES) + part(genre, ENGLISH_GENRES)
    return fit * length_fit(text)


def length_fit(text: str) -> float:
    """Return 1 up to the english prompts' limit, less in proportion beyond."""
    return min(1.0, ENGLISH_MAX_WORDS / max(len(text.split()), 1))


def count_markers(text: str, words: tuple[str, ...]) -> int:
    """Return how many different ones of these words are in an English text."""
    return len({match.lower() for match in _pattern(words).findall(text)})


@lru_cache(maxsize=64)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)  # else "hip" would hide "hip hop"
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)", re.IGNORECASE)


@lru_cache(maxsize=4096)
def _parse(ground_truth: str) -> dict:
    return json.loads(ground_truth)
