# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Before a launch: `preflight` validates its command, `doctor` the machine or cluster.

from verl_pgrpo.preflight import preflight

report = preflight(["algorithm.adv_estimator=pgrpo", ...])     # the arguments of verl.trainer.main_ppo
"""

from .context import Settings
from .diagnostic import Diagnostic
from .runner import CHECK_NAMES, Report, preflight

__all__ = ["CHECK_NAMES", "Diagnostic", "Report", "Settings", "preflight"]
