# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point of the group `verl.plugins`: verl imports this module in every process that imports verl.

Activates the CPU platform if `VERL_PLATFORM=cpu`, and does nothing otherwise.
"""

import os

if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    from verl_cpu import cpu_platform

    try:
        cpu_platform.activate()
    except Exception as error:
        # verl logs exceptions of plugins at level DEBUG and continues without them; it does not catch SystemExit.
        raise SystemExit(f"verl-cpu cannot be loaded into verl: {type(error).__name__}: {error}") from error
