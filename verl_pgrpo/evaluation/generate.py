# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Responses of a model, by vLLM in a process of its own.

Of its own so that two models never share memory, a crash names its model, and what vLLM prints goes to a file. The
process has a group of its own too, with which vLLM's workers end when we are interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.progress import progress
from verl_pgrpo.evaluation.errors import GenerationError
from verl_pgrpo.evaluation.models import Model
from verl_pgrpo.evaluation.prompts import Prompt
from verl_pgrpo.evaluation.samples import Sample

WORKER = "verl_pgrpo.evaluation.vllm_worker"
LOOK = 0.2  # seconds between looks at what the worker has written


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How responses are drawn."""

    # responses to each prompt
    samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    # for the chat template, such as {"enable_thinking": False}
    template: dict[str, Any] = field(default_factory=dict)
    # for vllm.LLM, such as {"tensor_parallel_size": 4}
    engine: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises DataError for what vLLM would refuse after it has loaded the model."""
        if self.samples < 1 or self.max_tokens < 1:
            raise DataError("--samples and --max-tokens must be at least 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise DataError("--temperature must be at least 0, and --top-p above 0 and at most 1")
        if self.temperature == 0 and self.samples > 1:
            raise DataError("--temperature 0 always gives the same response; use --samples 1")


def generate(model: Model, prompts: Sequence[Prompt], sampling: Sampling, log: Path | None = None) -> list[Sample]:
    """`sampling.samples` responses to each prompt, in the prompts' order.

    A prompt's seed depends on `sampling.seed` and its id alone, so fewer prompts do not change the responses.

    Args:
        log: file for what vLLM prints; without it that is shown only if it fails.

    Raises:
        GenerationError: vLLM failed; the message has its last error and where its log is.
    """
    sampling.check()
    with tempfile.TemporaryDirectory(prefix="verl-pgrpo-eval-") as folder:
        job, done = Path(folder) / "job.json", Path(folder) / "responses.jsonl"
        job.write_text(json.dumps(_job(model, prompts, sampling, done)), encoding="utf-8")
        done.touch()
        with _log_file(log) as output, progress(f"{model.name}: prompts", len(prompts), unit="") as bar:
            status = _run([sys.executable, "-m", WORKER, str(job)], output, done, bar)
            if status != 0:
                raise GenerationError(f"model {model.name} ({model.path}): {_why(Path(output.name), status)}")
            if log is None:
                Path(output.name).unlink()
        lines = [json.loads(line) for line in done.read_text(encoding="utf-8").splitlines()]
    return [
        Sample(prompt.id, prompt.group, prompt.text, text, number, model.name)
        for prompt, responses in zip(prompts, lines, strict=True)
        for number, text in enumerate(responses)
    ]


def _job(model: Model, prompts: Sequence[Prompt], sampling: Sampling, done: Path) -> dict[str, Any]:
    return {
        "engine": {"model": str(model.path), "seed": sampling.seed, **sampling.engine},
        "messages": [prompt.messages for prompt in prompts],
        "seeds": [_seed(sampling.seed, prompt.id) for prompt in prompts],
        "sampling": {
            "n": sampling.samples,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        },
        "template": sampling.template,
        "out": str(done),
    }


def _seed(seed: int, prompt_id: str) -> int:
    """vLLM adds a response's number to its prompt's seed, so neighbours would share draws."""
    return int.from_bytes(sha256(f"{seed} {prompt_id}".encode()).digest()[:4], "big") >> 2


@contextlib.contextmanager
def _log_file(path: Path | None) -> Iterator[Any]:
    if path is not None:
        with path.open("wb") as file:
            yield file
    else:
        with tempfile.NamedTemporaryFile(prefix="verl-pgrpo-vllm-", suffix=".log", delete=False) as file:
            yield file


def _run(command: list[str], output: Any, done: Path, bar: Any) -> int:
    worker = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=_environment(os.environ),
        start_new_session=True,
    )  # fmt: skip
    seen = 0
    try:
        while worker.poll() is None:
            time.sleep(LOOK)
            lines = done.read_bytes().count(b"\n")
            bar.update(lines - seen)
            seen = lines
        return worker.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)  # the worker, or what it has left
        worker.wait()


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    # Keys are for the judge; a model under evaluation has no business with them.
    return {name: value for name, value in given.items() if not name.endswith("_API_KEY")}


def _why(log: Path, status: int) -> str:
    """The last error of a traceback that vLLM has left, and where to read on."""
    text = log.read_text(encoding="utf-8", errors="replace")
    errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*(?:\n .*)*", text, re.MULTILINE)  # and what is indented below
    if status < 0:
        ended = f"vLLM was ended by {signal.Signals(-status).name}"
        ended += " (out of memory?)" if -status == signal.SIGKILL else ""
    else:
        ended = errors[-1][:300] if errors else f"vLLM ended with status {status}"
    return f"{ended}; its log is {log}"
