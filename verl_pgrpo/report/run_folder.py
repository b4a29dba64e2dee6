# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has left behind: verl's `file` log, rollout dumps, configuration, start line, the last reward history.

A run is a folder, or the file of verl's `file` logger. Nothing in it is required but one of dumps and log.
"""

from __future__ import annotations

import ast
import json
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.report.redaction import redacted

Series = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps, ascending, and the value at each

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PROCESS = re.compile(r"^(\(\w+ pid=\d+(?:, ip=[\w.:]+)?\) )?(.*)$")  # what Ray puts before another process's line
_LOG_BYTES = 32 << 20  # of a console log so much is searched: the configuration is printed at the start


@dataclass
class RunFolder:
    """One run as found on disk.

    `metrics` are files of verl's `file` logger in the order in which they were written, `rollouts` is the folder of the
    dumps, `config` verl's configuration as a nested dict (empty if unknown) and `config_file` where it stood. `said`
    are the plugin's lines in the console log, its start line and its warnings; `problems` what was not read, and why.
    """

    path: Path
    metrics: list[Path] = field(default_factory=list)
    rollouts: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    config_file: Path | None = None
    history: Path | None = None
    said: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def option(self, path: str, default: Any = None) -> Any:
        """A value of verl's configuration, by its dotted path."""
        value: Any = self.config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return default if value is None else value

    @property
    def group_key(self) -> str:
        return str(self.option("algorithm.pgrpo.group_key", "preference_group"))

    def estimator(self, series: Mapping[str, Series]) -> str | None:
        """From the configuration, else from P-GRPO's metrics; None where neither tells."""
        named = self.option("algorithm.adv_estimator")
        if named is not None:
            return str(named)
        return "pgrpo" if "pgrpo/observed_total" in series else None


