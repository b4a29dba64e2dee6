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
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
from omegaconf import OmegaConf

from verl_pgrpo.integration.columns import reserved_reward_keys

from .context import PreflightContext
from .data import splits, where
from .diagnostic import Diagnostics, one_line

KEY = "reward.custom_reward_function"
ROWS = 8  # of the training data, for which there must be time; more data_sources are tried while there is
MOST_SOURCES = 64
WORDS = "these are a few words that answer nothing"


@dataclass
class Rehearsal:
    """The outcome of all calls: scores and errors, each with the row."""

    row: str = ""
    response: str = ""
    calls: int = 0
    keys: list[tuple[str, ...]] = field(default_factory=list)  # of the reward dictionaries
    scores: list[tuple[str, Any]] = field(default_factory=list)
    reward_errors: list[tuple[str, str]] = field(default_factory=list)  # message, row
    rollout_errors: list[tuple[str, str]] = field(default_factory=list)


def check_reward(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Load the reward manager and rehearse rollouts; isolated by the caller, because the user's code may hang."""
    datasets = dict(splits(context))
    asked = "a reward model" if context.get("reward.reward_model.enable") else ""
    asked = asked or ("a sandbox" if context.get("reward.sandbox_fusion.url") else "")
    context.progress("import of the reward function")
    started = time.monotonic()
    path = context.get(f"{KEY}.path")
    location = f"{KEY}.path={path}" if path else "reward (no custom_reward_function.path: verl's own scores)"
    tokenizer = context.trainer.tokenizer or PlainTokenizer()
    try:
        manager = _load_manager(context, tokenizer)
    except Exception as error:
        diagnostics.raised(error, location, "fix the path, the name or the function", "the reward cannot be loaded: ")
        return
    if asked or not datasets or not context.columns_valid:
        why = f"it needs {asked}" if asked else "the data have errors"
        diagnostics.note(f"the reward function was imported but not called: {why}", location)
        return
    rehearsal = Rehearsal()
    asyncio.run(_rehearse(context, datasets, manager, tokenizer, rehearsal, started))
    _report(context, rehearsal, location, diagnostics)


def _load_manager(context: PreflightContext, tokenizer: Any) -> Any:
    from verl.trainer.ppo.reward import load_reward_manager

    config = context.trainer.config
    try:
        return load_reward_manager(config, tokenizer)
    except Exception as error:
        if "Ray" not in str(error) and "ray" not in type(error).__module__:
            raise
    config.reward.reward_manager = OmegaConf.create({"source": "register", "name": "naive"})  # it runs in Ray workers
    return load_reward_manager(config, tokenizer)


async def _rehearse(
    context: PreflightContext, datasets: dict[str, Any], manager: Any, tokenizer: Any, result: Rehearsal, started: float
) -> None:
    manager.loop = asyncio.get_running_loop()
    worker = _agent_loop_worker(context, tokenizer, Scorer(manager, result))
    for must, split, row in _rows(datasets):
        if not must and time.monotonic() - started > 0.7 * context.settings.reward_timeout:
            break
        result.row = f"{split} row {row}"
        for response in (WORDS, None):
            try:
                sample = datasets[split][row]
            except Exception as error:
                result.rollout_errors.append((one_line(error), result.row))
                break
            result.response = WORDS if response else _ground_truth(sample)
            if not result.response:
                continue
            context.progress(result.row)
            result.calls += 1
            scored = len(result.scores) + len(result.reward_errors)
            try:
                await _roll_out(context, worker, sample, result, split == "val")
            except Exception as error:
                if len(result.scores) + len(result.reward_errors) == scored:
                    result.rollout_errors.append((one_line(error), result.row))
                elif result.scores and result.scores[-1][0] == result.row and _score_error(result.scores[-1][1]) is None:
                    result.rollout_errors.append((one_line(error), result.row))


def _rows(datasets: dict[str, Any]) -> list[tuple[bool, str, int]]:
    """The rows to try: the first training rows, and the first row of each `data_source`."""
    rows = [(True, "train", row) for row in range(min(ROWS, len(datasets.get("train", ()))))]
    for split, dataset in datasets.items():
        table = getattr(dataset, "dataframe", None)
        if "data_source" not in getattr(table, "column_names", ()):
            rows += [(True, split, row) for row in range(min(ROWS, len(dataset))) if split != "train"]
            continue
        first: dict[str, int] = {}
        start = 0
        for batch in table.select_columns(["data_source"]).with_format("arrow").iter(batch_size=1 << 16):
            values = batch.column("data_source").combine_chunks() if hasattr(batch.column(0), "combine_chunks") else batch.column(0)
            for source in values.unique().to_pylist():
                if source is not None and source not in first and len(first) < MOST_SOURCES:
                    first[source] = start + values.index(source).as_py()
            start += batch.num_rows
        extra = [row for row in first.values() if split != "train" or row >= ROWS]
        rows += [(number < ROWS, split, row) for number, row in enumerate(sorted(extra))]
    return sorted(rows, key=lambda one: not one[0])


def _ground_truth(sample: dict[str, Any]) -> str:
    truth = (sample.get("reward_model") or {}).get("ground_truth") if isinstance(sample.get("reward_model"), dict) else None
    return truth if isinstance(truth, str) else ""


class PlainTokenizer:
    """Stands in for the tokenizer of a model that is not on this machine: one token a character."""

    eos_token, pad_token_id = "", 0

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(map(chr, ids.tolist() if hasattr(ids, "tolist") else ids))


class Scorer:
    """A reward worker's handle, without Ray: `compute_score.remote(data)` calls verl's reward manager."""

    def __init__(self, manager: Any, result: Rehearsal) -> None:
        self.manager, self.result = manager, result
        self.compute_score = self

    async def remote(self, data: Any) -> dict[str, Any]:
        try:
            scored: dict[str, Any] = await self.manager.run_single(data)
        except Exception as error:
            self.result.reward_errors.append((f"raised {one_line(error)}", self.result.row))
            raise
        self.result.scores.append((self.result.row, scored.get("reward_score")))
        self.result.keys.append(tuple(map(str, scored.get("reward_extra_info") or {})))
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


def _agent_loop_worker(context: PreflightContext, tokenizer: Any, scorer: Scorer) -> Any:
    """verl's agent loop worker; without the model's tokenizer only as far as it calls the reward manager."""
    cls = _worker_class(context)
    if context.trainer.tokenizer is None:
        worker = object.__new__(cls)
        worker.processor, worker.reward_loop_worker_handles = None, [scorer]
        worker.mm_processor_kwargs = {}
        return worker
    with mock.patch("transfer_queue.init"):
        return cls(context.trainer.config, CannedServer(tokenizer, scorer.result), None, [scorer])


def _worker_class(context: PreflightContext) -> Any:
    if context.config.trainer.use_v1:
        from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

        return getattr(getattr(AgentLoopWorkerTQ, "__ray_metadata__", None), "modified_class", AgentLoopWorkerTQ)
    from verl.experimental.agent_loop import AgentLoopWorker

    return AgentLoopWorker


async def _roll_out(context: PreflightContext, worker: Any, sample: dict[str, Any], result: Rehearsal, validate: bool) -> None:
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
    output = AgentLoopOutput(prompt_ids=[0], response_ids=ids, response_mask=mask, num_turns=2, metrics=AgentLoopMetrics())
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


def _score_error(score: Any) -> str | None:
    """Describe a score that verl cannot store; None if it can."""
    if inspect.iscoroutine(score):
        score.close()
        return "returned a coroutine as the score: define the function with `async def`"
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = None
    if value is None or isinstance(score, str) or getattr(score, "ndim", 0):
        return f"returned a score of type {type(score).__name__}, not a number: {str(score)[:60]!r}"
    return None if math.isfinite(value) else f"returned {value} as the score"


def _report(context: PreflightContext, result: Rehearsal, location: str, diagnostics: Diagnostics) -> None:
    wrong: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for message, row in result.reward_errors:
        wrong[message.partition(":")[0]].append((message, row))
    for row, score in result.scores:
        if message := _score_error(score):
            wrong[message].append((message, row))
    skips = context.options is not None and context.options.on_nonfinite == "skip"
    own_agents = bool(context.get("actor_rollout_ref.rollout.agent.agent_loop_config_path"))
    for calls in wrong.values():
        message, row = calls[0]
        others = len({text for text, _ in calls}) - 1
        counted = f"{len(calls)} of {result.calls} calls, e.g. {row}" + (f"; {others} other messages" if others else "")
        warn, fix = False, "return a number, or a dict with 'score', for every row"
        if "as the score" in message and "coroutine" not in message:
            warn = skips  # such responses train nothing
        elif "NotImplementedError" in message and f"{KEY}.path" not in location:
            warn = own_agents  # an agent loop may score its own rollouts
            fix = f"name your function: {KEY}.path=<file or pkg://module>"
        add = diagnostics.warning if warn else diagnostics.error
        add(f"the reward function {message} ({counted})", location, fix)
    _report_keys(result, location, diagnostics)
    for message, row in dict(reversed(result.rollout_errors)).items():
        split = row.partition(" ")[0]
        fix = "fix the row, the column or the setting that the message names"
        diagnostics.error(f"a rollout of {row} fails: {message}", f"{where(context, split)}, {row}", fix)
    if result.scores:
        rows = len({row for row, _ in result.scores})
        context.facts.append(f"the reward function was called on {rows} rows, {len(result.scores)} times")


def _report_keys(result: Rehearsal, location: str, diagnostics: Diagnostics) -> None:
    if len(set(result.keys)) > 1:
        odd = sorted(set().union(*result.keys) - set.intersection(*map(set, result.keys)))
        message = f"the reward function returns {', '.join(odd) or 'its keys in another order'} for some rows only"
        diagnostics.warning(message, location, "return the same keys for every row")
    for key in sorted(set().union(*result.keys) if result.keys else ()):
        if reserved := reserved_reward_keys().get(key):
            message = f"the reward function's key {reserved}: verl would count both"
            diagnostics.warning(message, location, "rename the key")
