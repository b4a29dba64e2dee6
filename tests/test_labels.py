# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Labels to numbers, against a dict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pgrpo.factor import Factor
from verl_pgrpo.labels import LabelIndex

labels = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=30)


@given(st.lists(labels, max_size=8))
def test_numbers_follow_first_appearance(batches):
    index, numbers = LabelIndex(), {}
    for batch in batches:
        expected = [numbers.setdefault(label, len(numbers)) for label in batch]
        factor = Factor.of(batch)
        assert index.add(factor.levels)[factor.codes].tolist() == expected
    assert len(index) == len(numbers)
    assert list(index) == list(numbers)
    assert [index.label(number) for number in numbers.values()] == list(numbers)
    assert index.find([*numbers, "certainly not there"]).tolist() == [*numbers.values(), -1]


def test_colliding_hashes_are_told_apart(monkeypatch):
    """Give every label the same hash: only their text is left to tell them apart."""
    import verl_pgrpo.labels as module

    monkeypatch.setattr(module, "hash", lambda label: 7, raising=False)
    index = LabelIndex()
    names = [f"label {i}" for i in range(300)]
    np.testing.assert_array_equal(index.add(names), np.arange(300))
    np.testing.assert_array_equal(index.find(names[::-1]), np.arange(300)[::-1])
    assert index.find(["label", "label 300"]).tolist() == [-1, -1]


def test_a_refused_batch_adds_nothing():
    index = LabelIndex()
    with pytest.raises(UnicodeEncodeError):
        index.add(["fine", "\ud800"])
    assert len(index) == 0
    assert index.find(["fine"]).tolist() == [-1]


def test_out_of_range():
    index = LabelIndex()
    index.add(["a"])
    for number in (-1, 1):
        with pytest.raises(IndexError):
            index.label(number)
