# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A launch that passes preflight, to be broken by the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from tests.conftest import ROOT
from verl_pgrpo.preflight import Diagnostic, Settings
from verl_pgrpo.preflight.checks import run_checks
from verl_pgrpo.preflight.command_line import compose_valid_part, parse
from verl_pgrpo.preflight.context import PreflightContext
from verl_pgrpo.preflight.diagnostic import Diagnostics
from verl_pgrpo.preflight.runner import Report

DROPPED = object()  # in place of a column's values


def prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def rows(count: int = 64, **columns: Any) -> list[dict[str, Any]]:
    """Rows of verl's data format. Each given column is a value, a function of the row number, or DROPPED."""
    table = []
    for i in range(count):
        row = {
            "data_source": f"demo/{'ab'[i % 2]}",
            "prompt": prompt(f"jazz tip {i}"),
            "ability": "personalization",
            "reward_model": {"style": "rule", "ground_truth": "jazz"},
            "extra_info": {"index": i},
            "preference_group": "ab"[i % 2],
            **{name: given(i) if callable(given) else given for name, given in columns.items()},
        }
        table.append({name: value for name, value in row.items() if value is not DROPPED})
    return table


@dataclass(frozen=True)
class Case:
    """A folder with data, a reward function and a tiny model, and one for the run's output."""

    folder: Path
    out: Path

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

    def check(self, *overrides: str, skip: tuple[str, ...] = ("reward",), **settings: Any) -> Report:
        """Run the checks in this process; `preflight` itself runs them in a separate one."""
        found = Diagnostics("arguments")
        config: Any = compose_valid_part(parse([*self.arguments, *overrides]), found)
        config = OmegaConf.create(OmegaConf.to_yaml(config))
        OmegaConf.set_struct(config, True)
        events: list[dict[str, Any]] = []
        run_checks(PreflightContext(config, Settings(skip=skip, **settings)), events.append)
        diagnostics = [Diagnostic(**event["diagnostic"]) for event in events if "diagnostic" in event]
        return Report(found.found + diagnostics, events[-1]["facts"])

    def rehearse(self, *overrides: str) -> Report:
        """Run the checks, and call the reward function."""
        return self.check(*overrides, skip=())

    def write(self, table: list[dict[str, Any]] | None = None, split: str = "train", **columns: Any) -> str:
        """Write other data: a table, or `rows` with these columns. Return the override."""
        path = self.out / f"{split}.parquet"
        pq.write_table(pa.Table.from_pylist(rows(**columns) if table is None else table), path)
        return f"data.{split}_files={path}"

    def reward(self, code: str) -> str:
        """Write another reward function. Return the override."""
        path = self.out / "reward.py"
        path.write_text(code)
        return f"reward.custom_reward_function.path={path}"


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `verl-pgrpo` in a separate process."""
    command = [sys.executable, "-m", "verl_pgrpo.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def at(report: Report, location: str = "") -> set[tuple[str, str]]:
    """Severity and check of the diagnostics whose location contains a text."""
    return {(one.severity, one.check) for one in report.diagnostics if location in one.location}


def problems(report: Report, location: str = "") -> set[tuple[str, str]]:
    """The same except notes."""
    return {one for one in at(report, location) if one[0] != "note"}
