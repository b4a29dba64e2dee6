# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A judge on 127.0.0.1 whose taste, bias and troubles a test chooses, to hold against them what is measured."""

from __future__ import annotations

import html
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], Any]  # status, headers, JSON body or bytes


def says(text: str | None, finish_reason: str = "stop") -> Reply:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
    return (
        200,
        {},
        {"id": "x", "object": "chat.completion", "created": 0, "model": "j", "choices": [choice], "usage": usage},
    )


def fails(status: int, message: str = "no", **headers: str) -> Reply:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, {"error": {"message": message}}


@dataclass
class Seen:
    """What the server has been asked: bodies and keys, and when; and how many were under way at a time."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The two responses of a question, in the order in which they are shown."""
    text = body["messages"][0]["content"]
    found = re.findall(r"<response_([AB])>\n(.*?)\n</response_\1>", text, re.DOTALL)
    assert [name for name, _ in found] == ["A", "B"]
    return html.unescape(found[0][1]), html.unescape(found[1][1])


def biased(first: float, malformed: float = 0.0, better: Callable[[str], float] = len) -> Callable[[dict], Reply]:
    """A judge that prefers the first with this probability whatever it says, else the better one; the same question
    always gets the same answer."""

    def answer(body: dict[str, Any]) -> Reply:
        chance = random.Random(json.dumps(body, sort_keys=True))
        if chance.random() < malformed:
            return says("I would rather not say, A or B.")
        if chance.random() < first:
            return says("A")
        one, other = map(better, shown(body))
        return says("TIE" if one == other else "A" if one > other else "B")

    return answer


@contextmanager
def judge_server(answer: Callable[[dict[str, Any]], Reply], delay: float = 0.0) -> Iterator[tuple[str, Seen]]:
    """Serve; gives the base URL and what was seen."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with seen.lock:
                seen.bodies.append(body)
                seen.keys.append(self.headers.get("Authorization", ""))
                seen.times.append(time.monotonic())
                seen.under_way += 1
                seen.most = max(seen.most, seen.under_way)
            try:
                time.sleep(delay)
                status, headers, reply = answer(body) if self.path == "/v1/chat/completions" else fails(404, self.path)
            finally:
                with seen.lock:
                    seen.under_way -= 1
            content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            headers.setdefault("Content-Type", "application/json")
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client was killed
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
