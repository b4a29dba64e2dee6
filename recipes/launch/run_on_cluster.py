#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run a recipe on the Ray cluster at RAY_ADDRESS, sized by the nodes and GPUs that the cluster has.

    python3 recipes/launch/run_on_cluster.py [--dry-run] RECIPE [verl's key=value ...]

All launchers end in this. It waits for the nodes (at most JOIN_LIMIT seconds), sets the recipe's NNODES and
NGPUS_PER_NODE, watches nodes and progress, forwards SIGTERM, and exits with the recipe's status; with 75 if a node was
lost or no step was logged for STALL_LIMIT seconds, with 69 if nodes are missing. A second start resumes from the last
checkpoint. Without RECIPE, reads RECIPE and ARGUMENTS (a JSON list) from the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import recipe as recipes
from nodes import ClusterError, Nodes, NodeWatcher, judge_nodes, log, node_name, positive_int, run_size, wait_for_nodes

RETRY, UNAVAILABLE = 75, 69  # EX_TEMPFAIL and EX_UNAVAILABLE of sysexits.h


def settings(command: Sequence[str]) -> dict[str, str]:
    """Return the key=value arguments of a command, the last of each key, without the quotes of Hydra's grammar."""
    values = dict(argument.lstrip("+").split("=", 1) for argument in command if "=" in argument)
    for key, value in values.items():
        if quoted := re.fullmatch(r"""(['"])(.*)\1""", value, re.DOTALL):
            values[key] = quoted[2].replace(f"\\{quoted[1]}", quoted[1])
    return values


def absolute_paths(values: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Return a recipe's paths as variables, below `directory`, because Ray workers run elsewhere.

    A model, judge or reward that does not exist there is a name on the Hugging Face hub or a module.

    Args:
        values: settings of the recipe without the user's arguments, so the folders are those of its variables.
    """
    paths = {
        "RUN_DIR": directory / Path(values["trainer.default_local_dir"]).parent,
        "DATA_DIR": directory / Path(values["data.train_files"]).parent,
    }
    for key, setting in (
        ("MODEL_PATH", "actor_rollout_ref.model.path"),
        ("JUDGE", "reward.reward_model.model_path"),
        ("REWARD", "reward.custom_reward_function.path"),
    ):
        if setting in values and (directory / values[setting]).exists():
            paths[key] = directory / values[setting]
    return {key: str(path) for key, path in paths.items()}


def reject_relative_paths(arguments: Sequence[str]) -> None:
    """Check that folders and data files among the user's arguments are absolute; the variables are made absolute.

    Raises:
        RecipeError: a relative path.
    """
    given = settings(arguments)
    for key in ("trainer.default_local_dir", "trainer.rollout_data_dir", "data.train_files", "data.val_files"):
        value = given.get(key, "/")
        files = value[1:-1].split(",") if value.startswith("[") else [value]
        for file in (file.strip(" '\"") for file in files):
            if file != "null" and not file.startswith(("/", "$")) and "://" not in file:
                raise recipes.RecipeError(f"{key}={value}: set RUN_DIR or DATA_DIR, or give an absolute path")


def cpu_overrides(environment: Mapping[str, str]) -> list[str]:
    """Return overrides for CPU recipes, whose preset starts a Ray of its own with one node."""
    return [
        "ray_kwargs.ray_init.address=auto",
        *(f"ray_kwargs.ray_init.{key}=null" for key in ("num_cpus", "num_gpus", "object_store_memory")),
        f"trainer.nnodes={environment.get('NNODES', '1')}",
        f"trainer.n_gpus_per_node={environment.get('NGPUS_PER_NODE', '1')}",
    ]


def stall_check(values: Mapping[str, str], limit: int) -> Callable[[], bool]:
    """Return a function that is True once no step has been logged for `limit` seconds (0: never)."""
    started = time.time()
    file = Path(values.get("ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH", ""))
    enabled = limit > 0 and "file" in values.get("trainer.logger", "")

    def stalled() -> bool:
        with contextlib.suppress(OSError):  # verl has not opened the file yet
            return enabled and time.time() - max(started, file.stat().st_mtime) > limit
        return enabled and time.time() - started > limit

    return stalled


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    nodes: Nodes,
    poll: Callable[[float], Nodes | None],
    names: Mapping[str, str],
    received: list[int],
    needed: int,
    grace: float = 30.0,
    stalled: Callable[[], bool] = lambda: False,
) -> int:
    """Run `command` until it ends, a signal is received, it stalls, or fewer than `needed` nodes are left.

    After a lost node the run has `grace` seconds to end by itself; after SIGTERM as many. verl may notice a lost node
    before Ray does: if a run over several nodes fails, nodes are watched for `grace` more seconds. On a cluster with
    spare nodes a lost one may be unused, and the run goes on.

    Returns:
        The exit status: the command's, 128 + signal, or RETRY.
    """
    alive = dict(nodes)

    def too_few() -> bool:
        try:
            now = poll(1.0)
            gone = [key for key in alive if now is not None and key not in now]
            lost = ", ".join(node_name(alive.pop(key)[0], names) for key in gone)
        except ClusterError as error:
            alive.clear()
            lost = str(error)
        if lost:
            consequence = ", which the run may not use" if len(alive) >= needed else ": the run cannot continue"
            log(f"lost {lost}{consequence}")
        return len(alive) < needed

    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    lost = stuck = False
    try:
        while child.poll() is None and not received and not lost and not stuck:
            lost, stuck = too_few(), stalled()
        if stuck:
            log("no step was logged for STALL_LIMIT seconds: ending the run")
        elif lost:
            deadline = time.monotonic() + grace
            while child.poll() is None and not received and time.monotonic() < deadline:
                time.sleep(0.1)
    finally:
        if child.poll() is None:
            _terminate(child, grace)
    status = child.returncode if child.returncode >= 0 else 128 - child.returncode
    deadline = time.monotonic() + grace
    while status and needed > 1 and not (lost or stuck or received) and time.monotonic() < deadline:
        lost = too_few()
    if received:
        return 128 + received[0]
    if (lost or stuck) and status:
        log(f"the run ended (status {status}). Starting it again resumes from its last checkpoint.")
        return RETRY
    return status


def _terminate(child: subprocess.Popen[bytes], grace: float) -> None:
    """End a process group: SIGTERM, then SIGKILL after `grace` seconds.

    The recipe's shell ends at once; verl ends after it has shut down its part of Ray.
    """
    deadline = time.monotonic() + grace
    with contextlib.suppress(ProcessLookupError):  # all have ended
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            child.poll()
            os.killpg(child.pid, 0)
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def prepare(
    name: str, arguments: Sequence[str], environment: dict[str, str], directory: Path
) -> tuple[list[str], dict[str, str]]:
    """Complete `environment`, print the recipe's command, and return verl's arguments and the command's settings."""
    reject_relative_paths(arguments)
    environment.update(absolute_paths(settings(recipes.record(name, [], environment)), directory))
    arguments = [*arguments, *(cpu_overrides(environment) if recipes.is_cpu(name) else ())]
    for key in ("NNODES", "NGPUS_PER_NODE", "RUN_DIR", "DATA_DIR", "MODEL_PATH", "JUDGE", "REWARD"):
        if key in environment:
            print(f"  {key}={environment[key]}")
    command = recipes.record(name, arguments, environment)
    print("  " + " \\\n      ".join(shlex.quote(part) for part in command), flush=True)
    chosen = "MODEL_PATH" in environment or "actor_rollout_ref.model.path" in settings(arguments)
    if int(environment.get("NNODES", 1)) > 1 and not chosen:
        log("each node will download the model; set MODEL_PATH to a folder that all nodes see")
    return arguments, settings(command)


def dry_run(
    name: str,
    arguments: Sequence[str],
    nodes: int | None,
    gpus: int | None,
    directory: Path,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Print what would run on `nodes` nodes with `gpus` GPUs each (None: the recipe's default). Contacts no cluster."""
    environment = dict(environment)
    if nodes is not None:
        gpus = gpus or positive_int(environment, "NGPUS_PER_NODE") or 8
        environment.pop("NNODES", None)
        environment.update(run_size({str(index): ("", gpus) for index in range(nodes)}, environment))
    prepare(name, arguments, environment, directory)


def parse_arguments(text: str) -> list[str]:
    """Parse ARGUMENTS, a JSON list of strings.

    Raises:
        ClusterError: anything else.
    """
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    if not (isinstance(arguments, list) and all(isinstance(argument, str) for argument in arguments)):
        raise ClusterError(f'ARGUMENTS must be a JSON list of strings, like ["trainer.save_freq=10"] (got {text!r})')
    return arguments


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="print what would run; contacts no cluster")
    directory = os.environ.get("DIRECTORY", ".")
    parser.add_argument(
        "--directory", type=Path, default=directory, help="base of relative paths (default: DIRECTORY, or .)"
    )
    parser.add_argument("--nodes", default="", help="nodes to wait for, NAME=ADDRESS,... (default: all that come)")
    parser.add_argument("recipe", nargs="?", default=os.environ.get("RECIPE", ""), help="such as personas/run_tiny_cpu")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="verl's, key=value")
    options = parser.parse_args()
    names = {address: name for name, _, address in (pair.partition("=") for pair in options.nodes.split(",") if pair)}
    environment = dict(os.environ)
    if names:
        environment.pop("NNODES", None)  # the scheduler decides
    directory = options.directory.resolve()
    received: list[int] = []
    watcher = None
    try:
        script = recipes.script(options.recipe)
        arguments = options.arguments or parse_arguments(environment.get("ARGUMENTS") or "[]")
        limit = positive_int(environment, "JOIN_LIMIT") or 600
        stall_limit = 0 if environment.get("STALL_LIMIT") == "0" else positive_int(environment, "STALL_LIMIT") or 7200
        requested = positive_int(environment, "NNODES")
        wanted = len(names) or (requested and requested + judge_nodes(environment))
        if options.dry_run:
            dry_run(options.recipe, arguments, wanted, None, directory)
            return 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: received.append(number))
        watcher = NodeWatcher()
        nodes = wait_for_nodes(watcher.poll, wanted, names, limit, lambda: bool(received))
        if received:
            return 128 + received[0]
        environment.update(run_size(nodes, environment))
        arguments, values = prepare(options.recipe, arguments, environment, directory)
        return supervise(
            ["bash", str(script), *arguments],
            environment,
            nodes,
            watcher.poll,
            names,
            received,
            needed=wanted or len(nodes),
            stalled=stall_check(values, stall_limit),
        )
    except recipes.RecipeError as error:
        log(str(error))
        return 2
    except ClusterError as error:
        log(str(error))
        return UNAVAILABLE
    finally:
        if watcher is not None:
            watcher.stop()


if __name__ == "__main__":
    sys.exit(main())
