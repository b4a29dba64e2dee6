# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Send requests to a judge behind an OpenAI-compatible API.

The client retries overload, server errors, timeouts and lost connections itself, with back-off or after the time in
`Retry-After`. Other errors (401, 404, ...) end the run. A single request that the server rejects, such as a text too
long for its context, is counted and skipped, unless the first ones are all rejected. The API key is removed from
everything that a server sends before it is shown or stored.

Answers are cached in a file of JSON Lines: each is appended as it arrives, so an interrupted run loses none.

    {"key", "text", "finished", "input_tokens", "output_tokens"}

The key is the SHA-256 of the whole request, so another model, question or temperature leads to a new request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ValidationError

from verl_pgrpo.errors import DataError, PGRPOError

REJECTED = (400, 413, 422)  # HTTP status codes that concern one request
MAX_REJECTED = 8  # if all of the first requests are rejected, single requests are not the cause
PROBE_RETRIES = 4  # of the first request, to report a wrong address early


class Answer(BaseModel):
    """A judge's answer. `finished` is false if it was cut off; tokens are None if the server does not count them."""

    text: str | None
    finished: bool
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Line(Answer):
    key: str


class JudgeCache(dict[str, Answer]):
    """Answers by key; `add` also appends to the file, which it creates."""

    def __init__(self, path: Path) -> None:
        """Raise DataError if the file is not a judge's cache."""
        super().__init__()
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        if content and not content.startswith(b'{"key"'):
            raise DataError(f"--cache {path}: not a judge's cache; name another file")
        self._end_of_cut_line = "\n" if content and not content.endswith(b"\n") else ""
        for line in content.splitlines():
            with contextlib.suppress(ValidationError):  # a line that was cut off; its request is sent again
                answer = _Line.model_validate_json(line)
                self[answer.key] = answer

    def add(self, key: str, answer: Answer) -> None:
        """Append an answer; it is flushed to the file when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._end_of_cut_line + json.dumps({"key": key, **answer.model_dump()}) + "\n")
        self._end_of_cut_line = ""
        self[key] = answer


class JudgeError(PGRPOError, RuntimeError):
    """A judge is unreachable, rejects every request, or would cost more than allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeServer:
    """Where the judge is, and the limits on requests to it."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    # environment variable of the key, for messages
    key_name: str = "OPENAI_API_KEY"
    # requests at a time
    concurrency: int = 8
    # requests per minute, retries included; None: no limit
    rate: float | None = None
    # seconds for one answer
    timeout: float = 120.0
    # retries of a request; 10 with back-off take about a minute
    retries: int = 10

    def __post_init__(self) -> None:
        """Raise DataError for values that cannot work."""
        if not re.fullmatch(r"https?://[\w.:\[\]-]+(/[!-~]*)?", self.base_url) or set("?#") & set(self.base_url):
            raise DataError("--base-url must be like http://127.0.0.1:8000/v1, without a user, password or query")
        if self.concurrency < 1 or self.retries < 0:
            raise DataError("--concurrency must be at least 1, and --retries at least 0")
        if not all(0 < number < math.inf for number in (self.timeout, self.rate) if number is not None):
            raise DataError("--timeout and --rate must be finite numbers above 0")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise DataError(f"the key in {self.key_name} has characters that an HTTP header cannot hold")

    @property
    def url(self) -> str:
        """The base URL; with `/v1` if it has no path."""
        url = self.base_url.rstrip("/")
        return url if urlsplit(url).path else f"{url}/v1"

    def scrub(self, text: str) -> str:
        """Return the text without the key, unless the key has at most three characters (a verdict could match it)."""
        return text.replace(self.api_key, "[key]") if self.api_key and len(self.api_key) > 3 else text


@dataclass
class RequestCounts:
    """The requests so far, and the last reason of a rejection."""

    made: int = 0
    retried: int = 0
    reason: str = ""


async def judge_all(
    server: JudgeServer,
    requests: Mapping[str, dict[str, Any]],
    on_answer: Callable[[str, Answer | None], None],
    known: bool = False,
) -> RequestCounts:
    """Send all requests and pass each answer on as it arrives; None for a rejected request.

    Args:
        requests: Bodies of chat completions by key.
        known: The judge has answered before. If it rejects requests now, the requests are the cause.

    Raises:
        JudgeError: The judge is unreachable, rejects everything, or keeps failing.
    """
    counts = RequestCounts()
    slots = asyncio.Semaphore(server.concurrency)
    next_start = time.monotonic()

    async def on_request(request: Any) -> None:  # the client calls it for retries too
        nonlocal next_start
        counts.made += 1
        counts.retried += request.headers.get("x-stainless-retry-count", "0") != "0"
        if server.rate is not None:
            now = time.monotonic()
            start, next_start = max(now, next_start), max(now, next_start) + 60.0 / server.rate
            await asyncio.sleep(start - now)

    async def judge(key: str, client: openai.AsyncOpenAI) -> bool:
        async with slots:
            answer = await _ask(server, client, requests[key], counts)
        on_answer(key, answer)
        return answer is not None

    http_client = openai.DefaultAsyncHttpxClient(event_hooks={"request": [on_request]})
    async with openai.AsyncOpenAI(
        api_key=server.api_key or "none", base_url=server.url, timeout=server.timeout, max_retries=server.retries,
        http_client=http_client,
    ) as client:  # fmt: skip
        keys = list(requests)
        probe = client.with_options(max_retries=min(server.retries, PROBE_RETRIES))
        for _ in range(0 if known else min(MAX_REJECTED, len(keys))):
            if known := await judge(keys.pop(0), probe):
                break
        if counts.reason and not known:
            raise JudgeError(f"the judge at {server.url} rejects every request: {counts.reason}")
        await asyncio.gather(*(judge(key, client) for key in keys))
    return counts


async def _ask(
    server: JudgeServer, client: openai.AsyncOpenAI, body: dict[str, Any], counts: RequestCounts
) -> Answer | None:
    def clean(text: object) -> str:
        return " ".join(server.scrub(str(text)).split())[:300]

    try:
        reply = await client.post("/chat/completions", body=body, cast_to=ChatCompletion)
        if not reply.choices:
            return Answer(text=None, finished=False)
        choice, usage = reply.choices[0], reply.usage
        return Answer(
            text=server.scrub(choice.message.content or ""),
            finished=choice.finish_reason != "length",
            input_tokens=usage.prompt_tokens if usage else None,
            output_tokens=usage.completion_tokens if usage else None,
        )
    except openai.APIStatusError as error:
        detail = error.body.get("message") if isinstance(error.body, dict) else None
        trouble = f"HTTP {error.status_code}: {clean(detail or error.response.text)}"
        if error.status_code in REJECTED:
            counts.reason = trouble
            return None
        if error.status_code == 401:
            there = "the key in" if server.api_key else "there is no key in"
            trouble += f"; it wants another key ({there} {server.key_name})"
        elif error.status_code == 404:
            trouble += "; are --model and --base-url right?"
    except openai.APITimeoutError:
        trouble = f"no answer in {server.timeout:g} s"
    except openai.APIConnectionError as error:
        trouble = f"unreachable ({clean(repr(error.__cause__ or error))})"
    except (openai.OpenAIError, ValueError, AttributeError, TypeError, LookupError) as error:
        trouble = f"sent no chat completion ({clean(repr(error))}); is --base-url right?"
    raise JudgeError(
        f"the judge at {server.url} failed: {trouble}; answers so far are in the cache, run the command again to go on"
    )
