# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Roll out a few rows through verl's agent loop, with canned responses instead of a model, and score them.

Everything but the model is verl's: the collated row, the agent loop with its chat template, the reward manager as the
agent loop calls it, and what is stored for the trainer. Each row gets two responses: a few words, and its ground truth.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import uuid
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from .context import PreflightContext
from .diagnostic import one_line

NOT_FINITE = "not a finite score"


@dataclass
class Rehearsal:
    """The call that is under way, and the outcomes of all calls, each with its row."""

    use_v1: bool
    row: str = ""
    response: str = ""
    calls: int = 0
    keys: list[tuple[str, ...]] = field(default_factory=list)  # of the reward dictionaries
    scored: list[str] = field(default_factory=list)
    reward_errors: list[tuple[str, str]] = field(default_factory=list)  # message, row
    rollout_errors: dict[str, str] = field(default_factory=dict)  # message -> the first row


async def try_row(
    context: PreflightContext, worker: Any, dataset: Any, number: int, response: str | None, result: Rehearsal
) -> None:
    errors = len(result.reward_errors)
    try:
        sample = dataset[number]
        truth = sample["reward_model"].get("ground_truth") if isinstance(sample.get("reward_model"), dict) else None
        result.response = response or (truth if isinstance(truth, str) else "")
        if not result.response:
            return
        context.progress(result.row)
        result.calls += 1
        await _roll_out(context, worker, sample, result, result.row.startswith("val"))
    except Exception as error:
        if len(result.reward_errors) == errors:  # otherwise this is what follows from it
            result.rollout_errors.setdefault(one_line(error), result.row)


class PlainTokenizer:
    """Stands in for the tokenizer of a model that is not on this machine: one token a character."""

    eos_token, pad_token_id = "", 0

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(map(chr, ids.tolist() if hasattr(ids, "tolist") else ids))


class Scorer:
    """A reward worker's handle without Ray: `compute_score.remote(data)` calls verl's reward manager."""

    def __init__(self, result: Rehearsal) -> None:
        self.result, self.manager, self.compute_score = result, None, self

    async def remote(self, data: Any) -> dict[str, Any]:
        try:
            scored: dict[str, Any] = await self.manager.run_single(data)  # type: ignore[attr-defined]
        except Exception as error:
            self.result.reward_errors.append((f"raised {one_line(error)}", self.result.row))
            raise
        self.result.scored.append(self.result.row)
        self.result.keys.append(tuple(map(str, scored.get("reward_extra_info") or {})))
        if message := _score_error(scored.get("reward_score"), self.result.use_v1):
            self.result.reward_errors.append((message, self.result.row))
        return scored


class CannedServer:
    """An LLM server's client that returns the response of the rehearsal."""

    def __init__(self, tokenizer: Any, result: Rehearsal) -> None:
        self.tokenizer, self.result = tokenizer, result

    async def generate(self, *_: Any, **__: Any) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        ids = self.tokenizer.encode(self.result.response, add_special_tokens=False)
        steps = {"min_global_steps": 0, "max_global_steps": 0}
        return TokenOutput(token_ids=ids, log_probs=[0.0] * len(ids), stop_reason="completed", extra_fields=steps)


def agent_loop_worker(context: PreflightContext, tokenizer: Any, scorer: Scorer) -> Any:
    """verl's agent loop worker; without the model's tokenizer only as far as it calls the reward manager."""
    cls = _worker_class(context)
    if context.trainer.tokenizer is None:
        worker = object.__new__(cls)
        worker.processor, worker.reward_loop_worker_handles = None, [scorer]
        worker.mm_processor_kwargs = {}
        return worker
    agent_loop = "verl.experimental.agent_loop.agent_loop"
    with (
        mock.patch("transfer_queue.init"),
        mock.patch(f"{agent_loop}.RolloutTraceConfig.init"),  # it may log in somewhere
        mock.patch(f"{agent_loop}.is_distillation_enabled", return_value=False, create=True),  # it needs its teacher
    ):
        return cls(context.trainer.config, CannedServer(tokenizer, scorer.result), None, [scorer])


def _worker_class(context: PreflightContext) -> Any:
    if context.config.trainer.use_v1:
        from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

        return getattr(getattr(AgentLoopWorkerTQ, "__ray_metadata__", None), "modified_class", AgentLoopWorkerTQ)
    from verl.experimental.agent_loop import AgentLoopWorker

    return AgentLoopWorker


async def _roll_out(
    context: PreflightContext, worker: Any, sample: dict[str, Any], result: Rehearsal, validate: bool
) -> None:
    from verl.utils.dataset.rl_dataset import collate_fn

    batch = collate_fn([sample])
    batch["uid"] = np.array([str(uuid.uuid4())], dtype=object)
    if context.trainer.tokenizer is None:
        await _score_only(worker, {key: value[0] for key, value in batch.items()}, result)
    elif context.config.trainer.use_v1:
        await _roll_out_v1(worker, batch, validate)
    else:
        await _roll_out_v0(context, worker, batch, validate)


async def _score_only(worker: Any, row: dict[str, Any], result: Rehearsal) -> None:
    from verl.experimental.agent_loop import AgentLoopOutput
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics

    ids = PlainTokenizer().encode(result.response)
    mask = [1] * len(ids)
    output = AgentLoopOutput(
        prompt_ids=[0], response_ids=ids, response_mask=mask, num_turns=2, metrics=AgentLoopMetrics()
    )
    await worker._compute_score([output], kwargs=row)
    output.as_dict()


async def _roll_out_v1(worker: Any, batch: dict[str, Any], validate: bool) -> None:
    """As the V1 trainer submits a prompt; what would go to TransferQueue is dropped, what is logged is raised."""
    from verl.trainer.ppo.v1 import agent_loop_tq
    from verl.utils import tensordict_utils

    prompt = tensordict_utils.get_tensordict({"__rollout_n__": np.array([1], dtype=object), **batch})
    tensordict_utils.assign_non_tensor_data(prompt, "global_steps", 0)
    if validate:
        tensordict_utils.assign_non_tensor_data(prompt, "validate", True)
    errors = ErrorLog()
    agent_loop_tq.logger.addHandler(errors)
    try:
        with mock.patch.object(agent_loop_tq, "tq", mock.AsyncMock()):
            await worker.generate_sequences(prompt)
            while worker.background_tasks:
                await asyncio.gather(*worker.background_tasks)
    finally:
        agent_loop_tq.logger.removeHandler(errors)
    if errors.found:
        raise errors.found[0]


class ErrorLog(logging.Handler):
    """Collect the exceptions that verl logs instead of raising."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.found.append(error or RuntimeError(record.getMessage()))


async def _roll_out_v0(context: PreflightContext, worker: Any, batch: dict[str, Any], validate: bool) -> None:
    from verl import DataProto

    data = DataProto.from_single_dict(batch)
    generated = context.trainer._get_gen_batch(data)
    generated.meta_info |= {"global_steps": 0, "validate": validate}
    output = await worker.generate_sequences(generated)
    data.union(output)


def _score_error(score: Any, use_v1: bool) -> str | None:
    """Describe a score that verl cannot store; None if it can."""
    if inspect.iscoroutine(score):
        score.close()
        return "returned a coroutine as the score: define the function with `async def`"
    import torch

    try:
        torch.zeros(1)[0] = score if use_v1 else float(score)  # as verl's agent loops store it
    except Exception as error:
        return f"returned a score of type {type(score).__name__}, which verl cannot store: {one_line(error)}"
    return None if math.isfinite(score) else f"returned {score}, which is {NOT_FINITE}"
