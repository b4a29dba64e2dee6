# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl on machines that it was not made for. Nothing is imported here: every process that imports verl comes by."""

RUN_ID = "VERL_CPU_RUN_ID"
"""Environment variable that every process of one run inherits and no process of another run has."""

LEDGER = "segments"
"""Folder in the TMPDIR of a supervised run: an empty file for each segment in /dev/shm that the run has made."""
