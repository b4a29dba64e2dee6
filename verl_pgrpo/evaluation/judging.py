# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs to requests, what they would cost, and their verdicts: each pair is asked in both orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation.judge_cache import Answer, Cache, key_of
from verl_pgrpo.evaluation.judge_client import Counts, Judge, Server
from verl_pgrpo.evaluation.pairs import Pair
from verl_pgrpo.evaluation.verdicts import FIRST, QUESTION, SECOND, TIE, judge_prompt, parse_verdict

CHARACTERS = 4  # of a token, roughly, in English
SECONDS = 2.0  # of one answer, roughly
MALFORMED, REFUSED = "malformed", "refused"
OURS = ("model", "messages", "stream", "n")  # of a request, not to be set from outside
CHOICE = {"structured_outputs": {"choice": ["A", "B", "TIE"]}}  # vLLM's


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """What each request says beside the two responses."""

    model: str
    question: str = QUESTION
    # a limit, not a length: judges that think need it
    max_tokens: int = 2048
    # of the request's body; None takes one away, such as temperature for models that refuse it
    options: dict[str, Any] = field(default_factory=dict)

    def request(self, prompt: str, first: str, second: str) -> dict[str, Any]:
        """The request: model, messages, and the other fields of its body."""
        body = {"temperature": 0.0, "max_tokens": self.max_tokens, **self.options}
        options = {name: value for name, value in body.items() if value is not None}
        content = judge_prompt(prompt, first, second, self.question)
        return {"model": self.model, "messages": [{"role": "user", "content": content}], "options": options}

    def check(self) -> None:
        """Raises DataError for options that would change what is judged."""
        if taken := [name for name in OURS if name in self.options]:
            raise DataError(f"--option {taken[0]}: not to be set here")
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1:
            raise DataError(f"--max-tokens must be a whole number of at least 1, got {self.limit!r}")

    @property
    def limit(self) -> Any:
        """Tokens of an answer, at most, under either of the names that servers know it by."""
        return self.options.get("max_completion_tokens") or self.options.get("max_tokens") or self.max_tokens


@dataclass(frozen=True)
class Judged:
    """A pair and the judge's two verdicts: first with a in front, then with b. Each one of first, second, tie,
    malformed, refused."""

    pair: Pair
    verdicts: tuple[str, str]

    @property
    def valid(self) -> bool:
        """Are both verdicts verdicts?"""
        return not set(self.verdicts) & {MALFORMED, REFUSED}

    @property
    def outcome(self) -> str | None:
        """`a` or `b` where both orders agree on it, else `tie`; None where a verdict is missing."""
        if not self.valid:
            return None
        return {(FIRST, SECOND): "a", (SECOND, FIRST): "b"}.get(self.verdicts, TIE)


@dataclass(frozen=True)
class Plan:
    """All requests by key, in the order of the pairs, and the two keys of each pair. Equal requests are one."""

    pairs: Sequence[Pair]
    requests: dict[str, dict[str, Any]]
    keys: list[tuple[str, str]]

    @classmethod
    def of(cls, pairs: Sequence[Pair], asking: Asking) -> Plan:
        asking.check()
        requests: dict[str, dict[str, Any]] = {}
        keys = []
        for pair in pairs:
            both = (asking.request(pair.prompt, pair.a, pair.b), asking.request(pair.prompt, pair.b, pair.a))
            names = (key_of(both[0]), key_of(both[1]))
            requests.update(zip(names, both, strict=True))
            keys.append(names)
        return cls(pairs, requests, keys)

    def judged(self, answers: dict[str, Answer]) -> list[Judged]:
        """Each pair with what was answered; a request without an answer was refused."""
        verdicts = {key: parse_verdict(answer.text, answer.finished) or MALFORMED for key, answer in answers.items()}
        return [
            Judged(pair, (verdicts.get(one, REFUSED), verdicts.get(other, REFUSED)))
            for pair, (one, other) in zip(self.pairs, self.keys, strict=True)
        ]


@dataclass(frozen=True)
class Estimate:
    """What is to be asked. Tokens are characters / 4, of output the most; `cost` is None without prices."""

    pairs: int
    requests: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float

    @classmethod
    def of(
        cls, plan: Plan, cache: Cache, asking: Asking, server: Server, price_in: float | None, price_out: float | None
    ) -> Estimate:
        """Prices are per million tokens."""
        left = [request for key, request in plan.requests.items() if key not in cache.answers]
        inputs = sum(len(request["messages"][0]["content"]) for request in left) // CHARACTERS
        outputs = len(left) * asking.limit
        paced = len(left) * 60.0 / server.rate if server.rate else 0.0
        seconds = max(paced, len(left) * SECONDS / server.concurrency)
        cost = cost_of(inputs, outputs, price_in, price_out)
        return cls(len(plan.pairs), len(left), len(plan.requests) - len(left), inputs, outputs, cost, seconds)

    def text(self) -> str:
        cost = "no prices given" if self.cost is None else f"at most {self.cost:.2f}"
        return (
            f"{self.pairs:,} pairs in both orders: {self.requests:,} requests to make, {self.cached:,} answers in the "
            f"cache\nabout {self.input_tokens:,} tokens in (characters / {CHARACTERS}), at most {self.output_tokens:,} "
            f"out; cost {cost}; about {_duration(self.seconds)} (at {SECONDS:g} s an answer, or by --rate)"
        )


def cost_of(inputs: int, outputs: int, price_in: float | None, price_out: float | None) -> float | None:
    """In the currency of the prices; None without any."""
    if price_in is None and price_out is None:
        return None
    return (inputs * (price_in or 0.0) + outputs * (price_out or 0.0)) / 1e6


def ask(plan: Plan, cache: Cache, server: Server, answered: Callable[[], None]) -> Counts:
    """Ask for what the cache has not, and add it there; `answered` is called for each.

    Raises:
        JudgeError: the judge cannot be reached, refuses, or keeps failing.
    """
    left = [(key, request) for key, request in plan.requests.items() if key not in cache.answers]
    judge = Judge(server, known=len(left) < len(plan.requests))

    def heard(key: str, answer: Answer | None) -> None:
        if answer is not None:
            cache.add(key, answer)
        answered()

    if left:
        asyncio.run(judge.ask_all(left, heard))
    return judge.counts


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
