"""Whether manifests are what those who read them take: schemas, and the operator's own rules."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

import kubernetes_validate.utils
import yaml
from jsonschema import Draft202012Validator

# It reads a megabyte and a half of definitions anew for every object.
kubernetes_validate.utils.schema_contents = functools.cache(
    kubernetes_validate.utils.schema_contents
)

KUBERNETES = "1.35"
"""Whose schemas manifests are held to: the newest of two years' clusters has them, too."""

CRDS = {
    "RayCluster": "rayclusters",
    "RayJob": "rayjobs",
    "RayService": "rayservices",
    "RayCronJob": "raycronjobs",
}

DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")

NAME_LENGTHS = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}

OTHERS = ("PodMonitor", "PrometheusRule")
"""Kinds of other operators, whose schemas nobody carries."""


def crd_folder() -> Path | None:
    """KubeRay's definitions, which are handed out beside the project; None where they are not."""
    shared = os.environ.get("STILLHOUSE_SHARED")
    folder = Path(shared) / "crds" if shared else None
    return folder if folder and folder.is_dir() else None


@functools.cache
def crd_validator(kind: str) -> Draft202012Validator:
    """What holds one of KubeRay's objects to its definition, where every unknown field is wrong."""
    file = crd_folder() / f"ray.io_{CRDS[kind]}.yaml"
    definition = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
    version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    _close(schema)
    # Of metadata the definition says no more than that it is an object.
    schema["properties"]["metadata"].pop("additionalProperties", None)
    return Draft202012Validator(schema)


def _close(schema: dict) -> None:
    if "properties" in schema and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    for inner in (*schema.get("properties", {}).values(), schema.get("items")):
        if isinstance(inner, dict):
            _close(inner)


def mistakes(manifest: dict) -> list[str]:
    """What is wrong with a manifest by the schema of its kind."""
    return _mistakes(json.dumps(manifest))


@functools.cache
def _mistakes(text: str) -> list[str]:
    """The same, once for equal manifests: many recipes have the same namespace."""
    manifest = json.loads(text)
    kind = manifest["kind"]
    if kind in CRDS:
        if crd_folder() is None:
            return []
        found = crd_validator(kind).iter_errors(manifest)
        return [f"{kind} {error.json_path}: {error.message}" for error in found]
    if kind in OTHERS:
        return []
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{kind} {'.'.join(map(str, error.path))}: {error.message}"]
    return []


def refusals(manifest: dict) -> list[str]:
    """What the operator would refuse of one of its objects: its rules that a schema cannot say."""
    kind, spec = manifest["kind"], manifest["spec"]
    name = manifest["metadata"]["name"]
    found = []
    if not DNS_LABEL.fullmatch(name) or len(name) > NAME_LENGTHS[kind]:
        found.append(f"name {name}")
    if kind == "RayCluster":
        found += _of_cluster(spec)
    elif kind == "RayJob":
        found += _of_job(spec)
    elif kind == "RayCronJob":
        if "TZ" in spec["schedule"] or len(spec["schedule"].split()) != 5:
            found.append("schedule")
        found += _of_job(spec["jobTemplate"])
    elif kind == "RayService":
        upgrade = spec["upgradeStrategy"]
        options = upgrade.get("clusterUpgradeOptions")
        if (upgrade["type"] == "NewClusterWithIncrementalUpgrade") != (options is not None):
            found.append("clusterUpgradeOptions")
        if options and options["stepSizePercent"] > options["maxSurgePercent"]:
            found.append("stepSizePercent")
        found += _of_cluster(spec["rayClusterConfig"])
    return found


