# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Find a run's files: metrics, rollout dumps, configuration, reward histories, the plugin's warnings.

A run is a folder, or a file of verl's `file` logger. Only one of dumps and metrics is required.
"""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from verl_pgrpo.errors import DataError, HistoryFileError
from verl_pgrpo.evaluation.metrics_log import MetricsLog, find_logs, is_log, read_log
from verl_pgrpo.evaluation.prompts import look_up
from verl_pgrpo.evaluation.rollouts import Dumps, find_dumps
from verl_pgrpo.history import GroupHistoryManager

PREFIXES = ("pgrpo/",)  # metrics that the report uses

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(r"^(\(\w+ pid=\d+(?:, ip=[\w.:]+)?\) )?(.*)$")  # Ray's prefix for the output of another process
_WARNING = re.compile(r"P-GRPO warning: .{1,1000}")
_LOG_BYTES = 32 << 20  # how much of a console log is searched; the configuration is printed at the start


@dataclass
class RunFolder:
    """One run as found on disk.

    Attributes:
        path: the path that the user gave.
        metrics: files of verl's `file` logger in the order in which they were written; `log` is their content.
        rollouts: folder of the dumps; `dumps` are the files in it.
        config: verl's configuration as a nested dict, empty if unknown, and `config_file`, where it was found.
        histories: reward histories in checkpoints, by step.
        warnings: warnings of the plugin in console logs.
        problems: descriptions of what could not be read or was skipped.
    """

    path: Path
    metrics: list[Path] = field(default_factory=list)
    log: MetricsLog = field(default_factory=lambda: read_log([]))
    rollouts: Path | None = None
    dumps: Dumps | None = None
    config: dict[str, Any] = field(default_factory=dict)
    config_file: Path | None = None
    histories: dict[int, Path] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def option(self, path: str, default: Any = None) -> Any:
        """Return a value of verl's configuration by its dotted path."""
        value = look_up(self.config, path)
        return default if value is None else value

    @property
    def name(self) -> str:
        """Name of the run's folder, or of its metrics file without the suffix."""
        folder = self.path.parent if self.path.name == "rollouts" else self.path
        return folder.resolve().name.removesuffix(".jsonl")

    @property
    def group_key(self) -> str:
        return str(self.option("algorithm.pgrpo.group_key", "preference_group"))

    @property
    def estimator(self) -> str | None:
        """The estimator, from the configuration or else from P-GRPO's metrics; None if neither shows it."""
        return self.option("algorithm.adv_estimator") or ("pgrpo" if "pgrpo/observed_total" in self.log.frame else None)

    @functools.cached_property
    def history(self) -> tuple[int, Path] | None:
        """Step and file of the newest reward history, without those of an abandoned branch."""
        end = max(self.dumps.files) if self.dumps is not None else (self.log.training_steps or (0, 0))[1]
        logged = self.log.series("pgrpo/observed_total")
        for step in sorted((step for step in self.histories if step <= end), reverse=True):
            try:
                total = GroupHistoryManager.load(self.histories[step]).total_count
            except HistoryFileError:  # `HistorySnapshot` reports it
                return step, self.histories[step]
            if logged.get(step, total) == total:
                return step, self.histories[step]
        return None


