# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A P-GRPO run whose history and advantages are compared bit for bit, to detect any change of results.

python -m tests.core.golden     # rewrite the golden file, after a change that is meant to alter results
"""

from __future__ import annotations

import json
from pathlib import Path

from verl_pgrpo import GroupHistoryManager, PGRPOConfig

GOLDEN = Path(__file__).parents[1] / "golden_run.json"

CONFIGS = {
    "default": PGRPOConfig(),
    "exponential": PGRPOConfig(half_life=10),
    "after_normalize": PGRPOConfig(update_order="after_normalize"),
    "cold_start": PGRPOConfig(prior_strength=3, min_count=2),
    "blended": PGRPOConfig(baseline="blended"),
    "unscaled": PGRPOConfig(norm_adv_by_std_in_grpo=False),
    "shrinkage": PGRPOConfig(baseline="shrinkage"),
    "balanced": PGRPOConfig(group_balance=1.0),
}


def golden_run() -> str:
    """Return every float in hexadecimal, or to 12 digits if it involves exponentials, whose rounding varies."""
    out: dict[str, list[list[str]]] = {}
    for name, config in CONFIGS.items():
        history = GroupHistoryManager(config)
        text = float.hex if config.half_life is None else "{:.11e}".format
        out[name] = []
        for step in range(3):
            # Integer arithmetic only, so the input is the same on every machine and with every numpy.
            rewards = [((7 * i + 3 * step) % 11) / 8 - 0.5 for i in range(12)]
            groups = [f"group {(i * i + step) % 5}" for i in range(12)]
            result = history.compute_advantages(groups, rewards, [i // 3 for i in range(12)])
            out[name] += [[text(float(x)) for x in row] for row in (result.advantages, result.scale, result.shift)]
        statistics = history.statistics(history.groups)
        out[name] += [[text(float(x)) for x in row] for row in (statistics.count, statistics.mean, statistics.std)]
    return json.dumps(out, indent=1) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden_run())
    print(f"wrote {GOLDEN}")