def find_run(path: Path, log: Path | None = None) -> RunFolder:
    """Everything of a run that the report reads, where recipes and verl put it.

    Args:
        path: the run's folder, its rollouts, or its metrics file.
        log: the metrics file, where it is not in the folder.

    Raises:
        DataError: there is nothing to read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such run; name its folder, or the file of verl's `file` logger")
    if path.is_file():
        if not _is_metrics(path):
            raise DataError(f'{path}: no file of verl\'s `file` logger: its lines are {{"step": ..., "data": ...}}')
        return RunFolder(path, metrics=[path])
    run = RunFolder(path, rollouts=_rollouts(path))
    # `RUN/rollouts` stands for RUN; another folder of dumps stands for itself.
    root = path.parent if run.rollouts == path and path.name == "rollouts" else path
    logs = [file for file in sorted(root.glob("*.jsonl")) if not file.stem.isdecimal()]
    run.metrics = sorted(filter(_is_metrics, logs), key=_written)
    run.problems = [
        f"{file}: its first line is damaged; not read"
        for file in logs
        if file not in run.metrics and _first_lines(file)[:1] == [None]
    ]
    if log is not None:
        if not log.is_file() or not _is_metrics(log):
            raise DataError(f"{log}: no file of verl's `file` logger")
        run.metrics.append(log)
    _read_config(run, root)
    histories = [file for depth in ("", "*/") for file in root.glob(f"{depth}global_step_*/pgrpo_history.parquet")]
    run.history = max(histories, key=lambda file: _step_of(file.parent), default=None)
    if run.rollouts is None:
        dumped = Path(str(run.option("trainer.rollout_data_dir", "")))
        if str(dumped) != "." and dumped.is_dir():
            run.rollouts = _rollouts(dumped)
    if run.rollouts is None and not run.metrics:
        raise DataError(
            f"{path}: neither rollouts (trainer.rollout_data_dir={path}/rollouts) nor metrics (trainer.logger with "
            f"file, VERL_FILE_LOGGER_PATH={path}/metrics.jsonl) of a run are in it"
        )
    return run


def read_metrics(files: list[Path], prefix: str = "") -> dict[str, Series]:
    """Every number that the run logged under a name with this prefix, as a series over steps.

    A run that was killed and resumed has logged some steps twice: the later line wins. verl logs a validation before or
    after training in a line of its own, which adds to the step's numbers. A cut-off last line, as a killed run leaves
    it, is skipped.

    Raises:
        DataError: another line is not verl's.
    """
    columns: dict[str, tuple[array[int], array[float]]] = {}  # of each name: line numbers, values
    step_of: list[int] = []
    training: dict[int, int] = {}  # step -> its last whole line
    for step, data in _lines(files):
        line = len(step_of)
        step_of.append(step)
        if "training/global_step" in data or not any(name.startswith("val-") for name in data):
            training[step] = line
        for name, value in data.items():
            if name.startswith(prefix) and isinstance(value, int | float):
                lines, values = columns.setdefault(name, (array("q"), array("d")))
                lines.append(line)
                values.append(value)
    steps = np.array(step_of, dtype=np.int64)
    first = np.array([training.get(step, 0) for step in step_of], dtype=np.int64)
    series = {}
    for name, (lines, values) in columns.items():
        at, numbers = np.array(lines, dtype=np.int64), np.array(values)
        kept = at >= first[at]
        at, numbers = at[kept], numbers[kept]
        last = {int(steps[line]): place for place, line in enumerate(at)}
        order = [last[step] for step in sorted(last)]
        if order:
            series[name] = (steps[at[order]], numbers[order])
    return series


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """A nested configuration as dotted names and texts, without its secrets."""
    return _flat(redacted(config))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            rows.update(_flat(value, f"{path}."))
        else:
            rows[path] = value if isinstance(value, str) else json.dumps(value, default=str)
    return rows


def _rollouts(folder: Path) -> Path | None:
    """The folder of `<step>.jsonl`: this one, its `rollouts`, or the only one below it that has some."""
    for place in (folder, folder / "rollouts"):
        if any(file.stem.isdecimal() for file in place.glob("*.jsonl")):
            return place
    found = {
        file.parent for file in folder.glob("*/*.jsonl") if file.stem.isdecimal() and "val" not in file.parent.name
    }
    if len(found) > 1:
        names = ", ".join(sorted(place.name for place in found))
        raise DataError(f"{folder}: rollouts are in several folders ({names}); name one of them as the run")
    return found.pop() if found else None


def _is_metrics(file: Path) -> bool:
    """Damage among the first lines does not make it another file, nor does a name that says what it is."""
    first = _first_lines(file)
    return any(map(_is_logged, first)) or (file.name.startswith("metrics") and first[:1] == [None])


def _written(file: Path) -> tuple[int, float, str]:
    """A resumed run starts at a later step than what it resumes; times on disk do not survive every copy."""
    step = next((line["step"] for line in _first_lines(file) if _is_logged(line)), 0)
    return step, file.stat().st_mtime, file.name


def _first_lines(file: Path) -> list[Any]:
    """Parsed; None for a line that is not JSON."""
    with open(file, "rb") as lines:
        return [_parsed(line) for line in islice(lines, 10)]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_logged(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("step"), int) and isinstance(line.get("data"), dict)


def _lines(files: list[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    for file in files:
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    found = json.loads(line, parse_int=float)  # an integer of 400 digits is infinite, no error
                    step, data = int(found["step"]), dict(found["data"])
                    array("q", [step])  # its range
                except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
                    if not line.endswith(b"\n"):
                        break
                    raise DataError(f"{file}, line {number}: not a line of verl's `file` logger ({error!r})") from error
                yield step, data


def _read_config(run: RunFolder, root: Path) -> None:
    """What verl prints at the start of its console log, where all is resolved; else hydra's copy."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    logs = sorted(root.glob("*.log"), key=lambda file: (file.stat().st_mtime, file.name))
    for log in logs:
        with open(log, "rb") as lines:
            text = _ANSI.sub("", lines.read(_LOG_BYTES).decode("utf-8", "replace"))
        run.said += [f"P-GRPO{end}" for end in re.findall(r"P-GRPO((?:: each| warning:).*)", text)]
        printed = _printed_config(text)
        if printed:
            run.config, run.config_file = printed, log
    run.said = list(dict.fromkeys(run.said))
    copies = (*root.glob(".hydra/config.yaml"), *root.glob("*/.hydra/config.yaml"))
    for file in sorted(copies, key=lambda file: (file.stat().st_mtime, str(file))):
        try:
            copy = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        except (OmegaConfBaseException, YAMLError, OSError, ValueError, RecursionError):
            continue  # a damaged copy is as good as none
        if isinstance(copy, dict) and not run.config:
            run.config, run.config_file = {str(key): value for key, value in copy.items()}, file


def _printed_config(text: str) -> dict[str, Any]:
    """verl prints its configuration with `pprint`: a dict as Python writes it, read as literals, never evaluated."""
    rows = [match.groups() for match in map(_PROCESS.match, text.splitlines()) if match]
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


def _step_of(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("_")[2]
    return int(number) if number.isdecimal() else -1
