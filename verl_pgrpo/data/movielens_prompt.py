# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The words of a film row: what was rated lately, what there is to choose from, and what the reward needs to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verl_pgrpo.data.movielens_archive import Films
from verl_pgrpo.data.movielens_rows import Examples, Options, Past
from verl_pgrpo.data.rows import extra_info_type, verl_row

EXTRA_INFO = extra_info_type(("user", pa.int64()), ("prompt_until", pa.int64()), ("answer_time", pa.int64()))


def render(
    split: str, rows: Examples, past: Past, films: Films, group: npt.NDArray[np.str_],
    random_group: npt.NDArray[np.str_], options: Options,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for index, user in enumerate(rows.user.tolist()):
        recent = range(int(rows.first[index]), int(rows.last[index]))
        offered = [int(film) for film in rows.candidates[index] if film >= 0]
        lines = ["Films that I rated lately, the latest at the end:"]
        lines += [f"- {_film(films, int(past.film[i]))}: {past.stars[i]} of 5 stars" for i in recent]
        lines += ["", "Which one of these do I watch next?"]
        lines += [f"- {_film(films, film)}" for film in offered]
        lines += ["", "Answer with its title alone, written as above."]
        truth = {
            "answer": films.titles[int(rows.answer[index])],
            "candidates": {films.titles[film]: list(films.genres[film]) for film in offered},
        }
        extra_info = {
            "index": index,
            "split": split,
            "user": int(past.user_ids[user]),
            "prompt_until": int(past.time[rows.last[index] - 1]),
            "answer_time": int(rows.answer_time[index]),
            "random_group": str(random_group[user]),
            "seed": options.seed,
        }
        yield verl_row("movielens", group[user], "\n".join(lines), "recommendation", truth, extra_info)


def _film(films: Films, place: int) -> str:
    kinds = ", ".join(films.genres[place])
    return f"{films.titles[place]} [{kinds}]" if kinds else films.titles[place]
