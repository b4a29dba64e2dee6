# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A contextual bandit that thousands of runs of cost minutes: when P-GRPO helps, when not, and what would help more."""
