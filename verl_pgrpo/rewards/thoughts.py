# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a model said, apart from what it thought."""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)


def without_thoughts(text: str) -> str:
    """The text without its `<think>` sections, even if the last never ends, and without blanks around it."""
    return _THOUGHT.sub(" ", text).strip()
