#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run a recipe on the Ray cluster at RAY_ADDRESS, with as many nodes and GPUs as that has.

    python3 recipes/launch/run_on_cluster.py [--dry-run] RECIPE [verl's key=value ...]

Every launcher here ends in this. It waits for the nodes with a limit, tells the recipe how many there are, watches
them, passes SIGTERM on, and ends with the recipe's exit status; with 75 when a node was lost, 69 when they did not all
come. Starting it again resumes from the last checkpoint. Without RECIPE, RECIPE and ARGUMENTS (a JSON list) are read
from the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import recipe as recipes
from nodes import ClusterError, Nodes, Watch, judges, named, number, say, shape, wait_for_nodes

LOST, UNAVAILABLE = 75, 69  # EX_TEMPFAIL and EX_UNAVAILABLE of sysexits.h


def placed(name: str, arguments: Sequence[str], environment: dict[str, str], directory: Path) -> dict[str, str]:
    """RUN_DIR and DATA_DIR, absolute: relative paths mean `directory`, and not wherever a Ray worker happens to be."""
    command = recipes.recorded(name, arguments, environment)
    values = dict(argument.lstrip("+").split("=", 1) for argument in command if "=" in argument)
    run = Path(values["trainer.default_local_dir"])
    found = {
        "RUN_DIR": str(directory / (run.parent if run.name == "checkpoints" else run)),
        "DATA_DIR": str(directory / Path(values["data.train_files"]).parent),
    }
    if (directory / environment.get("MODEL_PATH", "")).exists() and environment.get("MODEL_PATH"):
        found["MODEL_PATH"] = str(directory / environment["MODEL_PATH"])  # else it is a name in a hub
    return found


def cpu_overrides(environment: dict[str, str]) -> list[str]:
    """What verl must be told besides a CPU recipe, whose preset starts a Ray of its own, of one node."""
    return [
        "ray_kwargs.ray_init.address=auto",
        *(f"ray_kwargs.ray_init.{key}=null" for key in ("num_cpus", "num_gpus", "object_store_memory")),
        f"trainer.nnodes={environment.get('NNODES', '1')}",
        f"trainer.n_gpus_per_node={environment.get('NGPUS_PER_NODE', '1')}",
    ]


def supervise(
    command: Sequence[str],
    environment: dict[str, str],
    nodes: Nodes,
    look: Callable[[float], Nodes | None],
    names: dict[str, str],
    received: list[int],
    needed: int,
    grace: float = 30.0,
) -> int:
    """Run `command` until it ends, a signal comes, or fewer than `needed` of `nodes` are left; the exit status.

    It gets `grace` seconds to end by itself after a node was lost, and as many after SIGTERM. On a cluster with more
    nodes than it needs nobody here knows which it uses. verl may notice a lost node before Ray does: of a run over
    several nodes that failed, the nodes are watched for `grace` seconds more.
    """
    nodes = dict(nodes)

    def is_lost() -> bool:
        try:
            now = look(1.0)
            gone = [key for key in nodes if now is not None and key not in now]
            text = ", ".join(named(nodes.pop(key)[0], names) for key in gone)
        except ClusterError as error:
            nodes.clear()
            text = str(error)
        if text:
            enough = len(nodes) >= needed
            say(
                f"lost {text}"
                + (", which the run may not have used" if enough else ": the run cannot go on without it")
            )
        return len(nodes) < needed

    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    lost = False
    try:
        while child.poll() is None and not received and not lost:
            lost = is_lost()
        if lost:
            _wait(child, grace, received)
    finally:
        if child.poll() is None:
            _end(child, grace)
    status = child.returncode if child.returncode >= 0 else 128 - child.returncode
    deadline = time.monotonic() + grace
    while status and needed > 1 and not (lost or received) and time.monotonic() < deadline:
        lost = is_lost()
    if received:
        return 128 + received[0]
    if lost and status:
        say(f"the run ended (status {status}). Starting it again resumes from its last checkpoint.")
        return LOST
    return status


def _wait(child: subprocess.Popen[bytes], seconds: float, received: list[int]) -> None:
    """Wait so long for a process to end by itself, or for a signal to us."""
    deadline = time.monotonic() + seconds
    while child.poll() is None and not received and time.monotonic() < deadline:
        time.sleep(0.1)


def _end(child: subprocess.Popen[bytes], grace: float) -> None:
    """Ask a process and what it started to end, and end those that have not after `grace` seconds.

    All of it: a recipe's shell ends at once, and verl under it when it has shut its part of Ray down.
    """
    deadline = time.monotonic() + grace
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            child.poll()
            os.killpg(child.pid, 0)
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def prepare(name: str, arguments: Sequence[str], environment: dict[str, str], directory: Path) -> list[str]:
    """Complete `environment` for this recipe, print what will run, and return verl's arguments."""
    environment.update(placed(name, arguments, environment, directory))
    told = [*arguments, *(cpu_overrides(environment) if recipes.is_cpu(name) else ())]
    for key in ("NNODES", "NGPUS_PER_NODE", "RUN_DIR", "DATA_DIR", "MODEL_PATH"):
        if key in environment:
            print(f"  {key}={environment[key]}")
    command = recipes.recorded(name, told, environment)
    print("  " + " \\\n      ".join(shlex.quote(part) for part in command), flush=True)
    return told


def dry_run(name: str, arguments: Sequence[str], nodes: int | None, gpus: int | None, directory: Path) -> None:
    """Print what would run on so many nodes with so many GPUs each; where that is not known, on as many as the recipe
    takes by itself. Asks no cluster and touches nothing."""
    environment = dict(os.environ)
    if nodes is not None:
        gpus = gpus or number(environment, "NGPUS_PER_NODE") or 8
        environment.pop("NNODES", None)
        environment.update(shape({str(index): ("", gpus) for index in range(nodes)}, environment))
    prepare(name, arguments, environment, directory)


def given(text: str) -> list[str]:
    """ARGUMENTS, a JSON list of text."""
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    if not (isinstance(arguments, list) and all(isinstance(argument, str) for argument in arguments)):
        raise ClusterError(f'ARGUMENTS={text!r} is not a JSON list of text, such as ["trainer.save_freq=10"]')
    return arguments


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="print what would run; asks no cluster")
    parser.add_argument(
        "--directory",
        type=Path,
        default=os.environ.get("DIRECTORY", "."),
        help="what relative paths mean; default: DIRECTORY, or here",
    )
    parser.add_argument(
        "--nodes", default="", help="the nodes that must come, NAME=ADDRESS,...; default: whoever is there"
    )
    parser.add_argument("recipe", nargs="?", default=os.environ.get("RECIPE", ""), help="such as personas/run_tiny_cpu")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="verl's, key=value")
    options = parser.parse_args()
    names = {address: name for name, _, address in (pair.partition("=") for pair in options.nodes.split(",") if pair)}
    environment = dict(os.environ)
    if names:
        environment.pop("NNODES", None)  # the scheduler's word counts
    directory = options.directory.resolve()
    received: list[int] = []
    watch = None
    try:
        script = recipes.script(options.recipe)
        arguments = options.arguments or given(environment.get("ARGUMENTS") or "[]")
        limit = number(environment, "JOIN_LIMIT") or 600
        asked = number(environment, "NNODES")
        wanted = len(names) or (asked and asked + judges(environment))
        if options.dry_run:
            dry_run(options.recipe, arguments, wanted, None, directory)
            return 0
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(one, lambda one, frame: received.append(one))
        watch = Watch()
        nodes = wait_for_nodes(watch.next, wanted, names, limit, lambda: bool(received))
        if received:
            return 128 + received[0]
        environment.update(shape(nodes, environment))
        told = prepare(options.recipe, arguments, environment, directory)
        needed = wanted or len(nodes)
        return supervise(["bash", str(script), *told], environment, nodes, watch.next, names, received, needed)
    except recipes.RecipeError as error:
        say(str(error))
        return 2
    except ClusterError as error:
        say(str(error))
        return UNAVAILABLE
    finally:
        if watch is not None:
            watch.stop()


if __name__ == "__main__":
    sys.exit(main())
