# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The reward function of a launch: it can be imported, and gives a finite number for a few rows of the data."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
from omegaconf import OmegaConf

from .child import Child
from .finding import Found
from .reward_trial import RESULTS, ROWS
from .run import Run, Split

KEY = "reward.custom_reward_function"
COLUMNS = ("data_source", "reward_model", "extra_info")
VERL_IMPORT = 60.0  # seconds at most until verl is imported, before the function's own time begins


@dataclass(slots=True)
class Trial:
    """The reward function in a process of its own, while other checks go on."""

    child: Child
    rows: dict[str, list[int]]  # of each split, the rows that are tried


def start_trial(run: Run, found: Found) -> None:
    """Or say why there is nothing to try."""
    reward: Any = OmegaConf.to_container(run.config.reward, resolve=True)
    asks = [
        name
        for needed, name in (
            (reward["reward_model"]["enable"], "a reward model"),
            ((reward.get("sandbox_fusion") or {}).get("url"), "a sandbox"),
        )
        if needed
    ]
    own = reward["custom_reward_function"].get("path") is not None
    if asks:
        done = "is only imported" if own else "was not run"
        found.note(f"the reward function {done}: it asks {asks[0]}, which is not there yet", KEY)
        if own:
            run.trial = Trial(Child(), {})
            _start(run.trial, reward)
        return
    splits = [split for split in run.splits.values() if split.scorable and split.first_rows]
    if not splits:
        found.note("the reward function was not run: no data could be read for it", KEY)
        return
    run.trial = trial = Trial(Child(), {split.name: _rows(split) for split in splits})
    for split in splits:
        columns = [name for name in COLUMNS if name in split.files.schema.names]
        pq.write_table(split.files.take(trial.rows[split.name], columns), trial.child.folder / f"{split.name}.parquet")
    _start(trial, reward)


def _start(trial: Trial, reward: Any) -> None:
    (trial.child.folder / "reward.json").write_text(json.dumps(reward), encoding="utf-8")
    trial.child.start("reward_trial")


def finish_trial(run: Run, found: Found) -> None:
    trial: Trial | None = run.trial
    if trial is None:
        return
    late = not _ends(trial.child, run.settings.reward_timeout)
    facts, told = _facts(trial.child), trial.child.last_words
    status = trial.child.end()
    path = OmegaConf.select(run.config, f"{KEY}.path")
    where = f"{KEY}.path={path}" if path else "verl's own scores (no reward.custom_reward_function.path)"
    last = facts[-1] if facts else {"stage": "start"}
    if last["stage"] == "failed":
        found.error(f"the reward function cannot be loaded: it {last['error']}", where, "mend the path, the name or it")
        return
    if last["stage"] != "done" and not (late and any(fact["stage"] == "enough" for fact in facts)):
        doing = f"on {_row(trial, last)}" if "row" in last else f"at its {last['stage']}"
        if late:
            said = f"the reward function did not finish in {run.settings.reward_timeout:g} s, {doing}"
            found.error(said, where, "if it is only slow: --reward-timeout 120")
        else:
            said = f"the reward function ended its process with status {status}, {doing}"
            found.error(f"{said}{': ' + told if told else ''}", where, "raise an exception instead of ending")
    _report(trial, [fact for fact in facts if fact["stage"] == "result"], where, run, found)


def _rows(split: Split) -> list[int]:
    """The first row of each data_source, as many as are known, and of the training data the first rows besides."""
    rows = sorted(split.first_rows.values())
    more = (row for row in range(ROWS) if row < split.files.rows and row not in rows)
    return sorted([*rows, *list(more)[: max(0, ROWS - len(rows))]]) if split.name == "training" else rows


def _ends(child: Child, seconds: float) -> bool:
    """Wait for the trial's end; False if it takes longer, from when verl is imported."""
    deadline = time.monotonic() + VERL_IMPORT
    while not child.ended and not _facts(child):
        if child.wait(time.monotonic() + 0.1) or time.monotonic() > deadline:
            break
    return child.wait(time.monotonic() + seconds)


def _facts(child: Child) -> list[dict[str, Any]]:
    results = child.folder / RESULTS
    lines = results.read_text(encoding="utf-8").split("\n")[:-1] if results.exists() else []
    return [json.loads(line) for line in lines]


def _row(trial: Trial, fact: dict[str, Any]) -> str:
    return f"{fact['file']} row {trial.rows[fact['file']][fact['row']]}"


def _report(trial: Trial, results: list[dict[str, Any]], where: str, run: Run, found: Found) -> None:
    wrong = defaultdict(list)
    for fact in results:
        if "error" in fact:
            wrong[fact["error"].partition(":")[0]].append(fact)
    agent = run.config.actor_rollout_ref.rollout.agent
    for facts in wrong.values():
        message, others = facts[0]["error"], len({fact["error"] for fact in facts}) - 1
        counted = f"{len(facts)} of {len(results)} calls, {_row(trial, facts[0])} for one"
        counted += f"; {others} other messages" if others else ""
        said = f"the reward function {message} ({counted})"
        if facts[0].get("nonfinite") and run.options is not None and run.options.nonfinite == "skip":
            found.warning(f"{said}: such responses train nothing", where, "return a finite number")
        elif "NotImplementedError" in message and where.startswith("verl"):
            say = found.warning if agent.get("agent_loop_config_path") else found.error  # an agent may reward itself
            say(said, where, "name your function: reward.custom_reward_function.path=<file or pkg://module>")
        else:
            found.error(said, where, "make it return a number, or a dict with 'score', for every row")
    names = {tuple(fact["names"]) for fact in results if "names" in fact}
    if len(names) > 1:
        odd = sorted(set().union(*names) - set.intersection(*(set(one) for one in names)))
        said = (
            f"the reward function returns {', '.join(odd) or 'a dict'} for some rows only: verl takes the first's keys"
        )
        found.warning(said, where, "return the same keys for every row")
    if results:
        rows = len({(fact["file"], fact["row"]) for fact in results})
        run.facts.append(f"the reward function ran on {rows} rows, {len(results)} calls")
