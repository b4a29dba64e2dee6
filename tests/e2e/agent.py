# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""An agent whose sessions have one output or two, as agents that compress their context do. Used by the real runs."""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class SometimesTwoOutputs(SingleTurnAgentLoop):
    """Odd sessions put an earlier output before their last one; both are trained, the last one is rewarded."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        last = await super().run(sampling_params, **kwargs)
        if kwargs["session_id"] % 2 == 0:
            return last
        return [await super().run(sampling_params, **kwargs), last]
