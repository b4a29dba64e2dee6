# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The KubeRay manifest against the schema that a Kubernetes with KubeRay would hold it against, and more strictly:
there unknown fields are dropped without a word, here they are errors. RAYJOB_CRD names the file with KubeRay's
CustomResourceDefinition of RayJob (ray.io_rayjobs.yaml of its Helm chart, 1.6 or later)."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT

SUBMIT = ROOT / "recipes" / "launch" / "kuberay" / "submit.py"
MANIFEST = SUBMIT.with_name("rayjob.yaml")
CRD = os.environ.get("RAYJOB_CRD")

needs_crd = pytest.mark.skipif(CRD is None, reason="RAYJOB_CRD is not set: no RayJob CRD to validate the manifest with")


def strict(schema: Any) -> Any:
    """Kubernetes' dialect of OpenAPI v3 as JSON Schema, with unknown fields forbidden wherever it would drop them."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "properties" in schema:
        result["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            result["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if schema.get("nullable") and "type" in result:
        result["type"] = [*([result["type"]] if isinstance(result["type"], str) else result["type"]), "null"]
    if schema.get("format") in ("int32", "int64") or isinstance(schema.get("format"), str):
        result.pop("format", None)
    return result


@pytest.fixture(scope="module")
def validate() -> Callable[[dict[str, Any]], None]:
    """Raise ValidationError unless this is a RayJob that KubeRay understands, all of it."""
    definition = yaml.load(Path(CRD or "").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    version = next(entry for entry in definition["spec"]["versions"] if entry["storage"])
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    group = definition["spec"]["group"]
    schema["properties"]["apiVersion"] = {"const": f"{group}/{version['name']}"}
    schema["properties"]["kind"] = {"const": definition["spec"]["names"]["kind"]}
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {key: {"type": "string"} for key in ("name", "generateName", "namespace")},
        "additionalProperties": False,
        "minProperties": 1,
    }
    return jsonschema.Draft7Validator(schema).validate


@pytest.fixture
def manifest() -> dict[str, Any]:
    return yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))


def rendered(*arguments: str, **variables: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, str(SUBMIT), "--dry-run", *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return yaml.safe_load(run.stdout)


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a field of the manifest, by its path; a number indexes a list."""
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("/"))

    def apply(job: Any) -> None:
        for key in parents:
            job = job[key]
        job[last] = value

    return apply


def remove(path: str) -> Callable[[dict[str, Any]], None]:
    *parents, last = path.split("/")

    def apply(job: Any) -> None:
        for key in parents:
            job = job[int(key) if key.isdigit() else key]
        del job[last]

    return apply


HEAD = "spec/rayClusterSpec/headGroupSpec"
WORKERS = "spec/rayClusterSpec/workerGroupSpecs/0"
CONTAINER = f"{WORKERS}/template/spec/containers/0"
POD = f"{WORKERS}/template/spec"

