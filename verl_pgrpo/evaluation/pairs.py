# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Pair the responses of two files by prompt."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.samples import Sample, check_same_prompt, read_samples


@dataclass(frozen=True)
class Pair:
    """A response of each model to one prompt; `sample` counts a prompt's pairs."""

    prompt_id: str
    group: str
    prompt: str
    a: str
    b: str
    sample: int


def read_pairs(a: Path, b: Path) -> tuple[list[Pair], dict[str, int]]:
    """Pair the responses of two files by prompt_id; several to one prompt are paired in their order.

    Returns:
        The pairs in the order of the first file, and the number of responses without a partner, by file ("a", "b").

    Raises:
        DataError: A file cannot be read, they share no prompt_id, or one has another prompt or group in each file.
    """
    ours, theirs = _by_prompt(a), _by_prompt(b)
    common = [prompt for prompt in ours if prompt in theirs]
    if not common:
        raise DataError(
            f"{a} and {b} share no prompt_id ({next(iter(ours))!r} against {next(iter(theirs))!r}): "
            "were they made from the same data?"
        )
    pairs = []
    for prompt in common:
        check_same_prompt(ours[prompt][0], theirs[prompt][0], f"{a} and {b}")
        for number, (x, y) in enumerate(zip(ours[prompt], theirs[prompt], strict=False)):
            pairs.append(Pair(prompt, x.preference_group, x.prompt, x.response, y.response, number))
    totals = {name: sum(map(len, found.values())) for name, found in (("a", ours), ("b", theirs))}
    return pairs, {name: total - len(pairs) for name, total in totals.items()}


def _by_prompt(path: Path) -> dict[str, list[Sample]]:
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(read_samples(path), key=lambda sample: sample.sample):
        found[sample.prompt_id].append(sample)
    return found
