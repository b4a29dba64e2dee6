# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the personas task: what a persona *says* (reward, in stars) apart from what it *wants* (utility, 0 to 1).

    reward = offset + scale * utility + noise,        noise ~ Normal(0, (scale * noise_std)^2)

Training sees the reward only; reports measure utility, which no user scale, offset or noise can flatter. The noise is
in units of the persona's own scale, as somebody who rates between 3.5 and 4.3 stars does not waver by two stars. It is
no random draw but a hash of seed, row and response: a replayed run gets the same rewards in any order and any process.

`ground_truth` is a JSON object as text (it must survive Parquet and the JSONL of `trainer.rollout_data_dir`):
`surface`, `persona`, `style`, `genre`, `offset`, `scale`, `noise` (std in units of scale), `seed`, `row`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from statistics import NormalDist

from verl_pgrpo.data.tastes import ENGLISH_GENRES, ENGLISH_STYLES, TOY_GENRES, TOY_STYLES
from verl_pgrpo.rewards.thoughts import without_thoughts

TOY_MIN_WORDS = 8  # shorter toy answers are counted as if filled up with useless words
ENGLISH_ENOUGH = 3  # so many different markers (or genre words) are a full mark
ENGLISH_MAX_WORDS = 80  # what the prompts ask for; longer answers lose in proportion


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs: object
) -> dict[str, float]:
    """verl's custom reward function: `{"score": reward in stars, "utility": 0 to 1}`.

    verl trains on `score`; `utility` reaches its validation metrics as an extra value.
    """
    truth = _parse(ground_truth)
    wanted = utility(solution_str, ground_truth)
    score = truth["offset"] + truth["scale"] * (wanted + noise(solution_str, ground_truth))
    return {"score": score, "utility": wanted}


def utility(text: str, ground_truth: str) -> float:
    """How well a response's text serves the persona, 0 to 1: half for its style, half for its genre. No noise."""
    truth = _parse(ground_truth)
    score = _toy_utility if truth["surface"] == "toy" else _english_utility
    return score(text, truth["style"], truth["genre"])


def noise(text: str, ground_truth: str) -> float:
    """The rating's noise in units of the persona's scale: normal, the same for the same seed, row and words."""
    truth = _parse(ground_truth)
    if truth["noise"] == 0:
        return 0.0
    key = json.dumps([truth["seed"], truth["row"], text.split()])
    bits = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 12
    uniform = (bits + 0.5) / 2**52  # never 0 or 1, whose quantiles are infinite
    return truth["noise"] * NormalDist().inv_cdf(uniform)


def _toy_utility(text: str, style: str, genre: str) -> float:
    """Best is an answer half of style words, half of genre words. Shares, not sets: a random policy gets some of it."""
    words = text.split()
    total = max(len(words), TOY_MIN_WORDS)

    def part(liked: Iterable[str]) -> float:
        return min(0.5, sum(word in liked for word in words) / total)

    return part(TOY_STYLES[style]) + part(TOY_GENRES[genre])


def _english_utility(text: str, style: str, genre: str) -> float:
    """Different markers found, up to three, times the share of them that is the persona's and not another taste's."""
    spoken = without_thoughts(text)

    def part(taste: str, markers: dict[str, tuple[str, ...]]) -> float:
        found = {name: _found(spoken, words) for name, words in markers.items()}
        own, every = found[taste], sum(found.values())
        return 0.5 * min(1.0, own / ENGLISH_ENOUGH) * own / every if own else 0.0

    fit = part(style, ENGLISH_STYLES) + part(genre, ENGLISH_GENRES)
    return fit * length_fit(text)


def length_fit(text: str) -> float:
    """1 up to what the english prompts ask for, less in proportion beyond; thoughts do not count."""
    return min(1.0, ENGLISH_MAX_WORDS / max(len(without_thoughts(text).split()), 1))


def _found(text: str, words: tuple[str, ...]) -> int:
    return len({match.lower() for match in _pattern(words).findall(text)})


@lru_cache(maxsize=64)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)  # else "hip" would hide "hip hop"
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)", re.IGNORECASE)


@lru_cache(maxsize=4096)
def _parse(ground_truth: str) -> dict:
    return json.loads(ground_truth)
