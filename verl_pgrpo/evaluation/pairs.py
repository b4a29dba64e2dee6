# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Pair the responses of two files by prompt."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.samples import check_same_prompts, read_samples, to_frame


def read_pairs(a: Path, b: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Pair the responses of two files by prompt_id; several to one prompt are paired in their order.

    Returns:
        The pairs in the order of the first file, with the columns prompt_id, sample (counts a prompt's pairs),
        preference_group, prompt, a and b (the responses); and the number of responses without a partner, by file.

    Raises:
        DataError: A file cannot be read, they share no prompt_id, or one has another prompt or group in each file.
    """
    frames = {}
    for name, path in (("a", a), ("b", b)):
        frame = to_frame(read_samples(path)).rename(columns={"response": name})
        frame["sample"] = frame.sort_values("sample", kind="stable").groupby("prompt_id").cumcount()
        frames[name] = frame
    pairs = frames["a"].merge(frames["b"], on=["prompt_id", "sample"], suffixes=("", "_other"))
    if pairs.empty:
        examples = [repr(frame["prompt_id"].iloc[0]) for frame in frames.values()]
        raise DataError(f"{a} and {b} share no prompt_id ({', '.join(examples)}): were they made from the same data?")
    check_same_prompts(pairs, str(a), str(b))
    columns = ["prompt_id", "sample", "preference_group", "prompt", "a", "b"]
    return pairs[columns].copy(), {name: len(frame) - len(pairs) for name, frame in frames.items()}
