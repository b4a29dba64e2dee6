# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The whole path of `docs/evaluation.md` on the CPU: two tiny models through real vLLM, then a judge on what they said.

The judge is once a server of known bias and once real vLLM, which serves a tiny model: it speaks the protocol
and answers nonsense, or, held to it by a grammar, A, B or TIE.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.judge_server import biased, judge_server
from verl_pgrpo.commands.evaluate import EXAMPLE
from verl_pgrpo.data import personas
from verl_pgrpo.data.tiny_model import make_tiny_qwen3
from verl_pgrpo.evaluation.vllm_worker import ON_A_CPU
from verl_pgrpo.rewards.personas import compute_score

pytestmark = [pytest.mark.e2e, pytest.mark.launch]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
EVAL = [*shlex.split(EXAMPLE)[1:], "--max-tokens", "12", "--samples", "2", "--seed", "3"]  # as the help has it
ONE = ["eval", "--model", "grpo=runs/grpo/hf", "--data", "val.parquet", *EVAL[-6:]]


def call(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, "-m", "verl_pgrpo.cli", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == status, (run.stdout[-3000:], run.stderr[-3000:])
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a validation parquet, and their samples."""
    folder = tmp_path_factory.mktemp("evaluation")
    personas.make_split("val", 14).to_parquet(folder / "val.parquet")
    for seed, name in enumerate(("grpo", "pgrpo")):
        make_tiny_qwen3(folder / "runs" / name / "hf", personas.toy_vocabulary(), seed=seed)
    run = call(folder, *EVAL, "--json")
    assert run.stderr == "", "quiet where there is no terminal"
    (folder / "report.json").write_text(run.stdout)
    return folder


def test_two_models_are_scored_and_compared(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert report["reward"] == "pkg://verl_pgrpo.rewards.personas"
    assert [(model["name"], model["prompts"], model["responses"]) for model in report["models"]] == [
        ("grpo", 14, 28),
        ("pgrpo", 14, 28),
    ]
    rows = {row["extra_info"]["index"]: row for row in personas.make_split("val", 14).to_dict("records")}
    for model in report["models"]:
        lines = [json.loads(line) for line in (folder / report["files"][model["name"]]).read_text().splitlines()]
        assert len({line["response"] for line in lines}) > 20, "each response is drawn by itself"
        for line in lines:
            row = rows[int(line["prompt_id"].removeprefix("val/"))]
            assert (line["prompt"], line["preference_group"]) == (row["prompt"][0]["content"], row["preference_group"])
            values = compute_score("", line["response"], row["reward_model"]["ground_truth"])
            assert line["values"] == pytest.approx(values)
            assert line["score"] == pytest.approx(values["score"])
        for group in model["groups"]:
            mine = [line["score"] for line in lines if line["preference_group"] == group["group"]]
            assert group["mean"] == pytest.approx(sum(mine) / len(mine))
            assert (group["prompts"], group["responses"], group["low"]) == (2, 4, None)
    [found] = report["comparisons"]
    assert found["overall"]["prompts"] == 14
    assert 0 < found["overall"]["p"] <= 1
    again = json.loads(call(folder, "eval", "--scored", "samples/grpo.jsonl", "--seed", "3", "--json").stdout)
    assert again["models"] == report["models"][:1], "a report of the file says the same"


def test_a_part_of_the_prompts_gets_the_same_responses(folder: Path) -> None:
    call(folder, *ONE, "--limit", "7", "--out", "part")
    whole = (folder / "samples" / "grpo.jsonl").read_text().splitlines()
    part = (folder / "part" / "grpo.jsonl").read_text().splitlines()
    assert len(part) == 14
    assert set(part) <= set(whole)


def test_a_model_that_crashes_is_named_and_leaves_the_other(folder: Path) -> None:
    (folder / "broken").mkdir()
    for file in (folder / "runs" / "grpo" / "hf").iterdir():
        content = file.read_bytes()
        (folder / "broken" / file.name).write_bytes(content[:1000] if file.suffix == ".safetensors" else content)
    run = call(folder, *ONE, "--model", "broken", "--out", "half", status=2)
    [line] = run.stderr.splitlines()
    assert line.startswith("verl-pgrpo: error: model broken (broken): ")
    assert "Error" in line
    assert "its log is half/broken.vllm.log" in line
    assert (folder / "half" / "grpo.jsonl").is_file(), "what had been generated is there"
    assert not (folder / "half" / "broken.jsonl").exists()


def alive(pid: str) -> bool:
    """Is it there, and no zombie?"""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.mark.parametrize(("ended", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_whatever_ends_it_leaves_no_vllm(folder: Path, ended: signal.Signals, status: int) -> None:
    command = [sys.executable, "-m", "verl_pgrpo.cli", *ONE, "--out", f"stopped{status}"]
    run = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    log = folder / f"stopped{status}" / "grpo.vllm.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [worker] = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.send_signal(ended)
    assert ("interrupted" in run.communicate(timeout=30)[1]) == (ended == signal.SIGINT)
    assert run.returncode == status
    deadline = time.monotonic() + 10
    while alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not list(log.parent.glob("*.jsonl*"))


def test_a_judge_of_known_bias_on_what_they_said(folder: Path) -> None:
    with judge_server(biased(first=0.5, better=len)) as (url, seen):
        arguments = ["judge", "--a", "samples/pgrpo.jsonl", "--b", "samples/grpo.jsonl", "--model", "j"]
        arguments += ["--base-url", url, "--json", "judged.json"]
        call(folder, *arguments)
        asked = len(seen.bodies)
        call(folder, *arguments)
    assert len(seen.bodies) == asked == 56
    judged = json.loads((folder / "judged.json").read_text())
    assert judged["overall"]["pairs"] == 28
    assert judged["overall"]["prompts"] == 14
    assert len(judged["groups"]) == 7
    assert judged["position"]["low"] <= 0.75 <= judged["position"]["high"]


# --------------------------------------------------------------------------------------------- real vLLM as the judge


@pytest.fixture(scope="module")
def vllm(folder: Path) -> Iterator[str]:
    """A tiny model behind vLLM's OpenAI-compatible server on 127.0.0.1."""
    words = Path(folder / "words.txt")
    text = " ".join(["A", "B", "TIE", *personas.toy_vocabulary()])
    words.write_text(text)
    make_tiny_qwen3(folder / "judge", text.split(), seed=5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "judge")]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, env={**ENVIRONMENT, **ON_A_CPU}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            assert server.poll() is None, (folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_real_vllm_judges_nonsense_and_within_a_grammar(folder: Path, vllm: str) -> None:
    arguments = ["judge", "--a", "samples/pgrpo.jsonl", "--b", "samples/grpo.jsonl", "--model", "tiny"]
    arguments += ["--base-url", vllm, "--max-tokens", "16"]
    call(folder, *arguments, "--json", "free.json")
    free = json.loads((folder / "free.json").read_text())
    assert free["verdicts"]["malformed"] > 50
    assert sum(free["verdicts"].values()) == 56
    assert free["verdicts"]["refused"] == 0
    assert free["requests"]["made"] == 56
    assert free["tokens"]["input"] > 1000, "the server's own count"

    call(folder, *arguments, "--json", "bound.json", "--constrain")
    bound = json.loads((folder / "bound.json").read_text())
    assert bound["verdicts"]["malformed"] == 0
    assert bound["position"]["decided"] + bound["verdicts"]["tie"] == 56

    run = call(folder, *arguments, "--json", "none.json", "--model", "other", status=2)
    assert "HTTP 404" in run.stderr
    assert "are --model and --base-url right" in run.stderr
