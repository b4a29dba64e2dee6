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

import psutil
import pytest

from tests.preflight.case import ROOT, Case
from verl_pgrpo.cli.doctor import _text
from verl_pgrpo.preflight import doctor, machine, versions
from verl_pgrpo.preflight.diagnostic import ERROR, NOTE, WARNING, Diagnostic


def ask(kind: str, address: str | None = None, seconds: float = 200.0) -> dict:
    """What a process of that kind answers in this environment."""
    with doctor.probe(kind, 160.0, address) as process:
        answer = doctor.answer_of(process, time.monotonic() + seconds)
    assert not process.folder.exists()
    return answer


def test_versions(monkeypatch: pytest.MonkeyPatch):
    pins = {}
    for file in ("cpu.txt", "megatron.txt"):
        pins |= dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE))
    pins = {name.lower(): number for name, number in pins.items()}
    for name, number in (versions.TESTED_SET | versions.TESTED_MEGATRON).items():
        assert pins.get(name.lower(), pins.get(f"{name}-cpu")) == number, name
    installed = {**versions.TESTED_SET, "megatron-core": None}
    monkeypatch.setattr(versions, "installed", lambda name: installed.get(name))
    assert {one.severity for one in versions.check_versions()} == {NOTE}
    installed |= {"torch": "2.99.0", "TransferQueue": None, "verl": "0.10.0", "vllm": None, "megatron-core": "0.16.1"}
    severities = {one.check: one.severity for one in versions.check_versions()}
    assert severities["together"] == severities["verl"] == severities["vllm"] == WARNING
    assert severities["TransferQueue"] == severities["megatron"] == ERROR


GPU = ["model_engine=dp", "actor_rollout_ref.rollout.name=vllm"]


def test_packages_of_a_launch(case: Case, monkeypatch: pytest.MonkeyPatch):
    there = {"flash_attn", "transformer_engine", "megatron.core", "cupy", "vllm"}
    monkeypatch.setattr(versions, "_importable", lambda module: module in there)
    nccl = "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl"
    launches = {"flash_attn": GPU, "transformer_engine": ["model_engine=megatron", *GPU[1:]], "cupy": [*GPU, nccl]}
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
    late = doctor.rate_driver("driver", ask("driver", seconds=0.2), {})
    assert (late.severity, late.fix) == (ERROR, doctor.LATE)
    (tmp_path / "vllm.py").write_text("raise ImportError('libcuda.so.1: no such file')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    found = doctor.rate_vllm("vllm", ask("vllm"), {})
    assert (found.severity, found.message) == (ERROR, "ImportError: libcuda.so.1: no such file")


@pytest.mark.parametrize(
    ("change", "severity"),
    [({}, NOTE), ({"versions": {"verl": "0.9.0"}}, ERROR), ({"registered": False, "entry_point": False}, ERROR)],
)
def test_nodes_that_differ_are_named(change: dict, severity: str):
    node = {"host": "a", "registered": True, "failure": None, "versions": {"verl": "0.9.1"}}
    found = doctor.rate_ray("Ray", {"nodes": [node, node | {"host": "b"} | change], "private": False}, node)
    assert found.severity == severity
    assert severity == NOTE or found.location == "b"


def test_resources(tmp_path: Path):
    rated = [
        machine.rate_shared_memory(*sizes).severity
        for sizes in ((1 / 16, 1 / 16, 500), (16, 16, 500), (250, 0.5, 500), (250, 250, 500))
    ]
    assert rated == [ERROR, WARNING, WARNING, NOTE]
    assert 0 < machine.memory_bytes() <= psutil.virtual_memory().total
    assert machine.check_disk("disk", tmp_path / "none").severity == ERROR
    assert machine.check_disk("disk", Path("/proc")).severity == ERROR  # 0 bytes
    assert machine.check_disk("disk", tmp_path).location == str(tmp_path)


def test_one_screen(monkeypatch: pytest.MonkeyPatch):
    found = [Diagnostic(NOTE, "verl", "0.9.1", ""), Diagnostic(ERROR, "shared memory", "64 MiB", "", "more")]
    plain = "ok   verl           0.9.1\nFAIL shared memory  64 MiB\n                    -> more\n1 FAIL, 0 warn, 1 ok"
    assert _text(found) == plain
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for name, value, colored in (("TERM", "xterm", True), ("NO_COLOR", "1", False)):
        monkeypatch.setenv(name, value)
        assert ("\033[31mFAIL\033[0m" in _text(found)) == colored


@pytest.mark.slow
def test_a_whole_examination_leaves_nothing_behind():
    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from verl_pgrpo.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "doctor", "--timeout", "240", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    for policy, status, severity in (("auto", 0, NOTE), ("none", 1, ERROR)):
        run = call("--json", VERL_USE_EXTERNAL_PLUGINS=policy)
        assert run.returncode == status, run.stdout + run.stderr
        severities = {one["check"]: one["severity"] for one in json.loads(run.stdout)["checks"]}
        assert {severities[f"plugin, {kind}"] for kind in ("driver", "ray", "vllm")} == {severity}
    deadline = time.monotonic() + 20  # Ray's processes name the temporary folder in their arguments
    while left := [
        p for p in psutil.process_iter(["cmdline"]) if any("/vd-" in word for word in p.info["cmdline"] or [])
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
        answer = ask("ray", cluster.address)
    finally:
        cluster.shutdown()
    assert len(answer["nodes"]) == 2
    assert doctor.rate_ray("Ray", answer, answer["nodes"][0]).severity == NOTE
