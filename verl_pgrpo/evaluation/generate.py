# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Generate a model's responses with vLLM in a process of its own.

Two models never share memory, a crash names its model, and vLLM's output goes to a file. The process leads a process
group, so that vLLM's workers end with it when the command is interrupted.
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
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from verl_pgrpo.errors import DataError, PGRPOError
from verl_pgrpo.evaluation.models import Model
from verl_pgrpo.evaluation.prompts import Prompt
from verl_pgrpo.evaluation.samples import Sample

WORKER = "verl_pgrpo.evaluation.generate_worker"
POLL_INTERVAL = 0.2  # seconds


class GenerationError(PGRPOError, RuntimeError):
    """A model cannot be loaded, or vLLM failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How responses are sampled."""

    # responses per prompt
    samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    # keyword arguments of the chat template, such as {"enable_thinking": False}
    template: dict[str, Any] = field(default_factory=dict)
    # keyword arguments of vllm.LLM, such as {"tensor_parallel_size": 4}
    engine: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise DataError for values that vLLM would reject after it has loaded the model."""
        if self.samples < 1 or self.max_tokens < 1:
            raise DataError("--samples and --max-tokens must be at least 1")
        if not self.temperature >= 0 or not 0 < self.top_p <= 1:
            raise DataError("--temperature must be at least 0, and --top-p above 0 and at most 1")
        if self.temperature == 0 and self.samples > 1:
            raise DataError("--temperature 0 always gives the same response; use --samples 1")


def generate(model: Model, prompts: Sequence[Prompt], sampling: Sampling, log: Path | None = None) -> list[Sample]:
    """Return `sampling.samples` responses per prompt, in the prompts' order.

    A prompt's seed depends on `sampling.seed` and its id only, so a subset of the prompts gets the same responses.

    Args:
        log: File for vLLM's output; by default a temporary file that is kept only if vLLM fails.

    Raises:
        GenerationError: vLLM failed; the message has its last error and the path of its log.
    """
    with tempfile.TemporaryDirectory(prefix="verl-pgrpo-eval-") as folder:
        job, done = Path(folder) / "job.json", Path(folder) / "responses.jsonl"
        contents = {
            "engine": {"model": str(model.path), "seed": sampling.seed, **sampling.engine},
            "adapter": str(model.adapter) if model.adapter else None,
            "lora_rank": model.lora_rank,
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
        job.write_text(json.dumps(contents), encoding="utf-8")
        done.touch()
        written = log or Path(tempfile.mkstemp(prefix="verl-pgrpo-vllm-", suffix=".log")[1])
        with written.open("wb") as output:
            status = _run([sys.executable, "-m", WORKER, str(job)], output, done, len(prompts), model.name)
        if status != 0:
            raise GenerationError(f"model {model.name} ({model.path}): {_last_error(written, status)}")
        if log is None:
            written.unlink()
        lines = [json.loads(line) for line in done.read_text(encoding="utf-8").splitlines()]
    return [
        Sample(
            prompt_id=prompt.id, preference_group=prompt.group, prompt=prompt.text, response=text, sample=number,
            model=model.name,
        )
        for prompt, responses in zip(prompts, lines, strict=True)
        for number, text in enumerate(responses)
    ]  # fmt: skip


def _seed(seed: int, prompt_id: str) -> int:
    """Far from any other prompt's: vLLM gives response n the seed plus n."""
    return int.from_bytes(sha256(f"{seed} {prompt_id}".encode()).digest()[:4], "big") >> 2


def _run(command: list[str], output: IO[bytes], done: Path, prompts: int, name: str) -> int:
    # API keys are for the judge; the model under evaluation does not need them.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    worker = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        with tqdm(total=prompts, desc=f"{name}: prompts", leave=False, disable=None) as bar:
            while worker.poll() is None:
                time.sleep(POLL_INTERVAL)
                bar.update(done.read_bytes().count(b"\n") - bar.n)
        return worker.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)  # the worker, or processes that it left
        worker.wait()


def _last_error(log: Path, status: int) -> str:
    """Describe why vLLM ended, by the last error in its log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*(?:\n .*)*", text, re.MULTILINE)  # with indented lines below
    if status < 0:
        reason = f"vLLM was ended by {signal.Signals(-status).name}"
        reason += " (out of memory?)" if -status == signal.SIGKILL else ""
    else:
        reason = errors[-1][:300] if errors else f"vLLM ended with status {status}"
    return f"{reason}; its log is {log}"
