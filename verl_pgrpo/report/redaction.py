# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A run's configuration without its secrets: the page is made to be shown to others.

There is no list of all names of secrets, so this looks at names as they are usual, more widely at environment
variables, whose only other use is harmless to leave out, and at what a value looks like. Options of verl's that sound
alike (`pad_token_id`, `ppo_max_token_len_per_gpu`, `prompt_key`) are to be seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NOT_SHOWN = "(not shown)"

_NAME = re.compile(
    r"(api|secret|private|access|ssh|wandb)[_-]?keys?$|secrets?$|passwords?$|passwd$|passphrase$|credentials?$"
    r"|^authorization$|^token$|(access|api|auth|bearer|github|gitlab|hf|refresh|secret|wandb)[_-]?tokens?$",
    re.IGNORECASE,
)
_ENVIRONMENT = re.compile(r"^(env|environ|environment|env_?vars)$", re.IGNORECASE)
_VARIABLE = re.compile(r"key|token(?!s$|ize)|secret|pass|credential|(^|_)(pat|pw)(_|$)", re.IGNORECASE)
# A header; a URL's user, who may be a token; a word of a command.
_VALUE = re.compile(r"\bBearer \S|://[^/@\s]+@|((api|access|secret)[_-]?key|secret|password)=\S", re.IGNORECASE)


def redacted(value: Any, name: str = "", variable: bool = False, secret: bool = False) -> Any:
    """A nested value with `NOT_SHOWN` in place of every secret; lists and their entries included.

    Args:
        variable: its name is that of an environment variable.
        secret: it stands within one.
    """
    variable = variable or name.isupper()
    secret = secret or bool(_NAME.search(name)) or (variable and bool(_VARIABLE.search(name)))
    if isinstance(value, Mapping):
        variable = variable or bool(_ENVIRONMENT.search(name))
        return {key: redacted(item, str(key), variable, secret) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, name, variable, secret) for item in value]
    looks = isinstance(value, str) and bool(_VALUE.search(value))
    return NOT_SHOWN if value and (secret or looks) else value
