# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the data commands write, as one table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def read_rows(folder: Path) -> pd.DataFrame:
    """Return the rows of both splits, with the prompt's text, the truth and the fields of `extra_info` as columns."""
    rows = pd.concat([pd.read_parquet(folder / f"{split}.parquet") for split in ("train", "val")], ignore_index=True)
    rows["text"] = [messages[-1]["content"] for messages in rows["prompt"]]
    rows["truth"] = [model["ground_truth"] for model in rows["reward_model"]]
    return rows.join(pd.DataFrame(rows["extra_info"].tolist()))