MUTATIONS = {
    "another kind": change("kind", "RayCluster"),
    "another version": change("apiVersion", "ray.io/v1alpha1"),
    "no name": change("metadata", {}),
    "misspelt key of the job": change("spec/backOffLimit", 3),
    "misspelt key of the group": change(f"{WORKERS}/minReplica", 1),
    "misspelt key of a container": change(f"{CONTAINER}/imagePullPolicies", "Always"),
    "misspelt key of a volume": change(f"{POD}/volumes/1/emptyDir/medum", "Memory"),
    "misspelt key of a mount": change(f"{CONTAINER}/volumeMounts/0/mountpath", "/storage"),
    "key at the wrong depth": change("spec/entrypointNumGPUs", 0),
    "replicas as text": change(f"{WORKERS}/replicas", "2"),
    "replicas as a fraction": change(f"{WORKERS}/maxReplicas", 1.5),
    "backoffLimit as text": change("spec/backoffLimit", "20"),
    "shutdown as text": change("spec/shutdownAfterJobFinishes", "yes"),
    "entrypoint as a list": change("spec/entrypoint", ["python3", "run.py"]),
    "rayStartParams as a number": change(f"{HEAD}/rayStartParams/num-gpus", 0),
    "environment as a mapping": change(f"{CONTAINER}/env", {"RECIPE": "x"}),
    "environment with a number": change(f"{CONTAINER}/env/0/value", 1),
    "an amount with a unit that is none": change(f"{CONTAINER}/resources/limits/memory", "512 GB"),
    "an amount that is a list": change(f"{CONTAINER}/resources/limits/nvidia.com~gpu", [8]),
    "no head": remove(HEAD),
    "no name of the group": remove(f"{WORKERS}/groupName"),
    "no minReplicas": remove(f"{WORKERS}/minReplicas"),
    "no template": remove(f"{WORKERS}/template"),
    "no containers": remove(f"{POD}/containers"),
    "a container without a name": remove(f"{CONTAINER}/name"),
    "a mount without a path": remove(f"{CONTAINER}/volumeMounts/0/mountPath"),
    "a claim without a name": remove(f"{POD}/volumes/0/persistentVolumeClaim/claimName"),
}


@needs_crd
def test_manifest_is_valid(validate, manifest):
    validate(manifest)


@needs_crd
@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_refused(validate, manifest, name: str):
    manifest = json.loads(json.dumps(manifest))  # YAML's anchors are the same objects in several places
    MUTATIONS[name](manifest)
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest)


@needs_crd
def test_what_is_submitted_is_valid(validate):
    options = ["--nodes", "4", "--gpus-per-node", "4", "--image", "registry.example/a:1", "--claim", "mine"]
    job = rendered(*options, "personas/run_qwen3_32b_megatron", "trainer.save_freq=10", ESTIMATOR="grpo", NUMBER="1")
    validate(job)
    head, (workers,) = job["spec"]["rayClusterSpec"]["headGroupSpec"], job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 4
    for group in (head, workers):
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == "registry.example/a:1"
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment.pop("RECIPE") == "personas/run_qwen3_32b_megatron"
        assert json.loads(environment.pop("ARGUMENTS")) == ["trainer.save_freq=10"]
        assert environment == {"ESTIMATOR": "grpo"}
        assert group["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "mine"
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 4


def test_numbers_are_said_once(manifest):
    text = MANIFEST.read_text(encoding="utf-8")
    assert text.count("nvidia.com/gpu:") == 1
    (workers,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"]
    assert "replicas: &nodes" in text
    assert "NNODES" not in text


def test_what_a_run_needs_of_the_cluster(manifest):
    spec = manifest["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0, "a preempted run must start again by itself"
    assert spec["preRunningDeadlineSeconds"] > 0, "waiting for the pods must have an end"
    assert spec["submitterConfig"]["backoffLimit"] == 0
    head, (workers,) = spec["rayClusterSpec"]["headGroupSpec"], spec["rayClusterSpec"]["workerGroupSpecs"]
    for group in (head, workers):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory"}
        assert "persistentVolumeClaim" in mounts["/storage"]


def test_kubectl_gets_the_manifest_and_its_status_is_ours(tmp_path):
    (tmp_path / "kubectl").write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/said'\ncat > '{tmp_path}/job'\nexit 3\n")
    (tmp_path / "kubectl").chmod(0o755)
    run = subprocess.run(
        [sys.executable, str(SUBMIT), "personas/run_tiny_cpu"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
        check=False,
    )
    assert run.returncode == 3
    assert (tmp_path / "said").read_text() == "create -f -\n"
    assert yaml.safe_load((tmp_path / "job").read_text()) == rendered("personas/run_tiny_cpu")


def test_the_manifest_as_it_is_is_what_the_defaults_give(manifest):
    job = rendered("personas/run_qwen3_1_7b_fsdp")
    job["metadata"] = copy.deepcopy(manifest["metadata"])
    assert job == manifest
