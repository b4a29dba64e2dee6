# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Call a launch's reward function on a few rows, as verl's reward managers call it; in a process of its own.

    python -m verl_pgrpo.launch.reward_trial FOLDER

It is the user's code: it may hang, end the process or print. So what comes of it goes line by line into a file, and
`check_reward.py` sees how far it came. FOLDER has `reward.json` (the configuration's node `reward`) and
`<split>.parquet` of two, one or no splits; `results.jsonl` is written there.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from omegaconf import OmegaConf

RESULTS = "results.jsonl"
ROWS = 8  # of each file, for which there must be time; the others are tried while there is
WORDS = "these are a few words that answer nothing"


def main(folder: Path) -> None:
    with open(folder / RESULTS, "w", encoding="utf-8", buffering=1) as results:

        def say(**fact: Any) -> None:
            results.write(json.dumps(fact) + "\n")

        from verl.trainer.ppo.reward import get_custom_reward_fn
        from verl.utils.reward_score import default_compute_score

        say(stage="import")
        try:
            reward = OmegaConf.create({"reward": json.loads((folder / "reward.json").read_text(encoding="utf-8"))})
            function = get_custom_reward_fn(reward) or default_compute_score
        except Exception as error:
            say(stage="failed", error=_told(error))
            return
        rows = [(f.stem, n, row) for f in sorted(folder.glob("*.parquet")) for n, row in enumerate(_read(f))]
        for part in ([row for row in rows if row[1] < ROWS], [row for row in rows if row[1] >= ROWS]):
            for file, number, row in part:
                truth = (row.get("reward_model") or {}).get("ground_truth")
                for response in [WORDS, *([truth] if isinstance(truth, str) and truth else [])]:
                    say(stage="call", file=file, row=number)
                    say(stage="result", file=file, row=number, **_call(function, row, response))
            say(stage="enough")
        say(stage="done")


def _read(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def _call(function: Any, row: dict[str, Any], response: str) -> dict[str, Any]:
    """As NaiveRewardManager.run_single: plain functions in a thread, where signals cannot be used."""
    arguments = {
        "data_source": row["data_source"],
        "solution_str": response,
        "ground_truth": (row.get("reward_model") or {}).get("ground_truth"),
        "extra_info": {**(row.get("extra_info") or {}), "num_turns": 2, "rollout_reward_scores": {}},
    }

    async def run() -> Any:
        if inspect.iscoroutinefunction(function):
            return await function(**arguments)
        return await asyncio.get_running_loop().run_in_executor(None, lambda: function(**arguments))

    try:
        return _judged(asyncio.run(run()))
    except Exception as error:
        return {"error": _told(error)}


def _judged(result: Any) -> dict[str, Any]:
    """What is wrong with a result, and the names of what comes beside the score."""
    import torch  # verl's, which has been imported by then: not a second of the trial's own before it

    names = sorted(map(str, result)) if isinstance(result, dict) else []
    if isinstance(result, dict):
        if "score" not in result:
            return {"error": f"returned a dict without 'score', with {', '.join(names) or 'nothing'}"}
        result = result["score"]
    if inspect.iscoroutine(result):
        result.close()
        return {"error": "returned a coroutine: write it as `async def`, which verl recognises, or without"}
    if isinstance(result, str) or not hasattr(result, "__float__"):
        return {"error": f"returned {str(result)[:60]!r} of type {type(result).__name__} as the score, not a number"}
    try:
        torch.zeros(1)[0] = result  # as verl stores it
    except (TypeError, ValueError, RuntimeError) as error:
        return {"error": f"returned a score of type {type(result).__name__}, which verl cannot store ({error})"}
    if not math.isfinite(float(result)):
        return {"error": f"returned {float(result)} as the score", "nonfinite": True}
    return {"score": float(result), "names": names}


def _told(error: BaseException) -> str:
    """The error, and the one it came from: verl wraps what a file raises while it is imported."""
    cause = f", from {type(error.__cause__).__name__}: {error.__cause__}" if error.__cause__ is not None else ""
    return f"raised {type(error).__name__}: {' '.join(str(error).split())}{cause}"


if __name__ == "__main__":
    status: object = 0
    try:
        main(Path(sys.argv[1]))
    except SystemExit as end:  # the user's
        status = end.code or 0
    if not isinstance(status, int):
        print(status, file=sys.stderr)
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)  # at once: taking verl and torch apart takes seconds
