# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Persona data for verl: seven users of unequal share who want different things and rate on different scales.

    python -m verl_pgrpo.data.personas --out data/personas --surface toy --train-size 4096 --val-size 70 --noise 0.3

Two surfaces of one generator. `toy` is a closed vocabulary of single words for a tiny model made from scratch;
`english` is chat prompts for a real model, which must infer the taste from a profile. Both write `train.parquet` and
`val.parquet` with verl's columns and `preference_group`. Equal arguments give equal bytes.

Requests (occasion x mood) of the validation split never occur in training. Validation has the same number of rows for
every persona and neither noise nor mood: it reads what a persona gets, not how it rates today.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from verl_pgrpo.data import tastes
from verl_pgrpo.data.tastes import PERSONAS, Persona

SURFACES = ("toy", "english")
_HELD_OUT = 4  # every fourth (occasion, mood) pair is for validation


def toy_vocabulary() -> list[str]:
    """Every word of the toy surface, prompts and answers, in a fixed order, for a word-level tokenizer."""
    liked = [word for words in (*tastes.TOY_STYLES.values(), *tastes.TOY_GENRES.values()) for word in words]
    prompts = [word for persona in PERSONAS for word in _toy_prompt(persona, "", "").split()]
    return list(dict.fromkeys([*liked, *prompts, *tastes.TOY_OCCASIONS, *tastes.TOY_MOODS]))


def make_split(
    split: str, size: int, surface: str = "toy", seed: int = 0, noise: float = 0.0, mood: float = 0.0
) -> pd.DataFrame:
    """One split as a table in verl's layout.

    Args:
        split: `train` (personas by their shares, shuffled) or `val` (equal numbers, no noise, no mood).
        size: rows.
        surface: `toy` or `english`.
        seed: of prompts, order and noise.
        noise: std of the rating of one response, in units of the persona's scale.
        mood: std of an offset that all responses to one prompt share, in units of the persona's scale. GRPO's
            generation group cancels it, a preference group's history does not.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val', got {split!r}")
    if surface not in SURFACES:
        raise ValueError(f"surface must be one of {', '.join(SURFACES)}, got {surface!r}")
    if size < len(PERSONAS):
        raise ValueError(f"{split} size must be at least {len(PERSONAS)}, one row a persona, got {size}")
    for name, value in (("noise", noise), ("mood", mood)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number >= 0 (a standard deviation), got {value}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")

    training = split == "train"
    rng = np.random.default_rng([seed, int(training)])
    shares = [persona.share if training else 1 / len(PERSONAS) for persona in PERSONAS]
    order = rng.permutation(np.repeat(np.arange(len(PERSONAS)), _quota(shares, size)))
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
            "row": f"{split}/{index}",
        }
        rows.append(
            {
                "data_source": f"personas/{persona.name}",
                "prompt": [{"role": "user", "content": _request(persona, surface, training, rng)}],
                "ability": "personalization",
                "reward_model": {"style": "rule", "ground_truth": json.dumps(truth, separators=(",", ":"))},
                "extra_info": {"index": index, "split": split, "persona": persona.name, "seed": seed},
                "preference_group": persona.name,
            }
        )
    return pd.DataFrame(rows)


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


def main(argv: list[str] | None = None) -> None:
    """Command line: write both splits and say what is in them."""
    parser = argparse.ArgumentParser(prog="python -m verl_pgrpo.data.personas", description="Persona data for verl.")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.parquet and val.parquet")
    parser.add_argument("--surface", choices=SURFACES, default="toy")
    parser.add_argument("--train-size", type=int, default=4096, help="rows (default: %(default)s)")
    parser.add_argument("--val-size", type=int, default=70, help="rows (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.0, help="std of one rating, in units of the persona's scale")
    parser.add_argument("--mood", type=float, default=0.0, help="the same, shared by all responses to one prompt")
    args = parser.parse_args(argv)
    options = {"surface": args.surface, "seed": args.seed, "noise": args.noise, "mood": args.mood}
    try:
        splits = {name: make_split(name, getattr(args, f"{name}_size"), **options) for name in ("train", "val")}
    except ValueError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, table in splits.items():
        table.to_parquet(args.out / f"{name}.parquet", index=False)
    if args.surface == "toy":  # for verl_pgrpo.data.tiny_model
        (args.out / "vocabulary.txt").write_text("\n".join(toy_vocabulary()) + "\n", encoding="utf-8")

    counts = {name: table["preference_group"].value_counts() for name, table in splits.items()}
    print(f"{'persona':<20}{'share':>7}{'train':>8}{'val':>6}   stars, useless to perfect")
    for p in PERSONAS:
        numbers = f"{p.share:>7.0%}{counts['train'][p.name]:>8}{counts['val'][p.name]:>6}"
        print(f"{p.name:<20}{numbers}   {p.offset:.1f} to {p.offset + p.scale:.1f}")
    print(f"{'all':<20}{'':>7}{args.train_size:>8}{args.val_size:>6}   in {args.out}")


if __name__ == "__main__":
    main()
