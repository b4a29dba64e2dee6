# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""How much memory a GPU has, by its name: GiB as CUDA reports them, which is less than the GB it is sold with."""

from __future__ import annotations

import re

from verl_pgrpo.errors import ConfigError

# Rounded down; drivers and error correction take a few tenths more or less. A number is always as good.
GPUS = {
    "v100-16gb": 15.5,
    "v100-32gb": 31.5,
    "t4": 14.5,
    "a10": 22.0,
    "a10g": 22.0,
    "l4": 22.0,
    "rtx3090": 23.5,
    "rtx4090": 23.5,
    "rtx5090": 31.0,
    "a40": 44.0,
    "l40": 44.0,
    "l40s": 44.0,
    "a6000": 47.0,
    "a100-40gb": 39.0,
    "a100-80gb": 79.0,
    "a100": 79.0,
    "a800": 79.0,
    "h100": 79.0,
    "h100-80gb": 79.0,
    "h800": 79.0,
    "h20": 95.0,
    "gh200": 94.5,
    "h200": 139.0,
    "b200": 178.0,
    "mi300x": 191.0,
}


def gpu_gib(text: str) -> float:
    """A name (`H100`, `A100-40GB`, `NVIDIA A100 40GB`) or a number of GiB (`80`).

    Raises:
        ConfigError: neither.
    """
    try:
        gib = float(text)
    except ValueError:
        name = re.sub(r"[\s_]+", "-", text.strip().lower().removeprefix("nvidia").strip(" -"))
        gib = GPUS.get(name) or GPUS.get(name.replace("-", "")) or GPUS.get(f"{name}gb") or 0.0
    if not 0 < gib < 10_000:
        raise ConfigError(f"--gpu {text}: give its memory in GiB, or one of {', '.join(sorted(GPUS))}")
    return gib
