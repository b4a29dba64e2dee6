# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo judge` against a judge on 127.0.0.1 that overloads, fails, stalls and leaks, and killed in the middle."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.judge_calls import KEY, arguments, judge, start, write_pairs
from tests.judge_server import Reply, biased, fails, judge_server, says, shown
from verl_pgrpo.cli import main


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


# ------------------------------------------------------------------------------------------ cache, resume, interruption


def test_a_second_call_is_free_and_says_the_same(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    with judge_server(biased(first=0.3, malformed=0.1)) as (url, seen):
        one = judge(tmp_path, url)
        asked = len(seen.bodies)
        two = judge(tmp_path, url)
        assert len(seen.bodies) == asked == 120
        (tmp_path / "a.jsonl").rename(tmp_path / "c.jsonl")
        (tmp_path / "b.jsonl").rename(tmp_path / "a.jsonl")
        (tmp_path / "c.jsonl").rename(tmp_path / "b.jsonl")
        swapped = judge(tmp_path, url)
        assert len(seen.bodies) == asked, "the same questions, with a and b exchanged"
        judge(tmp_path, url, "--model", "another")
        assert len(seen.bodies) == 2 * asked
    assert two["requests"] == {"made": 0, "retried": 0, "cached": 120}
    assert {key: one[key] for key in one if key != "requests"} == {key: two[key] for key in two if key != "requests"}
    assert (swapped["overall"]["a"], swapped["overall"]["b"]) == (one["overall"]["b"], one["overall"]["a"])


@pytest.mark.slow
@pytest.mark.parametrize(("ended", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_interrupted_call_resumes(tmp_path: Path, ended: signal.Signals, status: int) -> None:
    write_pairs(tmp_path, prompts=150)
    cache = tmp_path / "out.judge-cache.jsonl"
    with judge_server(biased(first=0.3), delay=0.05) as (url, seen):
        run = start(tmp_path, url, "--concurrency", "4")
        deadline = time.monotonic() + 60
        while len(seen.bodies) < 90:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run.send_signal(ended)
        err = run.communicate(timeout=30)[1]
        assert run.returncode == status
        if ended == signal.SIGINT:
            [line] = err.splitlines()
            assert line.startswith("verl-pgrpo: error: interrupted")
        assert not (tmp_path / "out.json").exists()
        kept = cache.read_bytes().count(b"\n")
        time.sleep(0.2)
        before = len(seen.bodies)
        assert before - 8 <= kept < 300, "but for what was under way, each answer is there"
        result = judge(tmp_path, url)
        assert len(seen.bodies) - before == 300 - kept == result["requests"]["made"], "only what was missing"
        assert result["requests"]["cached"] == kept
    assert len(result["pairs"]) == 150
    assert all(pair["outcome"] for pair in result["pairs"])


def test_a_line_that_was_cut_off_is_asked_again_and_harms_no_other(tmp_path: Path) -> None:
    write_pairs(tmp_path, prompts=6)
    cache = tmp_path / "here.jsonl"
    with judge_server(biased(first=0.0)) as (url, seen):
        one = judge(tmp_path, url, "--cache", str(cache))
        cache.write_bytes(cache.read_bytes()[:-20])
        assert judge(tmp_path, url, "--cache", str(cache))["pairs"] == one["pairs"]
        assert len(seen.bodies) == 13
        assert judge(tmp_path, url, "--cache", str(cache))["requests"]["made"] == 0
        cache.write_bytes(cache.read_bytes()[:30])
        assert judge(tmp_path, url, "--cache", str(cache))["requests"]["made"] == 12, "not even one is whole"


def test_a_full_disk_is_said_and_harms_no_answer(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    with judge_server(biased(first=0.0)) as (url, _):
        run = start(tmp_path, url, before=["bash", "-c", 'ulimit -f 4; exec "$@"', "full"])  # KiB of a file
        [line] = run.communicate(timeout=60)[1].splitlines()
        assert run.returncode == 1
        assert "File too large" in line
        assert not (tmp_path / "out.json").exists()
        kept = (tmp_path / "out.judge-cache.jsonl").read_bytes().count(b"\n")
        assert kept > 10
        assert judge(tmp_path, url)["requests"] == {"made": 120 - kept, "retried": 0, "cached": kept}


def test_another_file_is_no_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = write_pairs(tmp_path)
    (tmp_path / "text").write_text("hello\n")
    for other in (a, tmp_path / "text"):
        before = other.read_bytes()
        assert main(arguments(tmp_path, "http://127.0.0.1:9", "--cache", str(other))) == 2
        assert "name another file" in capsys.readouterr().err
        assert other.read_bytes() == before


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    row = {"preference_group": "g", "prompt": "same", "response": "same"}
    lines = "".join(json.dumps({"prompt_id": number, **row}) + "\n" for number in range(10))
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(lines)
    with judge_server(lambda body: says("A")) as (url, seen):
        result = judge(tmp_path, url)
    assert len(seen.bodies) == 1
    assert result["overall"]["tie"] == 10


# -------------------------------------------------------------------------------------------------- limits and troubles


def test_concurrency_is_kept_and_used(tmp_path: Path) -> None:
    write_pairs(tmp_path, prompts=30)
    with judge_server(biased(first=0.0), delay=0.05) as (url, seen):
        judge(tmp_path, url, "--concurrency", "3")
    assert seen.most == 3


def test_rate_is_kept_with_what_is_tried_again(tmp_path: Path) -> None:
    write_pairs(tmp_path, prompts=6)
    state = {"count": 0}

    def answer(body: dict[str, Any]) -> Reply:
        state["count"] += 1
        return fails(500) if state["count"] == 3 else says("A")

    with judge_server(answer) as (url, seen):
        judge(tmp_path, url, "--rate", "600")
    times = sorted(seen.times)
    assert len(times) == 13
    assert times[-1] - times[0] >= 12 * 0.1 - 0.4, "the first may be late on a busy machine, by some of it"


def test_troubles_are_waited_out(tmp_path: Path) -> None:
    write_pairs(tmp_path, prompts=30)
    tries: dict[str, int] = {}

    def answer(body: dict[str, Any]) -> Reply:
        name = shown(body)[0]
        tries[name] = tries.get(name, 0) + 1
        number = int(name.split()[1])
        if tries[name] == 1 and number % 5 == 0:
            return fails((500, 502, 503, 429, 408)[number // 5 % 5])
        return biased(first=0.0)(body)

    with judge_server(answer) as (url, seen):
        result = judge(tmp_path, url)
    assert len(seen.bodies) == 72
    assert result["requests"] == {"made": 72, "retried": 12, "cached": 0}
    assert result["overall"]["undecided"] == 0


def test_retry_after_is_honoured_by_all(tmp_path: Path) -> None:
    write_pairs(tmp_path, prompts=20)
    first: list[float] = []

    def answer(body: dict[str, Any]) -> Reply:
        if not first:
            first.append(time.monotonic())
            return fails(429, "slow down", retry_after="2")
        return says("A")

    with judge_server(answer) as (url, seen):
        judge(tmp_path, url, "--concurrency", "2")
    after = [t - first[0] for t in seen.times if t - first[0] > 0.5]
    assert len(after) >= 38, "all but those that were under way"
    assert 2.0 <= min(after) < 3.5


def test_back_off_doubles(tmp_path: Path) -> None:
    write_pairs(tmp_path, prompts=1)
    with judge_server(lambda body: fails(503) if len(seen.times) < 4 else says("A")) as (url, seen):
        judge(tmp_path, url, "--concurrency", "1")
    waits = [b - a for a, b in pairwise(seen.times)][:3]
    for wait, longest in zip(waits, (1, 2, 4), strict=True):
        assert longest / 2 <= wait <= longest + 0.5


@pytest.fixture
def error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a call which fails says."""

    def line(url: str, *more: str) -> str:
        assert main(arguments(tmp_path, url, *more)) == 2
        [only] = capsys.readouterr().err.splitlines()
        assert only.startswith("verl-pgrpo: error: ")
        return only

    return line


def test_a_server_that_keeps_failing_is_one_line_and_what_was_judged_stays(
    tmp_path: Path, error: Callable[..., str]
) -> None:
    write_pairs(tmp_path, prompts=10)
    with judge_server(lambda body: says("A") if len(seen.bodies) <= 5 else fails(500, "boom")) as (url, seen):
        line = error(url, "--retries", "1", "--concurrency", "1")
    assert "asked 2 times: HTTP 500: boom; what it has judged is in the cache" in line
    assert not (tmp_path / "out.json").exists()
    with judge_server(lambda body: says("A")) as (url, seen):
        assert judge(tmp_path, url)["requests"]["cached"] == 5


def test_what_makes_no_sense_to_ask_again(tmp_path: Path, error: Callable[..., str]) -> None:
    write_pairs(tmp_path)
    troubles = [
        (fails(401, "bad key"), r"wants another key \(the key in OPENAI_API_KEY\); HTTP 401: bad key"),
        (fails(404, "no model j"), "HTTP 404: no model j; are --model and --base-url right"),
        (fails(400, "no such field"), "refuses every question: HTTP 400: no such field"),
        (fails(429, "pay first", retry_after="9999"), "asks to wait 9999 s"),
        ((200, {"Content-Type": "text/html"}, b"<html>hello</html>"), "gives no chat completions.*is --base-url right"),
        ((200, {}, b"{nonsense"), "gives no chat completions"),
    ]
    for reply, message in troubles:
        with judge_server(lambda body, reply=reply: reply) as (url, seen):
            assert re.search(message, error(url)), message
        assert len(seen.bodies) <= 16
    write_pairs(tmp_path, prompts=1)
    with judge_server(lambda body: fails(400, "no")) as (url, seen):
        assert "refuses every question" in error(url), "also if there are few"
    assert "cannot be reached" in error("http://127.0.0.1:9/v1")


def test_no_answer_in_time(tmp_path: Path, error: Callable[..., str]) -> None:
    write_pairs(tmp_path, prompts=2)
    with judge_server(lambda body: says("A"), delay=5) as (url, _):
        assert "no answer in 0.3 s" in error(url, "--timeout", "0.3", "--retries", "1")


def test_one_question_that_is_refused_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_pairs(tmp_path)

    def answer(body: dict[str, Any]) -> Reply:
        return fails(400, "context too long") if shown(body)[0] == "a 7 0" else biased(first=0.0)(body)

    with judge_server(answer) as (url, seen):
        result = judge(tmp_path, url)
        refused = result["verdicts"]["refused"]
        assert refused <= 1
        assert result["overall"]["undecided"] == refused
        if refused:
            assert "context too long" in result["refusal"]
            before = len(seen.bodies)
            judge(tmp_path, url)
            assert len(seen.bodies) == before + 1, "it may have been answered by now"


def test_many_questions_that_are_refused_are_no_reason_to_refuse_a_report(tmp_path: Path) -> None:
    write_pairs(tmp_path)

    def answer(body: dict[str, Any]) -> Reply:
        late = int(shown(body)[0].split()[1]) >= 30
        return fails(400, "context too long") if late else biased(first=0.0)(body)

    with judge_server(answer) as (url, _):
        for made in (120, 60):
            result = judge(tmp_path, url)
            assert result["requests"]["made"] == made
            assert result["verdicts"]["refused"] == 60
            assert result["overall"]["undecided"] == 30


# -------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.slow
def test_the_key_is_nowhere(tmp_path: Path) -> None:
    write_pairs(tmp_path, prompts=20)
    echoes = [
        lambda body: fails(401, f"Incorrect API key provided: {KEY}"),
        lambda body: fails(400, f"you sent Bearer {KEY}"),
        lambda body: fails(500, KEY),
        lambda body: (200, {"Content-Type": "text/plain"}, f"hello {KEY}".encode()),
        lambda body: says(f"Your key is {KEY}. A"),
    ]
    said = ""
    for echo in echoes:
        with judge_server(echo) as (url, seen):
            run = start(tmp_path, url, "--retries", "0")
            said += "".join(run.communicate(timeout=60))
        assert seen.keys[0] == f"Bearer {KEY}"
    assert "[key]" in said
    assert KEY not in said
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {"out.json", "out.judge-cache.jsonl"} <= set(files)
    assert not [name for name, text in files.items() if KEY in text]


def test_another_variable_may_hold_the_key_and_none_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path, prompts=1)
    monkeypatch.setenv("MY_KEY", "other")
    with judge_server(biased(first=0.0)) as (url, seen):
        judge(tmp_path, url, "--api-key-env", "MY_KEY")
        monkeypatch.delenv("OPENAI_API_KEY")
        judge(tmp_path, url, "--cache", str(tmp_path / "new.jsonl"))
    assert (seen.keys[0], len(seen.keys)) == ("Bearer other", 4)
    assert KEY not in "".join(seen.keys)
