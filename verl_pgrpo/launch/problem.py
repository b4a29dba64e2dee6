# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A sentence about a launch that does not add up, and where to look."""

from __future__ import annotations

from collections.abc import Iterator

ACTOR = "actor_rollout_ref.actor"
REF = "actor_rollout_ref.ref"
ROLLOUT = "actor_rollout_ref.rollout"


class Problem(str):
    """A sentence about a launch. `where`: the keys to look at. `fatal`: it stops the run; else it costs.

    `of_gpus`: it is about the speed of GPUs, and nothing on a CPU.
    """

    where: str
    fix: str
    fatal: bool
    of_gpus: bool

    def __new__(cls, what: str, where: str, fix: str, fatal: bool = True, of_gpus: bool = False) -> Problem:
        problem = super().__new__(cls, what)
        problem.where, problem.fix, problem.fatal = where, fix, fatal
        problem.of_gpus = of_gpus
        return problem


def indivisible(what: str, number: int, by: str, divisor: int, where: str) -> Iterator[Problem]:
    """`what` is `number` and has to be divisible by `by`, which is `divisor` and set at `where`."""
    if divisor < 1 or number % divisor:
        fits = [str(d) for d in range(1, min(number, 1024) + 1) if number % d == 0]
        fix = f"{by} may be {', '.join(fits[:12])}{', ...' if len(fits) > 12 else ''}"
        yield Problem(f"{what} ({number}) is not divisible by {by} ({divisor})", where, fix)
