# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward functions for `reward.custom_reward_function.path=pkg://verl_pgrpo.rewards.<task>`, one file per task."""
