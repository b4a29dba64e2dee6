# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes, launchers and patches."""

from importlib import metadata

import pytest

NEWEST = "0.9.1"
newest_verl = pytest.mark.skipif(
    metadata.version("verl") != NEWEST, reason=f"patches, images and asynchronous recipes are for verl {NEWEST}"
)
