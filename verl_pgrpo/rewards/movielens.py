# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the film task: does the response name the film that the user watched next?

    score = 0.9 * credit + 0.1 * format

`credit` is 1 for that film (a hit), and 0.3 times the overlap of genres (Jaccard, 0 to 1) for another candidate. It is
0 for no candidate and for several, so listing them all earns nothing. `format` is 1 if the response is one line with a
candidate's title and nothing else. Partial credit is small on purpose: a sure guess of the right genre must be worth
less than a fair chance of the film.

Titles match in any case, with or without the year (unless that is ambiguous), quotes and list markers, and with the
article in front or behind: the archive writes `Matrix, The (1999)`. Reasoning is ignored.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

from verl_pgrpo.rewards.reasoning import strip_reasoning

GENRE_CREDIT = 0.3
FORMAT_SHARE = 0.1
_DECORATION = " \t\n-*\u2022>\"'`\u201c\u201d\u2018\u2019."
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
_ARTICLE = re.compile(r"^(.*), (the|an?|les?|la|l'|il|der|die|das|el|los|las)((?:\s*\(.*\))?)$")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    reasoning: bool = False,
    **kwargs: object,
) -> dict[str, float]:
    """Return `score`, `hit`, `genre` (the overlap) and `format`, each 0 to 1.

    `ground_truth` is a JSON object as text: `answer`, a title, and `candidates`, a map of titles to lists of genres.
    """
    answer, genres, spellings = _parse(ground_truth)
    text = strip_reasoning(solution_str, reasoning)
    exact = spellings.get(_normalize(text)) if "\n" not in text else None
    named = exact if exact is not None else _only_mention(text, spellings)
    if named is None:
        return {"score": 0.0, "hit": 0.0, "genre": 0.0, "format": 0.0}
    hit, well_formed = float(named == answer), float(exact is not None)
    overlap = _jaccard(genres[named], genres[answer])
    credit = 1.0 if hit else GENRE_CREDIT * overlap
    score = (1 - FORMAT_SHARE) * credit + FORMAT_SHARE * well_formed
    return {"score": score, "hit": hit, "genre": overlap, "format": well_formed}


def _only_mention(text: str, spellings: dict[str, str]) -> str | None:
    """Return the only candidate mentioned in the text; None for none or several."""
    rest, found = f" {_words(text)} ", set()
    for spelling in sorted(spellings, key=len, reverse=True):  # else "Alien 3" would also count as "Alien"
        words = f" {_words(spelling)} "
        if len(words) > 2 and words in rest:
            found.add(spellings[spelling])
            rest = rest.replace(words, " | ")
    return found.pop() if len(found) == 1 else None


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def _normalize(text: str) -> str:
    """Drop what does not distinguish titles: case, list markers, quotes, a full stop, repeated blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().strip(_DECORATION).split())


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", _normalize(text)))


def _front_article(title: str) -> str:
    return _ARTICLE.sub(lambda m: f"{m[2]}{'' if m[2].endswith(chr(39)) else ' '}{m[1]}{m[3]}", title)


@lru_cache(maxsize=4096)
def _parse(ground_truth: str) -> tuple[str, dict[str, frozenset[str]], dict[str, str]]:
    """Return the answer, each candidate's genres, and the candidate of each unambiguous spelling.

    A candidate's whole title is its own, even if it is a short form of another.
    """
    truth = json.loads(ground_truth)
    genres = {title: frozenset(kinds) for title, kinds in truth["candidates"].items()}
    whole_titles = {_normalize(title): title for title in genres}
    spellings = dict(whole_titles)
    ambiguous = set()
    for whole, title in whole_titles.items():
        for spelling in (whole, _YEAR.sub("", whole)):
            for form in (spelling, _front_article(spelling), _YEAR.sub("", _front_article(spelling))):
                if form not in whole_titles and spellings.setdefault(form, title) != title:
                    ambiguous.add(form)
    for form in ambiguous:
        del spellings[form]
    return truth["answer"], genres, spellings
