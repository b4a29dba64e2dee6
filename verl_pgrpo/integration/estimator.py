# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The function in verl's registry of advantage estimators, under the name `pgrpo`.

verl hands an estimator the rewards, the mask and the prompt of each row, but neither the row's preference group nor a
place to keep a history. The trainer therefore lays both out (`batch_of_run`) around verl's own advantage step, and
verl's step calls this function in between.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import UnsupportedVerlError
from verl_pgrpo.factor import Factor
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.integration.rows import Column, Rows, no_such_field, raw_groups
from verl_pgrpo.results import AdvantageResult

__all__ = ["NAME", "BatchOfRun", "batch_fields", "batch_of_run", "compute_pgrpo_outcome_advantage"]

NAME = "pgrpo"


@dataclass(slots=True)
class BatchOfRun:
    """What one call of the estimator needs beside its arguments, and what it leaves behind for the metrics."""

    history: GroupHistoryManager
    rows: Rows
    # Where verl hands over the rows' groups, if it does (`batch_fields`); otherwise `rows` has them.
    column: Column | None = None
    # Of the rows that counted: preference groups, rewards, and what they were given. Filled in by the estimator.
    outcome: tuple[Factor[str], np.ndarray, AdvantageResult] | None = None


_current: ContextVar[BatchOfRun | None] = ContextVar("pgrpo_batch", default=None)


@contextmanager
def batch_of_run(history: GroupHistoryManager, rows: Rows, column: Column | None = None) -> Iterator[BatchOfRun]:
    """Within this context the estimator computes with `history` on a batch of `rows`, exactly once."""
    batch = BatchOfRun(history, rows, column)
    token = _current.set(batch)
    try:
        yield batch
        if batch.outcome is None:
            raise UnsupportedVerlError("verl's advantage step ended without calling the estimator 'pgrpo'")
    finally:
        _current.reset(token)


def batch_fields(config: Any) -> list[str]:
    """The estimator's own batch fields, for a verl that fetches what an estimator declares (patches/).

    Args:
        config: verl's `algorithm` config. Whether `group_key` is a column or a path into one the data decides.
    """
    key = PGRPOConfig.from_algorithm(config).group_key
    return list(dict.fromkeys((key, key.partition(".")[0])))


def compute_pgrpo_outcome_advantage(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Sequence[Any] | None = None,
    config: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """P-GRPO's advantages, on outcome rewards (arXiv 2603.10009); folds the batch into the run's history.

    Args:
        token_level_rewards: (N, T) float; a response's reward is their sum, in the tensor's own precision as in
            verl's `grpo` (verl/trainer/ppo/core_algos.py), so that both see the same scores.
        response_mask: (N, T); a row without a token neither counts nor trains.
        index: N uids, the prompt of each row; checked against the batch's own.
        config: verl's `algorithm` config; the options were read when the run started.
        kwargs: `batch` and `non_tensor_batch`, from a verl that hands over what `batch_fields` declares.

    Returns:
        advantages and returns, the same (N, T) tensor.

    Raises:
        UnsupportedVerlError: called by a trainer without a history, or on other rows than the trainer announced.
        MissingGroupError, GroupLabelError, NonFiniteRewardError: the history is as it was before.
    """
    batch = _current.get()
    if batch is None:
        raise UnsupportedVerlError(
            "the estimator 'pgrpo' was called outside of a trainer with a reward history. verl-pgrpo gives one to "
            "verl's V1 trainers and, from verl's own launchers, to its older ones (trainer.use_v1=False, one-step-off, "
            "fully-async); give one to a V1 trainer class of your own with "
            "verl_pgrpo.integration.trainers.with_history(cls)."
        )
    if batch.outcome is not None:
        raise UnsupportedVerlError("verl called the estimator 'pgrpo' twice for one batch; it would be counted twice")
    rows = batch.rows
    if batch.column is not None:
        rows = rows.with_groups(_handed_over(batch.column, kwargs))
    if len(token_level_rewards) != len(rows.uids) or not (index is None or np.array_equal(index, rows.uids)):
        raise UnsupportedVerlError(
            "verl's advantage step sees other rows, or in another order, than the batch's keys say; "
            "advantages would go to the wrong responses"
        )
    with torch.no_grad():
        scores = token_level_rewards.sum(dim=-1)
        rewards = scores.double().cpu().numpy()
        scores = scores if scores.is_floating_point() else scores.float()
        counted = np.flatnonzero(rows.counted(response_mask))
        groups, missing = rows.groups.take(counted), batch.history.config.missing_group
        if missing is not None:
            groups = groups.relabel([missing if group is None else group for group in groups.levels])
        result = batch.history.advantages(groups, rewards[counted], index=rows.prompts.take(counted))
        batch.outcome = groups, rewards[counted], result

        of_session = np.zeros(len(rewards))
        of_session[counted] = result.advantages
        per_row = torch.from_numpy(of_session[rows.last]).to(scores).unsqueeze(-1)
        advantages = _broadcast(per_row, response_mask)
    return advantages, advantages


def _handed_over(column: Column, arguments: dict[str, Any]) -> list[Any]:
    """The raw group of each row, among what verl hands over."""
    for fields in (arguments.get("non_tensor_batch"), arguments.get("batch")):
        if fields is not None and column[0] in fields:
            return raw_groups(fields[column[0]], column)
    raise no_such_field(column[0], "verl handed over none")


_KEPT_BYTES = 1 << 26
_last: np.ndarray = np.empty(0)


def _broadcast(per_row: Tensor, mask: Tensor) -> Tensor:
    """per_row (N, 1) * mask (N, T), in the type of `per_row`; what most of an estimator's time goes into."""
    if per_row.device.type != "cpu" or per_row.dtype not in (torch.float32, torch.float64):
        return per_row * mask
    # Into memory of numpy's, which asks the kernel for huge pages where torch does not: touching fresh pages for the
    # first time takes longer than the multiply. A mask of another type is converted first, as a multiply across types
    # takes twice as long as both.
    out = torch.from_numpy(_memory(mask.shape, np.float32 if per_row.dtype == torch.float32 else np.float64))
    if mask.dtype == per_row.dtype:
        return torch.mul(mask, per_row, out=out)
    return out.copy_(mask).mul_(per_row)


def _memory(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array for a result: the last one's, if it is small and nobody holds that result any more."""
    global _last
    if _last.shape == shape and _last.dtype == dtype and sys.getrefcount(_last) == 2:  # `_last` and the call's own
        return _last
    array: np.ndarray = np.empty(shape, dtype)
    _last = array if array.nbytes <= _KEPT_BYTES else _last
    return array
