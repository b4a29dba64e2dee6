#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run `ray ...` on a node of a CPU recipe, with the CPU platform's environment, and clean up afterwards.

python3 recipes/launch/cpu_ray.py start --head --block ...
"""

import os
import sys

from verl_cpu.run import supervise

if __name__ == "__main__":
    # verl_cpu.run restricts Ray to 127.0.0.1, which allows no second node. On a cluster Ray's workers have the
    # environment of their node, not the driver's.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    sys.exit(supervise([sys.executable, "-m", "ray.scripts.scripts", *sys.argv[1:]], watch_workers=False))
