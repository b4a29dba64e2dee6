# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo judge` with files, numbers and answers that nobody should have made: one line says so, or it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation.pairs import read_pairs


def write(path: Path, *rows: dict[str, Any]) -> Path:
    usual = {"prompt_id": "1", "preference_group": "g", "prompt": "P", "response": "r"}
    path.write_text("".join(json.dumps({**usual, **row}) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["prompt", "preference_group"])
def test_one_id_of_two_prompts_is_not_paired(tmp_path: Path, name: str) -> None:
    a = write(tmp_path / "a.jsonl", {name: "P"}, {name: "Q"}, {name: "R"})
    b = write(tmp_path / "b.jsonl", {name: "P"}, {name: "R"}, {name: "Q"})
    with pytest.raises(DataError, match=f"prompt_id '1': another {name} in one line of .*a.jsonl than in another"):
        read_pairs(a, b)
