# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Presets: all settings that a CPU needs, over verl's own defaults. For `--config-dir`, or `python -m verl_cpu.run --preset`."""
