# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Generate a model's responses with vLLM in a separate process.

Two models never share memory, the error after a crash names the model, and vLLM's output goes to a file. The process
leads a session, so vLLM's workers end with it when the command is interrupted.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from verl_pgrpo.errors import DataError, PGRPOError
from verl_pgrpo.evaluation.models import Model
from verl_pgrpo.evaluation.prompts import Prompt
from verl_pgrpo.evaluation.samples import Sample

PR_SET_PDEATHSIG = 1
BATCH = 512  # prompts per call; vLLM batches within them, and progress shows between them
CPU_ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than running a model that fits a CPU
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # saves a process; otherwise vLLM's CPU build starts a worker process
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default is a large part of the machine
}


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
    if (written := log) is None:
        handle, name = tempfile.mkstemp(prefix="verl-pgrpo-vllm-", suffix=".log")
        os.close(handle)
        written = Path(name)
    chats, seeds = [prompt.messages for prompt in prompts], [_seed(sampling.seed, prompt.id) for prompt in prompts]
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_run_vllm, args=(sender, written, model, sampling, chats, seeds))
    worker.start()
    assert worker.pid is not None
    sender.close()
    responses: list[list[str]] = []
    try:
        with tqdm(total=len(prompts), desc=f"{model.name}: prompts", leave=False, disable=None) as bar:
            # Also check that the worker is alive: processes that a killed worker leaves behind may keep the pipe open.
            while len(responses) < len(prompts) and (receiver.poll(0.5) or worker.is_alive()):
                if receiver.poll():
                    responses += receiver.recv()
                    bar.update(len(responses) - bar.n)
    except (EOFError, OSError):
        worker.join()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)  # the worker, or processes that it left
        worker.kill()  # before it leads a session
        worker.join()
    if len(responses) < len(prompts):
        raise GenerationError(f"model {model.name} ({model.path}): {_last_error(written, worker.exitcode)}")
    if log is None:
        written.unlink()
    return [
        Sample(
            prompt_id=prompt.id, preference_group=prompt.group, prompt=prompt.text, response=text, sample=number,
            model=model.name,
        )
        for prompt, texts in zip(prompts, responses, strict=True)
        for number, text in enumerate(texts)
    ]  # fmt: skip


def _seed(seed: int, prompt_id: str) -> int:
    """Return a seed far from any other prompt's, because vLLM uses the seed plus n for response n."""
    return int.from_bytes(sha256(f"{seed} {prompt_id}".encode()).digest()[:4], "big") >> 2


def _run_vllm(
    responses: Connection, log: Path, model: Model, sampling: Sampling, chats: list[list[dict]], seeds: list[int]
) -> None:
    """Run vLLM in the generating process: send the responses to each chat, in batches of chats."""
    os.setsid()
    # Otherwise this command's resource tracker prints warnings about what a killed vLLM left behind.
    resource_tracker._resource_tracker._fd = resource_tracker._resource_tracker._pid = None  # type: ignore[attr-defined]
    if sys.platform == "linux":  # end with the command, even if it is killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
    os.dup2(1, 2)
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        del os.environ[name]  # they are for the judge
    import torch

    engine: dict[str, Any] = {"model": str(model.path), "seed": sampling.seed, **sampling.engine}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or accelerator.type == "mps":
        os.environ.update(CPU_ENVIRONMENT | os.environ)
        engine = {"enforce_eager": True, **engine}
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM, SamplingParams
    from vllm.config.lora import MaxLoRARanks
    from vllm.lora.request import LoRARequest

    adapter = None
    if model.adapter:
        rank = min((rank for rank in get_args(MaxLoRARanks) if rank >= model.lora_rank), default=model.lora_rank)
        engine = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank, **engine}
        adapter = LoRARequest("adapter", 1, str(model.adapter))
    llm = LLM(**engine)
    options: dict[str, Any] = {"n": sampling.samples, "temperature": sampling.temperature}
    options |= {"top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    for start in range(0, len(chats), BATCH):
        part = slice(start, start + BATCH)
        answers = llm.chat(
            chats[part], [SamplingParams(seed=seed, **options) for seed in seeds[part]], use_tqdm=False,
            lora_request=adapter, chat_template_kwargs=sampling.template or None,
        )  # fmt: skip
        responses.send([[one.text for one in answer.outputs] for answer in answers])


def _last_error(log: Path, status: int | None) -> str:
    """Describe why vLLM ended, by the last error in its log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*(?:\n .*)*", text, re.MULTILINE)  # with indented lines below
    if status is not None and status < 0:
        reason = f"vLLM was ended by {signal.Signals(-status).name}"
        reason += " (out of memory?)" if -status == signal.SIGKILL else ""
    else:
        reason = errors[-1][:300] if errors else f"vLLM ended with status {status}"
    return f"{reason}; its log is {log}"
