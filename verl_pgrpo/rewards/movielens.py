# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the film task: was it the film that the user watched next?

    score = 0.9 * credit + 0.1 * format

`credit` is 1 for the film itself (an exact hit); for another candidate 0.3 times the overlap of its genres with the
film's (Jaccard, 0 to 1); 0 for no candidate or for more than one, so that naming them all earns nothing. `format` is 1
if the reply is one line with a candidate's title and nothing else. Partial credit is small on purpose: a sure guess of
the right genre must stay worth less than a fair chance of the film.

A title is recognised in any case, with or without its year (where that is clear), quotes and list marks, and with its
article in front or behind: the archive writes `Matrix, The (1999)`. `<think>` sections are not read.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

from verl_pgrpo.rewards.thoughts import without_thoughts

GENRE_CREDIT = 0.3
FORMAT_SHARE = 0.1
QUOTES_AND_MARKS = " \t\n-*\u2022>\"'`\u201c\u201d\u2018\u2019."
_YEAR = re.compile(r"\s*\((?:\d{4})\)\s*$")
_ARTICLE = re.compile(r"^(.*), (the|an?|les?|la|l'|il|der|die|das|el|los|las)((?:\s*\(.*\))?)$")


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs: object
) -> dict[str, float]:
    """verl's custom reward function: `score` (0 to 1), and `hit`, `genre` (the overlap) and `format`, each 0 to 1.

    `ground_truth` is a JSON object as text: `answer`, a title, and `candidates`, a map of titles to lists of genres.
    """
    answer, genres, forms = _parse(ground_truth)
    text = without_thoughts(solution_str)
    bare = forms.get(_plain(text)) if "\n" not in text else None
    named = bare if bare is not None else _only_mention(text, forms)
    if named is None:
        return {"score": 0.0, "hit": 0.0, "genre": 0.0, "format": 0.0}
    hit, well_formed = float(named == answer), float(bare is not None)
    overlap = _jaccard(genres[named], genres[answer])
    credit = 1.0 if hit else GENRE_CREDIT * overlap
    score = (1 - FORMAT_SHARE) * credit + FORMAT_SHARE * well_formed
    return {"score": score, "hit": hit, "genre": overlap, "format": well_formed}


def _only_mention(text: str, forms: dict[str, str]) -> str | None:
    """The one candidate that is mentioned in the text; None for none or several."""
    rest, found = f" {_words(text)} ", set()
    for form in sorted(forms, key=len, reverse=True):  # else "Alien" would be found in "Aliens", and "Heat" in its kin
        words = f" {_words(form)} "
        if len(words) > 2 and words in rest:
            found.add(forms[form])
            rest = rest.replace(words, " | ")
    return found.pop() if len(found) == 1 else None


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def _plain(text: str) -> str:
    """Case, list marks, quotes, a final stop and double blanks do not make another title."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.strip(QUOTES_AND_MARKS).split())


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", _plain(text)))


def _spellings(title: str) -> list[str]:
    whole = _plain(title)
    moved = _ARTICLE.sub(lambda m: f"{m[2]}{'' if m[2].endswith(chr(39)) else ' '}{m[1]}{m[3]}", whole)
    return list(dict.fromkeys([whole, moved, _YEAR.sub("", whole), _YEAR.sub("", moved), _strip_year(title)]))


def _strip_year(title: str) -> str:
    """The article may stand before the year or before the end: both are moved."""
    return _ARTICLE.sub(lambda m: f"{m[2]} {m[1]}", _YEAR.sub("", _plain(title)))


@lru_cache(maxsize=4096)
def _parse(ground_truth: str) -> tuple[str, dict[str, frozenset[str]], dict[str, str]]:
    """The answer, the genres of each candidate, and the candidate that each spelling means; ambiguous ones none."""
    truth = json.loads(ground_truth)
    genres = {title: frozenset(kinds) for title, kinds in truth["candidates"].items()}
    forms: dict[str, str] = {}
    ambiguous = set()
    for title in genres:
        for form in _spellings(title):
            if forms.setdefault(form, title) != title:
                ambiguous.add(form)
    for form in ambiguous - {_plain(title) for title in genres}:
        del forms[form]
    return truth["answer"], genres, forms
