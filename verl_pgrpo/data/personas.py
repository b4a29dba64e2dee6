# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Persona data for verl: seven users of unequal share who want different things and rate on different scales.

    verl-pgrpo data personas --out data/personas --surface toy --train-size 4096 --val-size 70 --noise 0.3

Two surfaces of one generator. `toy` has a closed vocabulary of single words for a tiny model with random weights.
`english` has chat prompts for a real model, which must infer the taste from a profile. Its short form names the taste
in one line, for models of about 100 million parameters. The same arguments give identical bytes.

Requests (occasion x mood) of the validation split never occur in training. Validation has the same number of rows for
every persona and neither noise nor mood: it measures how well a persona is served, not how it happens to rate.

The control, `extra_info.random_group`, assigns the personas' names to the rows of a split at random and keeps their
frequencies. Elsewhere such labels are shuffled over users. Here a persona is both a user and a group, and shuffling
labels over seven users would only rename the groups; so each row counts as a user of its own.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from verl_pgrpo.data import tastes
from verl_pgrpo.data.group_model import random_groups
from verl_pgrpo.data.schema import output_folder, verl_row, write_splits
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.tastes import PERSONAS, Persona
from verl_pgrpo.errors import DataError

SURFACES = ("toy", "english")
SHORT_SYSTEM = "You recommend music."  # without one, the chat template adds its own, which is longer
HELD_OUT = 4  # every fourth (occasion, mood) pair is for validation


def toy_vocabulary() -> list[str]:
    """Return every word of the toy surface, prompts and answers, in a fixed order, for a word-level tokenizer."""
    liked = [word for words in (*tastes.TOY_STYLES.values(), *tastes.TOY_GENRES.values()) for word in words]
    prompts = [word for persona in PERSONAS for word in (persona.style, persona.genre)]
    return list(dict.fromkeys([*liked, *prompts, *tastes.TOY_OCCASIONS, *tastes.TOY_MOODS]))


def prepare(
    out: Path, *, surface: str, train_size: int, val_size: int, seed: int = 0, noise: float = 0.0, mood: float = 0.0,
    short: bool = False,
) -> Summary:  # fmt: skip
    """Write `train.parquet` and `val.parquet` to `out`, and `vocabulary.txt` for `tiny_model` with the toy surface."""
    sizes = {"train": train_size, "val": val_size}
    rows = {split: make_split(split, size, surface, seed, noise, mood, short) for split, size in sizes.items()}
    splits: dict[str, Any] = {split: frame.to_dict("records") for split, frame in rows.items()}
    form = f"{surface}{', short prompts' if short else ''}"
    summary = Summary(f"personas, {form}, noise {noise:g}, mood {mood:g}, seed {seed}")
    counts = write_splits(output_folder(out), splits, [("persona", pa.string())], seed, summary)
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
    split: str, size: int, surface: str = "toy", seed: int = 0, noise: float = 0.0, mood: float = 0.0,
    short: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Return `size` rows in verl's layout.

    Args:
        split: `train` (personas by their shares, shuffled) or `val` (equal numbers, no noise, no mood).
        noise: std of the rating of one response, in units of the persona's scale.
        mood: std of an offset that all responses to one prompt share, in units of the persona's scale. GRPO's
            generation group cancels it, a preference group's history does not.
        short: one-line prompts of the `english` surface.
    """
    for wrong, message in (
        (split not in ("train", "val"), f"split must be 'train' or 'val' (got {split!r})"),
        (surface not in SURFACES, f"surface must be one of {', '.join(SURFACES)} (got {surface!r})"),
        (short and surface != "english", "short prompts exist for the surface english only"),
        (size < len(PERSONAS), f"{split} size must be at least {len(PERSONAS)}, one row per persona (got {size})"),
        (not 0 <= noise < math.inf, f"noise must be a finite number >= 0, a standard deviation (got {noise})"),
        (not 0 <= mood < math.inf, f"mood must be a finite number >= 0, a standard deviation (got {mood})"),
        (seed < 0, f"seed must be >= 0 (got {seed})"),
    ):
        if wrong:
            raise DataError(message)

    training = split == "train"
    rng = np.random.default_rng([seed, int(training)])
    shares = [persona.share if training else 1 / len(PERSONAS) for persona in PERSONAS]
    order = [PERSONAS[which] for which in rng.permutation(np.repeat(np.arange(len(PERSONAS)), _quota(shares, size)))]
    ids = [f"{split}/{index}" for index in range(size)]
    random_group = random_groups(np.array([p.name for p in order]), ids, seed).assign(np.empty((size, 0)), ids)
    rows = []
    for index, persona in enumerate(order):
        shift = mood * persona.scale * rng.standard_normal() if training else 0.0
        truth = {
            "surface": surface, "persona": persona.name, "style": persona.style, "genre": persona.genre,
            "offset": round(persona.offset + shift, 6), "scale": persona.scale, "noise": noise if training else 0.0,
            "seed": seed, "row": ids[index],
        }  # fmt: skip
        text = _prompt(persona, surface, short, training, rng)
        prompt = [{"role": "system", "content": SHORT_SYSTEM}, {"role": "user", "content": text}] if short else text
        own = {"index": index, "split": split, "persona": persona.name, "seed": seed}
        rows.append(verl_row("personas", persona.name, prompt, "personalization", truth, random_group[index], own))
    return pd.DataFrame(rows)


def _prompt(persona: Persona, surface: str, short: bool, training: bool, rng: np.random.Generator) -> str:
    pairs = [(i, j) for i in range(8) for j in range(8) if ((i + j) % HELD_OUT != 0) == training]
    occasion, mood = pairs[rng.integers(len(pairs))]
    if surface == "toy":  # four words: a two-layer model can infer the taste, and equal lengths need no padding
        return f"{persona.style} {persona.genre} {tastes.TOY_OCCASIONS[occasion]} {tastes.TOY_MOODS[mood]}"
    first, second = rng.permutation(tastes.ENGLISH_ARTISTS[persona.genre])[:2]
    sample = rng.choice(tastes.ENGLISH_SAMPLES[persona.style])
    feeling, time = tastes.ENGLISH_MOODS[mood], tastes.ENGLISH_OCCASIONS[occasion]
    if short:
        genre = tastes.ENGLISH_GENRES[persona.genre][0]
        return (
            f"{feeling} I love {genre}, above all {first}. Recommend me music for {time}, in a {persona.style} style."
        )
    return (
        f"{sample}\n\nOn repeat these days: {first} and {second}. {feeling} "
        f"Recommend me music for {time}, in at most 80 words. "
        "Stay with the kind of music I love, and write the way I write."
    )


def _quota(shares: list[float], size: int) -> np.ndarray:
    """Return integers in proportion to shares that sum to size (largest remainders), at least one each."""
    ideal = np.array(shares) / np.sum(shares) * size
    counts = np.maximum(np.floor(ideal + 1e-9).astype(int), 1)
    by_remainder = np.argsort(counts - ideal, kind="stable")
    for step in range(abs(size - counts.sum())):
        if counts.sum() < size:
            counts[by_remainder[step % len(counts)]] += 1
        else:  # the minimum of one exceeds the total: take from the largest
            counts[np.argmax(counts)] -= 1
    return counts
