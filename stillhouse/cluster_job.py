"""A recipe's workload on a cluster: submitted, looked at, followed, and taken away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.client import KubernetesClient
from cluster.naming import COMPONENT, WORKLOAD, object_name, recipe_labels
from cluster.pods import driver_secrets, server_secrets
from cluster.rendering import foundation
from cluster.sizes import cluster_of
from cluster.workloads import OBJECTS, Kind, Workload
from core.errors import UseError
from core.recipe import LoadedRecipe
from core.recipe_cluster import Cluster

ENDED = ("Complete", "Failed", "ValidationFailed")
"""States of a RayJob that it does not leave."""


@dataclass(frozen=True)
class JobState:
    """How a workload is, as Kubernetes sees it."""

    name: str
    state: str
    """In one word or two; empty where there is none."""
    message: str
    pods: dict[tuple[str, str], int]
    """Their number by component and phase."""


@dataclass
class ClusterJob:
    """A workload of a recipe, there or to be."""

    loaded: LoadedRecipe
    kind: Kind
    client: KubernetesClient

    @property
    def _cluster(self) -> Cluster:
        return cluster_of(self.loaded)

    @property
    def _object(self) -> tuple[str, str]:
        kind, suffix = OBJECTS[self.kind]
        return kind, object_name(self.loaded.recipe.name, suffix)

    def submit(self, work: Workload) -> list[str]:
        """Bring the workload to the cluster; one that ended begins again, where it was.

        Returns:
            The files that were put on the object store for it.

        Raises:
            StillhouseError: It runs already, something that it needs is not there, or the cluster
                does not take it.
        """
        kind, name = self._object
        space = self._cluster.namespace
        base = foundation(self.loaded).objects
        self.client.apply(base[:1])  # the namespace: what follows looks into it
        self._check_secret()
        if work.on is not None:
            self._check_shared(work, work.on)
        self._check_other()
        before = self.client.find(kind, name, space)
        if before is not None and kind == "RayJob":
            state = _job_state(before)
            if state not in ENDED:
                raise UseError(
                    f"RayJob {name}",
                    f"it is there already, in state {state}.",
                    "Look at it by `stillhouse cluster status`, or end it by `delete`.",
                )
            self.client.delete(kind, name, space)
        uploads = work.packed.uploads if work.packed else []
        brought = [upload.url for upload in uploads if upload.put()]
        self.client.apply([*base[1:], *work.objects])
        return brought

    def state(self) -> JobState:
        """How it is.

        Raises:
            StillhouseError: The cluster does not tell.
        """
        kind, name = self._object
        found = self.client.find(kind, name, self._cluster.namespace)
        pods = Counter(
            (
                pod["metadata"]["labels"].get(COMPONENT, "other"),
                pod["status"].get("phase", "Unknown"),
            )
            for pod in self._pods()
        )
        if found is None:
            return JobState(name, "", "", dict(pods))
        status = found.get("status") or {}
        return JobState(name, _words(kind, status), str(status.get("message", "")), dict(pods))

    def log(self, *, follow: bool) -> Iterator[str]:
        """What the job's driver writes, by the pod that follows it.

        Raises:
            StillhouseError: There is no such pod, or its log may not be read.
        """
        pods = [
            pod for pod in self._pods() if pod["metadata"]["labels"].get(COMPONENT) == "submitter"
        ]
        if not pods:
            raise UseError(
                f"{self._object[0]} {self._object[1]}",
                "no pod of it follows a driver.",
                "A job has one once its head is up: `stillhouse cluster status` tells.",
            )
        newest = pods[-1]["metadata"]["name"]
        return self.client.log(newest, self._cluster.namespace, follow=follow)

    def delete(self) -> bool:
        """End it, and its pods with it. What it has made stays; says whether there was one.

        Raises:
            StillhouseError: The cluster does not do it.
        """
        kind, name = self._object
        return self.client.delete(kind, name, self._cluster.namespace)

    def _pods(self) -> list[Any]:
        labels = {**recipe_labels(self.loaded.recipe.name), WORKLOAD: self.kind}
        return self.client.listed("Pod", self._cluster.namespace, labels)

    def _check_shared(self, work: Workload, cluster: str) -> None:
        """Refuse a job on a cluster that is not there, or that has mounted another recipe."""
        space = self._cluster.namespace
        assert work.packed is not None, "a job has a recipe"
        if self.client.find("RayCluster", cluster, space) is None:
            raise UseError(
                f"RayCluster {cluster}",
                "it is not there, and the job is to run on it.",
                "Make it by `stillhouse cluster submit RECIPE --kind cluster`.",
            )
        wanted = work.packed.config_map.manifest()
        found = self.client.find("ConfigMap", wanted["metadata"]["name"], space, "v1") or {}
        if any(found.get(part) != wanted.get(part) for part in ("data", "binaryData")):
            raise UseError(
                f"RayCluster {cluster}",
                "it has mounted the recipe as it was when the cluster was made.",
                "Delete it and submit it again, both with --kind cluster; the run stays.",
            )

    def _check_other(self) -> None:
        """Refuse a job beside a sweep, and the other way round: both write into one run."""
        other: dict[Kind, Kind] = {"job": "sweep", "sweep": "job"}
        if self.kind not in other:
            return
        kind, suffix = OBJECTS[other[self.kind]]
        name = object_name(self.loaded.recipe.name, suffix)
        found = self.client.find(kind, name, self._cluster.namespace)
        if found is None:
            return
        state = _job_state(found)
        if state not in ENDED:
            raise UseError(
                f"RayJob {name}",
                f"it is in state {state}, and works on the same run.",
                f"Wait until it has ended, or end it by `delete --kind {other[self.kind]}`.",
            )

    def _check_secret(self) -> None:
        """Refuse a recipe whose secrets are not there: its pods would wait for them for ever."""
        cluster = self._cluster
        recipe = self.loaded.recipe
        own = server_secrets(recipe) if self.kind == "service" else driver_secrets(recipe, cluster)
        wanted = [*cluster.secret_variables, *own]
        if not wanted:
            return
        found = self.client.find("Secret", cluster.secret, cluster.namespace, "v1")
        missing = [
            name for name in wanted if found is None or name not in (found.get("data") or {})
        ]
        if missing:
            literals = " ".join(f'--from-literal={name}="${name}"' for name in wanted)
            raise UseError(
                f"Secret {cluster.secret}",
                f"it does not hold {', '.join(missing)} in namespace {cluster.namespace}.",
                f"kubectl -n {cluster.namespace} create secret generic {cluster.secret} {literals}",
            )


def _job_state(job: dict[str, Any]) -> str:
    """How KubeRay has a RayJob; one that it has not looked at is new."""
    state: str = job.get("status", {}).get("jobDeploymentStatus", "New")
    return state


def _words(kind: str, status: dict[str, Any]) -> str:
    if kind == "RayJob":
        parts = [_job_state({"status": status}), status.get("jobStatus", "")]
        return ", ".join(part for part in parts if part)
    if kind == "RayService":
        conditions = status.get("conditions") or []
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return "ready" if ready else "not ready"
    if kind == "RayCronJob":
        last = status.get("lastScheduleTime")
        return f"last run {last}" if last else "has not run yet"
    return str(status.get("state", "New"))
