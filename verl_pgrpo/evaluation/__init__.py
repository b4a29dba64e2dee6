# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What each preference group gets from a model: scores, fairness between groups, comparisons, a judge's verdicts."""
