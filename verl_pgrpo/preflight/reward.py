# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Load the reward manager as verl does, rehearse rollouts of a few rows, and report what the calls gave."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any

from verl_pgrpo.integration.columns import reserved_reward_keys

from .context import PreflightContext
from .data import splits, where
from .diagnostic import Diagnostics
from .rehearsal import NOT_FINITE, PlainTokenizer, Rehearsal, Scorer, agent_loop_worker, try_row

KEY = "reward.custom_reward_function"
ROWS = 8  # of the training data, for which there must be time; more data_sources are tried while there is
MOST_SOURCES = 64
WORDS = "these are a few words that answer nothing"


def check_reward(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Load the reward manager and rehearse rollouts. The caller isolates it, because the user's code may hang."""
    path = context.get(f"{KEY}.path")
    location = f"{KEY}.path={path}" if path else "reward (no custom_reward_function.path: verl's own scores)"
    asyncio.run(_rehearse(context, location, diagnostics))


async def _rehearse(context: PreflightContext, location: str, diagnostics: Diagnostics) -> None:
    from verl.trainer.ppo.reward import load_reward_manager

    tokenizer, result = context.trainer.tokenizer or PlainTokenizer(), Rehearsal(bool(context.config.trainer.use_v1))
    scorer = Scorer(result)
    datasets = dict(splits(context))
    needs = "a reward model" if context.get("reward.reward_model.enable") else ""
    needs = needs or ("a sandbox" if context.get("reward.sandbox_fusion.url") else "")
    worker = None
    if datasets and context.columns_valid and not needs:
        try:
            worker = agent_loop_worker(context, tokenizer, scorer)
        except Exception as error:
            fix = "set the keys that the message names"
            diagnostics.raised(error, "actor_rollout_ref.rollout.agent", fix, "no agent loop can be started: ")
    context.progress("import of the reward function")  # from here on, the time is the user's
    started = time.monotonic()
    config = context.trainer.config
    if config.reward.reward_manager.get("name") == "remote":
        config.reward.reward_manager.name = "naive"  # verl's remote manager needs Ray, and calls the function alike
    try:
        scorer.manager = load_reward_manager(config, tokenizer)
    except Exception as error:
        fix = "fix the path, the name or the function"
        diagnostics.raised(error, location, fix, "the reward function cannot be loaded: ")
        return
    if worker is None:
        why = f"it needs {needs}" if needs else "there are other errors"
        diagnostics.note(f"the reward function was imported but not called: {why}", location)
        return
    for must, split, number in _rows(datasets):
        if not must and time.monotonic() - started > 0.7 * context.settings.reward_timeout:
            break
        result.row = f"{split} row {number}"
        for response in (WORDS, None):
            await try_row(context, worker, datasets[split], number, response, result)
    _report(context, result, location, diagnostics)


def _rows(datasets: dict[str, Any]) -> list[tuple[bool, str, int]]:
    """The rows to try: the first training rows and the first row of each `data_source`; whether they must be tried."""
    chosen = [(True, "train", number) for number in range(min(ROWS, len(datasets.get("train", ()))))]
    for split, dataset in datasets.items():
        table: Any = getattr(dataset, "dataframe", None)
        if "data_source" not in getattr(table, "column_names", ()):
            chosen += [(True, split, number) for number in range(min(ROWS, len(dataset)))]
            continue
        first: dict[str, int] = {}
        start = 0
        for batch in table.select_columns(["data_source"]).with_format("arrow").iter(batch_size=1 << 16):
            column = batch.column("data_source").combine_chunks()
            for source in column.unique().to_pylist():
                if source is not None and len(first) < MOST_SOURCES:
                    first.setdefault(source, start + column.index(source).as_py())
            start += batch.num_rows
        chosen += [(order < ROWS, split, number) for order, number in enumerate(sorted(first.values()))]
    return sorted(dict.fromkeys(chosen), key=lambda one: not one[0])


def _report(context: PreflightContext, result: Rehearsal, location: str, diagnostics: Diagnostics) -> None:
    wrong: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for message, row in result.reward_errors:
        wrong[message.partition(":")[0]].append((message, row))
    for calls in wrong.values():
        message, row = calls[0]
        others = len({text for text, _ in calls}) - 1
        counted = f"{len(calls)} of {result.calls} calls, e.g. {row}" + (f"; {others} other messages" if others else "")
        warn, fix = False, "return a number, or a dict with 'score', for every row"
        if message.startswith("raised"):
            fix = "the function must not raise for any row; call it on this row to see its traceback"
        if message.startswith("returned") and NOT_FINITE in message:  # such responses are skipped on request
            warn = context.options is not None and context.options.on_nonfinite == "skip"
        elif "NotImplementedError" in message and f"{KEY}.path" not in location:
            fix = f"name your function: {KEY}.path=<file or pkg://module>"
        add = diagnostics.warning if warn else diagnostics.error
        add(f"the reward function {message} ({counted})", location, fix)
    _report_keys(result, location, diagnostics)
    for message, row in result.rollout_errors.items():
        fix = "fix the row, the column or the setting that the message names"
        diagnostics.error(f"a rollout fails: {message}", f"{where(context, row.partition(' ')[0])}, {row}", fix)
    if result.scored:
        rows = len(set(result.scored))
        context.facts.append(f"the reward function was called on {rows} rows, {len(result.scored)} times")


def _report_keys(result: Rehearsal, location: str, diagnostics: Diagnostics) -> None:
    if len(set(result.keys)) > 1:
        odd = sorted(set().union(*result.keys) - set(result.keys[0]).intersection(*result.keys))
        message = f"the reward function returns {', '.join(odd) or 'its keys in another order'} for some rows only"
        diagnostics.warning(message, location, "return the same keys for every row")
    for key in sorted(set().union(*result.keys) if result.keys else ()):
        if reserved := reserved_reward_keys().get(key):
            message = f"the reward function's key {reserved}: verl would count both"
            diagnostics.warning(message, location, "rename the key")
