"""Kubernetes through its official Python client: bring objects there, and ask how they are."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cluster.objects import Object
from core.errors import StillhouseError, UseError, WorkError

FIELD_MANAGER = "stillhouse"
"""By which Kubernetes knows which fields are ours."""

GONE_SECONDS = 300.0
"""For which an object that is deleted is waited for."""

POLL_SECONDS = 1.0

RAY = "ray.io/v1"

T = TypeVar("T")


class KubernetesClient:
    """The cluster that kubectl would talk to."""

    def __init__(self, context: str | None = None) -> None:
        """Connect.

        Args:
            context: Of the kubeconfig; its current one if absent.

        Raises:
            UseError: There is no such context, or nobody answers.
        """
        from kubernetes import config
        from kubernetes.config.config_exception import ConfigException
        from kubernetes.dynamic import DynamicClient

        try:
            # Named here: the library looks at the variable when it is imported, and never again.
            files = os.environ.get("KUBECONFIG")
            self._api = config.new_client_from_config(files, context)
        except ConfigException as error:
            raise UseError(
                "kubeconfig",
                f"it names no cluster: {error}",
                "Set KUBECONFIG, or choose one by --context.",
            ) from None
        self._host = self._api.configuration.host
        # What a cluster knows is kept for this command alone: another may have learnt more.
        self._folder = tempfile.TemporaryDirectory(prefix="stillhouse-")
        cache = str(Path(self._folder.name) / "kinds.json")
        self._dynamic = self._ask(lambda: DynamicClient(self._api, cache_file=cache), "its version")

    def apply(self, objects: Sequence[Object]) -> None:
        """Make objects, or change those that are there, in their order.

        Raises:
            StillhouseError: The cluster does not take one.
        """
        for one in objects:
            manifest = one.manifest()
            apply = partial(
                self._dynamic.server_side_apply,
                self._resource(manifest["apiVersion"], manifest["kind"]),
                body=manifest,
                field_manager=FIELD_MANAGER,
                force_conflicts=True,
            )
            self._ask(apply, f"{manifest['kind']} {manifest['metadata']['name']}")

    def find(self, kind: str, name: str, namespace: str, version: str = RAY) -> Any:
        """An object as plain data; None where there is none.

        Raises:
            StillhouseError: It may not be read.
        """
        from kubernetes.dynamic.exceptions import NotFoundError

        resource = self._resource(version, kind)

        def get() -> Any:
            try:
                return self._dynamic.get(resource, name=name, namespace=namespace).to_dict()
            except NotFoundError:
                return None

        return self._ask(get, f"{kind} {name}")

    def listed(
        self, kind: str, namespace: str, labels: dict[str, str], version: str = "v1"
    ) -> list[Any]:
        """The objects of a kind that have some labels, oldest first, as plain data.

        Raises:
            StillhouseError: They may not be read.
        """
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        resource = self._resource(version, kind)
        found = self._ask(
            lambda: self._dynamic.get(resource, namespace=namespace, label_selector=selector),
            kind,
        ).to_dict()["items"]
        return sorted(found, key=lambda one: one["metadata"]["creationTimestamp"])

    def delete(self, kind: str, name: str, namespace: str, version: str = RAY) -> bool:
        """Delete an object, and wait until it is gone; says whether there was one.

        Raises:
            StillhouseError: It may not be deleted, or does not go.
        """
        if self.find(kind, name, namespace, version) is None:
            return False
        resource = self._resource(version, kind)
        self._ask(
            lambda: self._dynamic.delete(resource, name=name, namespace=namespace),
            f"{kind} {name}",
        )
        deadline = time.monotonic() + GONE_SECONDS
        while self.find(kind, name, namespace, version) is not None:
            if time.monotonic() > deadline:
                raise WorkError(
                    f"{kind} {name}",
                    f"it is still there {GONE_SECONDS:g} seconds after it was deleted.",
                    "See `kubectl describe` on what it waits for.",
                )
            time.sleep(POLL_SECONDS)
        return True

    def log(self, pod: str, namespace: str, *, follow: bool) -> Iterator[str]:
        """What a pod writes, in lines.

        Args:
            pod: Its name.
            namespace: Where it is.
            follow: Whether to wait for more until it ends.

        Raises:
            StillhouseError: It may not be read.
        """
        from kubernetes.client import CoreV1Api

        stream = self._ask(
            lambda: CoreV1Api(self._api).read_namespaced_pod_log(
                pod, namespace, follow=follow, _preload_content=False
            ),
            f"the log of pod {pod}",
        )
        rest = ""
        for part in stream.stream(decode_content=True):
            *lines, rest = (rest + part.decode(errors="replace")).split("\n")
            yield from lines
        if rest:
            yield rest

    def _resource(self, version: str, kind: str) -> Any:
        from kubernetes.dynamic.exceptions import ResourceNotFoundError

        try:
            return self._ask(
                lambda: self._dynamic.resources.get(api_version=version, kind=kind), kind
            )
        except ResourceNotFoundError:
            raise UseError(
                self._host,
                f"this cluster has no objects of kind {kind} ({version}).",
                MISSING.get(version, "Ask who runs it."),
            ) from None

    def _ask(self, question: Callable[[], T], what: str) -> T:
        """Ask the cluster; its errors become ours."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.dynamic.exceptions import DynamicApiError
        from urllib3.exceptions import HTTPError

        try:
            return question()
        except (ApiException, DynamicApiError) as error:
            raise self._refused(error, what) from None
        except HTTPError as error:
            cause = str(getattr(error, "reason", error)).rpartition(": ")[2]
            raise WorkError(
                self._host,
                f"the cluster does not answer: {cause}.",
                "Check that it can be reached.",
            ) from None

    def _refused(self, error: Any, what: str) -> StillhouseError:
        said = _message(error)
        if error.status in (401, 403):
            return UseError(
                self._host,
                f"{what} is not allowed to you: {said}.",
                "Ask who runs the cluster; docs/kubernetes.md lists the rights.",
            )
        return WorkError(self._host, f"{what} is refused: {said}.", "Mend that, and try again.")


MISSING = {
    RAY: "Install the KubeRay operator, 1.7 or later.",
    "monitoring.coreos.com/v1": "Install the Prometheus operator, or set cluster.monitoring to "
    "null.",
}
"""What is to be done where a cluster does not know a group of kinds."""


def _message(error: Any) -> str:
    """What the API says in words."""
    try:
        found: str = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
    return found.rstrip(".")
