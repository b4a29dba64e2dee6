# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A launch that is good, of the personas recipe for the CPU, to be broken by the tests of `preflight`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from verl_pgrpo.data.personas import make_split, toy_vocabulary
from verl_pgrpo.data.tiny_model import make_tiny_qwen3
from verl_pgrpo.launch.preflight import Report, preflight
from verl_pgrpo.launch.recorded import arguments_of
from verl_pgrpo.launch.run import Settings

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "recipes" / "personas" / "run_tiny_cpu.sh"


@dataclass(frozen=True)
class Case:
    """A folder with data and a model, and where a run would write."""

    folder: Path
    out: Path

    @classmethod
    def make(cls, folder: Path, out: Path) -> Case:
        if not (folder / "model").exists():
            make_split("train", 512, noise=0.2).to_parquet(folder / "train.parquet")
            make_split("val", 70).to_parquet(folder / "val.parquet")
            make_tiny_qwen3(folder / "model", toy_vocabulary())
        return cls(folder, out)

    @property
    def arguments(self) -> list[str]:
        """What the recipe's script gives to main_ppo."""
        recorded = arguments_of(SCRIPT, DATA_DIR=str(self.folder), RUN_DIR=str(self.out))
        given = recorded[recorded.index("--") + 1 :]
        given[given.index("--config-dir") + 1] = str(ROOT / "verl_cpu" / "presets")
        return given

    def check(self, *overrides: str, reward: bool = False, **settings) -> Report:
        """Later arguments go first; the reward function, which takes seconds, only where it is asked for."""
        skip = () if reward else ("reward",)
        return preflight([*self.arguments, *overrides], Settings(skip=skip, **settings))

    def data(self, split: str = "train") -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"{split}.parquet")

    def written(self, frame: pd.DataFrame, split: str = "train") -> str:
        """The override for other data."""
        path = self.out / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)
        return f"data.{split}_files={path}"


def serious(report: Report) -> list[tuple[str, str, str]]:
    """Severity, check and text of all findings that are no notes."""
    return [(one.severity, one.check, one.what) for one in report.findings if one.severity != "note"]


def changed(column: str, value):
    """Data with a column set to something else in all rows; None: without it."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        if value is None:
            return frame.drop(columns=column)
        return frame.assign(**{column: [value(old) if callable(value) else value for old in frame[column]]})

    return change


def large(case: Case, *overrides: str) -> list[str]:
    """The arguments of the recipe for a model of 32 billion parameters, on the toy's data."""
    recorded = arguments_of(ROOT / "recipes" / "personas" / "run_qwen3_32b_megatron.sh")
    data = [f"data.{split}_files={case.folder / split}.parquet" for split in ("train", "val")]
    return [*recorded, *data, "data.train_batch_size=256", f"trainer.default_local_dir={case.out}", *overrides]
