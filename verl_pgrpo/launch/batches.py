# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What of a launch's batches does not divide: over GPUs, into mini-batches and into micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .problem import ACTOR, REF, ROLLOUT, Problem, indivisible
from .settings import Launch

MINI = f"{ACTOR}.ppo_mini_batch_size"


def batch_problems(launch: Launch) -> list[Problem]:
    """Everything that does not divide; without the model."""
    found = list(_mini_batches(launch))
    found += _micro_batches(launch)
    if launch.log_prob_dynamic != launch.dynamic_batches:
        said = f"log_prob_use_dynamic_bsz ({launch.log_prob_dynamic}) is not use_dynamic_bsz ({launch.dynamic_batches})"
        where = f"{ROLLOUT}.log_prob_use_dynamic_bsz, {ACTOR}.use_dynamic_bsz"
        found.append(Problem(f"rollout.{said}, which verl's worker asserts", where, "set them to the same"))
    if not launch.remove_padding:
        found.append(
            Problem(
                "model.use_remove_padding=False: micro-batches by tokens would be padded to the longest response",
                "actor_rollout_ref.model.use_remove_padding",
                "set it to True",
                fatal=False,
                of_gpus=True,
            )
        )
    return found


def _mini_batches(launch: Launch) -> Iterator[Problem]:
    """verl's TrainingWorker.train_mini_batch and PPOTrainer._get_required_batch_multiple."""
    mini = launch.mini_batch * launch.n
    if mini % launch.dp:
        said = f"a mini-batch's responses (ppo_mini_batch_size x n) ({mini}) is not divisible by the trainer's DP"
        yield Problem(f"{said} ({launch.dp})", f"{MINI}, {ROLLOUT}.n", f"make their product a multiple of {launch.dp}")
    if not launch.separate and (launch.mini_batch > launch.train_batch or launch.train_batch % launch.mini_batch):
        yield Problem(
            f"train_batch_size ({launch.train_batch}) is not a multiple of ppo_mini_batch_size ({launch.mini_batch}): "
            + (
                "verl would fill each step up with padding rows"
                if launch.pads
                else "verl would stop at the first update"
            ),
            f"data.train_batch_size, {MINI}",
            "make the first a multiple of the second",
            fatal=not launch.pads,
        )


def _micro_batches(launch: Launch) -> Iterator[Problem]:
    """By tokens or by responses; verl's reference has settings of its own, which follow the actor's by default."""
    mini = launch.mini_batch * launch.n
    step = mini if launch.separate else launch.train_batch * launch.n
    step = -(-step // math.lcm(launch.dp, mini)) * math.lcm(launch.dp, mini)  # verl fills it up
    of_mini, of_step = ("of a mini-batch", mini), ("of a step", step)
    if launch.dynamic_batches:
        yield from _by_tokens(launch, f"{ACTOR}.ppo_max_token_len_per_gpu", launch.max_tokens)
        if launch.computes_log_probs:
            yield from _by_tokens(launch, f"{ROLLOUT}.log_prob_max_token_len_per_gpu", launch.log_prob_max_tokens)
    else:
        yield from _by_count(launch, f"{ACTOR}.ppo_micro_batch_size_per_gpu", launch.micro_batch, *of_mini)
        log_prob = launch.log_prob_micro_batch
        if log_prob is None or launch.computes_log_probs:
            yield from _by_count(launch, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu", log_prob, *of_step)
    if launch.ref is None:
        return
    if launch.ref_dynamic:
        yield from _by_tokens(launch, f"{REF}.log_prob_max_token_len_per_gpu", launch.ref_max_tokens)
    else:
        yield from _by_count(launch, f"{REF}.log_prob_micro_batch_size_per_gpu", launch.ref_micro_batch, *of_step)


def _by_tokens(launch: Launch, key: str, tokens: int) -> Iterator[Problem]:
    """verl's rearrange_micro_batches."""
    longest, cp = launch.max_prompt + launch.max_response, launch.parallel.cp
    if tokens * cp < longest:
        said = f"{_short(key)} ({tokens}) x CP ({cp}) is less than one prompt and response ({longest} tokens)"
        yield Problem(said, key, f"at least {-(-longest // cp)}, or shorter prompts and responses")


def _by_count(launch: Launch, key: str, micro: int | None, of: str, responses: int) -> Iterator[Problem]:
    """verl's ActorRolloutRefWorker.init_model wants the key, its prepare_micro_batches no rest."""
    if micro is None:
        dynamic = f"{REF}.log_prob_use_dynamic_bsz" if key.startswith(REF) else f"{ACTOR}.use_dynamic_bsz"
        said = f"{_short(key)} is not set, though {_short(dynamic)}=False; verl's worker wants it when it starts"
        yield Problem(said, key, "set it, or actor_rollout_ref.actor.use_dynamic_bsz=True")
    elif responses % launch.dp == 0:
        yield from indivisible(f"a GPU's responses {of}", responses // launch.dp, _short(key), micro, key)


def _short(key: str) -> str:
    return key.removeprefix("actor_rollout_ref.")
