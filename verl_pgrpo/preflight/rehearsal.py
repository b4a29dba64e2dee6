# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Roll out a few rows through verl's agent loop, with canned responses instead of a model, and score them.

Everything except the model is verl's: the collated row, the agent loop with its chat template, the reward manager as
the agent loop calls it, and the fields stored for the trainer. Each row gets two responses: a few words, and its ground
truth.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import uuid
from typing import Any
from unittest import mock

import numpy as np
import torch

from .context import PreflightContext
from .diagnostic import one_line

NOT_FINITE = "not a finite score"
WORDS = "these are a few words that answer nothing"


class PlainTokenizer:
    """Stands in for the tokenizer of a model that is not on this machine: one token per character."""

    eos_token, pad_token_id = "", 0

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(map(chr, ids.tolist() if hasattr(ids, "tolist") else ids))


class Rehearsal:
    """The LLM server and the reward worker of verl's agent loop, and the outcomes of all calls, each with its row."""

    def __init__(self, context: PreflightContext) -> None:
        self.context, self.use_v1 = context, bool(context.config.trainer.use_v1)
        self.tokenizer = context.trainer.tokenizer or PlainTokenizer()
        self.manager: Any = None  # verl's reward manager
        self.worker: Any = None
        self.row = self.response = ""  # of the current call
        self.calls = 0
        self.scored: list[str] = []
        self.infos: list[tuple[str, str, float, dict[str, Any]]] = []  # row, data_source, score, reward dictionary
        self.reward_errors: list[tuple[str, str]] = []  # message, row
        self.rollout_errors: dict[str, str] = {}  # message -> the first row
        self.compute_score = self  # verl calls `compute_score.remote(data)`, as on a Ray actor

    async def remote(self, data: Any) -> dict[str, Any]:
        """Score a response with verl's reward manager."""
        try:
            scored: dict[str, Any] = await self.manager.run_single(data)
        except Exception as error:
            self.reward_errors.append((f"raised {one_line(error)}", self.row))
            raise
        self.scored.append(self.row)
        score: Any = scored.get("reward_score")
        info = scored.get("reward_extra_info") or {}
        if message := _score_error(score, self.use_v1):
            self.reward_errors.append((message, self.row))
        else:
            self.infos.append((self.row, str(data.non_tensor_batch["data_source"][0]), float(score), info))
        return scored

    async def generate(self, *_: Any, **__: Any) -> Any:
        """Answer like the client of an LLM server."""
        from verl.workers.rollout.replica import TokenOutput

        ids = self.tokenizer.encode(self.response, add_special_tokens=False)
        steps = {"min_global_steps": 0, "max_global_steps": 0}
        return TokenOutput(token_ids=ids, log_probs=[0.0] * len(ids), stop_reason="completed", extra_fields=steps)

    def start_worker(self) -> None:
        """Build verl's agent loop worker; without the model's tokenizer only as far as it calls the reward manager."""
        if self.use_v1:
            from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ as cls

            cls = getattr(getattr(cls, "__ray_metadata__", None), "modified_class", cls)
        else:
            from verl.experimental.agent_loop import AgentLoopWorker as cls
        if self.context.trainer.tokenizer is None:
            self.worker = object.__new__(cls)
            self.worker.processor, self.worker.reward_loop_worker_handles = None, [self]
            self.worker.mm_processor_kwargs = {}
            return
        agent_loop = "verl.experimental.agent_loop.agent_loop"
        with (
            mock.patch("transfer_queue.init"),
            mock.patch(f"{agent_loop}.RolloutTraceConfig.init"),  # it may log in to a service
            mock.patch(f"{agent_loop}.is_distillation_enabled", return_value=False, create=True),  # needs a teacher
        ):
            self.worker = cls(self.context.trainer.config, self, None, [self])

    async def try_row(self, dataset: Any, split: str, number: int) -> None:
        """Roll out and score two responses."""
        self.row = f"{split} row {number}"
        for words in (WORDS, None):
            errors = len(self.reward_errors)
            try:
                sample = dataset[number]
                reward = sample.get("reward_model")
                truth = reward.get("ground_truth") if isinstance(reward, dict) else None
                self.response = words or (truth if isinstance(truth, str) else "")
                if self.response:
                    self.context.emit({"progress": self.row})
                    self.calls += 1
                    await self._roll_out(sample, validate=split == "val")
            except Exception as error:
                if len(self.reward_errors) == errors:  # otherwise this error is a consequence
                    self.rollout_errors.setdefault(one_line(error), self.row)

    def compute_validation_metrics(self) -> None:
        """Call verl's validation with what the validation rows earned, in both orders: the first value sets a type."""
        infos = [one for one in self.infos if one[0].startswith("val")]
        several = self.context.config.actor_rollout_ref.rollout.val_kwargs.n > 1
        for ordered in (infos, infos[::-1]):
            values: dict[str, list[Any]] = {"reward": [score for _, _, score, _ in ordered]}
            for key in dict.fromkeys(key for *_, info in ordered for key in info if key != "reward"):
                values[key] = [info.get(key) for *_, info in ordered]
            prompts = [row if several else str(i) for i, (row, *_) in enumerate(ordered)]
            self.context.trainer._val_metrics_update([one[1] for one in ordered], prompts, values, [])

    async def _roll_out(self, sample: dict[str, Any], validate: bool) -> None:
        from verl.utils.dataset.rl_dataset import collate_fn

        batch = collate_fn([sample])
        batch["uid"] = np.array([str(uuid.uuid4())], dtype=object)
        if self.context.trainer.tokenizer is None:
            await self._score_only({key: value[0] for key, value in batch.items()})
        elif self.use_v1:
            await self._roll_out_v1(batch, validate)
        else:
            await self._roll_out_v0(batch, validate)

    async def _score_only(self, row: dict[str, Any]) -> None:
        from verl.experimental.agent_loop import AgentLoopOutput
        from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics

        ids, metrics = self.tokenizer.encode(self.response), AgentLoopMetrics()
        response = {"prompt_ids": [0], "response_ids": ids, "response_mask": [1] * len(ids)}
        output = AgentLoopOutput(**response, num_turns=2, metrics=metrics)
        await self.worker._compute_score([output], kwargs=row)
        output.as_dict()

    async def _roll_out_v1(self, batch: dict[str, Any], validate: bool) -> None:
        """Submit a prompt like the V1 trainer; discard its output, and raise errors that verl would only log."""
        from verl.trainer.ppo.v1 import agent_loop_tq
        from verl.utils import tensordict_utils

        prompt = tensordict_utils.get_tensordict({"__rollout_n__": np.array([1], dtype=object), **batch})
        tensordict_utils.assign_non_tensor_data(prompt, "global_steps", 0)
        if validate:
            tensordict_utils.assign_non_tensor_data(prompt, "validate", True)
        errors: list[BaseException] = []

        def keep_error(record: logging.LogRecord) -> bool:
            if record.levelno >= logging.ERROR:
                error = record.exc_info[1] if record.exc_info else None
                errors.append(error or RuntimeError(record.getMessage()))
            return True

        agent_loop_tq.logger.addFilter(keep_error)
        try:
            with mock.patch.object(agent_loop_tq, "tq", mock.AsyncMock()):
                await self.worker.generate_sequences(prompt)
                while self.worker.background_tasks:
                    await asyncio.gather(*self.worker.background_tasks)
        finally:
            agent_loop_tq.logger.removeFilter(keep_error)
        if errors:
            raise errors[0]

    async def _roll_out_v0(self, batch: dict[str, Any], validate: bool) -> None:
        from verl import DataProto

        data = DataProto.from_single_dict(batch)
        generated = self.context.trainer._get_gen_batch(data)
        generated.meta_info |= {"global_steps": 0, "validate": validate}
        data.union(await self.worker.generate_sequences(generated))


def _score_error(score: Any, use_v1: bool) -> str | None:
    """Describe a score that verl cannot store; None if it can."""
    if inspect.iscoroutine(score):
        score.close()
        return "returned a coroutine as the score: define the function with `async def`"
    try:
        torch.zeros(1)[0] = score if use_v1 else float(score)  # as verl's agent loops store it
    except Exception as error:
        return f"returned a score of type {type(score).__name__}, which verl cannot store: {one_line(error)}"
    return None if math.isfinite(score) else f"returned {score}, which is {NOT_FINITE}"
