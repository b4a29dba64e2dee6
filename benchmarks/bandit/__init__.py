# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A contextual bandit, fast enough for thousands of runs: when P-GRPO helps, when it does not, and what helps more."""
