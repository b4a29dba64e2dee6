# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo doctor`: versions, packages of a launch, the plugin in real processes, resources."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.preflight.case import ROOT, Case
from verl_pgrpo.cli.doctor import _text
from verl_pgrpo.preflight import doctor, machine, versions
from verl_pgrpo.preflight.diagnostic import ERROR, NOTE, WARNING, Diagnostic


def ask(kind: str, address: str | None = None, seconds: float = 200.0) -> list[dict]:
    """The answers of processes of that kind in this environment."""
    with doctor.probe(kind, 160.0, address) as process:
        answers = doctor.answers_of(process, time.monotonic() + seconds)
    assert not process.folder.exists()
    return answers


def test_versions(monkeypatch: pytest.MonkeyPatch):
    pins = {}
    for file in ("cpu.txt", "megatron.txt"):
        pins |= dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE))
    pins = {name.lower(): number for name, number in pins.items()}
    for name, number in (versions.TESTED_SET | versions.TESTED_MEGATRON).items():
        assert pins.get(name.lower(), pins.get(f"{name}-cpu")) == number, name
    installed: dict[str, str | None] = {}
    monkeypatch.setattr(versions, "installed", lambda name: installed.get(name))
    for together in (versions.TESTED_SET, *versions.OTHER_SETS):
        installed = {**together, "verl": "0.9.0"}
        assert {one.severity for one in versions.check_versions()} == {NOTE}
    installed |= {"torch": "2.99.0", "TransferQueue": None, "verl": "0.10.0", "vllm": None, "megatron-core": "0.16.1"}
    severities = {one.check: one.severity for one in versions.check_versions()}
    assert severities["together"] == severities["verl"] == severities["vllm"] == WARNING
    assert severities["TransferQueue"] == severities["megatron"] == ERROR


GPU = ["model_engine=dp", "actor_rollout_ref.rollout.name=vllm"]


def test_packages_of_a_launch(case: Case, monkeypatch: pytest.MonkeyPatch):
    there = {"flash_attn", "transformer_engine", "megatron.core", "megatron.bridge", "mbridge", "cupy", "vllm"}
    monkeypatch.setattr(versions, "_importable", lambda module: module in there)
    nccl = "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl"
    megatron = ["model_engine=megatron", *GPU[1:]]
    launches = {"flash_attn": GPU, "transformer_engine": megatron, "megatron.bridge": megatron, "cupy": [*GPU, nccl]}
    launches["mbridge"] = [*megatron, "actor_rollout_ref.actor.megatron.vanilla_mbridge=True"]
    for module, arguments in launches.items():
        there.add(module)
        assert {one.severity for one in versions.check_launch_packages(arguments)} == {NOTE}
        there.remove(module)
        [missing] = [one for one in versions.check_launch_packages(arguments) if one.severity == ERROR]
        assert missing.check == f"launch, {module}"
        there.add(module)
    there.remove("flash_attn")
    sdpa = "+actor_rollout_ref.model.override_config.attn_implementation=sdpa"
    assert {one.severity for one in versions.check_launch_packages([*GPU, sdpa])} == {NOTE}
    assert [one.severity for one in versions.check_launch_packages(case.arguments)] == [NOTE]  # on the CPU
    assert [one.severity for one in versions.check_launch_packages(["nonsense"])] == [ERROR]


def test_a_process_that_fails_or_hangs_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    late = doctor.rate("driver", ask("driver", seconds=0.2), {})
    assert (late.severity, late.fix) == (ERROR, doctor.LATE)
    (tmp_path / "vllm.py").write_text("raise ImportError('libcuda.so.1: no such file')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    found = doctor.rate("vllm", ask("vllm"), {})
    assert (found.severity, found.message) == (ERROR, "ImportError: libcuda.so.1: no such file")


def node(host: str, **numbers: str) -> dict:
    known = {"verl": "0.9.1", "torch": "2.13.0"} | numbers
    return {"host": host, "failure": "", "versions": known}


def test_nodes_that_differ_are_named():
    def rate(*nodes: dict) -> Diagnostic:
        return doctor.rate("ray", list(nodes), node("here")["versions"])

    assert rate(node("a"), node("b")).severity == NOTE
    other = rate(node("a"), node("b", verl="0.9.0"))
    assert (other.severity, other.location) == (ERROR, "b")
    lacking = rate(node("a"), node("b") | {"failure": "not installed there"})
    assert (lacking.severity, lacking.location) == (ERROR, "b")


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


def test_one_screen(monkeypatch: pytest.MonkeyPatch):
    found = [Diagnostic(NOTE, "verl", "0.9.1", ""), Diagnostic(ERROR, "shared memory", "64 MiB", "", "more")]
    plain = "ok   verl           0.9.1\nFAIL shared memory  64 MiB\n                    -> more\n1 FAIL, 0 warn, 1 ok"
    assert _text(found) == plain
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for name, value, colored in (("TERM", "xterm", True), ("NO_COLOR", "1", False)):
        monkeypatch.setenv(name, value)
        assert ("\033[31mFAIL\033[0m" in _text(found)) == colored


@pytest.mark.slow
def test_doctor_leaves_nothing_behind(short_tmpdir: Path):
    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from verl_pgrpo.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "doctor", "--timeout", "240", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(short_tmpdir), **environment}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    for policy, status, severity in (("auto", 0, NOTE), ("none", 1, ERROR)):
        run = call("--json", VERL_USE_EXTERNAL_PLUGINS=policy)
        assert run.returncode == status, run.stdout + run.stderr
        severities = {one["check"]: one["severity"] for one in json.loads(run.stdout)["checks"]}
        assert {severities[f"plugin, {kind}"] for kind in ("driver", "ray", "vllm")} == {severity}
    deadline = time.monotonic() + 20  # Ray's processes name the temporary folder in their arguments
    while left := [
        p for p in psutil.process_iter(["cmdline"]) if any(f"{short_tmpdir}" in w for w in p.info["cmdline"] or [])
    ]:
        assert time.monotonic() < deadline, left
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
