# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Column names and reward keys that the installed verl uses itself.

verl passes the columns of a dataset row as keyword arguments and stores them together with the fields of the rollout. A
column with the name of such an argument or field breaks every rollout, replaces the field, or is itself replaced. The
names are derived from verl's source (its syntax tree, without importing it), so that they fit the version in use.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["ReservedName", "check_columns", "dataset_columns", "reserved_columns", "reserved_reward_keys"]

AGENT_LOOP, AGENT_LOOP_V1 = "experimental/agent_loop/agent_loop.py", "trainer/ppo/v1/agent_loop_tq.py"
DATASET = "utils/dataset/rl_dataset.py"
TRAINER, OLD_TRAINER = "trainer/ppo/v1/trainer_base.py", "trainer/ppo/ray_trainer.py"
# The columns of verl's data format: verl reads these from the row on purpose.
DATA_FORMAT = {"prompt", "data_source", "ability", "reward_model", "extra_info", "agent_name"}
ROW_VARIABLES = {"kwargs", "prompt"}  # what verl's agent loops call a row
# The effect of a column with that name, and its severity.
EFFECTS = {"collides with": "error", "replaces": "error", "is replaced by": "warning", "is read as": "warning"}


@dataclass(frozen=True, slots=True)
class ReservedName:
    """A name that verl uses.

    Attributes:
        name: the column, or the key of a reward dictionary.
        effect: one of EFFECTS.
        used_as: what verl uses the name for, with the file.
    """

    name: str
    effect: str
    used_as: str

    @property
    def severity(self) -> str:
        """`error` if such a column breaks rollouts or replaces verl's value, otherwise `warning`."""
        return EFFECTS[self.effect]

    def __str__(self) -> str:
        return f"{self.name!r} {self.effect} {self.used_as}"


def check_columns(columns: Iterable[str], use_v1: bool = True) -> list[ReservedName]:
    """Return the reserved names among the columns of a dataset, in the order of the columns."""
    reserved = reserved_columns(use_v1)
    return [reserved[column] for column in columns if column in reserved]


def dataset_columns(dataset: Any) -> list[str]:
    """Return the names in a dataset's rows: the columns of its table, and what a dataset class of the user adds."""
    columns = list(getattr(getattr(dataset, "dataframe", None), "column_names", None) or [])
    if not hasattr(dataset, "__getitem__"):
        return columns
    added = set(_assigned(_function(DATASET, "__getitem__"), "row_dict"))  # by verl's own class
    return [name for name in dataset[0] if name in columns or name not in added]


@cache
def reserved_columns(use_v1: bool = True) -> dict[str, ReservedName]:
    """Names that no dataset column should have, by name.

    Args:
        use_v1: for the V1 trainers (`trainer.use_v1`), otherwise for the older ones.
    """
    found: dict[str, ReservedName] = {}

    def add(names: Iterable[str], effect: str, used_as: str) -> None:
        for name in names:
            if name not in DATA_FORMAT:
                found.setdefault(name, ReservedName(name, effect, used_as.format(name)))

    files = (AGENT_LOOP_V1, AGENT_LOOP) if use_v1 else (AGENT_LOOP,)
    add(
        _assigned(_function(DATASET, "__getitem__"), "row_dict"), "is replaced by", f"'{{}}', which verl/{DATASET} adds"
    )
    calls = _calls_with_row(files)
    for function, (passed, _, path) in calls.items():
        add(passed, "collides with", f"the argument '{{}}' of {function}(), called in verl/{path}")
    for function, (_, others, path) in calls.items():
        add(others, "is read as", f"the argument '{{}}' of {function}(), called in verl/{path}")
    if use_v1:
        add(_rollout_fields(), "replaces", f"the field '{{}}' of verl's rollouts (verl/{AGENT_LOOP})")
        written = _assigned(_function(AGENT_LOOP_V1, "_agent_loop_postprocess"), "field")
        add(written, "is replaced by", f"the field '{{}}' of verl's rollouts (verl/{AGENT_LOOP_V1})")
        submitted = {*_assigned(_tree(TRAINER), "batch_dict"), *_assigned_to_batch(_tree(TRAINER))}
        add(submitted, "is replaced by", f"'{{}}', which verl/{TRAINER} adds to each prompt")
        add(_fetched_fields(), "replaces", f"the field '{{}}' that verl/{TRAINER} reads back from the rollouts")
    return found


