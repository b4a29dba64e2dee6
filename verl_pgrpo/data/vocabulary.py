# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The words of a prepared dataset, for a tiny model with a word-level tokenizer (`tiny_model`).

    python -m verl_pgrpo.data.vocabulary --data data/movielens --out data/movielens/words.txt

The most frequent words come first. Equal data gives equal words.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq


def words_of(folder: Path, most: int | None = None) -> list[str]:
    """Return the words of all prompts and ground truths of both splits, the most frequent first; at most `most`.

    Words are split at white space. Ground truths are JSON, so quotes, commas, braces and colons count as spaces there.
    """
    counts: Counter[str] = Counter()
    for split in ("train", "val"):
        for batch in pq.ParquetFile(folder / f"{split}.parquet").iter_batches(columns=["prompt", "reward_model"]):
            for prompt, reward in zip(batch["prompt"].to_pylist(), batch["reward_model"].to_pylist(), strict=True):
                counts.update(word for message in prompt for word in message["content"].split())
                counts.update("".join(" " if c in '"{}[]:,' else c for c in reward["ground_truth"]).split())
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the words of a prepared dataset, one per line.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and val.parquet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, help="at most this many words")
    args = parser.parse_args()
    words = words_of(args.data, args.most)
    args.out.write_text("\n".join(words) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(words)} words")


if __name__ == "__main__":
    main()
