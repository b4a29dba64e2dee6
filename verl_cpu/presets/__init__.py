# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Presets: what verl's configuration needs on a CPU. For verl's `--config-dir`."""
