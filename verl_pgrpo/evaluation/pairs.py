# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Two files of responses to the same prompts, as pairs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation.samples import Sample, read_samples


@dataclass(frozen=True)
class Pair:
    """A response of each model to one prompt; `sample` counts a prompt's pairs."""

    prompt_id: str
    group: str
    prompt: str
    a: str
    b: str
    sample: int


@dataclass(frozen=True)
class Pairs:
    """All pairs, in the order of the first file, and how many responses had no partner in the other file."""

    pairs: list[Pair]
    unmatched_a: int
    unmatched_b: int


def read_pairs(a: Path, b: Path) -> Pairs:
    """Pair the responses of two files by `prompt_id`, several to one prompt in their order.

    Raises:
        DataError: a file cannot be read, they share no prompt, or one id's prompt or group is not the same everywhere.
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
        _check_same(ours[prompt][0], theirs[prompt][0], f"in {a} than in {b}")
        both = zip(ours[prompt], theirs[prompt], strict=False)
        pairs += [
            Pair(prompt, x.preference_group, x.prompt, x.response, y.response, number)
            for number, (x, y) in enumerate(both)
        ]
    return Pairs(pairs, _count(ours) - len(pairs), _count(theirs) - len(pairs))


def _by_prompt(path: Path) -> dict[str, list[Sample]]:
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in read_samples(path):
        several = found[sample.prompt_id]
        several.append(sample)
        _check_same(several[0], sample, f"in one line of {path} than in another")
    for samples in found.values():
        samples.sort(key=lambda sample: sample.sample)
    return dict(found)


def _check_same(one: Sample, other: Sample, where: str) -> None:
    """Raises DataError for one id with two prompts or groups: its responses would be judged by the wrong request."""
    for name in ("prompt", "preference_group"):
        first, second = getattr(one, name), getattr(other, name)
        if first != second:
            raise DataError(f"prompt_id {one.prompt_id!r}: another {name} {where} ({first!r:.60}, {second!r:.60})")


def _count(samples: dict[str, list[Sample]]) -> int:
    return sum(map(len, samples.values()))
