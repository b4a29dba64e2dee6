# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo doctor`: versions, packages of a launch, the plugin in real processes, resources."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.conftest import ROOT
from tests.preflight.case import run_command
from verl_pgrpo.cli import doctor as command
from verl_pgrpo.cli import main
from verl_pgrpo.preflight import doctor, machine, versions
from verl_pgrpo.preflight.diagnostic import ERROR, NOTE, WARNING, Diagnostic


def ask(kind: str, address: str | None = None, seconds: float = 200.0) -> list[dict]:
    """The answers of processes of that kind in this environment."""
    with doctor.probe(kind, 160.0, address) as process:
        answers = doctor.answers_of(process, time.monotonic() + seconds)
    assert not process.folder.exists()
    return answers


def test_versions(monkeypatch: pytest.MonkeyPatch):
    pins = "".join((ROOT / "requirements" / file).read_text() for file in ("cpu.txt", "megatron.txt"))
    for name, number in (versions.TESTED_SET | versions.TESTED_MEGATRON).items():
        assert re.search(rf"^{name}(-cpu)?=={re.escape(number)}\b", pins, re.MULTILINE | re.IGNORECASE), name
    installed: dict[str, str | None] = {}
    monkeypatch.setattr(versions, "installed", lambda name: installed.get(name))
    for together in (versions.TESTED_SET, *versions.OTHER_SETS):
        installed = {**together, "verl": "0.9.0"}
        assert {one.severity for one in versions.check_versions()} == {NOTE}
    installed |= {"torch": "2.99.0", "TransferQueue": None, "verl": "0.10.0", "vllm": None, "megatron-core": "0.16.1"}
    severities = {one.check: one.severity for one in versions.check_versions()}
    assert severities["together"] == severities["verl"] == severities["vllm"] == WARNING
    assert severities["TransferQueue"] == severities["megatron"] == ERROR


@pytest.mark.parametrize(
    ("missing", "launch", "errors"),
    [
        ("flash_attn", "model_engine=dp", ["launch, flash_attn"]),
        ("flash_attn", "model_engine=dp +actor_rollout_ref.model.override_config.attn_implementation=sdpa", []),
        ("flash_attn", "model_engine=dp trainer.device=cpu", []),
        ("cupy", "model_engine=dp actor_rollout_ref.rollout.checkpoint_engine.backend=nccl", ["launch, cupy"]),
        ("transformer_engine", "model_engine=megatron", ["launch, transformer_engine"]),
        ("megatron.bridge", "model_engine=megatron", ["launch, megatron.bridge"]),
        ("mbridge", "model_engine=megatron actor_rollout_ref.actor.megatron.vanilla_mbridge=True", ["launch, mbridge"]),
        ("", "nonsense", ["launch"]),
    ],
)
def test_packages_of_a_launch(missing, launch, errors, monkeypatch):
    monkeypatch.setattr(versions, "_importable", lambda module: module != missing)
    found = versions.check_launch_packages(["actor_rollout_ref.rollout.name=vllm", *launch.split()])
    assert [one.check for one in found if one.severity == ERROR] == errors


def test_a_process_that_fails_or_hangs_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    late = doctor.rate("driver", ask("driver", seconds=0.2), {})
    assert (late.severity, late.fix) == (ERROR, doctor.LATE)
    (tmp_path / "vllm.py").write_text("raise ImportError('libcuda.so.1: no such file')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    found = doctor.rate("vllm", ask("vllm"), {})
    assert (found.severity, found.message) == (ERROR, "ImportError: libcuda.so.1: no such file")


@pytest.mark.parametrize("other", [{"versions": {"verl": "0.9.0"}}, {"failure": "not installed there"}])
def test_nodes_that_differ_are_named(other):
    a, b = ({"host": host, "failure": "", "versions": {"verl": "0.9.1"}} for host in "ab")
    assert doctor.rate("ray", [a, b], a["versions"]).severity == NOTE
    found = doctor.rate("ray", [a, b | other], a["versions"])
    assert (found.severity, found.location) == (ERROR, "b")


def test_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def rate(folder: Path, total: float, free: float, enough: float) -> str:
        usage = SimpleNamespace(total=total * machine.GIB, used=(total - free) * machine.GIB, free=free * machine.GIB)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
        return machine.check_space("space", folder, 1.0, enough, "more").severity

    assert 0 < machine.memory_bytes() <= psutil.virtual_memory().total
    assert machine.check_space("disk", tmp_path / "none", 1.0, 20.0, "more").severity == ERROR
    shared = ((1 / 16, 1 / 16), (16, 16), (250, 0.5), (250, 250))
    assert [rate(machine.SHARED_MEMORY, *sizes, 150) for sizes in shared] == [ERROR, WARNING, WARNING, NOTE]
    disk = ((100, 0.5), (100, 10), (1000, 30), (100, 50))
    assert [rate(tmp_path, *sizes, 20) for sizes in disk] == [ERROR, WARNING, WARNING, NOTE]


@pytest.mark.parametrize(("variable", "colored"), [("TERM", True), ("NO_COLOR", False)])
def test_the_command(variable, colored, monkeypatch, capsys):
    found = [Diagnostic(NOTE, "python", "3.11"), Diagnostic(ERROR, "verl", "not installed", "", "pip install")]
    monkeypatch.setattr(command, "examine", lambda *_: found)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv(variable, "1")
    assert main(["doctor"]) == 1
    assert ("\033[31mFAIL\033[0m verl" in capsys.readouterr().out) == colored


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        *((["--timeout", seconds], "") for seconds in ("nan", "inf", "0")),
        (["--address", "http://head:8265"], ""), ([], "https://head:8265"), (["--", "model_engine=dp"], "http://head:8265"),
    ],
)  # fmt: skip
def test_a_bad_limit_or_address_is_an_error(arguments, environment, monkeypatch, capsys):
    monkeypatch.setattr(command, "examine", lambda *_: pytest.fail("must not start"))
    monkeypatch.setenv("RAY_ADDRESS", environment)
    assert main(["doctor", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert ("--timeout" if "--timeout" in arguments else "RAY_ADDRESS") in line


@pytest.mark.slow
def test_doctor_leaves_nothing_behind(short_tmpdir: Path):
    for policy, status, severity in (("auto", 0, NOTE), ("none", 1, ERROR)):
        environment = {"VERL_USE_EXTERNAL_PLUGINS": policy, "TMPDIR": str(short_tmpdir)}
        run = run_command("doctor", "--timeout", "240", "--json", **environment)
        assert run.returncode == status, run.stdout + run.stderr
        severities = {one["check"]: one["severity"] for one in json.loads(run.stdout)["checks"]}
        assert {severities[f"plugin, {kind}"] for kind in ("driver", "ray", "vllm")} == {severity}

    def left() -> list[str]:  # Ray's processes name the temporary folder in their arguments
        commands = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
        return [command for command in commands if str(short_tmpdir) in command]

    deadline = time.monotonic() + 20
    while left():
        assert time.monotonic() < deadline, left()
        time.sleep(0.5)


@pytest.mark.slow
def test_every_node_of_a_cluster_is_asked(monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    size = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        cluster.add_node(**size)
        answers = ask("ray", cluster.address)
    finally:
        cluster.shutdown()
    assert len(answers) == 2
    assert doctor.rate("ray", answers, answers[0]["versions"]).severity == NOTE
