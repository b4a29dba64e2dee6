# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluate models per preference group: scores, fairness between groups, comparisons, and a judge's preferences."""
