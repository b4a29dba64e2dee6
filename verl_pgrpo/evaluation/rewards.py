# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's reward function, found and called as verl does it.

`pkg://package.module` or a file, with `:function` behind it for another name than `compute_score`. A number, or a
dictionary of numbers with `score` among them; a coroutine is awaited, some at a time.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from verl_pgrpo.evaluation.errors import RewardError
from verl_pgrpo.evaluation.prompts import Prompt
from verl_pgrpo.evaluation.samples import Sample
from verl_pgrpo.moments import MAX_MAGNITUDE

RECIPES = ("personas", "movielens", "goodreads")
AT_A_TIME = 32  # coroutines
PACKAGE = "pkg://"


def reward_of(prompts: Iterable[Prompt]) -> str:
    """The reward of the recipe that the data is of, by the first part of `data_source`.

    Raises:
        RewardError: it is of no recipe, or of several.
    """
    tasks = sorted({prompt.data_source.partition("/")[0] for prompt in prompts})
    if len(tasks) == 1 and tasks[0] in RECIPES:
        return f"{PACKAGE}verl_pgrpo.rewards.{tasks[0]}"
    raise RewardError(
        f"no recipe's reward is for data_source {', '.join(tasks)!r}; give --reward pkg://package.module or a file"
    )


def load_reward(name: str) -> Callable[..., Any]:
    """The function that `name` stands for.

    Raises:
        RewardError: there is no such module, file or function.
    """
    source, _, function = name.removeprefix(PACKAGE).partition(":")
    function = function or "compute_score"
    try:
        if name.startswith(PACKAGE):
            module = importlib.import_module(source)
        else:
            if not Path(source).is_file():
                raise RewardError(f"--reward {source}: no such file; a module is named pkg://package.module")
            spec = importlib.util.spec_from_file_location("verl_pgrpo_custom_reward", source)
            if spec is None or spec.loader is None:
                raise RewardError(f"--reward {source}: not a Python file")
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look there
            spec.loader.exec_module(module)
    except RewardError:
        raise
    except Exception as error:  # whatever a user's module does when it is imported
        raise RewardError(f"--reward {name} cannot be imported: {error!r}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise RewardError(f"--reward {name}: it has no function {function!r}")
    return found


def score(
    samples: Sequence[Sample], prompts: dict[str, Prompt], reward: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    """Fill in `score` and `values` of each sample; `prompts` by their ids, `arguments` go to the function as keywords.

    Raises:
        RewardError: the function raises, or gives something other than finite numbers; the prompt is named.
    """
    if inspect.iscoroutinefunction(reward):
        results = asyncio.run(_gather(samples, prompts, reward, arguments))
    else:
        results = [_call(sample, prompts, reward, arguments) for sample in samples]
    for sample, result in zip(samples, results, strict=True):
        sample.values = _numbers(result, sample)
        sample.score = sample.values["score"]


def _call(sample: Sample, prompts: dict[str, Prompt], reward: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    prompt = prompts[sample.prompt_id]
    try:
        return reward(
            data_source=prompt.data_source, solution_str=sample.response, ground_truth=prompt.ground_truth,
            extra_info=prompt.extra_info, **arguments,
        )  # fmt: skip
    except Exception as error:
        raise _failed(sample, error) from error


async def _gather(
    samples: Sequence[Sample], prompts: dict[str, Prompt], reward: Callable[..., Any], arguments: dict[str, Any]
) -> list[Any]:
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(sample: Sample) -> Any:
        async with places:
            try:
                return await _call(sample, prompts, reward, arguments)
            except RewardError:
                raise
            except Exception as error:
                raise _failed(sample, error) from error

    return await asyncio.gather(*map(one, samples))


def _failed(sample: Sample, error: Exception) -> RewardError:
    return RewardError(f"the reward function fails on prompt {sample.prompt_id}, sample {sample.sample}: {error!r}")


def _numbers(result: Any, sample: Sample) -> dict[str, float]:
    values = result if isinstance(result, dict) else {"score": result}
    numbers = {str(name): _float(value) for name, value in values.items() if isinstance(value, Real)}
    if "score" not in numbers:
        raise RewardError(f"the reward function gives no number as score for prompt {sample.prompt_id}: {result!r:.80}")
    if bad := [name for name, value in numbers.items() if not abs(value) <= MAX_MAGNITUDE]:  # squares must fit a float
        raise RewardError(f"the reward function's {bad[0]} for prompt {sample.prompt_id} is {numbers[bad[0]]}")
    return numbers


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf
