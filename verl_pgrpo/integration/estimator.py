# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The function in verl's registry of advantage estimators, under the name `pgrpo`.

verl passes an estimator the rewards, the mask and the prompt of each row, but neither the preference groups nor a place
for a history. The trainer's `PGRPOState` has both, so this function only delegates to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from verl_pgrpo.integration.state import PGRPOState

__all__ = ["compute_pgrpo_outcome_advantage"]


def compute_pgrpo_outcome_advantage(
    token_level_rewards: Tensor, response_mask: Tensor, index: Sequence[Any] | None = None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Compute P-GRPO advantages from outcome rewards (arXiv 2603.10009), and add the batch to the run's history.

    Args:
        token_level_rewards: (N, T) float. A response's reward is their sum, in the tensor's own precision as in verl's
            `grpo` (verl/trainer/ppo/core_algos.py), so that both see the same scores.
        response_mask: (N, T). A row without a token neither counts nor trains.
        index: N uids, the prompt of each row, compared with the trainer's own.
        kwargs: other arguments that verl passes to every estimator; unused.

    Returns:
        advantages and returns: the same (N, T) tensor.

    Raises:
        UnsupportedVerlError: the trainer has no reward history, or verl passes other rows than the trainer announced.
        MissingGroupError, GroupLabelError, NonFiniteRewardError: the history is unchanged.
    """
    advantages = PGRPOState.active().compute(token_level_rewards, response_mask, index)
    return advantages, advantages
