# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The KubeRay manifest against KubeRay's schema, with unknown fields as errors (Kubernetes drops them silently).
RAYJOB_CRD is the path of KubeRay's ray.io_rayjobs.yaml, of its Helm chart 1.6 or later."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.recipes.launches import RECIPES, environment

SUBMIT = RECIPES / "launch" / "kuberay" / "submit.py"
MANIFEST = yaml.safe_load(SUBMIT.with_name("rayjob.yaml").read_text(encoding="utf-8"))
CRD = os.environ.get("RAYJOB_CRD")
OPTIONS = ["--nodes", "4", "--gpus-per-node", "4", "--image", "registry.example/a:1", "--claim", "mine"]
OPTIONS += ["--memory", "1200Gi", "--rdma", "rdma/ib=8", "personas/run_qwen3_32b_megatron", "trainer.save_freq=10"]


def dry_run(*arguments: str, submit: Path = SUBMIT, **variables: str) -> str:
    command = [sys.executable, str(submit), "--dry-run", *arguments]
    run = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def rendered(*arguments: str, **variables: str) -> dict[str, Any]:
    return yaml.safe_load(dry_run(*arguments, **variables))


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Head and worker."""
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def strict(schema: Any) -> Any:
    """Convert Kubernetes's dialect of OpenAPI v3 to JSON Schema that forbids unknown fields."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {k: strict(v) for k, v in schema.items() if not k.startswith("x-kubernetes-")}
    if "properties" in schema:
        result["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            result["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    return result


@pytest.mark.skipif(CRD is None, reason="RAYJOB_CRD does not name a file with KubeRay's definition of a RayJob")
def test_what_is_submitted_is_valid():
    definition = yaml.load(Path(CRD or "").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    version = next(entry for entry in definition["spec"]["versions"] if entry["storage"])
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"]["apiVersion"] = {"const": f"{definition['spec']['group']}/{version['name']}"}
    schema["properties"]["kind"] = {"const": definition["spec"]["names"]["kind"]}
    schema["properties"]["metadata"] = {"type": "object", "required": ["generateName"]}
    validator = jsonschema.Draft7Validator(schema)
    for job in (MANIFEST, rendered(*OPTIONS)):
        validator.validate(job)
    for spec in ({"backOffLimit": 3}, {"backoffLimit": "20"}, {"rayClusterSpec": {}}):
        assert not validator.is_valid({**MANIFEST, "spec": {**MANIFEST["spec"], **spec}})


def test_options_reach_the_pods():
    job = rendered(*OPTIONS, ESTIMATOR="grpo", NUMBER="1", RAY_PORT="7000")
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 4
    for pod in pods(job):
        container = pod["containers"][0]
        assert container["image"] == "registry.example/a:1"
        values = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert values["RECIPE"] == "personas/run_qwen3_32b_megatron"
        assert json.loads(values["ARGUMENTS"]) == ["trainer.save_freq=10"]
        assert values["ESTIMATOR"] == "grpo"
        assert not {"NUMBER", "RAY_PORT"} & set(values)
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "mine"
    assert container["resources"]["limits"] == {"memory": "1200Gi", "nvidia.com/gpu": 4, "rdma/ib": 8}
    assert container["resources"]["requests"]["memory"] == "1200Gi"
    assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]


def test_an_edited_manifest_is_kept(tmp_path: Path):
    """Its variables, which the dry run uses; a worker whose `env` is empty, a sidecar, another volume."""
    shutil.copytree(RECIPES, tmp_path / "recipes")
    submit = tmp_path / "recipes" / SUBMIT.relative_to(RECIPES)
    job = json.loads(json.dumps(MANIFEST))  # without YAML's aliases
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "t"}}}
    kept = [token, {"name": "NCCL_SOCKET_IFNAME", "value": "eth1"}, {"name": "ESTIMATOR", "value": "grpo"}]
    sidecar = {"name": "logs", "image": "registry.example/logs:1"}
    for pod, env in zip(pods(job), ([*kept, {"name": "RECIPE", "value": "x"}], None), strict=True):
        pod["containers"] = [{**pod["containers"][0], "env": env}, sidecar]
        pod["volumes"].insert(0, {"name": "scratch", "emptyDir": {}})
    submit.with_name("rayjob.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    text = dry_run("--claim", "mine", "personas/run_tiny_cpu", submit=submit)
    assert "algorithm.adv_estimator=grpo" in text
    for pod, env in zip(pods(yaml.safe_load(text)), (kept, []), strict=True):
        assert [entry for entry in pod["containers"][0]["env"] if entry["name"] not in ("RECIPE", "ARGUMENTS")] == env
        assert {"name": "RECIPE", "value": "personas/run_tiny_cpu"} in pod["containers"][0]["env"]
        assert pod["containers"][1] == sidecar
        assert [volume.get("persistentVolumeClaim") for volume in pod["volumes"]] == [None, {"claimName": "mine"}, None]


def test_the_manifest_has_what_a_run_needs():
    assert MANIFEST["spec"]["backoffLimit"] > 0, "a preempted run must start again"
    for pod in pods(MANIFEST):
        assert {"/dev/shm", "/storage"} == {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    defaults = rendered("personas/run_qwen3_1_7b_fsdp")
    assert {**defaults, "metadata": MANIFEST["metadata"]} == MANIFEST, "the file by itself is what the defaults give"


def test_kubectl_gets_the_manifest_and_its_status_is_returned(tmp_path: Path):
    (tmp_path / "kubectl").write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/words'\ncat > '{tmp_path}/job'\nexit 3\n")
    (tmp_path / "kubectl").chmod(0o755)
    command = [sys.executable, str(SUBMIT), "personas/run_tiny_cpu"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == 3
    assert (tmp_path / "words").read_text() == "create -f -\n"
    assert yaml.safe_load((tmp_path / "job").read_text()) == rendered("personas/run_tiny_cpu")
