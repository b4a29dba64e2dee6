# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A launch without faults. The other tests of preflight, which build verl's objects dozens of times, are slow."""

from __future__ import annotations

from tests.preflight.case import Case, problems


def test_a_good_launch_passes(case: Case):
    report = case.check()
    assert problems(report) == set()
    assert "2 preference groups, the smallest with 32 training rows" in report.facts
    assert "64 training rows, 120 steps of 16 prompts x 2 responses" in report.facts
    assert "the reward function was called on 10 rows, 20 times" in report.facts
