"""What a recipe says of the Kubernetes cluster that it runs on; most of it has a good default.

It stands in a profile, as a rule, so that the same recipe runs on a laptop, too.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.recipe_section import Section
from core.recipe_teachers import SECRET

KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""A name that Kubernetes takes for an object: lower-case letters, digits and dashes."""

Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
"""The name of an environment variable, in capitals."""

Role = Literal["teacher", "trainer", "server"]
"""What a pod is for, which says what is installed in its image."""


class Images(Section):
    """The container images, one for each role, built from `cluster/images`."""

    registry: str = Field(min_length=1)
    """Where they are: REGISTRY/stillhouse-teacher, -trainer and -server."""
    tag: str = Field(min_length=1)
    """Their tag, of one build of all three. `latest` would mean other code from pod to pod."""
    teacher: str | None = None
    """The teacher's whole reference, where it is another one."""
    trainer: str | None = None
    """The trainer's whole reference, where it is another one."""
    server: str | None = None
    """The server's whole reference, where it is another one."""
    pull_secret: KubernetesName | None = None
    """Secret with which they are pulled."""

    def of(self, role: Role) -> str:
        """The reference of a role's image."""
        given: str | None = getattr(self, role)
        return given or f"{self.registry.rstrip('/')}/stillhouse-{role}:{self.tag}"

    @model_validator(mode="after")
    def _are_pinned(self) -> Self:
        for image in (self.of("teacher"), self.of("trainer"), self.of("server")):
            last = image.rpartition("/")[2]
            if last.endswith(":latest") or not re.search(r"[:@]", last):
                raise ValueError(f"{image} has no tag of its own: name a version or a digest")
        return self


class Volume(Section):
    """A volume that all pods mount, so its storage class must allow ReadWriteMany."""

    claim: KubernetesName | None = None
    """A claim that is there already; one is made if absent."""
    size_gib: int = Field(default=500, ge=1)
    """Size of the claim that is made."""
    storage_class: str | None = None
    """Storage class of the claim that is made; the cluster's own if absent."""


class Toleration(Section):
    """A taint of machines that pods put up with."""

    key: str
    """The taint's key."""
    value: str | None = None
    """The taint's value; any if absent."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; any if absent."""


class Place(Section):
    """Which machines pods go to."""

    node_selector: dict[str, str] = {}
    """Labels of the machines."""
    tolerations: list[Toleration] = []
    """Taints that the pods put up with."""


class Machine(Place):
    """Machines of one kind of device."""

    gpus: int | None = Field(default=None, ge=1)
    """GPUs of one machine; known for the kinds that `device` knows."""
    gpu_resource: str = "nvidia.com/gpu"
    """What Kubernetes calls such a GPU."""
    resources: dict[str, str] = {}
    """Further resources of a pod with such GPUs, such as `rdma/hca: "1"`."""
    memory_gib_per_gpu: float | None = Field(default=None, gt=0)
    """Memory of a pod for each of its GPUs; if absent, half of the GPU's own, or three halves
    where a training keeps its optimizer there."""


class Spot(Place):
    """Machines that cost less and can be taken away. Pods prefer them, and fall back to others."""

    roles: list[Role] = ["teacher"]
    """Whose pods go there. What a teacher has answered is kept; a training goes back to its last
    checkpoint, or makes one where there is notice."""
    wait_minutes: int = Field(default=15, ge=1)
    """For which a pod of any group may wait for its machine, image and start; after that, other
    groups with such devices are tried first."""


class Pods(Section):
    """The size of pods without GPUs, and how many there may be."""

    cpus: int = Field(default=4, ge=1)
    """Cores of a pod."""
    memory_gib: float = Field(default=16, gt=0)
    """Memory of a pod in GiB."""
    max: int = Field(default=4, ge=1)
    """Pods at most."""


class Head(Place):
    """The head's pod: Ray's control plane and the driver. It runs no work and must not be lost."""

    cpus: int = Field(default=4, ge=1)
    """Cores."""
    memory_gib: float = Field(default=16, gt=0)
    """Memory in GiB."""


class Redis(Section):
    """Where Ray's control plane keeps its state, so that a new head goes on with it."""

    address: str | None = Field(default=None, pattern=r"^[^:\s]+:\d{1,5}$")
    """HOST:PORT of a Redis that is there; a small one is made if absent."""
    secret: KubernetesName = "stillhouse-redis"  # noqa: S105
    """Secret whose key `password` opens it."""
    image: str = "redis:7.2-bookworm"
    """Image of the one that is made."""


