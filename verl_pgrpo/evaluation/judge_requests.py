# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The requests for pairs of responses, each pair in both orders; what they would cost; and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.judge_cache import Answer, request_key
from verl_pgrpo.evaluation.pairs import Pair
from verl_pgrpo.evaluation.verdict import (
    FIRST,
    MALFORMED,
    QUESTION,
    REFUSED,
    SECOND,
    TIE,
    judge_prompt,
    parse_verdict,
)  # fmt: skip

CHARACTERS_PER_TOKEN = 4  # roughly, in English
SECONDS_PER_ANSWER = 2.0  # roughly
RESERVED = ("model", "messages", "stream", "n")  # fields that --option must not set
CONSTRAINT = {"structured_outputs": {"choice": ["A", "B", "TIE"]}}  # vLLM's


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeRequest:
    """The parts of a request that are the same for all pairs."""

    model: str
    question: str = QUESTION
    # a limit, not a length: judges that reason need it
    max_tokens: int = 2048
    # further fields of the body; None removes one, such as temperature for models that reject it
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise DataError for options that would change what is judged."""
        if reserved := [name for name in RESERVED if name in self.options]:
            raise DataError(f"--option {reserved[0]}: cannot be set")
        if type(self.token_limit) is not int or self.token_limit < 1:
            raise DataError(f"--max-tokens must be an integer >= 1, got {self.token_limit!r}")

    @property
    def token_limit(self) -> Any:
        """The most tokens of an answer, under either of its names."""
        return self.options.get("max_completion_tokens") or self.options.get("max_tokens") or self.max_tokens

    def body(self, prompt: str, first: str, second: str) -> dict[str, Any]:
        """Return the body of the chat completion that compares two responses."""
        fields = {"temperature": 0.0, "max_tokens": self.max_tokens, **self.options}
        content = judge_prompt(prompt, first, second, self.question)
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            **{name: value for name, value in fields.items() if value is not None},
        }


@dataclass(frozen=True)
class JudgedPair:
    """A pair and the judge's verdicts with a shown first and with b shown first."""

    pair: Pair
    verdicts: tuple[str, str]

    @property
    def valid(self) -> bool:
        """Whether neither verdict is malformed or refused."""
        return not set(self.verdicts) & {MALFORMED, REFUSED}

    @property
    def outcome(self) -> str | None:
        """`a` or `b` if both orders prefer it, else `tie`; None if a verdict is missing."""
        if not self.valid:
            return None
        return {(FIRST, SECOND): "a", (SECOND, FIRST): "b"}.get(self.verdicts, TIE)


@dataclass(frozen=True)
class JudgePlan:
    """All requests by key, in the order of the pairs, and each pair's two keys. Equal requests are sent once."""

    pairs: Sequence[Pair]
    requests: dict[str, dict[str, Any]]
    keys: list[tuple[str, str]]

    @classmethod
    def for_pairs(cls, pairs: Sequence[Pair], request: JudgeRequest) -> JudgePlan:
        """Build the requests."""
        requests: dict[str, dict[str, Any]] = {}
        keys = []
        for pair in pairs:
            bodies = request.body(pair.prompt, pair.a, pair.b), request.body(pair.prompt, pair.b, pair.a)
            names = request_key(bodies[0]), request_key(bodies[1])
            requests.update(zip(names, bodies, strict=True))
            keys.append(names)
        return cls(pairs, requests, keys)

    def missing(self, answers: Mapping[str, Answer]) -> dict[str, dict[str, Any]]:
        """Return the requests without an answer."""
        return {key: body for key, body in self.requests.items() if key not in answers}

    def judged(self, answers: Mapping[str, Answer]) -> list[JudgedPair]:
        """Return each pair with its verdicts; a request without an answer was refused."""
        verdicts = {key: parse_verdict(answer.text, answer.finished) for key, answer in answers.items()}
        both = [(verdicts.get(one, REFUSED), verdicts.get(other, REFUSED)) for one, other in self.keys]
        return [JudgedPair(pair, found) for pair, found in zip(self.pairs, both, strict=True)]


@dataclass(frozen=True)
class CostEstimate:
    """The requests still to make. Tokens are characters / 4, output tokens the most; `cost` is None without prices."""

    pairs: int
    requests: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float

    def text(self) -> str:
        """Describe the estimate for people."""
        cost = "no prices given" if self.cost is None else f"at most {self.cost:.2f}"
        minutes = self.seconds / 60
        duration = f"{self.seconds:.0f} s" if minutes < 1.5 else f"{minutes:.0f} min" if minutes < 90 else ""
        return (
            f"{self.pairs:,} pairs in both orders: {self.requests:,} requests to make, {self.cached:,} answers in the "
            f"cache\nabout {self.input_tokens:,} tokens in (characters / {CHARACTERS_PER_TOKEN}), at most "
            f"{self.output_tokens:,} out; cost {cost}; about {duration or f'{minutes / 60:.1f} h'} "
            f"(at {SECONDS_PER_ANSWER:g} s an answer, or by --rate)"
        )


def estimate_cost(
    plan: JudgePlan,
    answers: Mapping[str, Answer],
    request: JudgeRequest,
    concurrency: int,
    rate: float | None,
    prices: tuple[float | None, float | None],
) -> CostEstimate:
    """Estimate the requests without an answer; `prices` of input and output are per million tokens."""
    left = plan.missing(answers).values()
    inputs = sum(len(body["messages"][0]["content"]) for body in left) // CHARACTERS_PER_TOKEN
    outputs = len(left) * request.token_limit
    seconds = max(len(left) * SECONDS_PER_ANSWER / concurrency, len(left) * 60.0 / rate if rate else 0.0)
    cached = len(plan.requests) - len(left)
    return CostEstimate(
        len(plan.pairs), len(left), cached, inputs, outputs, token_cost(inputs, outputs, prices), seconds
    )


def token_cost(inputs: int, outputs: int, prices: tuple[float | None, float | None]) -> float | None:
    """Return the cost of these tokens in the currency of the prices; None without prices."""
    if prices == (None, None):
        return None
    return (inputs * (prices[0] or 0.0) + outputs * (prices[1] or 0.0)) / 1e6
