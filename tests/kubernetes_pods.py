"""A stand-in of KubeRay's operator and of Kubernetes' nodes: pods of a RayCluster as processes.

What it does with a RayCluster is what the operator's reconciliation does (v1.7.0,
`raycluster_controller.go` and `common/pod.go`): it starts a head with Ray's own KubeRay autoscaler
beside it, keeps as many workers in each group as `replicas` says, within its bounds, takes away
those in `workersToDelete`, and replaces a pod that has ended. A pod is a real raylet with the
environment, the resources and the labels of its group in the manifest. Containers have no file
system of their own here: /stillhouse is a folder of the test.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kubernetes_api import KubernetesApi, Object
from tests.leftovers import leftovers

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).parent / "ray")

CLUSTERS = ("ray.io/v1", "rayclusters")
PODS = ("v1", "pods")

LOOK_SECONDS = 0.2

OBJECT_STORE_BYTES = 100 * 2**20

FAST = {
    # Who is gone is noticed within seconds, and the autoscaler looks every second.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


@dataclass(eq=False)
class Pod:
    """A pod, and the processes that are it."""

    name: str
    group: str
    process: subprocess.Popen[bytes]
    beside: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Other containers of the pod."""
    environment: dict[str, str] = field(default_factory=dict)
    template: Object = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """What all of its processes, however far down, have in their environment."""
        return f"{MARK}={self.name}"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to all of its processes."""
        for process in leftovers(self.mark, 0):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def raylet(self) -> int:
        """The id of its raylet."""
        return next(
            process
            for process, command in leftovers(self.mark, 0).items()
            if command.split()[0].endswith("/raylet")
        )


MARK = "STILLHOUSE_TEST_POD"


class Operator:
    """Keeps the pods of one RayCluster as its object in the API wants them."""

    def __init__(
        self,
        api: KubernetesApi,
        cluster: Object,
        folder: Path,
        *,
        environment: dict[str, str],
    ) -> None:
        self.api, self.folder = api, folder
        self.name = cluster["metadata"]["name"]
        self.namespace = cluster["metadata"]["namespace"]
        self.pods: dict[str, Pod] = {}
        self.most: dict[str, int] = defaultdict(int)
        """Pods of each group at a time at most."""
        self.history: list[tuple[float, dict[str, int]]] = []
        """Pods of each group, whenever that changed."""
        self.token = secrets.token_hex(32)
        self._environment = environment
        self._number = 0
        self._ended = threading.Event()
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self.gcs_port, self.dashboard_port = free_ports(2)
        api.store.put(*CLUSTERS, cluster)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.error: BaseException | None = None

    @property
    def gcs(self) -> str:
        return f"127.0.0.1:{self.gcs_port}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def __enter__(self) -> Operator:
        self.start_head()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)
        for pod in list(self.pods.values()):
            pod.kill(signal.SIGTERM)
        time.sleep(1)
        for pod in list(self.pods.values()):
            pod.kill()
            pod.process.wait(30)

    @property
    def spec(self) -> Object:
        """Of the RayCluster, as it is now."""
        return self.api.store.get(*CLUSTERS, self.namespace, self.name)["spec"]

    def of_group(self, group: str) -> list[Pod]:
        """The pods of a group."""
        with self._lock:
            return [pod for pod in self.pods.values() if pod.group == group]

    def counts(self) -> dict[str, int]:
        """Pods of each group of workers."""
        found = {group["groupName"]: 0 for group in self.spec["workerGroupSpecs"]}
        with self._lock:
            for pod in self.pods.values():
                if pod.group in found:
                    found[pod.group] += 1
        return found

    def start_head(self) -> Pod:
        """Start the head and the autoscaler beside it."""
        head = self.spec["headGroupSpec"]
        name = f"{self.name}-head-{self._next()}"
        # A pod has a /tmp of its own: what Ray keeps there tells of no head before this one.
        (self.folder / "tmp/ray/ray_current_cluster").unlink(missing_ok=True)
        environment = {
            **self._container_environment(head["template"], name, "headgroup"),
            **self._redis(),
            "RAY_enable_autoscaler_v2": "true",
        }
        command = [
            *(RAY, "start", "--head", "--block", "--no-monitor"),
            *(f"--port={self.gcs_port}", f"--dashboard-port={self.dashboard_port}"),
            *("--dashboard-host=127.0.0.1", "--include-dashboard=true"),
            f"--ray-client-server-port={free_ports(1)[0]}",
            *self._common(head),
        ]
        if "REDIS_PASSWORD" in environment:
            command.append(f"--redis-password={environment['REDIS_PASSWORD']}")
        process = self._start(name, command, environment)
        pod = Pod(name, "headgroup", process, environment=environment, template=head["template"])
        with self._lock:
            self.pods[name] = pod
        self._put_pod(pod, "head")
        pod.beside.append(self._start_autoscaler(name, environment))
        return pod

    def submit(self, entrypoint: str, submission_id: str, *, wait: bool = True) -> subprocess.Popen:
        """Hand a job's entrypoint to the head, as the submitter does; its log is followed."""
        self.wait_for_dashboard()
        command = [
            *(RAY, "job", "submit", "--address", self.dashboard, "--submission-id", submission_id),
            *([] if wait else ["--no-wait"]),
            *("--", *shlex.split(entrypoint.replace("/stillhouse/", f"{self.folder}/stillhouse/"))),
        ]
        head = self.of_group("headgroup")[0]
        return self._start(f"submitter-{submission_id}", command, head.environment)

    def wait_for_dashboard(self, seconds: float = 120) -> None:
        """Wait until the head takes jobs, as the submitter does."""
        header = {"Authorization": f"Bearer {self.token}"}
        asked = urllib.request.Request(f"{self.dashboard}/api/gcs_healthz", headers=header)
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(asked, timeout=5):
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _common(self, group: Object) -> list[str]:
        """What `ray start` gets of a group's structured resources and labels (common/pod.go)."""
        resources = group["resources"]
        labels = ",".join(f"{key}={value}" for key, value in sorted(group["labels"].items()))
        return [
            f"--num-cpus={resources['CPU']}",
            f"--num-gpus={resources.get('GPU', 0)}",
            f"--labels={labels}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            # Pods have addresses of their own; here all share one, so each takes free ports.
            "--node-ip-address=127.0.0.1",
            *("--min-worker-port=0", "--max-worker-port=0"),
            "--dashboard-agent-listen-port=0",
            "--disable-usage-stats",
        ]

    def _redis(self) -> dict[str, str]:
        """Of a head whose control plane keeps its state (`configureRedisFT`)."""
        options = self.spec.get("gcsFaultToleranceOptions")
        if options is None:
            return {}
        key = options["redisPassword"]["valueFrom"]["secretKeyRef"]
        secret = self.api.store.get("v1", "secrets", self.namespace, key["name"])
        uid = self.api.store.get(*CLUSTERS, self.namespace, self.name)["metadata"]["uid"]
        return {
            "RAY_REDIS_ADDRESS": options["redisAddress"],
            "REDIS_PASSWORD": base64.b64decode(secret["data"][key["key"]]).decode(),
            "RAY_external_storage_namespace": uid,
        }

    def _start_autoscaler(self, head: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        files = self.api.certificates
        command = [
            *(RAY, "kuberay-autoscaler", "--cluster-name", self.name),
            *("--cluster-namespace", self.namespace, "--gcs-address", self.gcs),
        ]
        return self._start(
            f"{head}-autoscaler",
            command,
            {
                **environment,
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT_HTTPS": str(self.api.port),
                "RAY_KUBERAY_CLIENT_CERT_PATH": str(files.client),
                "RAY_KUBERAY_CLIENT_KEY_PATH": str(files.client_key),
                "RAY_KUBERAY_CA_CERT_PATH": str(files.authority),
                "RAY_HEAD_POD_NAME": head,
                "RAY_CLUSTER_NAME": self.name,
                "RAY_CLUSTER_NAMESPACE": self.namespace,
                "AUTOSCALER_METRIC_PORT": str(free_ports(1)[0]),
            },
        )

    def _start_worker(self, group: Object) -> None:
        name = f"{self.name}-{group['groupName']}-worker-{self._next()}"
        environment = {
            **self._container_environment(group["template"], name, group["groupName"]),
            "RAY_ADDRESS": self.gcs,
        }
        if "gcsFaultToleranceOptions" in self.spec:
            environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"
        command = [RAY, "start", "--block", f"--address={self.gcs}", *self._common(group)]
        process = self._start(name, command, environment)
        pod = Pod(name, group["groupName"], process, [], environment, group["template"])
        self.pods[name] = pod
        self._put_pod(pod, "worker")

    def _container_environment(self, template: Object, name: str, group: str) -> dict[str, str]:
        """Of the Ray container: what the manifest says, and what the operator adds."""
        (container,) = template["spec"]["containers"]
        given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        mounted = {
            key: value.replace("/stillhouse/", f"{self.folder}/stillhouse/").replace(
                "/home/stillhouse", str(self.folder / "home")
            )
            for key, value in given.items()
        }
        return {
            **os.environ,
            **self._environment,
            **FAST,
            **mounted,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            # Short: sockets have a path of 107 characters at most.
            "RAY_TMPDIR": str(self.folder / "tmp"),
            MARK: name,
            # Ray and vLLM rename their processes, which overwrites the mark but for this.
            "SPT_NOENV": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_CLOUD_INSTANCE_ID": name,
            "RAY_NODE_TYPE_NAME": group,
            "RAY_USAGE_STATS_EXTRA_TAGS": "kuberay_version=v1.7.0;kuberay_crd=RayCluster",
            "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        }

    def _start(
        self, name: str, command: list[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        log = self.folder / "pods" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        (self.folder / "home").mkdir(exist_ok=True)
        with log.open("ab") as stream:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _next(self) -> str:
        self._number += 1
        return f"{self._number:05d}"

    def _put_pod(self, pod: Pod, kind: str) -> None:
        cluster = self.api.store.get(*CLUSTERS, self.namespace, self.name)
        labels = {
            **pod.template["metadata"]["labels"],
            "ray.io/cluster": self.name,
            "ray.io/node-type": kind,
            "ray.io/group": pod.group,
            "ray.io/is-ray-node": "yes",
        }
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        self.api.store.put(
            *PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": pod.name,
                    "namespace": self.namespace,
                    "labels": labels,
                    "ownerReferences": [{"uid": cluster["metadata"]["uid"]}],
                },
                "spec": pod.template["spec"],
                "status": {
                    "phase": "Running",
                    "podIP": "127.0.0.1",
                    "containerStatuses": [{"name": "ray", "ready": True, "state": running}],
                },
            },
        )

    def _watch(self) -> None:
        try:
            while not self._ended.wait(LOOK_SECONDS):
                self.reconcile()
        except BaseException as error:  # told by the test
            self.error = error
            raise

    def reconcile(self) -> None:
        """One look: what the operator would do now."""
        with self._lock:
            for head in self.of_group("headgroup"):
                if head.process.poll() is not None:
                    self._delete(head)
                    head.kill()
                    self.start_head()
            for group in self.spec["workerGroupSpecs"]:
                self._reconcile_group(group)
            now = self.counts()
            for group, number in now.items():
                self.most[group] = max(self.most[group], number)
            if not self.history or self.history[-1][1] != now:
                self.history.append((time.monotonic() - self._began, now))

    def _reconcile_group(self, group: Object) -> None:
        name, hosts = group["groupName"], group.get("numOfHosts", 1)
        for pod in self.of_group(name):
            if pod.process.poll() is not None:
                self._delete(pod)
        for doomed in group.get("scaleStrategy", {}).get("workersToDelete", []):
            if doomed in self.pods:
                self._delete(self.pods[doomed])
        replicas = max(group["replicas"], group["minReplicas"])
        wanted = min(replicas, group["maxReplicas"]) * hosts
        for _ in range(wanted - len(self.of_group(name))):
            self._start_worker(group)

    def _delete(self, pod: Pod) -> None:
        """End a pod with notice, as a node does: its hook, SIGTERM, and SIGKILL in the end."""
        del self.pods[pod.name]
        self.api.store.delete(*PODS, self.namespace, pod.name)
        pod.kill(signal.SIGTERM)

        def end() -> None:
            time.sleep(2)
            pod.kill()
            pod.process.wait()

        threading.Thread(target=end, daemon=True).start()

    def preempt(self, pod: Pod) -> str:
        """Take a pod's machine away, with notice; gives what the pod's own hook said."""
        done = self.pre_stop(pod)
        assert done.returncode == 0, done.stderr
        with self._lock:
            if pod.name in self.pods:
                self._delete(pod)
        return done.stdout

    def pre_stop(self, pod: Pod) -> subprocess.CompletedProcess[str]:
        """Run a pod's own hook, as a node does before it ends the pod."""
        (container,) = pod.template["spec"]["containers"]
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        return subprocess.run(
            [sys.executable, *command[1:]],
            cwd=ROOT,
            env=pod.environment,
            capture_output=True,
            text=True,
            check=False,
        )


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def mount(folder: Path, work: Any) -> None:
    """Put a workload's recipe where its head has it mounted."""
    for item in work.packed.items:
        file = folder / "stillhouse/recipe" / item.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(work.packed.config_map.data[item.key])
