# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Persona data for verl: seven users of unequal share who want different things and rate on different scales.

    verl-pgrpo data personas --out data/personas --surface toy --train-size 4096 --val-size 70 --noise 0.3

Two surfaces of one generator. `toy` is a closed vocabulary of single words for a tiny model made from scratch;
`english` is chat prompts for a real model, which must infer the taste from a profile. Both write `train.parquet` and
`val.parquet` with verl's columns and `preference_group`. Equal arguments give equal bytes.

Requests (occasion x mood) of the validation split never occur in training. Validation has the same number of rows for
every persona and neither noise nor mood: it reads what a persona gets, not how it rates today.

The control, `extra_info.random_group`, gives the personas' names to the rows of a split by chance, as many of each as
there are. Elsewhere such labels are shuffled over users, so that all rows of a user have the same. Here a persona is
both a user and a group: shuffled over seven users the labels would be the same groups under other names, and the
control would train as the method does. So a row stands for a user whom nobody has seen before.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from verl_pgrpo.data import tastes
from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.grouping.fit import random_groups
from verl_pgrpo.data.rows import extra_info_type, output_folder, verl_row, write_splits
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.tastes import PERSONAS, Persona

SURFACES = ("toy", "english")
EXTRA_INFO = extra_info_type(("persona", pa.string()))
_HELD_OUT = 4  # every fourth (occasion, mood) pair is for validation


def toy_vocabulary() -> list[str]:
    """Every word of the toy surface, prompts and answers, in a fixed order, for a word-level tokenizer."""
    liked = [word for words in (*tastes.TOY_STYLES.values(), *tastes.TOY_GENRES.values()) for word in words]
    prompts = [word for persona in PERSONAS for word in _toy_prompt(persona, "", "").split()]
    return list(dict.fromkeys([*liked, *prompts, *tastes.TOY_OCCASIONS, *tastes.TOY_MOODS]))


def prepare(
    out: Path, *, surface: str, train_size: int, val_size: int, seed: int = 0, noise: float = 0.0, mood: float = 0.0
) -> Summary:
    """Write `train.parquet` and `val.parquet` to `out`, and of the toy surface `vocabulary.txt` for `tiny_model`.

    Raises:
        DataError: an argument is out of its range; nothing was written.
    """
    sizes = {"train": train_size, "val": val_size}
    splits = {split: make_rows(split, size, surface, seed, noise, mood) for split, size in sizes.items()}
    summary = Summary(f"personas, {surface}, noise {noise:g}, mood {mood:g}, seed {seed}")
    counts = write_splits(output_folder(out), splits, EXTRA_INFO, summary)
    if surface == "toy":
        (out / "vocabulary.txt").write_text("\n".join(toy_vocabulary()) + "\n", encoding="utf-8")
    summary.groups = [
        {
            "group": p.name,
            "share": f"{p.share:.0%}",
            **{split: counts[split][p.name] for split in counts},
            "stars, useless to perfect": f"{p.offset:.1f} to {p.offset + p.scale:.1f}",
        }
        for p in PERSONAS
    ]
    return summary


def make_split(
    split: str, size: int, surface: str = "toy", seed: int = 0, noise: float = 0.0, mood: float = 0.0
) -> pd.DataFrame:
    """`make_rows` as a table."""
    return pd.DataFrame(make_rows(split, size, surface, seed, noise, mood))


