# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Score responses with a reward function that verl loads, called as verl's reward loop calls it.

The arguments are those of verl's `NaiveRewardManager.run_single`. A coroutine function is awaited; any other runs in a
thread.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from types import SimpleNamespace
from typing import Any

from verl_pgrpo.errors import PGRPOError
from verl_pgrpo.evaluation.prompts import Prompt
from verl_pgrpo.evaluation.samples import Sample
from verl_pgrpo.moments import MAX_MAGNITUDE

CONCURRENCY = 32  # calls at a time
VERL_DEFAULT = "pkg://verl.utils.reward_score:default_compute_score"


class RewardError(PGRPOError, RuntimeError):
    """A reward function cannot be loaded, raises, or returns no finite number."""


def default_reward(prompts: Iterable[Prompt]) -> str:
    """Return the reward function for the data: that of the recipe that `data_source` names, else verl's own.

    Raises:
        RewardError: verl has no reward function for a data_source.
    """
    prompts = list(prompts)
    tasks = {prompt.data_source.partition("/")[0] for prompt in prompts}
    if len(tasks) == 1 and (task := tasks.pop()).isidentifier():
        module = f"verl_pgrpo.rewards.{task}"
        if importlib.util.find_spec(module) and hasattr(importlib.import_module(module), "compute_score"):
            return f"pkg://{module}"
    reward = load_reward(VERL_DEFAULT, {})
    for prompt in {prompt.data_source: prompt for prompt in prompts}.values():
        try:
            reward(prompt.data_source, "", prompt.ground_truth, extra_info=prompt.extra_info)
        except NotImplementedError as error:
            raise RewardError(
                f"no recipe and no function of verl's is for data_source {prompt.data_source!r}; give --reward "
                "pkg://package.module or a file"
            ) from error
        except Exception:  # it may not accept an empty response
            continue
    return VERL_DEFAULT


def load_reward(name: str, arguments: dict[str, Any]) -> Callable[..., Any]:
    """Load `pkg://package.module` or a file as verl does, with `:function` if it is not called `compute_score`.

    Args:
        arguments: Passed to the function by keyword, like verl's `custom_reward_function.reward_kwargs`.

    Raises:
        RewardError: There is no such module, file or function, or its import fails.
    """
    from verl.trainer.ppo.reward import get_custom_reward_fn

    parts = re.fullmatch(r"((?:\w+://)?[^:]+)(?::(\w+))?", name)
    if parts is None:
        raise RewardError(f"--reward {name}: must be pkg://package.module or a file, with :function if need be")
    chosen = {"path": parts[1], "name": parts[2] or "compute_score", "reward_kwargs": arguments}
    try:
        return get_custom_reward_fn(SimpleNamespace(reward={"custom_reward_function": chosen}))
    except Exception as error:  # the module's own errors included
        cause = f" ({error.__cause__!r})" if error.__cause__ else ""
        raise RewardError(f"--reward {name} cannot be loaded: {error!r}{cause}") from error


def score(samples: Sequence[Sample], prompts: dict[str, Prompt], reward: Callable[..., Any]) -> None:
    """Fill in `score` and `values` of each sample; None where the function returns NaN.

    Args:
        prompts: By id.

    Raises:
        RewardError: The function raises, or returns something other than numbers; the message names the prompt.
    """
    results = asyncio.run(_call_all(samples, prompts, reward))
    for sample, result in zip(samples, results, strict=True):
        sample.values = _numbers(result, sample)
        sample.score = sample.values["score"]


async def _call_all(samples: Sequence[Sample], prompts: dict[str, Prompt], reward: Callable[..., Any]) -> list[Any]:
    slots = asyncio.Semaphore(CONCURRENCY)

    async def call(sample: Sample) -> Any:
        prompt = prompts[sample.prompt_id]
        arguments = {
            "data_source": prompt.data_source,
            "solution_str": sample.response,
            "ground_truth": prompt.ground_truth,
            "extra_info": {**prompt.extra_info, "num_turns": 2, "rollout_reward_scores": {}},  # of a single turn
        }
        async with slots:
            try:
                if inspect.iscoroutinefunction(reward):
                    return await reward(**arguments)
                return await asyncio.to_thread(reward, **arguments)
            except Exception as error:
                raise RewardError(
                    f"the reward function fails on prompt {sample.prompt_id}, sample {sample.sample}: {error!r}"
                ) from error

    return await asyncio.gather(*map(call, samples))


def _numbers(result: Any, sample: Sample) -> dict[str, float | None]:
    values = result if isinstance(result, dict) else {"score": result}
    numbers: dict[str, Any] = {str(name): value for name, value in values.items() if isinstance(value, Real)}
    where = f"for prompt {sample.prompt_id}"
    if "score" not in numbers:
        raise RewardError(f"the reward function returns no number as score {where}: {result!r:.80}")
    for name, number in numbers.items():
        if abs(number) > MAX_MAGNITUDE:
            raise RewardError(f"the reward function's {name} {where} is too large: beyond {MAX_MAGNITUDE:g}")
    return {name: None if number != number else float(number) for name, number in numbers.items()}
