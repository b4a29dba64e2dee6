# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A judge on 127.0.0.1 with configurable taste, bias and failures, and pairs of responses for it."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Reply = tuple[int, dict[str, str], Any]  # status, headers, JSON body or bytes
Answer = Reply | Callable[[dict[str, Any]], Reply]  # always this reply, or one that depends on the request's body
KEY = "sk-a-very-secret-key-0123456789"
GROUPS = {"jazz": 0.8, "rock": 0.2, "folk": 0.5}  # probability that a's response is the longer one


def says(text: str | None, finish_reason: str = "stop") -> Reply:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "j", "choices": [choice], "usage": usage}
    return 200, {}, body


def fails(status: int, message: str = "no", **headers: str) -> Reply:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, {"error": {"message": message}}


@dataclass
class Seen:
    """The requests so far, and the largest number in progress at a time."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    in_progress: int = 0
    most: int = 0


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The two responses of a request, in the order in which they are shown."""
    one, other = re.findall(r"<response_[AB]>\n(.*?)\n</response", body["messages"][0]["content"], re.DOTALL)
    return one, other


def biased(first: float = 0.0, malformed: float = 0.0) -> Answer:
    """A judge that prefers the first with this probability, else the longer one. Equal requests get equal answers."""

    def answer(body: dict[str, Any]) -> Reply:
        chance = random.Random(json.dumps(body, sort_keys=True))
        if chance.random() < malformed:
            return says("I would rather not say, A or B.")
        if chance.random() < first:
            return says("A")
        one, other = map(len, shown(body))
        return says("TIE" if one == other else "A" if one > other else "B")

    return answer


@contextmanager
def judge_server(answer: Answer, delay: float = 0.0) -> Iterator[tuple[str, Seen]]:
    """Serve; yields the base URL and what was seen."""
    seen, lock = Seen(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen.bodies.append(body)
                seen.keys.append(self.headers.get("Authorization", ""))
                seen.times.append(time.monotonic())
                seen.in_progress += 1
                seen.most = max(seen.most, seen.in_progress)
            time.sleep(delay)
            reply = answer(body) if callable(answer) else answer
            status, headers, content = reply if self.path == "/v1/chat/completions" else fails(404, self.path)
            with lock:
                seen.in_progress -= 1
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # do not report disconnected clients on standard error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def write_pairs(folder: Path, prompts: int = 10, samples: int = 1) -> dict[str, list[dict[str, Any]]]:
    """Write a.jsonl and b.jsonl, return their rows. The group decides how likely a's response is the longer one."""
    chance = random.Random(7)
    files: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    for number in range(prompts):
        group = list(GROUPS)[number % len(GROUPS)]
        row = {"prompt_id": f"val/{number}", "preference_group": group, "prompt": f"{group}, please <now>"}
        for sample in range(samples):
            longer = "a" if chance.random() < GROUPS[group] else "b"
            for name, rows in files.items():
                response = f"{name} {number} {sample}" + " long" * (name == longer)
                rows.append({**row, "response": response, "sample": sample})
    for name, rows in files.items():
        write(folder / f"{name}.jsonl", rows)
    return files


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


def arguments(folder: Path, url: str, *more: str) -> list[str]:
    files = ["--a", str(folder / "a.jsonl"), "--b", str(folder / "b.jsonl"), "--json", str(folder / "out.json")]
    return ["judge", *files, "--model", "j", "--base-url", url, *more]
