# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Load the reward manager as verl does, rehearse rollouts of a few rows, and report the results."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pyarrow as pa

from verl_pgrpo.integration.batch import arrow_batches
from verl_pgrpo.integration.columns import reserved_reward_keys

from .context import PreflightContext
from .data import splits, where
from .diagnostic import ERROR, WARNING, Diagnostics
from .rehearsal import NOT_FINITE, Rehearsal

KEY = "reward.custom_reward_function"
ROWS = 8  # training rows that must be tried; more data_sources are tried while time remains
MOST_SOURCES = 64


def check_reward(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Load the reward manager and rehearse rollouts. The caller isolates it, because the user's code may hang."""
    asyncio.run(_rehearse(context, diagnostics))  # verl's reward manager keeps the event loop in which it was created


async def _rehearse(context: PreflightContext, diagnostics: Diagnostics) -> None:
    from verl.trainer.ppo.reward import load_reward_manager

    path = context.get(f"{KEY}.path")
    location = f"{KEY}.path={path}" if path else "reward (no custom_reward_function.path: verl's own scores)"
    rehearsal, datasets, config = Rehearsal(context), splits(context), context.trainer.config
    needs = "a reward model" if context.get("reward.reward_model.enable") else ""
    needs = needs or ("a sandbox" if context.get("reward.sandbox_fusion.url") else "")
    if datasets and context.columns_valid and not needs:
        failed = "no agent loop can be started: "
        with diagnostics.reporting("actor_rollout_ref.rollout.agent", "set the keys that the message names", failed):
            rehearsal.start_worker()
    # From here on, user code runs and the time limit counts.
    limit, started = context.settings.reward_timeout, time.monotonic()
    context.emit({"progress": "import of the reward function", "limit": limit})
    if config.reward.reward_manager.get("name") == "remote":
        config.reward.reward_manager.name = "naive"  # the remote manager needs Ray; its calls are the same
    fix = "fix the path, the name or the function"
    with diagnostics.reporting(location, fix, "the reward function cannot be loaded: "):
        rehearsal.manager = load_reward_manager(config, rehearsal.tokenizer)
    if rehearsal.manager is None:
        return
    if rehearsal.worker is None:
        why = f"it needs {needs}" if needs else "there are other errors"
        diagnostics.note(f"the reward function was imported but not called: {why}", location)
        return
    for must, split, number in _rows(datasets):
        if must or time.monotonic() - started < 0.7 * limit:
            await rehearsal.try_row(datasets[split], split, number)
    _report(context, rehearsal, location, diagnostics)


def _rows(datasets: dict[str, Any]) -> list[tuple[bool, str, int]]:
    """The rows to try: the first training rows and the first row of each `data_source` and `agent_name`; and whether
    each must be tried."""
    chosen = [(True, "train", number) for number in range(min(ROWS, len(datasets.get("train", ()))))]
    for split, dataset in datasets.items():
        table: Any = getattr(dataset, "dataframe", None)
        names = {"data_source", "agent_name"} & set(getattr(table, "column_names", ()))
        if "data_source" not in names:
            chosen += [(True, split, number) for number in range(min(ROWS, len(dataset)))]
        for name in sorted(names):
            column = pa.concat_tables(arrow_batches(table, [name])).column(0).cast("string")
            first = sorted(column.index(value).as_py() for value in column.unique().drop_null()[:MOST_SOURCES])
            chosen += [(order < ROWS, split, number) for order, number in enumerate(first)]
    return sorted(dict.fromkeys(chosen), key=lambda one: not one[0])


def _report(context: PreflightContext, result: Rehearsal, location: str, diagnostics: Diagnostics) -> None:
    wrong: dict[str, list[tuple[str, str]]] = {}
    for message, row in result.reward_errors:
        wrong.setdefault(message.partition(":")[0], []).append((message, row))
    for calls in wrong.values():
        message, row = calls[0]
        others = len({text for text, _ in calls}) - 1
        counted = f"{len(calls)} of {result.calls} calls, e.g. {row}" + (
            f"; {others} other message{'s' * (others > 1)}" if others else ""
        )
        severity, fix = ERROR, "return a number, or a dict with 'score', for every row"
        if message.startswith("raised"):
            fix = "the function must not raise for any row; call it on this row to see its traceback"
            if "NotImplementedError" in message and f"{KEY}.path" not in location:
                fix = f"name your function: {KEY}.path=<file or pkg://module>"
        elif NOT_FINITE in message and context.options is not None and context.options.on_nonfinite == "skip":
            severity = WARNING
        diagnostics.add(severity, f"the reward function {message} ({counted})", location, fix)
    keys = [tuple(map(str, info)) for *_, info in result.infos]
    if len(set(keys)) > 1:
        odd = sorted(set().union(*keys) - set(keys[0]).intersection(*keys))
        message = f"the reward function returns {', '.join(odd) or 'its keys in another order'} for some rows only"
        severity = ERROR if odd and not result.use_v1 else WARNING  # the older trainers need the keys of the first row
        diagnostics.add(severity, message, location, "return the same keys for every row")
    dumps = bool(context.get("trainer.validation_data_dir") or context.get("trainer.rollout_data_dir"))
    for key in sorted(set().union(*keys)):
        if reserved := reserved_reward_keys(dumps).get(key):
            message = f"the reward function's key {reserved}"
            diagnostics.warning(message, location, "rename the key")
    if context.get("trainer.test_freq", -1) > 0 or context.get("trainer.val_before_train", True):
        failed = "verl's validation cannot average what the reward function returns: "
        with diagnostics.reporting(location, "return numbers or text, of one type for each key", failed):
            result.compute_validation_metrics()
    for message, row in result.rollout_errors.items():
        fix = "fix the row, the column or the setting that the message names"
        diagnostics.error(f"a rollout fails: {message}", f"{where(context, row.partition(' ')[0])}, {row}", fix)
    if result.scored:
        rows = len(set(result.scored))
        context.facts.append(f"the reward function was called on {rows} rows, {len(result.scored)} times")
