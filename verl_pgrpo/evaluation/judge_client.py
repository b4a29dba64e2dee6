# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Questions to a judge behind an OpenAI-compatible API: not too many at once, not too often, again where it pays.

What is overload or trouble of the server (429, 5xx, no connection, no answer in time) is tried again after a wait that
doubles each time, at random between half and all of it, or as long as the server asks for by `Retry-After`; when it is
overloaded, all wait. What the server refuses (401, 404, ...) ends the run. A single question that it refuses (too long
for its context, say) is counted and passed over, unless it refuses the first ones all.

The key is only ever in the client; `scrub` takes it out of everything that a server says before that goes anywhere.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import openai

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation.errors import JudgeError
from verl_pgrpo.evaluation.judge_cache import Answer, whole

REFUSED = (400, 413, 422)  # of one question
OVERLOADED = (408, 409, 425, 429)  # and 5xx
LONGEST_WAIT = 60.0  # seconds, of our own accord
PATIENCE = 900.0  # seconds that a server may ask for
Question = tuple[str, dict[str, Any]]  # a key and a request
Heard = Callable[[str, Answer | None], None]
FIRST_ONES = 8  # refused, and none answered: it is not the questions


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Where the judge is and how it is treated."""

    base_url: str
    # of the key; never shown
    key: str | None = field(default=None, repr=False)
    # where the key was looked for, for the message that it is missing
    key_name: str = "OPENAI_API_KEY"
    # questions under way at a time
    concurrency: int = 8
    # requests a minute, those that are tried again counted in; None: no limit
    rate: float | None = None
    # seconds for one answer
    timeout: float = 120.0
    # times that a question is tried again
    retries: int = 6
    # seconds, of the first wait
    backoff: float = 1.0

    def check(self) -> None:
        """Raises DataError for what cannot be meant."""
        try:
            url, parts = self.base_url, urlsplit(self.base_url)
            meant = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isprintable()
        except ValueError:  # half a bracket, or no possible port
            meant = False
        if not meant:
            raise DataError(f"--base-url {scrub(self.base_url, self.key)}: must be like http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise DataError("--base-url has a user or password in it; a key is named by --api-key-env instead")
        if self.concurrency < 1 or self.retries < 0:
            raise DataError("--concurrency must be at least 1, and --retries at least 0")
        if not all(0 < number < math.inf for number in (self.timeout, self.rate) if number is not None):
            raise DataError("--timeout and --rate must be finite numbers above 0")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise DataError(f"the key in {self.key_name} has characters that no header can hold")

    @property
    def url(self) -> str:
        """The base URL; `/v1` where it has no path."""
        url = self.base_url.rstrip("/")
        return url if urlsplit(url).path else f"{url}/v1"


@dataclass
class Counts:
    """What has happened to the questions so far."""

    requests: int = 0
    retried: int = 0
    answered: int = 0
    refused: int = 0
    refusal: str = ""


def scrub(text: str, key: str | None) -> str:
    """The text without the key; one of three characters or fewer is no secret, and could be a verdict."""
    return text.replace(key, "[key]") if key and len(key) > 3 else text


class Judge:
    """One server, with its limits."""

    def __init__(self, server: Server, known: bool = False) -> None:
        """`known`: this judge has answered questions before, so if it refuses some now, it is the questions."""
        server.check()
        self.server = server
        self.known = known
        self.counts = Counts()
        self._turn = 0.0  # when the next request may start, by the rate
        self._pause = 0.0  # when anything may start again, as the server has asked

    async def ask_all(self, questions: Iterable[Question], heard: Heard) -> None:
        """Ask each question, a key and a request, and hand over its answer as it comes; None where it was refused.

        Raises:
            JudgeError: it cannot be reached, refuses, or keeps failing. What was answered has been handed over.
        """
        rest = iter(questions)
        async with self._client() as client:
            tasks = [asyncio.create_task(self._work(client, rest, heard)) for _ in range(self.server.concurrency)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if self.counts.refused and not self.known:
            raise self._refuses_all()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[openai.AsyncOpenAI]:
        # Its own retries know no common pause and no rate. A server without keys gets a word in place of one.
        key = self.server.key or "none"
        async with openai.AsyncOpenAI(
            api_key=key, base_url=self.server.url, max_retries=0, timeout=self.server.timeout
        ) as client:
            yield client

    async def _work(self, client: openai.AsyncOpenAI, questions: Iterator[Question], heard: Heard) -> None:
        for key, request in questions:
            answer = await self._ask(client, request)
            if answer is None:
                self.counts.refused += 1
                if self.counts.refused >= FIRST_ONES and not self.known:
                    raise self._refuses_all()
            else:
                self.counts.answered += 1
                self.known = True
            heard(key, answer)

    async def _ask(self, client: openai.AsyncOpenAI, request: dict[str, Any]) -> Answer | None:
        tries = self.server.retries + 1
        for attempt in range(tries):
            unreachable = False
            await self._wait_for_turn()
            self.counts.requests += 1
            self.counts.retried += attempt > 0
            wait = min(LONGEST_WAIT, self.server.backoff * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                model, messages, rest = request["model"], request["messages"], dict(request["options"])
                return self._read(await client.chat.completions.create(model=model, messages=messages, extra_body=rest))
            except openai.APIStatusError as error:
                trouble = f"HTTP {error.status_code}: {self._said(error)}"
                if error.status_code in REFUSED:
                    self.counts.refusal = trouble
                    return None
                if error.status_code not in OVERLOADED and error.status_code < 500:
                    raise JudgeError(self._refusal(error.status_code, trouble)) from None
                if error.code == "insufficient_quota":
                    raise JudgeError(
                        f"the judge at {self.server.url} has no quota left for this key: {trouble}"
                    ) from None
                asked = _retry_after(error)
                if asked is not None:
                    if asked > PATIENCE:
                        raise JudgeError(
                            f"the judge at {self.server.url} asks to wait {asked:.0f} s; run the command again then, "
                            "what has been judged is in the cache"
                        ) from None
                    wait = asked + random.uniform(0.0, 0.1)
                if asked is not None or error.status_code == 429:
                    self._pause = max(self._pause, time.monotonic() + wait)
            except openai.APITimeoutError:
                trouble = f"no answer in {self.server.timeout:g} s"
            except openai.APIConnectionError as error:
                unreachable = True
                trouble = f"cannot be reached ({self._clean(repr(error.__cause__ or error))})"
            except (openai.OpenAIError, ValueError) as error:  # no JSON, or JSON of another kind
                trouble = f"gives no chat completions ({self._clean(repr(error))})"
                if not self.known:
                    raise JudgeError(f"{self.server.url} {trouble}; is --base-url right?") from None
            if attempt == tries - 1 or (unreachable and attempt > 1 and not self.known):
                break
            await asyncio.sleep(wait)
        raise JudgeError(
            f"the judge at {self.server.url}, asked {attempt + 1} times: {trouble}; what it has judged is in the cache"
        )

    async def _wait_for_turn(self) -> None:
        while True:
            now = time.monotonic()
            if now < self._pause:
                await asyncio.sleep(self._pause - now)
            elif self.server.rate is not None and now < self._turn:
                await asyncio.sleep(self._turn - now)
            else:
                if self.server.rate is not None:
                    self._turn = now + 60.0 / self.server.rate
                return

    def _read(self, reply: Any) -> Answer:
        """Raises ValueError for what is no chat completion."""
        choices = getattr(reply, "choices", None)
        if not isinstance(choices, list) or (choices and not hasattr(choices[0], "message")):
            raise ValueError(f"got {str(reply)[:100]!r}")
        usage = getattr(reply, "usage", None)
        tokens = [whole(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens")]
        message = choices[0].message if choices else None
        text = getattr(message, "content", None)
        finished = bool(choices) and choices[0].finish_reason != "length"
        return Answer(scrub(text, self.server.key) if isinstance(text, str) else None, finished, *tokens)

    def _refuses_all(self) -> JudgeError:
        return JudgeError(f"the judge at {self.server.url} refuses every question: {self.counts.refusal}")

    def _refusal(self, status: int, trouble: str) -> str:
        if status == 401:
            there = "the key in" if self.server.key else "there is no key in"
            return f"the judge at {self.server.url} wants another key ({there} {self.server.key_name}); {trouble}"
        hint = "; are --model and --base-url right?" if status == 404 else ""
        return f"the judge at {self.server.url} refuses: {trouble}{hint}"

    def _said(self, error: openai.APIStatusError) -> str:
        body = error.body
        text = body.get("message") if isinstance(body, dict) else None
        return self._clean(str(text or error.response.text))

    def _clean(self, text: str) -> str:
        return " ".join(scrub(text, self.server.key).split())[:300]


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that the server asks to wait: a number, or a date; None where it asks for nothing readable."""
    text = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
