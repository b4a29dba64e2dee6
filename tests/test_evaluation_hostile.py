# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo eval` with files and data that nobody should have made: one line says so, or it goes on."""

from __future__ import annotations

import pytest

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation.groups import Scores
from verl_pgrpo.evaluation.samples import Sample


def test_one_id_of_two_prompts_has_no_mean() -> None:
    rows = [Sample("1", "g", prompt, "r", number, "m", 1.0) for number, prompt in enumerate(("P", "Q"))]
    with pytest.raises(DataError, match="m: prompt_id 1 has two prompts: 'P' and 'Q'"):
        Scores.of("m", rows)