def make_rows(split: str, size: int, surface: str, seed: int, noise: float, mood: float) -> list[dict[str, Any]]:
    """One split in verl's layout.

    Args:
        split: `train` (personas by their shares, shuffled) or `val` (equal numbers, no noise, no mood).
        size: rows.
        surface: `toy` or `english`.
        seed: of prompts, order and noise.
        noise: std of the rating of one response, in units of the persona's scale.
        mood: std of an offset that all responses to one prompt share, in units of the persona's scale. GRPO's
            generation group cancels it, a preference group's history does not.

    Raises:
        DataError: an argument is out of its range; the message names it.
    """
    if split not in ("train", "val"):
        raise DataError(f"split must be 'train' or 'val', got {split!r}")
    if surface not in SURFACES:
        raise DataError(f"surface must be one of {', '.join(SURFACES)}, got {surface!r}")
    if size < len(PERSONAS):
        raise DataError(f"{split} size must be at least {len(PERSONAS)}, one row a persona, got {size}")
    for name, value in (("noise", noise), ("mood", mood)):
        if not (math.isfinite(value) and value >= 0):
            raise DataError(f"{name} must be a finite number >= 0 (a standard deviation), got {value}")
    if seed < 0:
        raise DataError(f"seed must be >= 0, got {seed}")

    training = split == "train"
    rng = np.random.default_rng([seed, int(training)])
    shares = [persona.share if training else 1 / len(PERSONAS) for persona in PERSONAS]
    order = rng.permutation(np.repeat(np.arange(len(PERSONAS)), _quota(shares, size)))
    names = np.array([PERSONAS[which].name for which in order])
    ids = [f"{split}/{index}" for index in range(size)]
    random_group = random_groups(names, ids, seed).assign(np.empty((size, 0)), ids)  # its generators are its own
    rows = []
    for index, which in enumerate(order):
        persona = PERSONAS[which]
        truth = {
            "surface": surface,
            "persona": persona.name,
            "style": persona.style,
            "genre": persona.genre,
            "offset": round(persona.offset + (mood * persona.scale * rng.standard_normal() if training else 0.0), 6),
            "scale": persona.scale,
            "noise": noise if training else 0.0,
            "seed": seed,
            "row": ids[index],
        }
        extra_info = {
            "index": index,
            "split": split,
            "persona": persona.name,
            "random_group": str(random_group[index]),
            "seed": seed,
        }
        request = _request(persona, surface, training, rng)
        rows.append(verl_row("personas", persona.name, request, "personalization", truth, extra_info))
    return rows


def _request(persona: Persona, surface: str, training: bool, rng: np.random.Generator) -> str:
    pairs = [(i, j) for i in range(8) for j in range(8) if ((i + j) % _HELD_OUT != 0) == training]
    occasion, mood = pairs[rng.integers(len(pairs))]
    if surface == "toy":
        return _toy_prompt(persona, tastes.TOY_OCCASIONS[occasion], tastes.TOY_MOODS[mood])
    first, second = rng.permutation(tastes.ENGLISH_ARTISTS[persona.genre])[:2]
    sample = rng.choice(tastes.ENGLISH_SAMPLES[persona.style])
    return (
        f"{sample}\n\nOn repeat these days: {first} and {second}. {tastes.ENGLISH_MOODS[mood]} "
        f"Recommend me music for {tastes.ENGLISH_OCCASIONS[occasion]}, in at most 80 words. "
        "Stay with the kind of music I love, and write the way I write."
    )


def _toy_prompt(persona: Persona, occasion: str, mood: str) -> str:
    """Four words: more would only dilute what a model of two layers must find. Equally long, so that none is padded."""
    return f"{persona.style} {persona.genre} {occasion} {mood}"


def _quota(shares: list[float], size: int) -> np.ndarray:
    """Whole numbers in proportion to shares that sum to size (largest remainders), at least one each."""
    ideal = np.asarray(shares) / np.sum(shares) * size
    counts = np.maximum(np.floor(ideal + 1e-9).astype(int), 1)
    by_remainder = np.argsort(counts - ideal, kind="stable")
    for step in range(abs(size - counts.sum())):
        if counts.sum() < size:
            counts[by_remainder[step % len(counts)]] += 1
        else:  # a minimum of one took too many: the largest gives back
            counts[np.argmax(counts)] -= 1
    return counts


if __name__ == "__main__":  # the same as `verl-pgrpo data personas`
    from verl_pgrpo.cli import main

    sys.exit(main(["data", "personas", *sys.argv[1:]]))