class Refresh(Section):
    """A run of the recipe at set times."""

    schedule: str = Field(pattern=r"^\S+(\s+\S+){4}$")
    """When, as a line of cron: minute, hour, day, month, weekday."""
    time_zone: str | None = None
    """Of the schedule, such as `Europe/Oslo`; the operator's own if absent."""


class Service(Section):
    """The served student. How many replicas there are, and what they take, says `serve`."""

    student: str | None = None
    """Which student; the recipe's first if absent."""
    gateway_class: str | None = None
    """Gateway class for an upgrade in steps; if absent, traffic moves at once to a new cluster when
    it is ready."""


class Monitoring(Section):
    """How Prometheus and Grafana find what there is to watch; both through their operators."""

    labels: dict[str, str] = {}
    """Labels by which Prometheus selects PodMonitors and rules, such as `release: prometheus`."""
    dashboard_labels: dict[str, str] = {"grafana_dashboard": "1"}
    """Labels by which Grafana's sidecar finds dashboards."""


class Network(Section):
    """Who may talk to the pods, and where they may go."""

    operator_namespace: KubernetesName = "kuberay-system"
    """Where the KubeRay operator runs: it asks the head how jobs and students are."""
    monitoring_namespace: KubernetesName = "monitoring"
    """Where Prometheus runs: it reads the metrics."""
    client_namespaces: list[KubernetesName] = []
    """From where the served student may be asked, beside its own namespace."""
    egress_ports: list[Annotated[int, Field(ge=1, le=65535)]] = [443]
    """Ports of other hosts that pods may reach: object store, hub and endpoints."""
    metadata_server: bool = False
    """Whether pods may reach the cloud's metadata server, which hands out the machine's own
    credentials; some ways of workload identity need it."""


class Cluster(Section):
    """The Kubernetes cluster."""

    images: Images
    """What pods run."""
    namespace: KubernetesName = "stillhouse"
    """Where everything is made."""
    storage: str | None = Field(default=None, pattern=r"^\w+://\S+$")
    """Object-store URL under which runs are kept, such as s3://bucket/runs; the volume `runs` if
    absent."""
    runs: Volume = Volume()
    """Holds the runs where `storage` is absent."""
    cache: Volume = Volume()
    """Holds models and compiled kernels, so that pods fetch and compile nothing twice."""
    secret: KubernetesName = "stillhouse"  # noqa: S105
    """Secret that holds the variables that the recipe takes from the environment, by their own
    names."""
    secret_variables: list[Variable] = []
    """Further keys of it that all pods get as variables, such as AWS_ACCESS_KEY_ID."""
    hub_token: bool = False
    """Whether models are fetched with its key HF_TOKEN."""
    environment: dict[Variable, str] = {}
    """Further variables of all pods, such as AWS_REGION; no secrets."""
    service_account_annotations: dict[str, str] = {}
    """Of the pods' service accounts: where the cloud has workload identity, no secret is needed."""
    head: Head = Head()
    """The head's pod."""
    cpu_pods: Pods = Pods()
    """Pods for work without a device of its own."""
    machines: dict[str, Machine] = {}
    """By `kind` of device: where its pods go."""
    spot: Spot | None = None
    """Machines that can be taken away; none are used if absent."""
    idle_seconds: int = Field(default=60, ge=1)
    """After which a pod without work goes."""
    notice_seconds: int = Field(default=25, ge=0)
    """Between the word that a pod's machine goes and its end, as spot machines have it."""
    retries: int = Field(default=3, ge=0)
    """New clusters for a job whose head was lost or whose driver failed; each goes on where the one
    before was."""
    deadline_hours: float | None = Field(default=None, gt=0)
    """After which a job is ended, and its pods with it; never if absent."""
    keep_minutes: int = Field(default=10, ge=0)
    """For which the head of a job that has ended stays, to be looked at. Its workers go when they
    are idle, and with it at the latest."""
    queue: KubernetesName | None = None
    """Kueue's local queue that jobs wait in; none if absent."""
    redis: Redis | None = None
    """For services and shared clusters that outlive their head; none if absent."""
    refresh: Refresh | None = None
    """Runs of the recipe at set times; none if absent."""
    service: Service = Service()
    """The served student."""
    network: Network = Network()
    """Who may talk to whom."""
    monitoring: Monitoring | None = Monitoring()
    """For Prometheus and Grafana; null makes nothing for them."""

    @model_validator(mode="after")
    def _environment_has_no_secret(self) -> Self:
        for name in self.environment:
            if SECRET.search(name):
                raise ValueError(f"{name} looks like a secret: name it in secret_variables instead")
        return self
