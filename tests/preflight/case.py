# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A launch that passes preflight, to be broken by the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from verl_cpu.tiny_model import make_tiny_qwen3
from verl_pgrpo.preflight import Diagnostic, Settings
from verl_pgrpo.preflight.checks import run_checks
from verl_pgrpo.preflight.command_line import compose_valid_part, parse
from verl_pgrpo.preflight.context import PreflightContext
from verl_pgrpo.preflight.diagnostic import Diagnostics
from verl_pgrpo.preflight.runner import Report

ROOT = Path(__file__).resolve().parents[2]
ROWS = 64
REWARD = (
    "def compute_score(data_source, solution_str, ground_truth, extra_info=None): return float(len(solution_str))\n"
)


def rows(count: int = ROWS, **columns: Callable[[int], Any]) -> list[dict[str, Any]]:
    """Rows of verl's data format; each extra column is a function of the row number."""
    return [
        {
            "data_source": f"demo/{'ab'[i % 2]}",
            "prompt": [{"role": "user", "content": f"jazz tip {i}"}],
            "ability": "personalization",
            "reward_model": {"style": "rule", "ground_truth": "jazz"},
            "extra_info": {"index": i},
            "preference_group": "ab"[i % 2],
            **{name: make(i) for name, make in columns.items()},
        }
        for i in range(count)
    ]


@dataclass(frozen=True)
class Case:
    """A folder with data and a tiny model, and one for the run's output."""

    folder: Path
    out: Path

    @classmethod
    def make(cls, folder: Path, out: Path) -> Case:
        out.mkdir(parents=True)
        if not (folder / "model").exists():
            make_tiny_qwen3(
                folder / "model", ["jazz", "tip", *map(str, range(100)), "these", "are", "a", "few", "words"]
            )
            (folder / "reward.py").write_text(REWARD)
            for split in ("train", "val"):
                pq.write_table(pa.Table.from_pylist(rows()), folder / f"{split}.parquet")
        return cls(folder, out)

    @property
    def arguments(self) -> list[str]:
        """The arguments of main_ppo."""
        return [
            *("--config-dir", str(ROOT / "verl_cpu" / "presets"), "--config-name", "cpu"),
            "algorithm.adv_estimator=pgrpo",
            f"data.train_files={self.folder}/train.parquet",
            f"data.val_files={self.folder}/val.parquet",
            "data.train_batch_size=16",
            "data.seed=1",
            f"actor_rollout_ref.model.path={self.folder}/model",
            "actor_rollout_ref.rollout.n=2",
            f"reward.custom_reward_function.path={self.folder}/reward.py",
            f"trainer.default_local_dir={self.out}/checkpoints",
            "trainer.logger=[console]",
            "trainer.save_freq=2",
        ]

    def check(self, *overrides: str, skip: tuple[str, ...] = (), **settings: Any) -> Report:
        """Run the checks in this process; `preflight` itself runs them in a separate one."""
        found = Diagnostics("arguments")
        config: Any = compose_valid_part(parse([*self.arguments, *overrides]), found)
        config = OmegaConf.create(OmegaConf.to_yaml(config))
        OmegaConf.set_struct(config, True)
        events: list[dict[str, Any]] = []
        run_checks(PreflightContext(config, Settings(skip=skip, **settings)), events.append)
        diagnostics = [Diagnostic(**event["diagnostic"]) for event in events if "diagnostic" in event]
        return Report(found.found + diagnostics, events[-1]["facts"])

    def write(self, table: list[dict[str, Any]] | pa.Table, split: str = "train") -> str:
        """Return the override for other data."""
        path = self.out / f"{split}.parquet"
        pq.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pylist(table), path)
        return f"data.{split}_files={path}"

    def reward(self, code: str) -> str:
        """Return the override for another reward function."""
        path = self.out / "reward.py"
        path.write_text(code)
        return f"reward.custom_reward_function.path={path}"


def problems(report: Report) -> set[tuple[str, str]]:
    """Severity and check of all diagnostics except notes."""
    return {(one.severity, one.check) for one in report.diagnostics if one.severity != "note"}


def at(report: Report, location: str) -> list[tuple[str, str]]:
    """Severity and check of the diagnostics whose location contains a text."""
    return [(one.severity, one.check) for one in report.diagnostics if location in one.location]
