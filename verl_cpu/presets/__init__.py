# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Presets of verl's configuration for a CPU. Use with verl's `--config-dir`."""
