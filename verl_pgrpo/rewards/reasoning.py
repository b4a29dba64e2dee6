# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Separate a model's answer from its reasoning."""

from __future__ import annotations

import re

_SECTION = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)


def strip_reasoning(text: str, expected: bool = False) -> str:
    """Return the answer in a response: no reasoning, no surrounding white space, "" if there is no answer.

    `<think>` sections are removed; a section that is never closed runs to the end. If the first `</think>` comes before
    any `<think>`, everything up to it is reasoning as well: many chat templates pre-fill the opening tag, so it is in
    the prompt and not in the response. So is everything before a later `</think>` that closes nothing.

    Args:
        text: the response.
        expected: the template pre-fills `<think>`, so a response begins inside its reasoning: everything up to the
            first `</think>` is reasoning, and without one there is no answer. The rewards pass their option `reasoning`
            here (`+reward.custom_reward_function.reward_kwargs.reasoning=True`).
    """
    before, closed, after = text.partition("</think>")
    if expected and not closed:
        return ""
    answer = after if closed and (expected or "<think>" not in before) else text
    return _SECTION.sub(" ", answer).rpartition("</think>")[2].strip()
