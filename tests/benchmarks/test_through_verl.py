# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the study of the personas says that models learned."""

from __future__ import annotations

import importlib
import json

import pytest

from tests.conftest import ROOT


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # as when it runs as a script
    return importlib.import_module("through_verl")


def test_words_of_the_last_fifth_are_counted_for_the_most_frequent_style_and_the_others(study, tmp_path):
    formal, slang = {"style": "formal", "genre": "jazz"}, {"style": "slang", "genre": "hiphop"}
    early = [(formal, "yo, rap"), (slang, "yo, rap")]
    last = [(formal, "Kindly try jazz."), (formal, "Try bebop."), (slang, "Indeed, dude: rap!"), (slang, "Kindly.")]
    last += [(formal, "Rap.")]
    for step in range(1, 11):
        path = tmp_path / "run" / "rollouts" / f"{step}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = last if step > 8 else early
        path.write_text("".join(json.dumps({"gts": json.dumps(t), "output": o, "step": step}) + "\n" for t, o in rows))
    shares = study.taste_words([tmp_path / "run"])
    assert shares.round(2).loc["formal"].to_dict() == {"own genre": 0.67, "own style": 0.33, "any formal": 0.33}
    assert shares.loc["others"].to_dict() == {"own genre": 0.5, "own style": 0.5, "any formal": 1.0}