def find_run(path: Path, log: Path | None = None) -> RunFolder:
    """Find all files of a run that the report uses, in the places where verl and the recipes put them.

    Args:
        path: the run's folder, its rollouts, or its metrics file.
        log: the metrics file, if it is not in the folder.

    Raises:
        DataError: there is nothing to read, or a metrics file is damaged.
    """
    if not path.exists():
        raise DataError(f"{path}: no such run; give its folder or the file of verl's file logger")
    for file in (file for file in (path, log) if file is not None and not file.is_dir()):
        if not file.is_file() or not is_log(file):
            raise DataError(f'{file}: not a file of verl\'s file logger (lines of {{"step": ..., "data": ...}})')
    if path.is_file():
        files = [path, *([] if log is None else [log])]
        return RunFolder(path, files, read_log(files, PREFIXES))
    run = RunFolder(path, rollouts=_rollout_folder(path))
    # `RUN/rollouts` means RUN; any other folder of dumps means that folder.
    root = path.parent if run.rollouts == path and path.name == "rollouts" else path
    run.metrics = [*find_logs(root), *([] if log is None else [log])]
    run.log = read_log(run.metrics, PREFIXES)
    _read_console(run, root)
    for depth in ("", "*/"):
        for file in root.glob(f"{depth}global_step_*/pgrpo_history.parquet"):
            step = file.parent.name.rpartition("_")[2]
            if step.isdecimal():
                run.histories[int(step)] = file
    if run.rollouts is None and isinstance(configured := run.option("trainer.rollout_data_dir"), str):
        run.rollouts = _rollout_folder(Path(configured))
    if run.rollouts is None and not run.metrics:
        raise DataError(
            f"{path}: found neither rollouts (trainer.rollout_data_dir={path}/rollouts) nor metrics (trainer.logger "
            f"with file, VERL_FILE_LOGGER_PATH={path}/metrics.jsonl) of a run"
        )
    if run.rollouts is not None:
        run.dumps = find_dumps(run.rollouts, run.log)
    abandoned = sorted({*run.log.abandoned, *(run.dumps.abandoned if run.dumps else ())})
    if abandoned:
        run.problems.append(
            f"{path}: steps {abandoned[0]:,} to {abandoned[-1]:,} are left out. The run was resumed from an earlier "
            "checkpoint and has not reached them again."
        )
    return run


def _rollout_folder(folder: Path) -> Path | None:
    """The folder of `<step>.jsonl`: this one, its `rollouts`, or the only one below it that has some."""
    for place in (folder, folder / "rollouts"):
        if any(file.stem.isdecimal() for file in place.glob("*.jsonl")):
            return place
    found = {file.parent for file in folder.glob("*/*.jsonl") if file.stem.isdecimal()}
    found = {place for place in found if "val" not in place.name}
    if len(found) > 1:
        names = ", ".join(sorted(place.name for place in found))
        raise DataError(f"{folder}: rollouts are in several folders ({names}); give one of them as the run")
    return found.pop() if found else None


def _read_console(run: RunFolder, root: Path) -> None:
    """Read the plugin's warnings and the configuration (from verl's console log, else hydra's newest copy)."""
    warnings: dict[str, None] = {}
    for file in sorted(root.glob("*.log"), key=lambda file: (file.stat().st_mtime, file.name)):
        with open(file, "rb") as lines:
            text = _ANSI.sub("", lines.read(_LOG_BYTES).decode("utf-8", "replace"))
        warnings |= dict.fromkeys(_WARNING.findall(text))
        printed = _printed_config(text)
        if printed:
            run.config, run.config_file = printed, file
    run.warnings = list(warnings)
    copies = (*root.glob(".hydra/config.yaml"), *root.glob("*/.hydra/config.yaml"))
    for file in sorted(copies, key=lambda file: (file.stat().st_mtime, str(file)), reverse=True):
        try:
            copy = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        except (OmegaConfBaseException, YAMLError, OSError, ValueError, RecursionError):
            continue
        if isinstance(copy, dict) and not run.config:
            run.config, run.config_file = {str(key): value for key, value in copy.items()}, file


def _printed_config(text: str) -> dict[str, Any]:
    """verl prints its configuration with `pprint`, as Python literals, which are parsed and never evaluated."""
    rows = [match.groups() for match in map(_LINE.match, text.splitlines()) if match]
    begin = next((i for i, (_, line) in enumerate(rows) if line.startswith("{'actor_rollout_ref'")), None)
    if begin is None:
        return {}
    lines: list[str] = []
    for process, line in rows[begin : begin + 20_000]:
        if process == rows[begin][0]:
            lines.append(line)
            if line.endswith("}}"):
                try:
                    found = ast.literal_eval("\n".join(lines))
                except (SyntaxError, ValueError, RecursionError, MemoryError):
                    continue
                return found if isinstance(found, dict) else {}
    return {}