def _of_job(spec: dict) -> Iterable[str]:
    rules, shuts_down = _rules(spec), spec.get("shutdownAfterJobFinishes", False)
    if rules and shuts_down:
        yield "deletionRules and shutdownAfterJobFinishes exclude each other"
    if "clusterSelector" in spec:
        yield from _of_job_on_a_cluster(spec, rules)
        return
    if not rules and not shuts_down:
        yield "nothing deletes its pods"  # our own rule: no GPU outlives its job
    if not shuts_down and spec.get("ttlSecondsAfterFinished", 0) > 0:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if not shuts_down and spec.get("suspend"):
        yield "suspend needs shutdownAfterJobFinishes"
    if spec["submissionMode"] != "K8sJobMode" and "submitterPodTemplate" in spec:
        yield "submitterPodTemplate is for K8sJobMode"
    yield from _of_rules(rules)
    yield from _of_cluster(spec["rayClusterSpec"])


def _of_job_on_a_cluster(spec: dict, rules: list[dict]) -> Iterable[str]:
    if not spec["clusterSelector"].get("ray.io/cluster") or "rayClusterSpec" in spec:
        yield "a job has one cluster"
    if spec.get("backoffLimit", 0) > 0 or spec.get("suspend"):
        yield "backoffLimit and suspend are for clusters of a job's own"
    if spec.get("shutdownAfterJobFinishes") or any(r["policy"] != "DeleteSelf" for r in rules):
        yield "a job deletes no cluster that is not its own"
    yield from _of_rules(rules)


def _rules(spec: dict) -> list[dict]:
    return spec.get("deletionStrategy", {}).get("deletionRules", [])


def _of_rules(rules: list[dict]) -> Iterable[str]:
    seen: dict[tuple, int] = {}
    for rule in rules:
        condition = rule["condition"]
        at = [(k, condition[k]) for k in ("jobStatus", "jobDeploymentStatus") if k in condition]
        if len(at) != 1:
            yield "a deletion rule has one condition"
        if (*at[0], rule["policy"]) in seen:
            yield "two deletion rules for one condition"
        if rule["policy"] == "DeleteWorkers":
            yield "DeleteWorkers is not supported with autoscaling"
        seen[*at[0], rule["policy"]] = condition["ttlSeconds"]
    for (*at, policy), seconds in seen.items():
        if policy == "DeleteSelf" and seconds < seen.get((*at, "DeleteCluster"), 0):
            yield "DeleteSelf comes before DeleteCluster"


def _of_cluster(spec: dict) -> Iterable[str]:
    head, groups = spec["headGroupSpec"], spec["workerGroupSpecs"]
    version = tuple(map(int, spec["rayVersion"].split(".")))
    if spec["authOptions"]["mode"] == "token" and version < (2, 52, 0):
        yield "token authentication needs Ray 2.52"
    names = [group["groupName"] for group in groups]
    if len(set(names)) < len(names):
        yield "two groups have one name"
    for group in (head, *groups):
        yield from _of_group(group)
    for group in groups:
        if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{group['groupName']}: replicas"
        if group.get("priority") and version < (2, 56, 0):
            yield f"{group['groupName']}: priority needs Ray 2.56"
    variables = {v["name"] for v in head["template"]["spec"]["containers"][0]["env"]}
    managed = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME", "RAY_enable_autoscaler_v2"}
    if variables & managed:
        yield f"head: {variables & managed} is the operator's to set"


PARAMETERS = {"num-cpus", "num-gpus", "memory", "resources"}


def _of_group(group: dict) -> Iterable[str]:
    name, params = group.get("groupName", "head"), group.get("rayStartParams", {})
    if group.get("resources") and params.keys() & PARAMETERS:
        yield f"{name}: resources stand in two places"
    if "labels" in params:
        yield f"{name}: labels in rayStartParams"
    if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
        yield f"{name}: restartPolicy with autoscaler v2"
    for key, value in group["labels"].items():
        if not re.fullmatch(r"[a-z0-9./-]{1,63}", key) or len(value) > 63:
            yield f"{name}: label {key}"
        if key.startswith("ray.io/"):
            yield f"{name}: label {key} is Ray's own"
