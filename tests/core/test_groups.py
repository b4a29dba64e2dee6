# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Labels of preference groups: from a column's value to a label, and labels that look alike."""

from __future__ import annotations

import string
import unicodedata
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_pgrpo.groups import describe_code_points, group_label, look_alikes

# NumPy drops trailing null characters.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
MISSING = [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), "", " \t"]
ODD = [1.5, 2.0, True, np.bool_(False), b"x", ["a"], {"a": 1}, np.zeros(2), torch.zeros(2), Decimal("sNaN")]
ODD += [np.array([np.nan]), torch.tensor([torch.nan]), pd.Series([None]), pd.array([pd.NA]), pa.array([np.nan])]


@given(text, st.integers(-(2**70), 2**70))
def test_text_and_integers_of_any_type_have_one_label(value, number):
    for same in (value, np.str_(value)):
        label = group_label(same)
        assert label == (value if value.strip() else None)
        assert type(label) in (str, type(None))
    kinds = [kind for kind in (np.int8, np.uint8, np.int64, np.uint64) if np.can_cast(np.min_scalar_type(number), kind)]
    assert {group_label(kind(number)) for kind in (int, *kinds)} == {str(number)}


def test_a_missing_value_is_none_and_any_other_is_returned_for_the_history_to_reject():
    assert [group_label(value) for value in MISSING] == [None] * len(MISSING)
    assert all(group_label(value) is value for value in ODD)


@given(st.text(string.ascii_letters + string.digits + " -_", min_size=1, max_size=8).filter(str.strip), st.data())
def test_disguises_of_a_label_are_found(label, data):
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in label)  # full-width forms
    position = data.draw(st.integers(0, len(label)))
    hidden = data.draw(st.sampled_from(["\u200b", "\u200d", "\u2060", "\ufeff", "\u202a", "\ufe0f"]))
    disguises = [label.swapcase(), f" {label}\t", label.replace(" ", "\u00a0 "), wide]
    disguises += [label[:position] + hidden + label[position:], label.replace("a", "\u0430").replace("o", "\u043e")]
    distinct = list(dict.fromkeys([label, *disguises]))
    assert look_alikes([*distinct, "something else", label]) == ([tuple(distinct)] if len(distinct) > 1 else [])


@given(text)
def test_normal_forms_of_a_label_look_alike(label):
    forms = {unicodedata.normalize(form, label) for form in ("NFC", "NFD", "NFKC", "NFKD")} | {label}
    assert [set(same) for same in look_alikes(sorted(forms))] == ([forms] if len(forms) > 1 else [])


def test_labels_that_differ_visibly_do_not_look_alike_and_code_points_are_shown():
    assert look_alikes({f"group {number}" for number in range(10_000)}) == []
    assert describe_code_points("jazz") == "'jazz'"
    assert "U+200B ZERO WIDTH SPACE" in describe_code_points("jazz\u200b")
    assert describe_code_points("\u0430" * 9).count("U+0430") == 4
