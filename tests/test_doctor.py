# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo doctor`: the plugin in real processes of each kind, and what is said where it is missing."""

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

from tests.conftest import ROOT
from verl_pgrpo.commands.doctor import _text
from verl_pgrpo.integration.compat import TESTED_VERSIONS
from verl_pgrpo.launch import doctor, machine
from verl_pgrpo.launch.versions import TESTED_MEGATRON, TESTED_SET, versions
from verl_pgrpo.launch.vital import BAD, OK, WARN, Vital

pytest.importorskip("verl")


def asked(kind: str, address: str | None = None) -> dict:
    """What a process of that kind answers, in this environment."""
    child = doctor._started(kind, 160.0, address)
    answer = doctor._answer(child, time.monotonic() + 200)
    assert child.ended
    assert not child.folder.exists()
    return answer


def called(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "verl_pgrpo.cli", "doctor", "--timeout", "240", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_tested_set_is_what_the_pins_install():
    pins = {}
    for file in ("cpu.txt", "megatron.txt"):
        pins |= dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE))
    pins = {name.lower(): number for name, number in pins.items()}
    for name, number in (TESTED_SET | TESTED_MEGATRON).items():
        assert pins.get(name.lower(), pins.get(f"{name}-cpu")) == number, name
    assert TESTED_SET["verl"] in TESTED_VERSIONS


def test_this_environment_is_the_tested_set():
    found = {vital.name: vital for vital in versions()}
    assert set(found) == {"python", "verl", "torch", "vllm", "megatron", "ray", "TransferQueue", "together"}
    assert {vital.status for vital in found.values()} == {OK}
    assert found["together"].value.startswith("known to work")


def test_other_versions_are_no_known_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(TESTED_SET, "torch", "2.14.0")
    [together] = [vital for vital in versions() if vital.name == "together"]
    assert together.status == WARN
    assert "torch 2.13.0 (tested: 2.14.0)" in together.value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "said"),
    [("auto", None), ("pgrpo", None), ("none", "VERL_USE_EXTERNAL_PLUGINS=none"), ("x", "=x leaves")],
)
def test_the_plugin_in_the_driver(policy: str, said: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", policy)
    vital = doctor._in_driver("driver", asked("driver"))
    assert vital.status == (OK if said is None else BAD)
    assert said is None or said in vital.value
    assert bool(vital.fix) == (vital.status == BAD)


@pytest.mark.slow
def test_the_plugin_in_a_vllm_process(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("vllm")
    assert doctor._in_vllm("vllm", asked("vllm")).status == OK
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    left_out = doctor._in_vllm("vllm", asked("vllm"))
    assert left_out.status == BAD
    assert "VLLM_PLUGINS" in left_out.fix
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    assert doctor._in_vllm("vllm", asked("vllm")).value == "verl does not load it there"


def test_a_process_that_fails_or_hangs_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    late = doctor._answer(doctor._started("driver", 1.0), time.monotonic() + 0.2)
    assert doctor._in_driver("driver", late) == Vital("driver", BAD, "no answer in time", doctor.LATE)
    (tmp_path / "vllm.py").write_text("raise ImportError('libcuda.so.1: no such file')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    vital = doctor._in_vllm("vllm", asked("vllm"))
    assert (vital.status, vital.value) == (BAD, "ImportError: libcuda.so.1: no such file")


def node(host: str, **versions: str) -> dict:
    return {
        "host": host,
        "registered": True,
        "failure": None,
        "versions": {"verl": "0.9.1", "torch": "2.13.0"} | versions,
    }


def test_nodes_that_differ_are_named():
    driver = node("here")
    same = {"nodes": [node("a"), node("b")], "private": False}
    assert doctor._in_ray("Ray", same, driver) == Vital("Ray", OK, "pgrpo is registered in a worker on each of 2 nodes")
    other = {"nodes": [node("a"), node("b", verl="0.9.0")], "private": False}
    assert doctor._in_ray("Ray", other, driver).value == "on b: verl 0.9.0, here 0.9.1"
    lacking = {"nodes": [node("a"), node("b") | {"registered": False, "entry_point": False}], "private": False}
    vital = doctor._in_ray("Ray", lacking, driver)
    assert (vital.status, vital.value[:41]) == (BAD, "on b: verl-pgrpo is not installed there: ")


def test_shared_memory_of_a_container():
    assert machine.shared_memory_of(size=1 / 16, free=1 / 16, memory=500).status == BAD
    assert "--shm-size" in machine.shared_memory_of(size=1 / 16, free=1 / 16, memory=500).fix
    assert machine.shared_memory_of(size=16, free=16, memory=500).status == WARN
    assert machine.shared_memory_of(size=250, free=0.5, memory=500).status == WARN
    assert machine.shared_memory_of(size=250, free=250, memory=500).status == OK
    assert 0 < machine.memory_bytes() <= psutil.virtual_memory().total


def test_disks(tmp_path: Path):
    assert machine.disk("disk", tmp_path / "none").status == BAD
    assert machine.disk("disk", Path("/proc")).status == BAD  # 0 bytes
    assert machine.disk("disk", tmp_path).value.startswith(f"{tmp_path}: ")


def test_one_screen(monkeypatch: pytest.MonkeyPatch):
    lines = _text([Vital("verl", OK, "0.9.1"), Vital("shared memory", BAD, "64 MiB", "more")]).splitlines()
    assert lines == [
        "ok   verl           0.9.1",
        "FAIL shared memory  64 MiB",
        "                    -> more",
        "1 FAIL, 0 warn, 1 ok",
    ]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[31mFAIL\033[0m" in _text([Vital("verl", BAD, "none")])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in _text([Vital("verl", BAD, "none")])


def processes_of_folders() -> list[list[str]]:
    """Of Ray, whose processes name the temporary folder that was made for them."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any("/vd-" in word for word in line)]


@pytest.mark.launch
def test_a_whole_examination_leaves_nothing_behind():
    run = called("--json")
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert report["ok"] is True
    status = {check["name"]: check["status"] for check in report["checks"]}
    assert status["plugin, driver"] == status["plugin, Ray"] == status["plugin, vLLM"] == "ok"
    assert run.stderr.splitlines()[0] == "doctor: the plugin in the driver ..."
    assert not processes_of_folders()
    broken = called(VERL_USE_EXTERNAL_PLUGINS="none")
    assert broken.returncode == 1
    assert re.search(r"FAIL plugin, driver +VERL_USE_EXTERNAL_PLUGINS=none leaves it out\n +-> unset it", broken.stdout)
    assert re.search(r"FAIL plugin, Ray +on \S+: VERL_USE_EXTERNAL_PLUGINS=none leaves it out", broken.stdout)
    assert len(broken.stdout.splitlines()) <= 30
    late = called("--timeout", "12")
    assert late.returncode == 1
    assert "no answer in time" in late.stdout
    deadline = time.monotonic() + 20
    while processes_of_folders() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not processes_of_folders()


@pytest.mark.launch
def test_every_node_of_a_cluster_is_asked(monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    size = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        cluster.add_node(**size)
        answer = asked("ray", cluster.address)
    finally:
        cluster.shutdown()
    assert len(answer["nodes"]) == 2
    assert (
        doctor._in_ray("Ray", answer, answer["nodes"][0]).value == "pgrpo is registered in a worker on each of 2 nodes"
    )
