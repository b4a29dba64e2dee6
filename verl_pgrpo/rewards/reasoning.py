# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Separate a model's answer from its reasoning."""

from __future__ import annotations

import re

_SECTION = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)


def strip_reasoning(text: str, expected: bool = False) -> str:
    """Return the answer in a response: no reasoning, no surrounding white space, "" if there is no answer.

    Everything up to the first `</think>` is reasoning, with or without an opening `<think>`: many chat templates
    pre-fill it, so it is in the prompt and not in the response. Later `<think>` sections are removed as well. A section
    that is never closed runs to the end.

    Args:
        text: the response.
        expected: the template pre-fills `<think>`, so a response without `</think>` was cut off inside its reasoning
            and has no answer. The rewards pass their option `reasoning` here
            (`+reward.custom_reward_function.reward_kwargs.reasoning=True`).
    """
    if expected and "</think>" not in text:
        return ""
    _, _, answer = text.partition("</think>") if "</think>" in text else ("", "", text)
    return _SECTION.sub(" ", answer).rpartition("</think>")[2].strip()