@cache
def reserved_reward_keys(dumps: bool = False) -> dict[str, ReservedName]:
    """Keys of a reward function's dictionary that verl fills itself, by name; `score` is not one.

    Args:
        dumps: also those of the files that verl dumps rollouts to, otherwise only those of validation.
    """
    found: dict[str, ReservedName] = {}
    for file in (TRAINER, OLD_TRAINER):
        for node in ast.walk(_tree(file)):
            names, effect, used_as = list[str](), "collides with", f"the validation metric '{{}}' in verl/{file}"
            if isinstance(node, ast.Subscript) and _is_name(node.value, "reward_extra_infos_dict"):
                names = _strings(node.slice)
            elif dumps and isinstance(node, ast.Assign) and _is_name(node.targets[0], "base_data"):
                names = [name for key in getattr(node.value, "keys", []) for name in _strings(key) if name != "score"]
                effect, used_as = "replaces", f"the field '{{}}' of verl's dumps in verl/{file}"
            for name in names:
                found.setdefault(name, ReservedName(name, effect, used_as.format(name)))
    return found


def _calls_with_row(files: Iterable[str]) -> dict[str, tuple[set[str], set[str], str]]:
    """For each function that verl calls with `**row`: the arguments that it passes besides the row, the others, and the
    file of the first call."""
    parameters: dict[str, list[str]] = {}
    for path in (*files, *_agent_loops()):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.args.kwarg is not None:
                names = parameters.setdefault(node.name, [])
                names += [arg.arg for arg in (*node.args.args, *node.args.kwonlyargs) if arg.arg not in names]
    found: dict[str, tuple[set[str], set[str], str]] = {}
    calls = [(path, node) for path in files for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
    for path, call in calls:
        if not isinstance(call.func, ast.Attribute) or call.func.attr == "__init__":
            continue
        if not any(keyword.arg is None and _row(keyword.value) for keyword in call.keywords):
            continue
        function = call.func.attr
        names = parameters.get(function, [])
        passed, _, path = found.get(function, (set(), set(), path))
        passed.update(names[: len(call.args) + 1])  # `self` first
        passed.update(keyword.arg for keyword in call.keywords if keyword.arg is not None)
        found[function] = (passed, set(names) - passed, path)
    return found


def _agent_loops() -> list[str]:
    folder = _root() / "experimental" / "agent_loop"
    return [str(path.relative_to(_root())) for path in sorted(folder.glob("*.py"))]


def _rollout_fields() -> set[str]:
    """The keys of `AgentLoopOutput.as_dict()`."""
    for node in _tree(AGENT_LOOP).body:
        if isinstance(node, ast.ClassDef) and node.name == "AgentLoopOutput":
            names = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
            popped = {
                name
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "pop"
                if _is_name(call.func.value, "output")
                for name in _strings(call.args[0])
            }
            return (names - popped) | set(_assigned(node, "output"))
    return set()


def _fetched_fields() -> set[str]:
    """Fields that the V1 trainer reads from TransferQueue: lists of names called `...fields`."""
    found: set[str] = set()
    for node in ast.walk(_tree(TRAINER)):
        if isinstance(node, ast.Assign | ast.AugAssign) and isinstance(node.value, ast.List):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id.endswith("fields") for target in targets):
                found.update(_strings(node.value))
        elif isinstance(node, ast.keyword) and node.arg == "select_fields":
            found.update(_strings(node.value))
        elif isinstance(node, ast.Call) and re.fullmatch(r"\w*fields\.(append|extend)", ast.unparse(node.func)):
            found.update(name for argument in node.args for name in _strings(argument))
    return found


def _assigned(tree: ast.AST, variable: str) -> Iterator[str]:
    """The constant keys in `variable[key] = ...`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Subscript) and _is_name(target.value, variable):
                    yield from _strings(target.slice)


def _assigned_to_batch(tree: ast.AST) -> Iterator[str]:
    """The constant keys in `assign_non_tensor_data(batch, key, ...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "assign_non_tensor_data":
            yield from _strings(node.args[1])


def _strings(node: ast.AST) -> list[str]:
    """The string, or the strings of a list."""
    nodes = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def _row(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ROW_VARIABLES


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _function(file: str, name: str) -> ast.AST:
    found = (
        n for n in ast.walk(_tree(file)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name
    )
    return next(found, ast.Module([], []))


@cache
def _tree(file: str) -> ast.Module:
    """The syntax tree of a file of verl; empty where this verl does not have it."""
    try:
        return ast.parse((_root() / file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return ast.Module([], [])


@cache
def _root() -> Path:
    spec = find_spec("verl")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else Path()
